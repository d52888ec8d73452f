"""Names in a configuration, and the classes they stand for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from wesep_py.config import construct
from wesep_py.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind (backbones, cues, …) under the names that configurations use.

    A name may also be `module:Class` or `path/to/file.py:Class`, for classes outside the package.

    >>> shapes = Registry("shape")
    >>> @shapes.register("circle")
    ... class Circle:
    ...     def __init__(self, radius: float = 1.0): self.radius = radius
    >>> shapes.build({"name": "circle", "radius": 2}, where="shape").radius
    2.0
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Class decorator: enter the class under `name`."""

        def enter(cls: Callable[..., T]) -> Callable[..., T]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._classes)

    def get(self, name: str, where: str = "") -> Callable[..., T]:
        """The class that `name` stands for.

        Raises:
            ConfigError: no such name; the message lists the names there are.
        """
        if name in self._classes:
            return self._classes[name]
        if ":" in name:
            return _import(name, where or self.kind)
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}no {self.kind} is called {name!r}; {nearest(name, self._classes)}")

    def build(self, mapping: Mapping[str, Any], where: str, **given: Any) -> T:
        """An instance from `{"name": …, argument: value, …}`, every argument checked (`config.construct`).

        Arguments in `given` come from the program, not from the configuration.
        """
        if "name" not in mapping:
            raise ConfigError(f"{where}: needs a key 'name'; {nearest('', self._classes)}")
        arguments = {key: value for key, value in mapping.items() if key != "name"}
        return construct(self.get(str(mapping["name"]), where), arguments, where, **given)


def _import(name: str, where: str) -> Callable[..., Any]:
    module_name, _, attribute = name.rpartition(":")
    try:
        if module_name.endswith(".py"):
            path = Path(module_name).resolve()
            module_name = f"wesep_py_plugin_{path.stem}"
            if module_name not in sys.modules:
                spec = importlib.util.spec_from_file_location(module_name, path)
                assert spec is not None and spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                sys.modules[module_name] = module
                spec.loader.exec_module(module)
            module = sys.modules[module_name]
        else:
            module = importlib.import_module(module_name)
    except (ImportError, FileNotFoundError) as error:
        raise ConfigError(f"{where}: {name!r} cannot be imported ({error})") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(f"{where}: {module_name} has no class {attribute!r}; {nearest(attribute, classes)}")
    return found
