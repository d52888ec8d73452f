"""Python's module search path without the current folder, so that a file there (`socket.py`) is never imported.

This module imports only what the interpreter has loaded already, because it runs before the path is safe.
"""

from __future__ import annotations

import os
import sys

_PACKAGE_PARENT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))  # noqa: PTH100, PTH118, PTH120
"""The folder that contains this package."""


def safe_path() -> list[str]:
    """Return `sys.path` without the current folder, unless this package or the running script lies there."""
    entries = [entry for entry in sys.path if isinstance(entry, str)]  # Python ignores other entries, too
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # it was removed
        return [entry for entry in entries if entry]
    # A user who runs a script wants its folder on the path, and worker processes import that script again.
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None
    if here == _PACKAGE_PARENT or (script and here == os.path.dirname(os.path.realpath(script))):  # noqa: PTH120
        return [entry or here for entry in entries]
    return [entry for entry in entries if entry and os.path.realpath(entry) != here]


def leave_out_current_folder() -> None:
    """Remove the current folder from the path of this process if it runs `python -m wesep_py.cli…`."""
    words = list(sys.orig_argv)
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    if "".join(module).startswith("wesep_py.cli"):
        sys.path[:] = safe_path()
