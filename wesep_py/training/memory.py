"""Keeping memory between steps instead of returning it to the system and asking for it again."""

from __future__ import annotations

import ctypes
import platform

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell the GNU C library's malloc to keep what is freed.

    By default it maps every large tensor afresh and unmaps it when it is freed; each step on the CPU then pays for
    zeroed pages again: a quarter to a third of its processor time (`bench/training_step.py`).

    Returns:
        Whether it was done; false on systems with another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = 2**31 - 1
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: largest, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())
