"""Names of a package that are imported when they are first used, so that importing the package stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, module_of: Mapping[str, str], names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: `__name__` of the package.
        module_of: for each name the module, inside the package, that it is imported from.
        names: all public names, `__all__`.

    >>> get_name, list_names = lazy_names("wesep_py.common", {"quoted": "errors"}, ["quoted"])
    >>> get_name("quoted")(1), list_names()
    ('1', ['quoted'])
    """

    def get_name(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return get_name, lambda: sorted(names)
