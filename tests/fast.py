"""Plugin of pytest for `make test-fast`: leave out the tests that took long when the suite was last recorded.

    python -m pytest -p tests.fast                     # without the tests in `slower_tests.txt`
    python -m pytest -p tests.fast --record-slower     # all tests; writes the list anew (`make test-slower-list`)

The list holds test functions (all cases of one together) and the seconds that they took. New tests are not in the list,
so they run.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("slower_tests.txt")
MIN_SECONDS = 0.1
"""Functions that take less are not listed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that records."""
    parser.addoption("--record-slower", action="store_true", help=f"write {LIST.name} anew")


def function_of(nodeid: str) -> str:
    """Return the test function of a test: its id without the parameters.

    >>> function_of("tests/test_config.py::test_a_key[1-2]")
    'tests/test_config.py::test_a_key'
    """
    return nodeid.partition("[")[0]


def read_list() -> dict[str, float]:
    """Return the seconds of every listed function."""
    lines = LIST.read_text(encoding="utf-8").splitlines() if LIST.is_file() else []
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {function: float(seconds) for seconds, function in rows}


def pytest_configure(config: pytest.Config) -> None:
    """Register the recorder where it is asked for; the processes of xdist report to this one."""
    if config.getoption("--record-slower") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the listed functions."""
    if config.getoption("--record-slower"):
        return
    slower = read_list()
    left_out = [item for item in items if function_of(item.nodeid) in slower]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if function_of(item.nodeid) not in slower]


class Recorder:
    """Adds up what each function takes, fixtures included, and writes the list."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count setup, call and teardown."""
        self._seconds[function_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write the list, sorted by name."""
        rows = sorted((function, seconds) for function, seconds in self._seconds.items() if seconds >= MIN_SECONDS)
        lines = ["# Seconds and name of the test functions that `make test-fast` leaves out; made by tests/fast.py."]
        lines += [f"{seconds:.1f} {function}" for function, seconds in rows]
        LIST.write_text("\n".join(lines) + "\n", encoding="utf-8")
