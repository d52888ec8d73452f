"""Checkpoints: folders with weights, configuration, provenance and a card. Nothing is ever unpickled.

| file | content |
| --- | --- |
| `model.safetensors` | weights |
| `config.yaml` | constructor arguments of the network, nothing else |
| `provenance.json` | format version, hash of weights and configuration, versions, how the model was made |
| `card.md` | description for people |
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import CheckpointError, ConfigError, WesepError, shorten
from wesep_py.common.files import path_exists, write_json, write_text
from wesep_py.common.folders import FolderKind, atomic_folder, check_folder, find_set_aside
from wesep_py.common.textfiles import read_json
from wesep_py.common.torchfiles import parse_tensors, with_nan
from wesep_py.common.yamlfiles import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
WEIGHTS, CONFIG, PROVENANCE, CARD = "model.safetensors", "config.yaml", "provenance.json", "card.md"

FOREIGN_SUFFIXES = (".pt", ".pth")
"""Suffixes of the files of other toolkits."""
FOREIGN_READERS = "wesep_py.interop"
"""Module that registers the readers of these files; it is imported when the first reader is needed."""

NAMED_MODELS = "wesep_py.models"
"""Module whose `find_model` finds a model by its name; it is imported when the first name is read."""

Reader = Callable[[Path, Mapping[str, Any]], "dict[str, Tensor]"]
_readers: dict[str, Reader] = {}


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint.

    Attributes:
        folder: its folder.
        config: constructor arguments of the network.
        state_dict: weights, on the CPU.
        provenance: content of `provenance.json`.
        hash: SHA-256 of weights and configuration; models with equal hashes compute the same.
    """

    folder: Path
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    provenance: dict[str, Any]
    hash: str


def save(
    folder: str | Path,
    config: dict[str, Any],
    state_dict: dict[str, Tensor],
    provenance: dict[str, Any] | None = None,
    card: str = "",
    keep_others: bool = False,
) -> Path:
    """Write a checkpoint atomically: an existing one is replaced only when the new one is complete.

    Args:
        folder: the folder to write; its parent is created if necessary.
        config: constructor arguments of the network, as plain values.
        state_dict: weights.
        provenance: how the model was made, as JSON values; version, hash, time and package versions are added.
        card: Markdown; by default a short card is written.
        keep_others: move other files of an existing folder into the new one; by default they are an error.

    Raises:
        InputError: the folder holds other files than a checkpoint.
        WesepError: the disk is full or not writable; an existing checkpoint is still there.
    """
    from safetensors.torch import save as serialise

    folder = Path(folder)
    if not keep_others:
        check_folder(folder, CHECKPOINT_KIND, overwrite=True)
    weights = serialise({key: value.detach().cpu().contiguous() for key, value in state_dict.items()})
    text = dump_yaml(config)
    complete_provenance = {
        **(provenance or {}),
        "format_version": FORMAT_VERSION,
        "hash": fingerprint(weights, text),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    try:
        with atomic_folder(folder, CHECKPOINT_KIND, keep_others) as partial:
            with (partial / WEIGHTS).open("wb") as file:
                file.write(weights)
                os.fsync(file.fileno())
            write_text(partial / CONFIG, text)
            write_json(partial / PROVENANCE, complete_provenance)
            write_text(partial / CARD, card or default_card(folder.name, complete_provenance))
    except OSError as error:
        raise WesepError(
            f"{folder}: the checkpoint cannot be written ({error.strerror or error}); name another place, or make room"
        ) from error
    return folder


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    The configuration is plain data: includes and interpolations in it are not resolved, and no code is run.

    Args:
        path: the folder of a checkpoint or of an experiment (see `resolve`).

    Raises:
        CheckpointError: a file is missing, damaged or altered, or the format has another version.
    """
    folder = resolve(path)
    for name in (WEIGHTS, CONFIG, PROVENANCE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: is not a checkpoint ({name} is missing)")
    try:
        provenance = read_provenance(folder)
        config = read_yaml(folder / CONFIG)
        weights, text = (folder / WEIGHTS).read_bytes(), (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, ConfigError) as error:
        raise CheckpointError(f"{folder}: is damaged ({error})") from error
    version = provenance.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: has format version {shorten(version, 40)}; this wesep reads version {FORMAT_VERSION}"
        )
    state_dict, _ = parse_tensors(weights, folder / WEIGHTS, "copy the folder again")
    actual_hash = fingerprint(weights, text)
    if actual_hash != provenance.get("hash"):
        raise CheckpointError(
            f"{folder}: weights or configuration are not those that were saved (their hash differs); "
            "copy the folder again, or save the model again"
        )
    if (name := with_nan(state_dict)) is not None:
        raise CheckpointError(
            f"{folder / WEIGHTS}: {shorten(name)} holds NaN; train again, or take an earlier checkpoint"
        )
    return Checkpoint(folder, config, state_dict, provenance, actual_hash)


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read the provenance of a checkpoint.

    Raises:
        CheckpointError: `provenance.json` is missing, not JSON, or not an object.
    """
    return read_json(folder / PROVENANCE, "a checkpoint's provenance", "copy the folder again", CheckpointError).values


def resolve(path: str | Path) -> Path:
    """Return the checkpoint folder of a path: the path itself, or an experiment's average, best or last checkpoint.

    Args:
        path: a checkpoint folder, its weights file, or an experiment folder, in which the first existing one of
            `checkpoints/average`, `best` and `last` is chosen; or the name of a bundled or an installed model, where
            no file has that name.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    path = Path(path)
    folder = path.parent if path.name == WEIGHTS else path
    candidates = [folder, *(folder / "checkpoints" / name for name in ("average", "best", "last"))]
    for candidate in candidates:
        if (candidate / WEIGHTS).is_file():
            return candidate
        if (aside := find_set_aside(candidate, CHECKPOINT_KIND)) is not None:
            log.warning(
                "%s: a process was killed while it replaced this; %s, the previous one, is read", candidate, aside
            )
            return aside
    if path.name == str(path) and not path_exists(path):
        _, named = importlib.import_module(NAMED_MODELS).find_model(path.name)
        if named != path:
            return resolve(named)
    what = "holds no checkpoint" if folder.is_dir() else "no such model"
    raise CheckpointError(
        f"{path}: {what}; give a checkpoint folder (with {WEIGHTS}) or an experiment folder that training made"
    )


def register_reader(kind: str) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a reader of other toolkits' files.

    A reader takes the path of a file and the configuration of one of our modules, and returns the weights in the file
    under the names of that module.

    Args:
        kind: kind of module that the weights are for: `"speaker network"`.
    """

    def enter(reader: Reader) -> Reader:
        _readers[kind] = reader
        return reader

    return enter


def read_foreign(kind: str, path: str | Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights in another toolkit's file, with the registered reader.

    Args:
        kind: kind of module that the weights are for; see `register_reader`.
        path: the file.
        config: configuration of that module.

    Raises:
        CheckpointError: the file is missing or damaged.
        ConfigError: no reader supports a module of this configuration.
    """
    if kind not in _readers:
        importlib.import_module(FOREIGN_READERS)
    return _readers[kind](Path(path), config)


def weight_mismatches(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return why weights cannot be loaded into a network: one line per missing, unused or differently sized tensor.

    Args:
        expected: state dictionary of the network.
        given: the weights.

    >>> import torch
    >>> weight_mismatches({"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(3), "c": torch.ones(1)})
    ['missing: b', 'not used: c', 'a: has size [3]; [2] is needed']
    """
    lines = [f"missing: {name}" for name in expected if name not in given]
    lines += [f"not used: {name}" for name in given if name not in expected]
    sizes = {name: (list(given[name].shape), list(expected[name].shape)) for name in expected if name in given}
    return lines + [
        f"{name}: has size {has}; {needs} is needed" for name, (has, needs) in sizes.items() if has != needs
    ]


def fingerprint(weights: bytes, config: str) -> str:
    """Return the SHA-256 of the weights file and the configuration text, in hexadecimal."""
    return hashlib.sha256(weights + b"\0" + config.encode("utf-8")).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of the packages that results depend on."""
    import platform
    from importlib import metadata

    import wesep_py

    by_name = {"wesep-py": wesep_py.__version__, "python": platform.python_version()}
    for name in ("torch", "torchaudio", "numpy", "soundfile", "soxr"):
        try:
            by_name[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            by_name[name] = "not installed"
    return by_name


def default_card(name: str, provenance: dict[str, Any]) -> str:
    """Return a card with the provenance, for a model without a card of its own."""
    lines = "\n".join(f"- {key}: {value}" for key, value in provenance.items() if key != "versions")
    return f"# {name}\n\nA target speaker extraction model made by wesep-py.\n\n{lines}\n"


def check_checkpoint_folder(folder: str | Path, overwrite: bool = False) -> Path:
    """Return the folder if a checkpoint may be written there; call it before the work.

    Raises:
        InputError: it is a file, or holds other files than a checkpoint of this package.
        OutputExistsError: it is a checkpoint, and `overwrite` is false.
    """
    return check_folder(folder, CHECKPOINT_KIND, overwrite)


def _is_ours(folder: Path) -> bool:
    """Return whether `save` wrote the provenance in a folder, even if other files are missing or damaged."""
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(provenance, dict) and "format_version" in provenance and "hash" in provenance


CHECKPOINT_KIND = FolderKind("a checkpoint", frozenset((WEIGHTS, CONFIG, PROVENANCE, CARD)), _is_ours)
"""Files of a checkpoint folder, and how one is recognised before it is replaced."""
