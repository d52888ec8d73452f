"""The models of the package transformers that a speaker encoder can hear through: their form and their weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wesep_py.errors import ConfigError, nearest
from wesep_py.registry import is_strangers

CLASSES = {"wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "hubert": "Hubert"}
"""How the names of each kind's classes begin in the package transformers."""

FORCED = {
    "layerdrop": 0.0,  # the sum is over all layers
    "mask_time_prob": 0.0,  # `speaker.spec_augment` masks, with the run's random numbers
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
    "add_adapter": False,  # would halve the frames
}
"""Settings of a model that are the same here whatever its configuration says."""


def complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `SelfSupervised` with what the model's folder says of its form, so that they do without it.

    Raises:
        ConfigError: the folder or its `config.json` is missing or damaged, or the package transformers is missing.
    """
    path, config = arguments.get("path"), arguments.get("config")
    if not isinstance(path, str) or config is not None:
        return dict(arguments)
    if is_strangers():
        raise ConfigError(
            "speaker.self_supervised: names a folder in place of the model's form, and is not read from it"
        )
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(
            f"speaker.self_supervised.path: {path}: no such folder; give one with a model's config.json and weights "
            "(nothing is downloaded)"
        )
    known = _known(str(arguments.get("kind")))
    read = {key: value for key, value in _read_json(folder / "config.json").items() if key in known}
    completed = {**arguments, "config": {key: value for key, value in read.items() if not isinstance(value, dict)}}
    prepared = folder / "preprocessor_config.json"
    if arguments.get("normalise") is None and prepared.is_file():
        completed["normalise"] = _read_json(prepared).get("do_normalize")
    return completed


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"speaker.self_supervised.path: {path}: cannot be read ({error})") from error
    if not isinstance(read, dict):
        raise ConfigError(f"speaker.self_supervised.path: {path}: holds no mapping of keys to values")
    return read


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "speaker.front_end 'self_supervised' needs the package transformers, which is not installed; "
            "pip install 'wesep-py[ssl]', or use 'filterbank'"
        ) from error
    return transformers


def _known(kind: str) -> set[str]:
    """The keys of a kind's configuration that say what the model is."""
    if kind not in CLASSES:
        raise ConfigError(f"speaker.self_supervised.kind: is {kind!r}; {nearest(kind, CLASSES)}")
    keys = set(getattr(_transformers(), f"{CLASSES[kind]}Config")().to_dict())
    return {key for key in keys if not key.startswith("_")} - {"architectures", "dtype", "transformers_version"}


def build_model(kind: str, config: Mapping[str, Any], path: str | None) -> Any:
    """The model, with the weights of the folder or random ones."""
    where = "speaker.self_supervised.config"
    if unknown := sorted(set(config) - _known(kind)):
        raise ConfigError(f"{where}.{unknown[0]}: unknown key; {nearest(unknown[0], _known(kind))}")
    if (given := config.get("model_type", kind)) != kind:
        raise ConfigError(f"{where}.model_type: is {given!r}, but speaker.self_supervised.kind is {kind!r}; give one")
    transformers = _transformers()
    own, model = (getattr(transformers, f"{CLASSES[kind]}{what}") for what in ("Config", "Model"))
    try:
        form = own(**{**config, **FORCED})
        if path is None:
            return model(form)
    except Exception as error:  # whatever the package says of a form that it cannot build
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where}: no {CLASSES[kind]} can be built from it ({reason})") from error
    verbosity, logs = transformers.logging.get_verbosity(), transformers.logging
    progress = logs.is_progress_bar_enabled()
    try:
        logs.set_verbosity_error()
        logs.disable_progress_bar()
        loaded, found = model.from_pretrained(path, config=form, local_files_only=True, output_loading_info=True)
    except Exception as error:  # likewise of weights
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"speaker.self_supervised.path: {path}: weights cannot be read ({reason})") from error
    finally:
        logs.set_verbosity(verbosity)
        if progress:
            logs.enable_progress_bar()
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"speaker.self_supervised.path: {path}: {len(missing)} tensors are missing (the first: {missing[0]}); "
            f"give the folder of a whole {CLASSES[kind]}"
        )
    return loaded.float()
