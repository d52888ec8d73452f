"""Read the configuration of an ESPnet target speaker extraction model (task `enh_tse`).

The `config.yaml` of an ESPnet experiment is one flat mapping of all options of the training program. `encoder`,
`extractor` and `decoder` name the parts of the network, `…_conf` holds their arguments; what is not given has ESPnet's
default. Options that only training reads are known here by name, so that an unknown key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from wesep_py.common.errors import ConfigError, nearest, shorten
from wesep_py.interop.public_checkpoints import PublicConfig

ESPNET = "ESPnet"
SHORT_FORM = "espnet_tse"
"""`model` of a configuration that holds the network's keys alone."""
EXTRACTOR = "td_speakerbeam"
PARTS = ("encoder", "extractor", "decoder")
PART_DEFAULTS = {"encoder": "stft", "extractor": EXTRACTOR, "decoder": "stft"}
"""ESPnet's own defaults, which a configuration does not repeat."""
CONFS = tuple(f"{part}_conf" for part in PARTS)
MODEL_KEYS = ("model", *PARTS, *CONFS, "model_conf", "criterions", "load_spk_embedding", "use_adapter", "use_lora")
"""Keys that are read."""
DEFAULT_RATE = 8000
"""ESPnet's default of `sample_rate`, which it writes into configurations of any rate."""
RATE_OPTION = "sample_rate"

TRAINING_PREFIXES = (
    "adapter",
    "allow_",
    "batch_",
    "best_model_",
    "category_",
    "chunk_",
    "cudnn_",
    "data_aug_",
    "dataset_",
    "ddp_",
    "dist_",
    "early_stopping_",
    "exclude_weight_decay",
    "grad_",
    "log_",
    "lora_",
    "max_cache_",
    "noise_",
    "optim",
    "rir_",
    "scheduler",
    "train_",
    "use_deepspeed",
    "val_",
    "valid_",
    "wandb_",
)
"""Beginnings of the names of groups of options of the training program."""
_TRAINING_OPTIONS = """
    accum_grad avoid_allzero_segment categories channel_reordering collect_stats config create_graph_in_tensorboard
    deepspeed_config detect_anomaly distributed drop_last_iter dry_run enroll_segment flexible_numspk fold_length
    force_single_channel freeze_param ignore_init_mismatch init init_param iterator_type keep_nbest_models
    load_all_speakers local_rank max_batch_size max_epoch min_batch_size multi_task_dataset multiple_iterator
    multiprocessing_distributed n_mix nbest_averaging_interval ngpu no_forward_run num_att_plot num_cache_chunks
    num_iters_per_epoch num_iters_valid num_noise_type num_spk num_workers output_dir patience preprocessor
    pretrain_path print_config required resume save_strategy seed sharded_ddp short_noise_thres shuffle_within_batch
    sort_batch sort_in_batch speech_segment speech_volume_normalize task unused_parameters upsampling_factor use_amp
    use_matplotlib use_preprocessor use_reverberant_ref use_tensorboard use_tf32 use_wandb version
    write_collected_feats num_skp
"""
TRAINING_KEYS = frozenset(_TRAINING_OPTIONS.split())
"""Other options that change nothing that a trained network computes.

`speech_volume_normalize` scales mixtures; the network's first norm makes it independent of their level. `num_skp` is
`num_spk` as a published recipe spells it.
"""
PREPROCESSOR_KEYS = TRAINING_KEYS | {"fs", RATE_OPTION, "load_spk_embedding"}
IGNORED_MODEL_ARGUMENTS = ("num_spk", "extract_feats_in_collect_stats")
"""Arguments of the model as a whole that change nothing: each voice is extracted by itself."""
LEVEL_FREE_LOSSES = ("si_snr", "ci_sdr")
DATA_PATHS = ("train_data_path_and_name_and_type", "valid_data_path_and_name_and_type", "train_shape_file")
RATE_IN_PATH = re.compile(r"(?<![\d.])(8|16|24|32|44\.1|48)k(?:hz)?(?![a-z0-9])", re.IGNORECASE)


def is_espnet(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a configuration has ESPnet's layout.

    >>> is_espnet({"encoder": "conv", "extractor": "td_speakerbeam", "decoder": "conv"})
    True
    """
    if content.get("model") == SHORT_FORM:
        return True
    parts = [key for key in (*PARTS, "separator", *CONFS) if key in content]
    return len(parts) >= 2 and "model_args" not in content


def parse_espnet_config(content: Mapping[str, Any], sample_rate: int | None = None) -> PublicConfig:
    """Parse ESPnet's configuration of a target speaker extraction model.

    Args:
        content: of its `config.yaml`.
        sample_rate: Hz that the model was trained at; `None` to find it in the configuration (`espnet_sample_rate`).

    Returns:
        Its arguments are the three parts with their arguments, `share_encoder`, `level_free` (whether it was trained
        with scale-invariant losses only) and `sample_rate`; unknown keys, and a rate that is not found, are among its
        problems.

    Raises:
        ConfigError: the configuration is of another task, or a part is no mapping.
    """
    if "separator" in content and "extractor" not in content:
        raise ConfigError(
            f"separator: {shorten(repr(content['separator']), 40)} is a model of ESPnet's separation or enhancement; "
            "only target speaker extraction (task enh_tse, with the key 'extractor') can be imported"
        )
    model_conf, preprocessor_conf = (_mapping(content, key) for key in ("model_conf", "preprocessor_conf"))
    rate, problems = sample_rate, [*_unknown_keys(content), *_problems(content, model_conf, preprocessor_conf)]
    stated = espnet_sample_rate(content)
    if rate is not None and stated is not None and rate != stated:
        problems.append(f"{RATE_OPTION}: {rate} Hz is asked for, but the configuration is of a model at {stated} Hz")
    rate = rate or stated
    if rate is None:
        problems.append(
            f"{RATE_OPTION}: the configuration does not say at how many Hz the model works; give it (--sample-rate 8000"
            " for wsj0_2mix, --sample-rate 16000 for librimix)"
        )
    args: dict[str, Any] = {part: content.get(part, PART_DEFAULTS[part]) for part in PARTS}
    args |= {key: dict(_mapping(content, key)) for key in CONFS}
    args["share_encoder"] = model_conf.get("share_encoder", True)
    args["level_free"] = _trained_free_of_level(content)
    args[RATE_OPTION] = rate or DEFAULT_RATE
    return PublicConfig(ESPNET, str(args["extractor"]), args, args[RATE_OPTION], problems=problems)


def espnet_sample_rate(content: Mapping[str, Any]) -> int | None:
    """Return the sample rate of a model in Hz; `None` if its configuration does not say it.

    It is `fs`, or `sample_rate`, in the configuration or in `preprocessor_conf`. 8000 in `sample_rate` is ESPnet's
    default, which says nothing. Without these, it is the only rate that the paths of the training data name.

    >>> espnet_sample_rate({"fs": "16k"}), espnet_sample_rate({"sample_rate": 8000})
    (16000, None)
    >>> espnet_sample_rate({"train_shape_file": ["exp/enh_stats_8k/train/speech_mix_shape"]})
    8000
    """
    for options in (content, _mapping(content, "preprocessor_conf")):
        if options.get("fs") is not None:
            return _hertz(options["fs"], "fs")
        if options.get(RATE_OPTION) not in (None, DEFAULT_RATE, str(DEFAULT_RATE)):
            return _hertz(options[RATE_OPTION], RATE_OPTION)
    rates = {round(float(match[1]) * 1000) for path in _data_paths(content) for match in RATE_IN_PATH.finditer(path)}
    return rates.pop() if len(rates) == 1 else None


def _hertz(value: Any, key: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(k?)", str(value).strip().lower())
    if match is None:
        raise ConfigError(f"{key}: is {shorten(repr(value), 40)}; a sample rate such as 16000 or 16k is needed")
    return round(float(match[1]) * (1000 if match[2] else 1))


def _data_paths(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of the training data: a list of paths, or of lists whose first entry is a path."""
    for key in DATA_PATHS:
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else []:
            yield str(entry[0] if isinstance(entry, list) and entry else entry)


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: is {shorten(repr(value), 40)}; a mapping of arguments is needed")
    return value


def _unknown_keys(content: Mapping[str, Any]) -> Iterator[str]:
    read = {*MODEL_KEYS, "fs", RATE_OPTION, "preprocessor_conf"}
    for key in content:
        if key not in read and key not in TRAINING_KEYS and not str(key).startswith(TRAINING_PREFIXES):
            name = shorten(key, 60)
            yield f"{name}: is no option of ESPnet that is known here; {nearest(name, sorted(read))}"


def _problems(
    content: Mapping[str, Any], model_conf: Mapping[str, Any], preprocessor_conf: Mapping[str, Any]
) -> Iterator[str]:
    for key in ("use_adapter", "use_lora"):
        if content.get(key):
            yield f"{key}: true cannot be translated; merge the adapter into the weights, and set false"
    for key in model_conf:
        if key not in ("share_encoder", *IGNORED_MODEL_ARGUMENTS):
            yield f"model_conf.{shorten(key, 60)}: cannot be translated; only share_encoder and num_spk are known"
    for key in preprocessor_conf:
        if key not in PREPROCESSOR_KEYS and not str(key).startswith(TRAINING_PREFIXES):
            yield f"preprocessor_conf.{shorten(key, 60)}: is no option of ESPnet that is known here"
    use_embedding = bool(_mapping(content, "extractor_conf").get("use_spk_emb", False))
    loads = preprocessor_conf.get("load_spk_embedding", content.get("load_spk_embedding"))
    if loads is not None and bool(loads) != use_embedding:
        yield (
            f"load_spk_embedding: is {str(bool(loads)).lower()}, but extractor_conf.use_spk_emb is "
            f"{str(use_embedding).lower()}; they must be the same, as in ESPnet's recipes"
        )


def _trained_free_of_level(content: Mapping[str, Any]) -> bool:
    """Return whether no loss that the network was trained with depends on the level of the estimate."""
    criterions = content.get("criterions")
    if not isinstance(criterions, list) or not criterions:
        return True  # ESPnet's default is si_snr
    used = [c for c in criterions if isinstance(c, Mapping) and not (c.get("conf") or {}).get("only_for_test", False)]
    return all(c.get("name") in LEVEL_FREE_LOSSES for c in used)
