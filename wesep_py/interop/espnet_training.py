"""ESPnet's training configuration of target speaker extraction (task `enh_tse`) in our terms.

The network is translated by `espnet`. Facts from https://github.com/espnet/espnet (Apache-2.0):
`espnet2/tasks/enh_tse.py`, `espnet2/train/preprocessor.py` and `egs2/librimix/tse1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wesep_py.common.errors import ConfigError
from wesep_py.interop.espnet_config import (
    ESPNET,
    EXTRACTOR,
    TRAINING_KEYS,
    TRAINING_PREFIXES,
    parse_espnet_config,
)
from wesep_py.interop.importing import translate_extraction_model
from wesep_py.interop.public_checkpoints import UntranslatableError
from wesep_py.interop.training_notes import UNKNOWN, ConfigTranslation

LIBRI2MIX_MIXTURES = 64_700
"""Mixtures of Libri2Mix's train-100 and train-360 together, which the recipe trains with."""
LOSSES = {"snr": "snr", "si_snr": "si_sdr"}
ARGUMENTS = {
    "layer": "model.backbone.blocks_per_stack",
    "stack": "model.backbone.num_stacks",
    "bottleneck_dim": "model.backbone.bottleneck",
    "hidden_dim": "model.backbone.hidden",
    "skip_dim": "model.backbone.skip",
    "kernel": "model.backbone.kernel",
    "causal": "model.backbone.causal",
    "norm_type": "model.backbone.norm",
    "pre_nonlinear": "model.backbone.latent_activation",
    "nonlinear": "model.backbone.mask_activation",
    "i_adapt_layer": "model.backbone.fusion_blocks",
    "adapt_layer_type": "model.cues.0.fusion",
    "adapt_enroll_dim": "model.speaker.network.embedding_dim",
    "use_spk_emb": "model.speaker",
    "spk_emb_dim": "model.cues.0.embedding_dim",
}
BASIS = {
    "channel": "model.backbone.num_filters",
    "kernel_size": "model.backbone.kernels_ms",
    "stride": "model.backbone.hop_ms",
}
SCHEDULES = ("reducelronplateau",)


def translate_espnet_training(
    content: Mapping[str, Any],
    epoch_size: int | None = None,
    sample_rate: int | None = None,
    num_mixtures: int | None = None,
) -> ConfigTranslation:
    """Return ESPnet's training configuration in our terms. The data is left open (`???`).

    Args:
        content: of the YAML.
        epoch_size: number of mixtures in an epoch; `None`: `num_mixtures`.
        sample_rate: Hz, if the configuration does not say it.
        num_mixtures: number of mixtures of the training data; `None`: that of Libri2Mix's train-100 and train-360.

    Raises:
        UntranslatableError: the network has no counterpart here; a line for each argument.
    """
    public = parse_espnet_config(content, sample_rate)
    if public.model != EXTRACTOR:
        raise UntranslatableError([f"extractor: {public.model!r} has no counterpart here; only {EXTRACTOR!r} has"])
    model, problems = translate_extraction_model(public)
    if problems:
        raise UntranslatableError(problems)
    out = ConfigTranslation(ESPNET, public.model, content)
    out.put("experiment", "exp/imported")
    out.put("seed", int(content.get("seed", 0)), "seed")
    out.put("data", {"root": "."}, "", "relative names of data start here")
    out.put("data.mixtures", {"lists": UNKNOWN, "condition": "noisy"}, "", "data folders with wav.scp and spk1.scp")
    out.put("model", model, "extractor")
    for names, conf in ((ARGUMENTS, "extractor_conf"), (BASIS, "encoder_conf"), (BASIS, "decoder_conf")):
        for name, ours in names.items():
            if out.get(f"{conf}.{name}") is not None:
                out.became(f"{conf}.{name}", ours)
    for key in ("encoder", "decoder"):
        out.became(key, "model.backbone.name")
    out.skip("model_conf.share_encoder model_conf.num_spk num_spk num_skp", "each voice is extracted by itself")
    _put_simulation(out, content, public.sample_rate)
    steps_per_epoch = _put_loop(out, epoch_size, num_mixtures)
    _put_loss(out, content)
    _put_optimisation(out, content)
    out.put("validation", {"trials": UNKNOWN, "enrollment": UNKNOWN, "condition": "noisy"})
    out.put("validation.every_steps", steps_per_epoch, "", "once in an epoch, by SI-SDRi")
    kept = max(1, int(out.get("keep_nbest_models", 1)))
    out.put("checkpoint.every_steps", steps_per_epoch)
    out.put("checkpoint.keep_best", kept, "keep_nbest_models")
    out.skip("val_scheduler_criterion best_model_criterion", "SI-SDRi of the validation decides")
    for key in list(content):
        known = key in TRAINING_KEYS or str(key).startswith(TRAINING_PREFIXES)
        if known:
            out.skip(f"{key} {key}.*", "is an option of ESPnet's program, without effect on what is learned here")
    out.finish()
    return out


def _put_simulation(out: ConfigTranslation, content: Mapping[str, Any], sample_rate: int) -> None:
    length = content.get("chunk_length", 3 * sample_rate)
    if not isinstance(length, int):
        raise UntranslatableError([f"chunk_length: is {length!r}; one whole number of samples has a counterpart here"])
    out.put("simulation.duration_s", length / sample_rate, "chunk_length")
    out.skip(
        "chunk_excluded_key_prefixes iterator_type", "mixtures are cut to simulation.duration_s, anew in each epoch"
    )
    segment = content.get("enroll_segment")
    seconds = [segment / sample_rate] * 2 if isinstance(segment, int) else [3.0, 6.0]
    out.put("simulation.enrollment.duration_s", seconds, "enroll_segment")
    for key in ("train_spk2enroll", "train_spk2utt"):
        if key in content:
            out.put("data.train", [str(content[key])], key, "enrollments to choose from; never what is in the mixture")
    out.became("load_spk_embedding", "model.speaker")


def _put_loop(out: ConfigTranslation, epoch_size: int | None, num_mixtures: int | None) -> int:
    """Translate batches and epochs; return the number of steps of an epoch."""
    targets_of_all = bool(out.get("load_all_speakers", False))
    batch, accumulate = int(out.get("batch_size", 20)), int(out.get("accum_grad", 1))
    size = epoch_size or num_mixtures or LIBRI2MIX_MIXTURES
    steps_per_epoch = max(1, size // batch // accumulate)
    out.put("train.batch_size", batch, "batch_size", "mixtures; a 'folded' batch of long ones is smaller in ESPnet")
    out.put("train.targets_per_mixture", "all" if targets_of_all else "one", "load_all_speakers")
    how = "mixtures of --data" if num_mixtures else "those of Libri2Mix's train-100 and train-360; --data changes it"
    note = "" if epoch_size else how
    out.put("train.epoch_size", size, "", note)
    epochs = int(out.get("max_epoch", 40))
    out.put(
        "train.steps", epochs * steps_per_epoch, "max_epoch", f"{steps_per_epoch} steps each, a cut of each mixture"
    )
    out.put("train.accumulate", accumulate, "accum_grad")
    out.put("data.workers", int(out.get("num_workers", 1)), "num_workers")
    patience = out.get("patience")
    if patience is not None and patience != "none":
        out.put("train.patience", int(patience), "patience", "validations")
    out.put("train.precision", "bf16-mixed" if out.get("use_amp") else "32-true", "use_amp")
    return steps_per_epoch


def _put_loss(out: ConfigTranslation, content: Mapping[str, Any]) -> None:
    losses = []
    for criterion in content.get("criterions") or [{"name": "si_snr"}]:
        if not isinstance(criterion, Mapping):
            raise ConfigError("criterions: a list of {name: …, conf: …} is needed")
        if (criterion.get("conf") or {}).get("only_for_test"):
            continue
        name = str(criterion.get("name"))
        if name not in LOSSES:
            raise UntranslatableError([f"criterions: {name!r} has no counterpart here; {', '.join(LOSSES)} have"])
        weight = float((criterion.get("wrapper_conf") or {}).get("weight", 1.0))
        losses.append({"name": LOSSES[name], **({} if weight == 1.0 else {"weight": weight})})
    out.put("loss", losses[0] if len(losses) == 1 else losses, "criterions", "eps is 1e-8 of the energies here")


def _put_optimisation(out: ConfigTranslation, content: Mapping[str, Any]) -> None:
    out.put("optim.name", str(content.get("optim", "adadelta")).lower(), "optim")
    arguments = dict(content.get("optim_conf") or {})
    out.put("optim.lr", float(arguments.pop("lr", 1e-3)), "optim_conf.lr")
    decay = float(arguments.pop("weight_decay", 0) or 0)
    note = "of weights with two or more dimensions; ESPnet's of all parameters" if decay else ""
    out.put("optim.weight_decay", decay, "optim_conf.weight_decay", note)
    if "betas" in arguments:
        out.put("optim.betas", list(arguments.pop("betas")), "optim_conf.betas")
    if arguments:
        out.put("optim.arguments", arguments)
    for name in arguments:
        out.became(f"optim_conf.{name}", f"optim.arguments.{name}")
    clip = float(content.get("grad_clip", 5.0))
    out.put("optim.clip_norm", clip if clip > 0 else 1e9, "grad_clip")
    schedule = str(content.get("scheduler") or "none").lower()
    if schedule in ("none", "null"):
        out.put("schedule.name", "constant", "scheduler")
        out.put("schedule.warmup_steps", 0)
        return
    if schedule not in SCHEDULES:
        raise UntranslatableError([f"scheduler: {schedule!r} has no counterpart; {', '.join(SCHEDULES)} or none have"])
    out.put("schedule.name", "plateau", "scheduler")
    out.put("schedule.warmup_steps", 0)
    out.put("schedule.plateau_factor", float(out.get("scheduler_conf.factor", 0.1)), "scheduler_conf.factor")
    out.put("schedule.patience", int(out.get("scheduler_conf.patience", 10)), "scheduler_conf.patience")
    out.put("schedule.final_lr_ratio", 1e-6, "", "ESPnet's rate falls without a limit")
    out.skip("scheduler_conf.mode", "a higher SI-SDRi is better")
