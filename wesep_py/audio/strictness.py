"""What happens with a recording that is not as its header says: a warning, or, strictly, an error.

One setting for a process and those that it starts: the environment variable `WESEP_STRICT`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from wesep_py.errors import AudioError

logger = logging.getLogger("wesep_py.audio")

VARIABLE = "WESEP_STRICT"
_MOST_REMEMBERED = 1 << 16
_told: set[tuple[object, ...]] = set()
_lock = threading.Lock()


def is_strict() -> bool:
    """True if a recording that ends early, or holds more than its header says, is refused."""
    return os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no")


@contextmanager
def strict_reading(enabled: bool = True) -> Iterator[None]:
    """Refuse, inside the block, recordings that are not as their headers say; `False` leaves the setting as it is.

    >>> with strict_reading():
    ...     is_strict()
    True
    """
    if not enabled:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def tell(name: str, fault: str, identity: tuple[object, ...] = ()) -> None:
    """Warn of what is wrong with a recording, once for each file and fault.

    Args:
        name: of the recording.
        fault: the end of a sentence that begins with the name.
        identity: what tells a file from an earlier one of the same name: its size and time.

    Raises:
        AudioError: `is_strict`.
    """
    if is_strict():
        raise AudioError(f"{name}: {fault}; get a whole copy of the file, or leave out --strict")
    with _lock:
        key = (name, fault, *identity)
        if key in _told:
            return
        if len(_told) >= _MOST_REMEMBERED:
            _told.clear()
        _told.add(key)
    logger.warning("%s: %s", name, fault)
