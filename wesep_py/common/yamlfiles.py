"""Read and write YAML files as plain values, safely for any content.

YAML can express more than a configuration needs: objects, sets, aliases that expand to any size. Here a file holds
mappings, whose keys are strings or numbers, lists and scalars; anything else is an error of one line that names the
file and the position. There are no interpolations and no includes: `config.load_yaml` adds them for a user's own files,
and a model's configuration is read without.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wesep_py.common.errors import ConfigError, shorten

MAX_BYTES = 16 * 2**20
"""Maximum size of a file."""
MAX_DEPTH = 64
"""Maximum depth of nested lists and mappings."""
MAX_NODES = 500_000
"""Maximum number of keys and values in a file, with those that its aliases repeat."""

TAG = "tag:yaml.org,2002:"
BOOLS = {
    spelling: value
    for value, words in ((True, "y yes true on"), (False, "n no false off"))
    for word in words.split()
    for spelling in (word, word.capitalize(), word.upper())
}
READ_AS_BOOL = {word for word in BOOLS if len(word) > 1}
"""`y` and `n` alone are read as strings, but quoted when written, for other programs."""
NULLS = {"", "~", "null", "Null", "NULL"}
INTEGER = re.compile(
    r"""[-+]?0b[0-1_]+ | [-+]?0[0-7_]+ | [-+]?(?:0|[1-9][0-9_]*) | [-+]?0x[0-9a-fA-F_]+
    | [-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+""",
    re.X,
)
"""Integers of YAML 1.1."""
FLOAT = re.compile(
    r"""[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+
    | [-+]?\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    | [-+]?\.(?:inf|Inf|INF) | \.(?:nan|NaN|NAN)""",
    re.X,
)
"""Floating-point numbers of YAML 1.1, and `1e-3`, which is a string there."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, as plain values; an empty file is an empty mapping.

    Raises:
        ConfigError: the file is missing, not YAML, not a mapping, or holds something that no configuration needs. Of
            its content, the message repeats only keys and the names of tags.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.yaml").write_text("a: [1, 1e-3, on, '${b}']")
    ...     read_yaml(Path(folder, "a.yaml"))
    {'a': [1, 0.001, True, '${b}']}
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the path of a YAML configuration")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a YAML configuration")
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ConfigError(f"{path}: has {size} bytes; a YAML configuration has at most {MAX_BYTES}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}), so it is not valid YAML") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    content = parse_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no mapping of keys to values")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; `where` names it in messages. See `read_yaml`."""
    import yaml

    try:
        return _Builder(where).build(yaml.parse(text, Loader=_events_loader()))
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{where}: is not valid YAML ({_problem(error)})") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        reason = getattr(error, "reason", None) or "syntax error"
        raise ConfigError(f"{where}: is not valid YAML ({shorten(reason, 80)})") from error


def dump_plain_yaml(value: Mapping[str, Any]) -> str:
    """Return a mapping as YAML text, with its keys in their order; strings that look like other values are quoted.

    Args:
        value: plain values: mappings, lists and scalars.
    """
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent(dumper: Any, data: str) -> Any:
        return dumper.represent_scalar(f"{TAG}str", data, style="'" if _needs_quotes(data) else None)

    Dumper.add_representer(str, represent)
    Dumper.add_multi_representer(str, lambda dumper, data: represent(dumper, str(data)))
    Dumper.add_multi_representer(int, lambda dumper, data: dumper.represent_int(int(data)))
    Dumper.add_multi_representer(float, lambda dumper, data: dumper.represent_float(float(data)))
    return str(yaml.dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=Dumper))


def _needs_quotes(text: str) -> bool:
    """Return whether another reader could take a string for a boolean or a number."""
    if text in BOOLS:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _events_loader() -> Any:
    """Return PyYAML's loader, the one in C where it is installed."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _problem(error: Any) -> str:
    """Return a parser's message with the position, and without quotations of the file."""
    message = re.sub(r"'[^']*\w[^']*'|\"[^\"]*\"", "…", error.problem or error.context or "syntax error")
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{shorten(message, 100)}{place}"


class _Builder:
    """Build plain values from the events of a parser, without recursion.

    The lists and mappings that are not complete yet are on a stack (`_open`). For `a: [1, 2]` the events are

        mapping starts, scalar "a", sequence starts, scalar 1, scalar 2, sequence ends, mapping ends

    Every node counts towards `MAX_NODES`; an alias counts for all nodes of its anchor, because it is copied.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._nodes = 0
        # Name -> value, and the number of nodes in it; `None` while it is being built.
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._open: list[_OpenNode] = []

    def build(self, events: Any) -> Any:
        """Return the value of the only document."""
        import yaml

        documents, result = 0, None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.error("a second document begins here; one is needed", event)
            elif isinstance(event, yaml.ScalarEvent):
                value = self._scalar(event)
                self._note(event.anchor, value, 1, event)
                result = self._put(value, event)
            elif isinstance(event, yaml.AliasEvent):
                result = self._put(self._alias(event), event)
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                self._begin(event)
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                ended = self._open.pop()
                value = ended.finish(self, event)
                if ended.anchor:
                    self._anchors[ended.anchor] = value, self._nodes - ended.nodes_before
                result = self._put(value, event)
        return result

    def _begin(self, event: Any) -> None:
        """Open a list or mapping."""
        import yaml

        self._count(1, event)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{TAG}map" if is_mapping else f"{TAG}seq"):
            raise self._tag_error(event)
        if len(self._open) >= MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} lists and mappings lie within each other", event)
        if self._open and self._open[-1].awaits_key:
            raise self.error("a list or mapping is a key; keys are strings", event)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_OpenNode(is_mapping, event.anchor, self._nodes - 1))

    def _put(self, value: Any, event: Any) -> Any:
        """Add a complete value to the innermost open list or mapping, if there is one."""
        if self._open:
            self._open[-1].add(value, self, event)
        return value

    def _note(self, anchor: str | None, value: Any, nodes: int, event: Any) -> None:
        """Count the nodes of a value, and store it under its anchor."""
        self._count(nodes, event)
        if anchor:
            self._anchors[anchor] = value, nodes

    def _alias(self, event: Any) -> Any:
        """Return a copy of the value of an anchor."""
        if event.anchor not in self._anchors:
            raise self.error("an alias refers to no anchor", event)
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise self.error("an alias refers to the list or mapping that contains it", event)
        value, nodes = anchored
        self._count(nodes, event)
        return _copy(value)

    def _count(self, nodes: int, event: Any) -> None:
        """Count nodes, and refuse more than `MAX_NODES`."""
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self.error(f"the file has more than {MAX_NODES} keys and values up to here", event)

    def _scalar(self, event: Any) -> Any:
        """Return the value of a scalar, by its tag, its quotes or its form."""
        text, tag, plain = event.value, event.tag, event.implicit[0]
        if tag in (f"{TAG}str", "!") or (tag is None and not plain):
            return text
        if tag is None:
            if text == "<<":
                return _MERGE
            tag = _implicit(text)
        try:
            if tag == f"{TAG}null":
                return None
            if tag == f"{TAG}bool":
                return BOOLS[text if text in BOOLS else text.lower()]
            if tag == f"{TAG}int":
                return self._integer(text, event)
            if tag == f"{TAG}float":
                return self._float(text, event)
        except ConfigError:
            raise
        except (ValueError, KeyError, OverflowError) as error:
            raise self.error(f"this is not a valid {tag.removeprefix(TAG)}", event) from error
        if tag == f"{TAG}str":
            return text
        raise self._tag_error(event)

    def _integer(self, text: str, event: Any) -> int:
        """Return the integer of a decimal, binary, octal, hexadecimal or sexagesimal (`1:30`) scalar."""
        digits = text.replace("_", "")
        sign = -1 if digits.startswith("-") else 1
        digits = digits.lstrip("+-")
        if len(digits) > 80:
            raise self.error(f"an integer of {len(digits)} digits", event)
        if ":" in digits:
            value = 0
            for part in digits.split(":"):
                value = 60 * value + int(part)
        elif digits[:2] in ("0b", "0x"):
            value = int(digits[2:], 2 if digits[1] == "b" else 16)
        else:
            value = int(digits, 8) if digits.startswith("0") and len(digits) > 1 else int(digits)
        if value >= 2**63:
            raise self.error("an integer above 9223372036854775807", event)
        return sign * value

    def _float(self, text: str, event: Any) -> float:
        """Return the number of a decimal or sexagesimal scalar; infinity is allowed, NaN is not."""
        digits = text.replace("_", "").lower()
        if digits == ".nan":
            raise self.error("nan is not a number", event)
        sign = -1.0 if digits.startswith("-") else 1.0
        digits = digits.lstrip("+-")
        if digits == ".inf":
            return sign * math.inf
        value = 0.0
        for part in digits.split(":"):
            value = 60 * value + float(part)
        return sign * value

    def _tag_error(self, event: Any) -> ConfigError:
        tag = str(event.tag).replace(TAG, "!!")
        return self.error(
            f"the tag {shorten(tag, 60)} is not allowed; only strings, numbers, true, false and null are values", event
        )

    def error(self, problem: str, event: Any) -> ConfigError:
        """Return an error that names the position of an event."""
        mark = event.start_mark
        return ConfigError(f"{self._where}: line {mark.line + 1}, column {mark.column + 1}: {problem}")


class _OpenNode:
    """List or mapping that is not complete yet."""

    def __init__(self, is_mapping: bool, anchor: str | None, nodes_before: int) -> None:
        self.anchor, self.nodes_before = anchor, nodes_before
        self._items: list[Any] | None = None if is_mapping else []
        self._mapping: dict[Any, Any] = {}
        self._merged: list[dict[Any, Any]] = []
        self._key: Any = _NONE

    @property
    def awaits_key(self) -> bool:
        """True if the next value is a key."""
        return self._items is None and self._key is _NONE

    def add(self, value: Any, builder: _Builder, event: Any) -> None:
        """Add the next item of a list, or the next key or value of a mapping."""
        if self._items is not None:
            self._items.append("<<" if value is _MERGE else value)
        elif self._key is _NONE:
            self._key = value if value is _MERGE else self._checked(value, builder, event)
        else:
            key, self._key = self._key, _NONE
            if key is _MERGE:
                self._merge(value, builder, event)
            else:
                self._mapping[key] = "<<" if value is _MERGE else value

    def finish(self, builder: _Builder, event: Any) -> Any:
        """Return the complete list or mapping; a mapping's keys override those of mappings merged by `<<`."""
        if self._items is not None:
            return self._items
        merged: dict[Any, Any] = {}
        for mapping in reversed(self._merged):
            merged |= mapping
        return {**merged, **self._mapping} if merged else self._mapping

    def _checked(self, key: Any, builder: _Builder, event: Any) -> Any:
        if key is None or isinstance(key, (list, dict)):
            raise builder.error("a key is null, a list or a mapping; keys are strings", event)
        if key in self._mapping:
            raise builder.error(f"the key {shorten(key, 60)!r} appears twice (duplicate key)", event)
        return key

    def _merge(self, value: Any, builder: _Builder, event: Any) -> None:
        for mapping in value if isinstance(value, list) else [value]:
            if not isinstance(mapping, dict):
                raise builder.error("'<<' merges mappings, and this is not one", event)
            self._merged.append(mapping)


_MERGE: Any = object()
_NONE: Any = object()


def _implicit(text: str) -> str:
    """Return the tag of a plain (unquoted) scalar."""
    if text in NULLS:
        return f"{TAG}null"
    if text in READ_AS_BOOL:
        return f"{TAG}bool"
    # The first character rules out most long strings before the regular expressions read them.
    if text[:1] in "-+.0123456789":
        if FLOAT.fullmatch(text):
            return f"{TAG}float"
        if INTEGER.fullmatch(text):
            return f"{TAG}int"
    return f"{TAG}str"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
