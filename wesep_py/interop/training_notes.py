"""A public training configuration in our terms, with a note of what each of its keys became.

`ConfigTranslation` collects our keys and the notes while a configuration is read (`wesep_training`,
`espnet_training`); `as_yaml` writes them as a file:

    # header: where it comes from, the keys without counterpart, the keys that nothing here needs
    train:
      # dataloader_args.batch_size: 8 -> train.batch_size (mixtures; both speakers of each are targets)
      batch_size: 8
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wesep_py.common.errors import shorten
from wesep_py.common.yamlfiles import dump_plain_yaml

SECTIONS = (
    "experiment",
    "seed",
    "init",
    "data",
    "simulation",
    "model",
    "loss",
    "self_enrollment",
    "optim",
    "schedule",
    "train",
    "validation",
    "checkpoint",
    "log",
)
"""Keys of our configuration, in the order in which they are written."""
UNKNOWN = "???"
"""The value of a key that the user must give."""
COMMENT_WIDTH = 400


class ConfigTranslation:
    """A public configuration, and what became of its keys.

    Args:
        toolkit: that wrote it.
        model: public name of the network.
        content: of the configuration.

    Attributes:
        config: ours, as nested mappings; a value that the user must give is `???`.
        notes: a line per translated key, by the section of ours that it became a part of.
        unneeded: their keys that nothing here needs, with the reason.
        missing: their keys without counterpart, with the reason.
    """

    def __init__(self, toolkit: str, model: str, content: Mapping[str, Any]) -> None:
        self.toolkit, self.model = toolkit, model
        self.config: dict[str, Any] = {}
        self.notes: dict[str, list[str]] = {}
        self.unneeded: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._leaves = dict(_leaves(content))
        self._left = dict.fromkeys(self._leaves)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of one of their keys, written with dots; `default` if it is not given."""
        return self._leaves.get(key, default)

    def put(self, ours: str, value: Any, theirs: str = "", note: str = "") -> None:
        """Set one of our keys, written with dots.

        Args:
            ours: the key.
            value: its value.
            theirs: the key that it comes from; `""`: from none, it follows from the toolkit.
            note: what differs.
        """
        *parents, last = ours.split(".")
        section = self.config
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
        self.became(theirs, ours, note)

    def became(self, theirs: str, ours: str, note: str = "") -> None:
        """Note that a key of theirs became one of ours, whose value is set elsewhere; nothing if it is not given."""
        more = f" ({note})" if note else ""
        if theirs in self._leaves:
            self._left.pop(theirs, None)
            line = f"{theirs}: {_value(self._leaves[theirs])} -> {ours}{more}"
        elif theirs or not note:
            return
        else:
            line = f"{self.toolkit} -> {ours}{more}"
        self.notes.setdefault(ours.partition(".")[0], []).append(line)

    def skip(self, keys: str, reason: str) -> None:
        """Note keys that nothing here needs.

        Args:
            keys: names separated by blanks; those that are not given are ignored. `name.*` stands for all below it.
            reason: why.
        """
        for key in self._matching(keys):
            self.unneeded[key] = reason

    def miss(self, keys: str, reason: str) -> None:
        """Note keys without counterpart; arguments as `skip`."""
        for key in self._matching(keys):
            self.missing[key] = reason

    def finish(self) -> None:
        """Note all keys that are left as keys without counterpart."""
        for key in list(self._left):
            self.missing[key] = f"is no key of {self.toolkit}'s recipes that is known here"
            del self._left[key]

    def as_yaml(self, source: str) -> str:
        """Return our configuration as YAML text, with the notes as comments.

        Args:
            source: name of their file.
        """
        lines = [f"# {self.toolkit}'s {self.model}, translated from {source} by `wesep import-config`."]
        lines += _comment_list("Keys without counterpart here:", self.missing)
        lines += _comment_list("Keys that nothing here needs:", self.unneeded)
        for section in [*SECTIONS, *(name for name in self.config if name not in SECTIONS)]:
            if section in self.config:
                lines += ["", *(f"# {shorten(note, COMMENT_WIDTH)}" for note in self.notes.get(section, []))]
                lines.append(dump_plain_yaml({section: self.config[section]}).rstrip("\n"))
        return "\n".join(lines) + "\n"

    def _matching(self, keys: str) -> Iterator[str]:
        for pattern in keys.split():
            prefix = pattern.removesuffix("*")
            for key in list(self._left):
                if key == pattern or (pattern.endswith(".*") and key.startswith(prefix)):
                    del self._left[key]
                    yield key


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is no mapping with entries, by its key with dots."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> str:
    """Return a value as YAML writes it, in one line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else shorten(value, 60)


def _comment_list(title: str, entries: Mapping[str, str]) -> list[str]:
    """Return a title and a line per reason, each with the keys that have it."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in entries.items():
        by_reason.setdefault(reason, []).append(key)
    if not by_reason:
        return []
    return ["#", f"# {title}", *(f"#   {', '.join(keys)}: {reason}" for reason, keys in by_reason.items())]
