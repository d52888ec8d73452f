"""WeSep's training configuration in our terms: data, simulation, losses, optimisation and schedule.

The network is translated by the tables of `wesep.ARCHITECTURES`. Facts from https://github.com/wenet-e2e/wesep
(Apache-2.0): `wesep/bin/train.py`, `wesep/dataset/`, `wesep/utils/` and `examples/*/confs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from wesep_py.common.errors import ConfigError
from wesep_py.interop.importing import translate_extraction_model
from wesep_py.interop.public_checkpoints import (
    WESEP,
    PublicConfig,
    UntranslatableError,
    parse_public_config,
)
from wesep_py.interop.training_notes import UNKNOWN, ConfigTranslation
from wesep_py.interop.wesep import ARCHITECTURES

LIBRI2MIX_MIXTURES = 13_900
"""Mixtures of Libri2Mix's train-100."""
MUSAN = {"speech": (426, [10.0, 30.0]), "noise": (930, None), "music": (660, None)}
"""Folders of MUSAN (https://www.openslr.org/17): number of recordings, and the SNR that WeSep gives to speech."""
ROOM = {
    "rt60_s": [0.1, 0.7],
    "length_m": [3.0, 10.0],
    "width_m": [3.0, 6.0],
    "height_m": [2.5, 4.0],
    "distance_m": [0.2, 5.0],
}
"""WeSep's simulated rooms."""
RUN_TWICE = "BSRNN_Multi"
MODEL = "model_args.tse_model"
ARGUMENTS = {
    "sr": "model.sample_rate",
    "win": "model.backbone.window_ms",
    "n_fft": "model.backbone.window_ms",
    "stride": "model.backbone.hop_ms",
    "num_repeat": "model.backbone.num_blocks",
    "feature_dim": "model.backbone.feature_dim",
    "emb_dim": "model.backbone.feature_dim",
    "n_layers": "model.backbone.num_blocks",
    "lstm_hidden_units": "model.backbone.hidden",
    "attn_n_head": "model.backbone.num_heads",
    "attn_approx_qk_dim": "model.backbone.query_size",
    "emb_ks": "model.backbone.kernel",
    "emb_hs": "model.backbone.kernel_hop",
    "tcn_blocks": "model.backbone.tcn_blocks",
    "tcn_layers": "model.backbone.tcn_repeats",
    "N": "model.backbone.num_filters",
    "L": "model.backbone.kernels_ms and hop_ms",
    "B": "model.backbone.bottleneck",
    "H": "model.backbone.hidden",
    "P": "model.backbone.kernel",
    "X": "model.backbone.blocks_per_stack",
    "R": "model.backbone.num_stacks",
    "norm": "model.backbone.norm",
    "activate": "model.backbone.mask_activation",
    "causal": "model.backbone.causal",
    "skip_con": "model.backbone.skip",
    "encoder_type": "model.backbone.kernels_ms, deep",
    "decoder_type": "model.backbone.kernels_ms, deep",
    "spk_fuse_type": "model.cues.0.fusion",
    "multi_fuse": "model.cues.0.points",
    "use_spk_transform": "model.cues.0.transform",
    "spk_emb_dim": "model.cues.0",
    "joint_training": "model.speaker",
    "multi_task": "model.cues.0.num_speakers",
    "spksInTrain": "model.cues.0.num_speakers",
    "spk_model": "model.speaker.network.name",
    "spk_feat": "model.speaker.front_end",
    "feat_type": "model.speaker.front_end",
}
"""Arguments of WeSep's networks → the keys of ours that they decide."""
ONE_VALUE = "n_srcs n_imics window activation eps use_bidirectional"
SI_SDR_NAMES = ("SISDR", "SISNR", "SI_SNR", "SI_SDR")


def is_wesep_training(content: Mapping[str, Any]) -> bool:
    """Return whether a configuration is that of a training of WeSep."""
    model = content.get("model")
    return isinstance(model, Mapping) and "tse_model" in model


def translate_wesep_training(
    content: Mapping[str, Any], epoch_size: int | None = None, num_mixtures: int | None = None
) -> ConfigTranslation:
    """Return WeSep's training configuration in our terms. The data is left open (`???`).

    Args:
        content: of the YAML.
        epoch_size: number of mixtures in an epoch; `None`: what the configuration says, or else `num_mixtures`.
        num_mixtures: number of mixtures of the training data; `None`: that of Libri2Mix's train-100.

    Raises:
        UntranslatableError: the network has no counterpart here; a line for each argument.
    """
    public, note = _public_config(content)
    if public.model not in ARCHITECTURES:
        raise UntranslatableError(
            [
                f"model.tse_model: {public.model!r} has no counterpart here; of WeSep's networks, "
                f"{', '.join(ARCHITECTURES)} have"
            ]
        )
    model, problems = translate_extraction_model(public)
    if problems:
        raise UntranslatableError([f"{MODEL}: {line}" for line in problems])
    out = ConfigTranslation(WESEP, public.model, content)
    out.put("experiment", str(content.get("exp_dir") or "exp/imported").rstrip("/"), "exp_dir")
    out.put("seed", int(content.get("seed", 42)), "seed")
    out.put("data", {"root": "."}, "", "relative names of data start here")
    steps_per_epoch = _put_loop(out, content, epoch_size, num_mixtures)
    _put_model(out, public, model, note)
    _put_data(out, public.sample_rate)
    _put_losses(out, content, public.model)
    _put_optimisation(out, steps_per_epoch)
    _put_checkpoints(out, steps_per_epoch)
    out.finish()
    return out


def _public_config(content: Mapping[str, Any]) -> tuple[PublicConfig, str]:
    """Return the network of a configuration, and what was assumed about it.

    Configurations from before `joint_training` existed name no speaker network: their networks take embeddings.
    """
    public = parse_public_config(content)
    named = {"joint_training", "spk_model", "encoder_type"} & set(public.args)
    if public.model == "ConvTasNet" or named:
        return public, ""
    public.args["joint_training"] = False
    return public, f"{MODEL}.joint_training is not given, nor a speaker network: embeddings from elsewhere"


def _put_loop(
    out: ConfigTranslation, content: Mapping[str, Any], epoch_size: int | None, num_mixtures: int | None
) -> int:
    """Translate batches, epochs and devices; return the number of steps of an epoch."""
    batch = int(out.get("dataloader_args.batch_size", 1))
    stated = int(out.get("dataset_args.sample_num_per_epoch", 0) or 0)
    size = epoch_size or stated or num_mixtures or LIBRI2MIX_MIXTURES
    devices = _count_devices(content.get("gpus"))
    steps_per_epoch = max(1, size // devices // batch)
    epochs = int(out.get("num_epochs", 1))
    out.put("train.batch_size", batch, "dataloader_args.batch_size", "mixtures of a device")
    out.put("train.targets_per_mixture", "all", "", "each speaker of a mixture is a target")
    how = "mixtures of --data" if num_mixtures else "those of Libri2Mix's train-100; --data or --epoch-size changes it"
    note = "" if stated or epoch_size else how
    out.put("train.epoch_size", size, "dataset_args.sample_num_per_epoch", note)
    out.put("train.steps", epochs * steps_per_epoch, "num_epochs", f"{steps_per_epoch} steps each")
    out.became(
        "gpus",
        "train.steps",
        f"{devices} devices: torchrun --nproc-per-node {devices}; on one, train.accumulate={devices}"
        if devices > 1
        else "one device",
    )
    out.put("train.precision", "bf16-mixed" if out.get("enable_amp") else "32-true", "enable_amp")
    out.put("data.workers", int(out.get("dataloader_args.num_workers", 1)), "dataloader_args.num_workers")
    out.put("data.prefetch", int(out.get("dataloader_args.prefetch_factor", 4)), "dataloader_args.prefetch_factor")
    out.put("log.every_steps", int(out.get("log_batch_interval", 100)), "log_batch_interval")
    out.skip("dataloader_args.drop_last", "an epoch here has no end at which a batch could be small")
    out.skip("dataloader_args.pin_memory find_unused_parameters", "is decided by the training loop")
    out.skip("dataset_args.shuffle dataset_args.shuffle_args.*", "each epoch has a random order of all mixtures")
    return steps_per_epoch


def _count_devices(gpus: Any) -> int:
    """Return the number of devices: of `'0,1'`, `[0, 1]` or `['0']`."""
    if isinstance(gpus, list):
        return max(1, len(gpus))
    return max(1, len([part for part in str(gpus or "").strip("[]").split(",") if part.strip()]))


def _put_model(out: ConfigTranslation, public: PublicConfig, model: dict[str, Any], note: str) -> None:
    out.put("model", model, "model.tse_model", note)
    out.became("dataset_args.resample_rate", "model.sample_rate")
    for name in public.args:
        if name in ARGUMENTS:
            out.became(f"{MODEL}.{name}", ARGUMENTS[name])
    out.skip(" ".join(f"{MODEL}.{name}" for name in ONE_VALUE.split()), "has the only value that WeSep uses")
    for name in public.args.get("spk_args") or {}:
        out.became(f"{MODEL}.spk_args.{name}", "model.speaker.network")
    for name in ("num_mel_bins", "frame_length", "frame_shift", "dither"):
        if model["speaker"] and public.args.get("spk_feat"):
            out.became(f"dataset_args.fbank_args.{name}", "model.speaker.filterbank")
    reason = "the network makes its own features of an enrollment, or takes embeddings"
    out.skip("dataset_args.fbank_args.*", reason)
    out.became("dataset_args.speaker_feat", "model.speaker.front_end")
    weights, frozen = public.args.get("spk_model_init"), bool(public.args.get("spk_model_freeze"))
    if model["speaker"] and weights:
        out.put("model.speaker.checkpoint", str(weights), f"{MODEL}.spk_model_init", "a .pt file of WeSpeaker is read")
        out.put("model.speaker.mode", "frozen" if frozen else "finetune", f"{MODEL}.spk_model_freeze")
    out.skip(f"{MODEL}.spk_model_init {MODEL}.spk_model_freeze", "there is no pretrained speaker network")
    initial = out.get("model_init.tse_model")
    if initial:
        out.put(
            "init",
            {"checkpoint": UNKNOWN, "strict": True},
            "model_init.tse_model",
            "import it (wesep import-checkpoint), and name the folder",
        )
    out.skip("model_init.*", "nothing is loaded")


def _put_data(out: ConfigTranslation, sample_rate: int) -> None:
    """Translate `dataset_args`: fixed mixtures, or drawn ones (`online_mix`), and what is done with enrollments."""
    online = bool(out.get("dataset_args.online_mix"))
    chunk = int(out.get("dataset_args.chunk_len", 3 * sample_rate))
    out.put("simulation.duration_s", chunk / sample_rate, "dataset_args.chunk_len")
    out.became("dataset_args.online_mix", "data.train" if online else "data.mixtures")
    if online:
        out.put("data.train", UNKNOWN, "", "shard_online.list, raw.list or a folder with wav.scp and utt2spk")
        speakers = int(out.get("dataset_args.num_speakers", 2))
        out.put("simulation.num_speakers", speakers, "dataset_args.num_speakers")
        low_high = [-10.0, 10.0] if out.get("dataset_args.use_random_snr") else [0.0, 0.0]
        out.put("simulation.sir_db", low_high, "dataset_args.use_random_snr", "by active level; WeSep's by energy")
        out.put("simulation.level_db", [-1.0, -1.0], "", "with peak 1, every mixture is scaled to a peak of 1")
        out.put("simulation.peak", 1.0)
        _put_mixture_effects(out)
        out.skip(
            "dataset_args.online_mix_args.num_speaker dataset_args.online_mix_args.buffer_size "
            "dataset_args.online_buffer_size",
            "WeSep does not read online_mix_args; here, mixtures are drawn from all shards of a window (data.stream)",
        )
        out.skip(
            "dataset_args.filter_len dataset_args.filter_len_args.* dataset_args.filter_args.*",
            "excerpts have simulation.min_source_s (1 s) or more",
        )
    else:
        if out.config["model"].get("speaker") is None:
            out.put("data.embeddings", UNKNOWN, "", "embed.scp: the network takes embeddings from elsewhere")
        out.put("data.mixtures.lists", UNKNOWN, "", "a data folder with wav.scp, raw.list or shard.list")
        for name in ("noise_prob", "reverb_prob"):
            if out.get(f"dataset_args.{name}"):
                out.miss(f"dataset_args.{name}", "fixed mixtures are used as they are; draw them (data.train) for this")
    out.skip("dataset_args.noise_prob dataset_args.reverb_prob", "is 0")
    _put_enrollment_effects(out)
    if not out.get("dataset_args.noise_enroll_prob") and not (online and out.get("dataset_args.noise_prob")):
        out.skip("dataset_args.noise_lmdb_file", "no noise is added")


def _noise(probability: float, snr_db: list[float]) -> dict[str, Any]:
    groups = [
        {"folder": folder, "weight": float(count), **({} if snr is None else {"snr_db": snr})}
        for folder, (count, snr) in MUSAN.items()
    ]
    return {"probability": probability, "snr_db": snr_db, "groups": groups}


def _put_noise_source(out: ConfigTranslation) -> None:
    source = out.get("dataset_args.noise_lmdb_file")
    out.put("data.noise", [str(source)] if source else UNKNOWN, "dataset_args.noise_lmdb_file", "read as it is")


def _put_mixture_effects(out: ConfigTranslation) -> None:
    noise, room = (float(out.get(f"dataset_args.{name}", 0) or 0) for name in ("noise_prob", "reverb_prob"))
    if noise:
        out.put("simulation.noise", _noise(noise, [-5.0, 25.0]), "dataset_args.noise_prob", "groups are MUSAN's")
        _put_noise_source(out)
    if room:
        note = "all speakers of a mixture are in it; in WeSep, each with this probability"
        out.put("simulation.room", {"probability": room, **ROOM}, "dataset_args.reverb_prob", note)


def _put_enrollment_effects(out: ConfigTranslation) -> None:
    prefix = "dataset_args."
    out.put(
        "simulation.enrollment",
        {"duration_s": [3.0, 6.0]},
        "",
        "WeSep takes a whole utterance, cut to the shortest of its batch, and may take the one in the mixture",
    )
    noise, room, masks, own = (
        float(out.get(f"{prefix}{name}", 0) or 0)
        for name in ("noise_enroll_prob", "reverb_enroll_prob", "specaug_enroll_prob", "SSA_enroll_prob")
    )
    if noise:
        out.put("simulation.enrollment.noise", _noise(noise, [0.0, 25.0]), f"{prefix}noise_enroll_prob")
        _put_noise_source(out)
    if room:
        out.put("simulation.enrollment.room", {"probability": room, **ROOM}, f"{prefix}reverb_enroll_prob")
    if masks and out.config["model"].get("speaker"):
        sizes = {"num_time_masks": 1, "max_time_frames": 10, "num_freq_masks": 1, "max_freq_bins": 8}
        note = "" if masks == 1 else "of every enrollment here"
        out.put("model.speaker.spec_augment", sizes, f"{prefix}specaug_enroll_prob", note)
    if own:
        values = {"probability": own, "use": "instead", "loss_on": "second"}
        out.put("self_enrollment", values, f"{prefix}SSA_enroll_prob")
    out.skip(
        " ".join(f"{prefix}{n}_enroll_prob" for n in ("noise", "reverb", "specaug", "SSA")), "is 0, or has no effect"
    )


def _put_losses(out: ConfigTranslation, content: Mapping[str, Any], model: str) -> None:
    """Translate the losses: names, the outputs that they are of (`loss_posi`), and their weights.

    The outputs of a network are its estimates, then the logits of the speaker. `BSRNN_Multi` has both twice: with the
    enrollment, and with its own estimate in place of it.
    """
    names = content.get("loss") or ["SISDR"]
    names = names if isinstance(names, list) else [names]
    arguments = content.get("loss_args") or {}
    positions, weights = arguments.get("loss_posi") or [[0]], arguments.get("loss_weight") or [[1.0]]
    if len(names) != len(positions) or [len(p) for p in positions] != [len(w) for w in weights]:
        raise ConfigError("loss_args: loss_posi and loss_weight need a list for each loss, of one length")
    losses, passes = [], []
    for name, shares in zip(names, weights, strict=True):
        shares = [float(share) for share in shares]
        loss: dict[str, Any] = {"name": _loss_name(str(name))}
        if model == RUN_TWICE and len(shares) == 2:
            passes.append([share / sum(shares) for share in shares])
            loss["weight"] = sum(shares)
        elif len(shares) > 1:
            loss["weights"] = shares
        elif shares != [1.0]:
            loss["weight"] = shares[0]
        losses.append(loss)
    if any(abs(first[0] - second[0]) > 1e-6 for first, second in pairwise(passes)):
        raise ConfigError("loss_args.loss_weight: the losses weigh the two passes differently; here they share weights")
    if content.get("use_metric_loss"):
        gan = {"name": "metric_gan", "weight": float(content.get("gan_loss_weight", 1.0))}
        rate = out.get("scheduler_args.discriminator.initial_lr")
        losses.append(gan | ({} if rate is None else {"lr": float(rate)}))
        out.became("use_metric_loss", "loss", "the discriminator is that of metric_gan, not CMGAN's")
        for key in ("gan_loss_weight", "model.discriminator", "scheduler_args.discriminator.initial_lr"):
            out.became(key, "loss")
        reason = "the discriminator has Adam with a constant learning rate (loss.lr)"
        out.miss(
            "model_args.discriminator optimizer.discriminator optimizer_args.discriminator.* "
            "scheduler.discriminator scheduler_args.discriminator.*",
            reason,
        )
    out.put("loss", losses if len(losses) > 1 else losses[0], "loss", "SI-SDR in dB, mean removed")
    out.became("loss_args.loss_posi", "loss", "estimates, then the speaker's logits")
    out.became("loss_args.loss_weight", "loss")
    out.skip("loss_args", "has no entry")
    if model == RUN_TWICE:
        shares = passes[0] if passes else [0.4, 0.6]
        values = {"probability": 1.0, "use": "instead", "loss_on": "both", "weights": [round(s, 6) for s in shares]}
        out.put(
            "self_enrollment", values, "model.tse_model", "the second pass is enrolled by the estimate of the first"
        )


def _loss_name(name: str) -> str:
    if name in SI_SDR_NAMES:
        return "si_sdr"
    if name == "CE":
        return "speaker_cross_entropy"
    if name == "SNR":
        return "snr"
    raise UntranslatableError([f"loss: {name!r} has no counterpart here; {', '.join(SI_SDR_NAMES)}, SNR and CE have"])


def _put_optimisation(out: ConfigTranslation, steps_per_epoch: int) -> None:
    name = str(out.get("optimizer.tse_model", "Adam"))
    initial = float(out.get("scheduler_args.tse_model.initial_lr", out.get("optimizer_args.tse_model.lr", 1e-3)))
    final = float(out.get("scheduler_args.tse_model.final_lr", initial))
    out.put("optim.name", name.lower(), "optimizer.tse_model")
    out.put("optim.lr", initial, "scheduler_args.tse_model.initial_lr")
    out.skip("optimizer_args.tse_model.lr", "WeSep replaces it by the schedule's initial_lr")
    decay = float(out.get("optimizer_args.tse_model.weight_decay", 0) or 0)
    note = "of weights with two or more dimensions; WeSep's of all parameters" if decay else ""
    out.put("optim.weight_decay", decay, "optimizer_args.tse_model.weight_decay", note)
    clip = out.get("clip_grad")
    note = "over all parameters together; WeSep clips each parameter by itself"
    out.put("optim.clip_norm", float(clip) if clip else 1e9, "clip_grad", note if clip else "never")
    schedule = str(out.get("scheduler.tse_model", "ExponentialDecrease"))
    known = {"ExponentialDecrease": "exponential", "TriAngular2": "triangular"}
    if schedule not in known:
        raise UntranslatableError([f"scheduler.tse_model: {schedule!r} has no counterpart; {', '.join(known)} have"])
    out.put("schedule.name", known[schedule], "scheduler.tse_model")
    out.put("schedule.final_lr_ratio", final / initial, "scheduler_args.tse_model.final_lr")
    warm = int(out.get("scheduler_args.tse_model.warm_up_epoch", 6))
    from_zero = bool(out.get("scheduler_args.tse_model.warm_from_zero", False))
    note = "" if from_zero or not warm else "WeSep's rate does not rise unless warm_from_zero is set"
    out.put(
        "schedule.warmup_steps",
        warm * steps_per_epoch if from_zero else 0,
        "scheduler_args.tse_model.warm_up_epoch",
        note,
    )
    out.became("scheduler_args.tse_model.warm_from_zero", "schedule.warmup_steps")
    if schedule == "TriAngular2":
        cycle = int(out.get("scheduler_args.tse_model.cycle_step", 2))
        cycles = max(1, int(out.get("num_epochs", 1)) // cycle)
        out.put("schedule.cycles", cycles, "scheduler_args.tse_model.cycle_step", "epochs of a cycle")
        out.miss("scheduler_args.tse_model.reduce_lr_diff_ratio", "all cycles reach the same learning rate here")


def _put_checkpoints(out: ConfigTranslation, steps_per_epoch: int) -> None:
    average = max(1, int(out.get("num_avg", 5)))
    every = max(1, int(out.get("save_epoch_interval", 1))) * steps_per_epoch
    out.put("checkpoint.every_steps", every, "save_epoch_interval", f"{steps_per_epoch} steps are an epoch")
    out.put("checkpoint.average", average, "num_avg")
    out.put("checkpoint.keep", max(average, 5))
