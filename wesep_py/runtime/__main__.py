"""Run the command line of the runtime."""

from __future__ import annotations

import sys

from wesep_py.runtime.runtime_command import main

if __name__ == "__main__":
    sys.exit(main())
