"""Configurations: read YAML files, and build objects from them with every key and value checked.

A configuration is a mapping whose keys are the arguments of the object that it builds. `construct` checks every key,
type and choice against the signature of a class or a dataclass: a misspelt key is an error, and no key is ignored.
`load_yaml` reads a user's file with what it includes and interpolates, and applies overrides of the command line:

    included files  ─►  the file  ─►  key=value …  ─►  ${other.key}, ${oc.env:NAME}
    (lowest)            each step overrides the one before it
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


# Reading.


def load_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a user's YAML file, with includes and interpolations resolved, as plain Python values.

    A model's configuration is read by `yamlfiles.read_yaml` instead, which resolves neither.

    Args:
        path: the file. Its key `include: [a.yaml, model/b.yaml]` lists files whose values it overrides, the later
            ones overriding the earlier ones; each is looked up beside the file, then among the building blocks in
            `conf/`. A mapping in the file may have the key `include` too, and overrides what it includes.
        overrides: `key.sub=value`, applied last.

    Raises:
        ConfigError: a missing file, a syntax error, an include that cannot be found, a malformed override.
    """
    merged = _read(Path(path), ())
    # Merge the overrides with each other first, so that a later `key=???` cancels an earlier `key=value`.
    overriding = functools.reduce(_merged, map(_parse_override, overrides), {})
    return _interpolated(_overridden(merged, overriding), path)


def _read(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file with its includes; `parents` are the files that include it."""
    if path.resolve() in parents:
        raise ConfigError(f"{path}: includes itself, through {' > '.join(p.name for p in parents)}")
    if len(parents) > MAX_DEPTH:
        raise ConfigError(f"{path}: more than {MAX_DEPTH} files include each other")
    return _with_includes(read_yaml(path), path, (*parents, path.resolve()))


def _with_includes(mapping: Any, path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    """Return a mapping over what it includes, and so for each mapping in it."""
    includes = mapping.pop("include", [])
    mapping = {
        key: _with_includes(value, path, parents) if isinstance(value, dict) else value
        for key, value in mapping.items()
    }
    names = [includes] if isinstance(includes, str) else includes
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: include: is {shorten(repr(includes), 60)}; a file or a list of files is needed")
    return functools.reduce(_overridden, [*(_read(_find(name, path), parents) for name in names), mapping])


def _find(name: str, includer: Path) -> Path:
    """Return the file that another file includes by a name."""
    for folder in (includer.parent, conf_folder()):
        if (folder / name).is_file():
            return folder / name
    blocks = (str(p.relative_to(conf_folder())) for p in conf_folder().rglob("*.yaml"))
    raise ConfigError(f"{includer}: include {shorten(name)!r} was not found; {nearest(name, blocks)}")


def _overridden(base: Any, overriding: Any) -> Any:
    """Merge as `_merged`, but let `???` (a value that is still missing) keep the value of `base`."""
    if isinstance(base, dict) and isinstance(overriding, dict):
        return base | {key: _overridden(base.get(key), value) for key, value in overriding.items()}
    return base if overriding == "???" and base is not None else overriding


def _merged(base: Any, overriding: Any) -> Any:
    """Merge mappings key by key; any other value replaces that of `base`."""
    if isinstance(base, dict) and isinstance(overriding, dict):
        return base | {key: _merged(base[key], value) if key in base else value for key, value in overriding.items()}
    return overriding


def _parse_override(override: str) -> dict[str, Any]:
    """Return `a.b=1`, or `a[b]=1`, as `{"a": {"b": 1}}`."""
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
    """Replace `${other.key}` and `${oc.env:NAME}` by their values."""
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
    """Return whether a value contains an interpolation; OmegaConf is imported only then."""
    if isinstance(value, dict):
        return any(map(_interpolates, value.values()))
    return any(map(_interpolates, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


def conf_folder() -> Path:
    """Return the folder of YAML building blocks: inside an installed wheel, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


# Building.


def construct(target: Callable[..., T], mapping: Mapping[str, Any] | None, where: str = "", **given: Any) -> T:
    """Call `target` with the values of a mapping as arguments, each checked against its annotation.

    Args:
        target: a class, dataclass or function with annotated arguments. An argument annotated with a dataclass
            takes a mapping, from which that dataclass is constructed.
        mapping: the values; `None` is an empty mapping.
        where: key of the mapping in the whole configuration, for messages: `"optim"`.
        given: arguments that the program passes itself; they are not part of the configuration.

    Returns:
        The return value of `target`.

    Raises:
        ConfigError: an unknown key (the message suggests the nearest known one), a missing key, a wrong type, a value
            that is not among the choices, or a `ValueError` of `target`.

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
        arguments[key] = check_value(value, hints.get(key, Any), place)
    for name in allowed - set(arguments):
        if parameters[name].default is inspect.Parameter.empty:
            raise ConfigError(f"{where + '.' if where else ''}{name}: is required but missing")
    try:
        return target(**arguments, **given)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where + ': ' if where else ''}{error}") from error


def check_value(value: Any, annotation: Any, where: str) -> Any:
    """Return a value of the annotated type, converted if necessary (int to float, list to tuple, string to Path).

    Raises:
        ConfigError: the value does not have the annotated type.
    """
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
    expected = dict if (origin in (dict, Mapping) or annotation is Mapping) else (origin or annotation)
    if expected is Path and isinstance(value, str):
        return Path(value)
    # bool is a subclass of int, but `true` is no number in YAML.
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(f"{where}: is {_show(value)}; {_name_of_type(annotation)} is needed")
    return value


def _check_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    """Return a value as the first type of a union that it has."""
    if value is None and type(None) in choices:
        return None
    types_allowed = [choice for choice in choices if choice is not type(None)]
    if len(types_allowed) == 1:
        return check_value(value, types_allowed[0], where)
    for choice in types_allowed:
        try:
            return check_value(value, choice, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where}: is {_show(value)}; {' or '.join(map(_name_of_type, types_allowed))} is needed")


def _check_items(value: Sequence[Any], origin: Any, inner: tuple[Any, ...], where: str) -> Any:
    """Return a list or tuple with its items checked."""
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise ConfigError(f"{where}: has {len(value)} values; {len(inner)} are needed")
        return tuple(
            check_value(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, inner, strict=True))
        )
    kind = inner[0] if inner else Any
    items = [check_value(item, kind, f"{where}[{i}]") for i, item in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable, by name."""
    return {n: p for n, p in inspect.signature(target).parameters.items() if n != "self"}


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable's parameters, by name."""
    plain_class = inspect.isclass(target) and not dataclasses.is_dataclass(target)
    return typing.get_type_hints(target.__init__ if plain_class else target)  # type: ignore[misc]


def _show(value: Any) -> str:
    """Return the `repr` of a value, shortened; of a long collection only the type and the length."""
    if isinstance(value, (Mapping, list, tuple)) and len(value) > 20:
        return f"a {'mapping' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"an integer of {value.bit_length()} bits"
    return shorten(repr(value), 80)


def _name_of_type(annotation: Any) -> str:
    """Return an annotation in words, for messages."""
    names = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        bool: "true or false",
        dict: "a mapping of keys to values",
        Path: "a path",
        list: "a list",
        tuple: "a list",
    }
    plain = typing.get_origin(annotation) or annotation
    return names.get(plain, getattr(plain, "__name__", str(plain)))


# Writing.


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Return a mapping as YAML text, with its keys in their order; tuples become lists."""
    return yamlfiles.dump_plain_yaml(to_plain(value))


def to_plain(value: Any) -> Any:
    """Convert dataclasses, tuples and paths, at any depth, to dictionaries, lists and strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# Checks of values, for `__post_init__`: `construct` adds the key to the message.


def at_least(least: int, values: Mapping[str, float], hint: str = "") -> None:
    """Refuse values below `least`.

    Args:
        least: the lowest value that is allowed.
        values: the values by name.
        hint: what the user can do.

    Raises:
        ValueError: names the first value that is below.

    >>> at_least(1, {"steps": 10, "batch_size": 0})
    Traceback (most recent call last):
    ValueError: batch_size is 0; it must be at least 1
    """
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}{f' ({hint})' if hint else ''}")


def positive(values: Mapping[str, float]) -> None:
    """Refuse values that are not above 0.

    Args:
        values: the values by name.

    Raises:
        ValueError: names the first value that is not.

    >>> positive({"lr": 0.0})
    Traceback (most recent call last):
    ValueError: lr is 0.0; it must be above 0
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0")
