"""Strict YAML: what a file says is checked, in full, against what the program reads.

A configuration is a mapping whose keys are the arguments of the things it builds. `construct` checks every key,
type and choice against the signature of a class or a dataclass, so that no key can be misspelt or go unread, and a
constructor's arguments are its configuration. `load_yaml` reads a file, the files it includes and overrides
from the command line.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wesep_py.common import yamlfiles
from wesep_py.common.errors import ConfigError, nearest, shorten
from wesep_py.common.yamlfiles import MAX_DEPTH, parse_yaml, read_yaml

T = TypeVar("T")


def load_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a user's YAML file, with what it includes and interpolates, as plain Python values.

    What comes with a model is read by `yamlfiles.read_yaml` instead, which does neither.

    Args:
        path: the file. Its key `include: [a.yaml, model/b.yaml]` names files that are merged beneath it, in
            order; each is looked for beside the file, then among the building blocks shipped in `conf/`. A mapping
            in the file may have one too: what is included lies beneath that mapping.
        overrides: `key.sub=value`, applied last.

    Raises:
        ConfigError: a missing file, a syntax error, an include that cannot be found, a malformed override.
    """
    merged = _read(Path(path), ())
    # The overrides first among themselves: a later `key=???` takes back what an earlier one said.
    above = functools.reduce(_merged, map(_parse_override, overrides), {})
    return _interpolated(_laid_over(merged, above), path)


def _parse_override(override: str) -> dict[str, Any]:
    """`a.b=1`, or `a[b]=1`, as `{"a": {"b": 1}}`."""
    key, equals, text = override.partition("=")
    names = re.sub(r"\[([^\[\]]*)\]", r".\1", key.strip()).split(".")
    if not equals or not all(names) or len(names) > MAX_DEPTH:
        raise ConfigError(f"override {shorten(override)!r}: give it as key=value, for example optim.lr=0.001")
    try:
        value = parse_yaml(text, "")
    except ConfigError as error:
        problem = str(error).removeprefix(": is not valid YAML (").removeprefix(": ").removesuffix(")")
        raise ConfigError(
            f"override {shorten(override)!r}: its value is not valid YAML ({problem}); "
            "put quotes around a name that holds { or [, as in 'data.train=[\"a/{0..9}.tar\"]'"
        ) from error
    for name in reversed(names):
        value = {name: value}
    return typing.cast("dict[str, Any]", value)


def _interpolated(plain: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The values with `${other.key}` and `${oc.env:NAME}` replaced."""
    if not _interpolates(plain):
        return plain
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        resolved = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: an interpolation failed ({shorten(str(error).partition(chr(10))[0])})") from error
    return typing.cast("dict[str, Any]", resolved)


def _interpolates(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_interpolates, value.values()))
    return any(map(_interpolates, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


def dump_yaml(value: Mapping[str, Any]) -> str:
    """The mapping as YAML text, keys in their order; tuples become lists."""
    return yamlfiles.dump_yaml(to_plain(value))


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths, at any depth, as dictionaries, lists and strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def conf_folder() -> Path:
    """The folder of shipped YAML building blocks: inside an installed wheel, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def construct(target: Callable[..., T], mapping: Mapping[str, Any] | None, where: str = "", **given: Any) -> T:
    """Call `target` with the mapping's values as arguments, each checked against its annotation.

    Args:
        target: a class, dataclass or function with annotated arguments. An argument annotated with a dataclass
            takes a mapping, which is constructed in turn.
        mapping: the values; `None` is an empty mapping.
        where: the key under which the mapping stands, for messages: `"optim"`.
        given: arguments that the program passes itself; they are not part of the configuration.

    Returns:
        What `target` returns.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a missing one, a wrong type, a value that
            is not among the choices, or a `ValueError` of the target itself.

    >>> @dataclasses.dataclass
    ... class Optim:
    ...     lr: float = 1e-3
    >>> construct(Optim, {"lr": 1}, "optim")
    Optim(lr=1.0)
    >>> construct(Optim, {"lrr": 1}, "optim")
    Traceback (most recent call last):
    wesep_py.common.errors.ConfigError: optim.lrr: unknown key; did you mean 'lr'? (allowed: lr)
    """
    if mapping is not None and not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or 'configuration'}: is {_show(mapping)}; a mapping of keys to values is needed")
    values = dict(mapping or {})
    parameters = _parameters(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    allowed = {
        name
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in given
    }
    hints = _hints(target)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{where}.{shorten(key, 60)}" if where else shorten(key, 60)
        if not isinstance(key, str) or (key not in allowed and not open_ended):
            raise ConfigError(f"{place}: unknown key; {nearest(shorten(key, 60), allowed)}")
        arguments[key] = check(value, hints.get(key, Any), place)
    for name in allowed - set(arguments):
        if parameters[name].default is inspect.Parameter.empty:
            raise ConfigError(f"{where + '.' if where else ''}{name}: is needed and missing")
    try:
        return target(**arguments, **given)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where + ': ' if where else ''}{error}") from error


def check(value: Any, annotation: Any, where: str) -> Any:
    """The value as its annotation wants it (an int where a float is asked becomes one), or a `ConfigError`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    if origin is typing.Literal:
        if value not in inner or (isinstance(value, bool) and value not in [i for i in inner if isinstance(i, bool)]):
            raise ConfigError(f"{where}: is {_show(value)}; {nearest(shorten(value, 60), map(str, inner))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _check_union(value, inner, where)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return value if isinstance(value, annotation) else construct(annotation, value, where)
    if origin in (list, tuple, Sequence) and isinstance(value, (list, tuple)):
        return _check_items(value, origin, inner, where)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{where}: is {_show(value)}; a smaller number is needed") from error
    if annotation is float and isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{where}: is not a number (nan)")
    wanted = dict if (origin in (dict, Mapping) or annotation is Mapping) else (origin or annotation)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    right = isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool)
    if not right:
        raise ConfigError(f"{where}: is {_show(value)}; {_spell(annotation)} is needed")
    return value


def _check_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return check(value, rest[0], where)
    for choice in rest:
        try:
            return check(value, choice, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where}: is {_show(value)}; {' or '.join(map(_spell, rest))} is needed")


def _check_items(value: Sequence[Any], origin: Any, inner: tuple[Any, ...], where: str) -> Any:
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise ConfigError(f"{where}: has {len(value)} values; {len(inner)} are needed")
        return tuple(
            check(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, inner, strict=True))
        )
    kind = inner[0] if inner else Any
    items = [check(item, kind, f"{where}[{i}]") for i, item in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(target).parameters.items() if n != "self"}


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    plain_class = inspect.isclass(target) and not dataclasses.is_dataclass(target)
    return typing.get_type_hints(target.__init__ if plain_class else target)  # type: ignore[misc]


def _show(value: Any) -> str:
    """The value as Python writes it, shortened; a long collection by its kind alone."""
    if isinstance(value, (Mapping, list, tuple)) and len(value) > 20:
        return f"a {'mapping' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"an integer of {value.bit_length()} bits"
    return shorten(repr(value), 80)


def _spell(annotation: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        dict: "a mapping of keys to values",
        Path: "a path",
        list: "a list",
        tuple: "a list",
    }
    plain = typing.get_origin(annotation) or annotation
    return names.get(plain, getattr(plain, "__name__", str(plain)))


def _read(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in parents:
        raise ConfigError(f"{path}: includes itself, through {' > '.join(p.name for p in parents)}")
    if len(parents) > MAX_DEPTH:
        raise ConfigError(f"{path}: more than {MAX_DEPTH} files include each other")
    return _with_includes(read_yaml(path), path, (*parents, path.resolve()))


def _with_includes(own: Any, path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping with what it, and each mapping in it, includes laid beneath."""
    includes = own.pop("include", [])
    own = {
        key: _with_includes(value, path, parents) if isinstance(value, dict) else value for key, value in own.items()
    }
    names = [includes] if isinstance(includes, str) else includes
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: include: is {shorten(repr(includes), 60)}; a file or a list of files is needed")
    return functools.reduce(_laid_over, [*(_read(_find(name, path), parents) for name in names), own])


def _merged(below: Any, above: Any) -> Any:
    """Mappings are merged key by key; anything else takes the place of what lay there."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _merged(below[key], value) if key in below else value for key, value in above.items()}
    return above


def _laid_over(below: Any, above: Any) -> Any:
    """Mappings are merged key by key; anything else takes the place of what lay there, unless it is missing (`???`)."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}
    return below if above == "???" and below is not None else above


def _find(name: str, includer: Path) -> Path:
    for folder in (includer.parent, conf_folder()):
        if (folder / name).is_file():
            return folder / name
    blocks = (str(p.relative_to(conf_folder())) for p in conf_folder().rglob("*.yaml"))
    raise ConfigError(f"{includer}: include {shorten(name)!r} was not found; {nearest(name, blocks)}")
