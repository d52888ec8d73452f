"""The files of a checkpoint as they are published: without folders, commands and names of one machine.

`public_checkpoint` returns the four files with their contents. `recipes/default/bundle.py` uses `shorten_paths` for
bundled models.

    config.yaml         as it is; where it names a local file as the origin of the speaker encoder, without that
    model.safetensors   as it is
    provenance.json     without commands, hosts and folders; local paths become their last two parts
    card.md             local paths become their last two parts
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from wesep_py import checkpoint
from wesep_py.checkpoint import CARD, CONFIG, PROVENANCE, WEIGHTS
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import CheckpointError, InputError, shorten

PRIVATE_KEYS = frozenset({"command", "folder", "host", "sessions", "branch", "changed"})
"""Keys of a provenance, at any depth, that describe one machine."""
ORIGIN_KEYS = ("mode", "checkpoint")
"""Keys of `speaker` that say how its encoder was trained, and from which file."""
LICENCE_KEY = "licence"
ABOUT_KEYS = ("bundle", "installed")
"""Keys of a provenance whose value may hold a licence: of a bundled model, and of one that was pulled."""
OTHER_CARD = "README.md"
"""Name of the card in a folder that was downloaded from the Hub."""

# A path of at least two parts in a text. What precedes it excludes addresses (https://a/b) and relative paths (a/b).
_PART = r"[^\s/\\'\"`<>|,;:()\[\]{}*?]+"
_IN_TEXT = re.compile(
    rf"(?<![\w./:~\\-])(?:file://)?(?:~\w*)?(?:/{_PART}){{2,}}/?"
    rf"|(?<![\w./\\])[A-Za-z]:(?:[\\/]{_PART})+",
    re.ASCII,
)


@dataclass(frozen=True)
class PublicCheckpoint:
    """A checkpoint's files for publication.

    Attributes:
        weights: content of `model.safetensors`.
        config: constructor arguments.
        config_text: text of `config.yaml`.
        provenance: content of `provenance.json`.
        card: Markdown.
        changed_from: hash of the checkpoint, if the published configuration differs from its own; else `None`.
    """

    weights: bytes
    config: dict[str, Any]
    config_text: str
    provenance: dict[str, Any]
    card: str
    changed_from: str | None = None

    @property
    def hash(self) -> str:
        """Hash of weights and configuration."""
        return str(self.provenance["hash"])

    @property
    def licence(self) -> str | None:
        """Licence of the weights, as the provenance writes it."""
        return licence_of(self.provenance)


def public_checkpoint(folder: Path, licence: str | None = None) -> PublicCheckpoint:
    """Read a checkpoint, and return its files for publication.

    Args:
        folder: a checkpoint folder.
        licence: of the weights, for a provenance that has none.

    Raises:
        CheckpointError: the checkpoint is incomplete or damaged.
        InputError: `licence` contradicts the provenance; or a local path is left in a file.
    """
    saved = checkpoint.load(folder)
    weights = (folder / WEIGHTS).read_bytes()
    config, text = _without_origin(saved.config), (folder / CONFIG).read_text(encoding="utf-8")
    changed_from = None
    if config != saved.config:
        text, changed_from = dump_yaml(config), saved.hash
    provenance = public_provenance(saved.provenance)
    stated = licence_of(provenance)
    if licence is not None:
        if stated is not None and licence_id(stated) != licence_id(licence):
            raise InputError(f"--licence: is {shorten(licence)}; the model's provenance says {stated}: leave it out")
        provenance[LICENCE_KEY] = licence
    provenance["hash"] = checkpoint.fingerprint(weights, text)
    if changed_from is not None:
        provenance["published_from"] = changed_from
    card = _card(folder, provenance).replace(saved.hash, provenance["hash"])
    public = PublicCheckpoint(weights, config, text, provenance, card, changed_from)
    _check_no_local_path(public)
    return public


def public_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a provenance without what describes one machine; see `PRIVATE_KEYS` and `shorten_paths`."""
    return {
        key: public_provenance(value)
        if isinstance(value, Mapping)
        else [public_provenance(item) if isinstance(item, Mapping) else shorten_paths(item) for item in value]
        if isinstance(value, list)
        else shorten_paths(value)
        for key, value in ((shorten_paths(key), value) for key, value in provenance.items())
        if key not in PRIVATE_KEYS
    }


def shorten_paths(value: Any) -> Any:
    """Return the value with every local path in it cut to its last two parts, at any depth.

    A text that begins with `/`, `../` or `~` is one path, which may contain spaces. In other texts, absolute paths of
    two or more parts are found; addresses such as `https://…` stay.

    >>> shorten_paths(["/home/alice/data/train.csv", "wesep train /home/alice/conf/a.yaml", "https://a.org/b/c"])
    ['data/train.csv', 'wesep train conf/a.yaml', 'https://a.org/b/c']
    """
    if isinstance(value, Mapping):
        return {shorten_paths(key): shorten_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "../", "~")) and "\n" not in value and len(PurePath(value).parts) > 1:
        return _last_parts(value)
    return _IN_TEXT.sub(lambda match: _last_parts(match[0]), value)


def licence_of(provenance: Mapping[str, Any]) -> str | None:
    """Return the licence of the weights in a provenance; `None` if it has none."""
    places = [provenance, *(provenance[key] for key in ABOUT_KEYS if isinstance(provenance.get(key), Mapping))]
    return next((place[LICENCE_KEY] for place in places if isinstance(place.get(LICENCE_KEY), str)), None)


def licence_id(licence: str) -> str:
    """Return a licence in the form of the Hub's identifiers.

    >>> licence_id("CC BY 4.0"), licence_id("Apache-2.0")
    ('cc-by-4.0', 'apache-2.0')
    """
    words = re.sub(r"[^a-z0-9.+]+", "-", licence.casefold()).strip("-")
    return {"cc0": "cc0-1.0", "apache": "apache-2.0", "apache-license-2.0": "apache-2.0"}.get(words, words)


def _last_parts(path: str) -> str:
    parts = PurePath(path.replace("\\", "/").removeprefix("file://")).parts
    return "/".join(part for part in parts[-2:] if part not in ("/", "..", "~") and not part.endswith(":"))


def _without_origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration that does not name a local file as the origin of its speaker encoder.

    The weights of the encoder are in the checkpoint, so the file is not read when the model is loaded.
    """
    speaker = config.get("speaker")
    if not isinstance(speaker, Mapping) or speaker.get("checkpoint") is None:
        return dict(config)
    origin = str(speaker["checkpoint"])
    if shorten_paths(origin) == origin:
        return dict(config)
    return {**config, "speaker": {key: value for key, value in speaker.items() if key not in ORIGIN_KEYS}}


def _card(folder: Path, provenance: dict[str, Any]) -> str:
    """Return the card of a checkpoint folder, whichever name it has; a short one if there is none."""
    for name in (CARD, OTHER_CARD):
        path = folder / name
        if path.is_file():
            try:
                return str(shorten_paths(path.read_text(encoding="utf-8")))
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{path}: cannot be read ({shorten(error)}); write it again") from error
    return checkpoint.default_card(folder.name, provenance)


def _check_no_local_path(public: PublicCheckpoint) -> None:
    """Raise `InputError` if a file still has a local path, or the home folder of this user."""
    unchanged = [(CONFIG, text) for text in _texts(public.config)]  # files whose content belongs to the hash
    unchanged += [(WEIGHTS, text) for text in _texts(_metadata(public.weights))]
    local = [(file, text) for file, text in unchanged if shorten_paths(text) != text]
    home = str(Path.home())
    cleaned = [(PROVENANCE, json.dumps(public.provenance, ensure_ascii=False)), (CARD, public.card)]
    local += [(file, home) for file, text in cleaned if len(home) > 1 and f"{home}/" in text]
    for file, text in local:
        raise InputError(
            f"{file}: names a local path ({shorten(text, 120)}), which is not published; take it out, and save the "
            "model again"
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _metadata(weights: bytes) -> Any:
    """Return the metadata of a safetensors file, which begins with the length of a JSON header."""
    (length,) = struct.unpack("<Q", weights[:8])
    return json.loads(weights[8 : 8 + length]).get("__metadata__")
