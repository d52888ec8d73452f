"""The converters of `wesep models pull`: from the files of a public model to a checkpoint of ours.

`CONVERTERS` is the table. A converter takes the files by role, as the registry names them (`weights`, `config`, …), and
the entry of the registry. It reads plain data alone, and returns what `wesep import-checkpoint` would.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError, InputError, nearest
from wesep_py.interop.importing import ImportedCheckpoint, import_public_checkpoint
from wesep_py.models.downloading import sha256_of
from wesep_py.models.public_models import PublicModel
from wesep_py.network.extraction_network import load_network
from wesep_py.network.speaker import is_encoder, load_encoder

Converter = Callable[[Mapping[str, Path], PublicModel], ImportedCheckpoint]

NATIVE_FILES = {
    "weights": checkpoint.WEIGHTS,
    "config": checkpoint.CONFIG,
    "provenance": checkpoint.PROVENANCE,
    "card": checkpoint.CARD,
}
"""The files of a checkpoint of ours, by role; all but the card are needed."""
WRITTEN_KEYS = ("format_version", "hash", "created", "versions")
"""Keys of the provenance that are written anew with the checkpoint."""


def check_converter(model: PublicModel) -> None:
    """Check that this version has the converter that an entry names.

    Raises:
        ConfigError: it has not.
    """
    if model.conversion not in CONVERTERS:
        raise ConfigError(
            f"{model.name}: conversion: this version has no converter called {model.conversion!r}; "
            f"{nearest(model.conversion, CONVERTERS)}"
        )


def convert(files: Mapping[str, Path], model: PublicModel) -> ImportedCheckpoint:
    """Convert the files of a model with the converter that its entry names.

    Raises:
        ConfigError: there is no such converter; the entry lacks a file that it needs, or is of another kind.
        CheckpointError: a file is damaged, or cannot be mapped.
    """
    check_converter(model)
    imported = CONVERTERS[model.conversion](files, model)
    if imported.kind != model.kind:
        raise ConfigError(f"{model.name}: kind: the registry says {model.kind!r}, but the files are a {imported.kind}")
    return imported


def convert_public(files: Mapping[str, Path], model: PublicModel) -> ImportedCheckpoint:
    """Convert `avg_model.pt` and `config.yaml` of WeSep, real-TSE or WeSpeaker."""
    return import_public_checkpoint(needed(files, "weights", model), needed(files, "config", model))


def convert_espnet(files: Mapping[str, Path], model: PublicModel) -> ImportedCheckpoint:
    """Convert `NNepoch.pth` and `config.yaml` of ESPnet, whose sample rate the registry knows."""
    return import_public_checkpoint(
        needed(files, "weights", model), needed(files, "config", model), sample_rate=model.sample_rate
    )


def convert_native(files: Mapping[str, Path], model: PublicModel) -> ImportedCheckpoint:
    """Read a checkpoint of ours from elsewhere, and check that its network can be built."""
    with tempfile.TemporaryDirectory(prefix="wesep-") as temporary:
        folder = Path(temporary)
        for role, name in NATIVE_FILES.items():
            if role in files or role != "card":
                shutil.copyfile(needed(files, role, model), folder / name)
        saved = checkpoint.load(folder)
        encoder = is_encoder(saved.config)
        _ = load_encoder(folder) if encoder else load_network(folder)
    about = {key: value for key, value in saved.provenance.items() if key not in WRITTEN_KEYS}
    source = {
        "toolkit": "wesep-py",
        "model": str((saved.config.get("network" if encoder else "backbone") or {}).get("name")),
        "hash": saved.hash,
        "created": saved.provenance.get("created"),
    }
    kind = "speaker encoder" if encoder else "extractor"
    provenance = {**about, "imported_from": {**source, **named_digests(files)}}
    return ImportedCheckpoint(saved.config, saved.state_dict, kind, provenance)


def needed(files: Mapping[str, Path], role: str, model: PublicModel) -> Path:
    """Return a file by its role.

    Raises:
        InputError: the entry has none.
    """
    if role not in files:
        raise InputError(
            f"{model.name}: sources.files: names no {role}, which the converter {model.conversion!r} needs"
        )
    return files[role]


def named_digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return name and SHA-256 of weights and configuration, as `import_public_checkpoint` writes them."""
    named = {}
    for role, prefix in (("weights", ""), ("config", "config_")):
        if role in files:
            named |= {f"{prefix}file": files[role].name, f"{prefix}sha256": sha256_of(files[role])}
    return named


CONVERTERS: dict[str, Converter] = {
    "espnet": convert_espnet,
    "native": convert_native,
    "wesep": convert_public,
    "wespeaker": convert_public,
}
"""The converters by the names that the registry uses."""
