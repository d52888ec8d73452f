"""Registries: the classes (backbones, cues, losses, …) that a configuration chooses by name.

A configuration that a user wrote may also name a class of the user's own, `module:Class` or `path/to/file.py:Class`.
One that came with a checkpoint may not (`no_plugins`), because reading a model must not run code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError, nearest, shorten

T = TypeVar("T")

TRUST_VARIABLE = "WESEP_PLUGINS"
"""Environment variable: if it is 1, a checkpoint's configuration may name classes outside the package."""

_plugins_allowed: ContextVar[bool] = ContextVar("plugins_allowed", default=True)


@contextmanager
def no_plugins() -> Iterator[None]:
    """Allow only registered names inside the block, unless `WESEP_PLUGINS=1`; for configurations of unknown origin."""
    token = _plugins_allowed.set(os.environ.get(TRUST_VARIABLE) == "1")
    try:
        yield
    finally:
        _plugins_allowed.reset(token)


def is_untrusted() -> bool:
    """True inside a block of `no_plugins`: the configuration comes from elsewhere, and may name no files."""
    return not _plugins_allowed.get()


class Registry(Generic[T]):
    """Classes of one kind (backbones, cues, …) by the names that configurations use.

    A name may also be `module:Class` or `path/to/file.py:Class`, for classes outside the package.

    Args:
        kind: the kind of class, for messages.
        base: the base class that every class of the registry has; `None` for any.

    >>> shapes = Registry("shape")
    >>> @shapes.register("circle")
    ... class Circle:
    ...     def __init__(self, radius: float = 1.0): self.radius = radius
    >>> shapes.build({"name": "circle", "radius": 2}, where="shape").radius
    2.0
    """

    def __init__(self, kind: str, base: type | None = None) -> None:
        self.kind, self.base = kind, base
        self._classes: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Return a class decorator that registers the class under `name`."""

        def enter(cls: Callable[..., T]) -> Callable[..., T]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._classes)

    def get(self, name: str, where: str = "") -> Callable[..., T]:
        """Return the class of a name.

        Raises:
            ConfigError: an unknown name (the message lists the known ones), or a class outside the package that is
                not allowed, not found or not derived from the base class.
        """
        if name in self._classes:
            return self._classes[name]
        if ":" in name:
            return self._outside(name, where or self.kind)
        place = f"{where}: " if where else ""
        raise ConfigError(
            f"{place}no {self.kind} is called {shorten(name, 60)!r}; {nearest(shorten(name, 60), self._classes)}"
        )

    def build(self, mapping: Mapping[str, Any], where: str, **given: Any) -> T:
        """Build an instance from `{"name": …, argument: value, …}`, with every argument checked (`config.construct`).

        Arguments in `given` come from the program, not from the configuration.
        """
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"{where}: is {shorten(repr(mapping), 60)}; a mapping with a key 'name' is needed")
        if "name" not in mapping:
            raise ConfigError(f"{where}: needs a key 'name'; {nearest('', self._classes)}")
        arguments = {key: value for key, value in mapping.items() if key != "name"}
        return construct(self.get(str(mapping["name"]), where), arguments, where, **given)

    def _outside(self, name: str, where: str) -> Callable[..., T]:
        """Return a class outside the package, if such classes are allowed."""
        if not _plugins_allowed.get():
            raise ConfigError(
                f"{where}: {shorten(name)!r} is code outside this package, which is not run unasked; if "
                f"you trust it, set the environment variable {TRUST_VARIABLE}=1"
            )
        module, attribute = _import(name, where), name.rpartition(":")[2]
        plugin = getattr(module, attribute, None)
        classes = {key: value for key, value in vars(module).items() if self._is_of_this_kind(value)}
        if not inspect.isclass(plugin):
            raise ConfigError(f"{where}: {module.__name__} has no class {attribute!r}; {nearest(attribute, classes)}")
        if not self._is_of_this_kind(plugin):
            base = "" if self.base is None else self.base.__name__
            raise ConfigError(f"{where}: {name!r} is no {self.kind}; derive it from {base}")
        return typing.cast("Callable[..., T]", plugin)

    def _is_of_this_kind(self, value: Any) -> bool:
        return inspect.isclass(value) and (self.base is None or issubclass(value, self.base))


def _import(name: str, where: str) -> ModuleType:
    """Import the module of `module:Class` or `file.py:Class`; a file is run once, under a name made of its path."""
    module_name = name.rpartition(":")[0]
    path = Path(module_name).resolve()
    file_module = f"wesep_py_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    try:
        if not module_name.endswith(".py"):
            return importlib.import_module(module_name)
        if file_module not in sys.modules:
            spec = importlib.util.spec_from_file_location(file_module, path)
            assert spec is not None and spec.loader is not None
            sys.modules[file_module] = module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[file_module]
                raise
        return sys.modules[file_module]
    except (ImportError, FileNotFoundError, SyntaxError) as error:
        raise ConfigError(f"{where}: {name!r} cannot be imported ({error})") from error
