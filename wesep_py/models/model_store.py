"""The model store: models that `wesep models pull` installed, one checkpoint folder for each.

$WESEP_HOME, else the platform's data folder
├── models/NAME/        a checkpoint: model.safetensors, config.yaml, provenance.json, card.md
├── checksums/NAME.json SHA-256 of the downloaded files, kept when the model is removed
├── downloads/NAME/     what is being downloaded
└── registry.yaml       entries of the user's own (`models.public_models`)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wesep_py.checkpoint import CHECKPOINT_KIND, WEIGHTS
from wesep_py.common.errors import InputError, WesepError, nearest, shorten
from wesep_py.common.folders import remove_known
from wesep_py.common.names import is_hidden
from wesep_py.models.saved_model import SavedModel

HOME_VARIABLE = "WESEP_HOME"
"""Environment variable that names the folder of the store."""
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names that a model in the store can have; they are names of folders on every system."""
INSTALLED_KEY = "installed"
"""Key of `provenance.json` for source, licence, citation and files of an installed model."""


@dataclass(frozen=True)
class InstalledModel(SavedModel):
    """Description of an installed model, without loading it."""

    state: ClassVar[str] = "installed"
    about_key: ClassVar[str] = INSTALLED_KEY

    @property
    def repair(self) -> str:  # type: ignore[override]
        """Advice for a damaged file, for messages."""
        return f"`wesep models remove {self.name}`, then pull it again"


def store_folder() -> Path:
    """Return the folder of the store: `$WESEP_HOME`, else the platform's data folder. It need not exist."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser()
    from platformdirs import user_data_dir

    return Path(user_data_dir("wesep", appauthor=False))


def models_folder() -> Path:
    """Return the folder that holds a folder for each installed model. It need not exist."""
    return store_folder() / "models"


def installed_models() -> dict[str, InstalledModel]:
    """Return the installed models by name."""
    folder = models_folder()
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise WesepError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return {name: InstalledModel(name, folder / name) for name in names if (folder / name / WEIGHTS).is_file()}


def installed_model(name: str) -> Path | None:
    """Return the checkpoint folder of an installed model; `None` if no model of that name is installed."""
    if not MODEL_NAME.fullmatch(name):
        return None
    folder = models_folder() / name
    return folder if (folder / WEIGHTS).is_file() else None


def check_model_name(name: str) -> str:
    """Return a name if a model in the store can have it.

    Raises:
        InputError: it cannot; the message says what is allowed.
    """
    if not MODEL_NAME.fullmatch(name):
        raise InputError(
            f"{shorten(name)!r}: is no name for a model; up to 100 letters, digits, dots, hyphens and underscores are "
            "allowed, a letter or digit first"
        )
    return name


def remove_installed(name: str) -> Path:
    """Remove an installed model, and return the folder that it was in.

    Only the files of a checkpoint are deleted; the recorded checksums of its downloads stay.

    Raises:
        InputError: no such model is installed, or its folder was not written by this package.
        WesepError: it cannot be deleted.
    """
    folder = installed_model(check_model_name(name))
    if folder is None:
        known = installed_models()
        hint = nearest(name, known) if known else "none is"
        raise InputError(f"no model called {name!r} is installed; {hint}")
    if not CHECKPOINT_KIND.is_ours(folder):
        raise InputError(f"{folder}: was not written by this package; delete it yourself")
    if others := CHECKPOINT_KIND.others(folder):
        raise InputError(f"{folder}: holds other things than a checkpoint ({', '.join(others[:5])}); move them away")
    remove_known(folder, CHECKPOINT_KIND.names)
    if folder.exists():
        raise WesepError(f"{folder}: cannot be deleted; check its permissions")
    return folder
