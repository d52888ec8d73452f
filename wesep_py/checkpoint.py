"""A model on disk: a folder with weights, configuration, provenance and a card. Nothing is ever unpickled.

model.safetensors   weights
config.yaml         what builds the network: constructor arguments, nothing else
provenance.json     format version, how and by what it was made, hash of the weights
card.md             for people
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
from wesep_py.common.files import write_json, write_text
from wesep_py.common.folders import FolderKind, atomic_folder, check_folder, find_set_aside
from wesep_py.common.textfiles import read_json
from wesep_py.common.torchfiles import parse_tensors, with_nan
from wesep_py.common.yamlfiles import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
WEIGHTS, CONFIG, PROVENANCE, CARD = "model.safetensors", "config.yaml", "provenance.json", "card.md"

FOREIGN = (".pt", ".pth")
"""How the files of other toolkits end."""
FOREIGN_READERS = "wesep_py.interop"
"""The module that registers their readers when it is imported, which is when the first of them is needed."""

Reader = Callable[[Path, Mapping[str, Any]], "dict[str, Tensor]"]
_readers: dict[str, Reader] = {}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        folder: where it lies.
        config: what builds the network.
        state_dict: its weights, on the CPU.
        provenance: how it was made.
        hash: SHA-256 of the weights and the configuration; two models with one hash compute the same.
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
    """Write a checkpoint; the folder appears whole, and a checkpoint that stood there is replaced only then.

    Args:
        folder: where to. Its parent is made if needed.
        config: what builds the network, as plain values.
        state_dict: weights.
        provenance: anything that says how it was made; versions and time are added.
        card: Markdown.
        keep_others: move other files in the folder into the new one; by default they are an error.

    Raises:
        InputError: the folder holds other things than a checkpoint.
        WesepError: the disk is full or not writable; what stood there before is still there.
    """
    from safetensors.torch import save as serialise

    folder = Path(folder)
    if not keep_others:
        check_folder(folder, KIND, overwrite=True)
    weights = serialise({key: value.detach().cpu().contiguous() for key, value in state_dict.items()})
    text = dump_yaml(config)
    made = {
        **(provenance or {}),
        "format_version": FORMAT_VERSION,
        "hash": fingerprint(weights, text),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    try:
        with atomic_folder(folder, KIND, keep_others) as partial:
            with (partial / WEIGHTS).open("wb") as file:
                file.write(weights)
                os.fsync(file.fileno())
            write_text(partial / CONFIG, text)
            write_json(partial / PROVENANCE, made)
            write_text(partial / CARD, card or default_card(folder.name, made))
    except OSError as error:
        raise WesepError(
            f"{folder}: the checkpoint cannot be written ({error.strerror or error}); name another place, or make room"
        ) from error
    return folder


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint; `path` is its folder, or that of an experiment (see `resolve`).

    What comes with a model is plain data: its configuration includes, interpolates and runs nothing.

    Raises:
        CheckpointError: a part is missing, cut short or altered, or the format is of another version.
    """
    folder = resolve(path)
    for name in (WEIGHTS, CONFIG, PROVENANCE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: is no checkpoint ({name} is missing)")
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
    found = fingerprint(weights, text)
    if found != provenance.get("hash"):
        raise CheckpointError(
            f"{folder}: weights or configuration are not those that were saved (their hash differs); "
            "copy the folder again, or save the model anew"
        )
    if (name := with_nan(state_dict)) is not None:
        raise CheckpointError(
            f"{folder / WEIGHTS}: {shorten(name)} holds NaN; train again, or take an earlier checkpoint"
        )
    return Checkpoint(folder, config, state_dict, provenance, found)


def read_provenance(folder: Path) -> dict[str, Any]:
    """How the checkpoint in a folder was made.

    Raises:
        CheckpointError: `provenance.json` is missing, no JSON, or no object.
    """
    return read_json(folder / PROVENANCE, "a checkpoint's provenance", "copy the folder again", CheckpointError).values


def resolve(path: str | Path) -> Path:
    """The checkpoint folder that a path means: itself, or an experiment's average, best or last, in this order.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    folder = path.parent if path.name == WEIGHTS else path
    candidates = [folder, *(folder / "checkpoints" / name for name in ("average", "best", "last"))]
    for candidate in candidates:
        if (candidate / WEIGHTS).is_file():
            return candidate
        if (aside := find_set_aside(candidate, KIND)) is not None:
            log.warning(
                "%s: a process was killed while it replaced this; %s, the one before, is read", candidate, aside
            )
            return aside
    what = "holds no checkpoint" if folder.is_dir() else "no such model"
    raise CheckpointError(
        f"{path}: {what}; give a checkpoint folder (with {WEIGHTS}) or an experiment folder that training made"
    )


def register_reader(kind: str) -> Callable[[Reader], Reader]:
    """Function decorator: enter a reader of other toolkits' files.

    It takes a file and the configuration of the part of ours that is to be filled, and returns the weights under our
    names. `kind` says which part: `"speaker network"`.
    """

    def enter(reader: Reader) -> Reader:
        _readers[kind] = reader
        return reader

    return enter


def read_foreign(kind: str, path: str | Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in another toolkit's file, by the reader that was registered for the part of ours they are for.

    Raises:
        CheckpointError: the file is missing or damaged.
        ConfigError: no file of another toolkit fills such a part.
    """
    if kind not in _readers:
        importlib.import_module(FOREIGN_READERS)
    return _readers[kind](Path(path), config)


def misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps weights from a network, a line each: those that are missing, that it has not, of another size.

    >>> import torch
    >>> misfit({"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(3), "c": torch.ones(1)})
    ['missing: b', 'not used: c', 'a: has size [3]; [2] is needed']
    """
    lines = [f"missing: {name}" for name in expected if name not in given]
    lines += [f"not used: {name}" for name in given if name not in expected]
    sizes = {name: (list(given[name].shape), list(expected[name].shape)) for name in expected if name in given}
    return lines + [
        f"{name}: has size {has}; {needs} is needed" for name, (has, needs) in sizes.items() if has != needs
    ]


def fingerprint(weights: bytes, config: str) -> str:
    """SHA-256 over the weights' file and the configuration's text."""
    return hashlib.sha256(weights + b"\0" + config.encode("utf-8")).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the package and of what its numbers depend on."""
    import platform
    from importlib import metadata

    import wesep_py

    found = {"wesep-py": wesep_py.__version__, "python": platform.python_version()}
    for name in ("torch", "torchaudio", "numpy", "soundfile", "soxr"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def default_card(name: str, provenance: dict[str, Any]) -> str:
    """A card that says what is known without being told."""
    lines = "\n".join(f"- {key}: {value}" for key, value in provenance.items() if key != "versions")
    return f"# {name}\n\nA target speaker extraction model made by wesep-py.\n\n{lines}\n"


def check_output(folder: str | Path, overwrite: bool = False) -> Path:
    """Return the folder, if a checkpoint may be written there; call it before the work.

    Raises:
        InputError: it is a file, or holds other things than a checkpoint of ours.
        OutputExistsError: it is a checkpoint, and `overwrite` is false.
    """
    return check_folder(folder, KIND, overwrite)


def _is_ours(folder: Path) -> bool:
    """True if `save` wrote the provenance in the folder, whatever has become of the rest."""
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(provenance, dict) and "format_version" in provenance and "hash" in provenance


KIND = FolderKind("a checkpoint", frozenset((WEIGHTS, CONFIG, PROVENANCE, CARD)), _is_ours)
"""What a checkpoint's folder holds."""
