"""Target speaker extraction: one person's voice out of a recording in which people talk over each other.

>>> import wesep_py
>>> extractor = wesep_py.load("exp/speechocean762")        # doctest: +SKIP
>>> voice = extractor.enroll("alice.wav")                  # doctest: +SKIP
>>> extractor.extract("meeting.wav", voice).save("alice_only.wav")  # doctest: +SKIP

Importing the package loads neither torch nor numpy; the names below do so when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wesep_py.common.errors import WesepError
    from wesep_py.inference import Extractor, Result, Voice, load

_HOMES = {
    "Extractor": "wesep_py.inference",
    "Result": "wesep_py.inference",
    "Voice": "wesep_py.inference",
    "load": "wesep_py.inference",
    "WesepError": "wesep_py.common.errors",
}

__all__ = ["Extractor", "Result", "Voice", "WesepError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wesep_py' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
