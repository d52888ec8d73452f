"""Where Python looks for modules: never in the current folder, where anybody's files may lie.

Imports nothing that is not loaded already, since it runs before the path is safe.
"""

from __future__ import annotations

import os
import sys

_HOME = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))  # noqa: PTH100, PTH118, PTH120
"""The folder that this package lies in."""


def safe_path() -> list[str]:
    """`sys.path` without the current folder, unless this package, or the script that runs, lies there."""
    entries = [entry for entry in sys.path if isinstance(entry, str)]  # as Python does, which passes others over
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # it was removed
        return [entry for entry in entries if entry]
    # A script's own folder is on its path by its user's will, and worker processes run the script's beginning again.
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None
    if here == _HOME or (script and here == os.path.dirname(os.path.realpath(script))):  # noqa: PTH120
        return [entry or here for entry in entries]
    return [entry for entry in entries if entry and os.path.realpath(entry) != here]


def leave_out_current_folder() -> None:
    """Make the path of this process safe where a command is run as `python -m wesep_py.cli…`."""
    words = list(sys.orig_argv)
    if "-m" in words and "".join(words[words.index("-m") + 1 :][:1]).startswith("wesep_py.cli"):
        sys.path[:] = safe_path()
