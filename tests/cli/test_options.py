"""Endings that commands share."""

from __future__ import annotations

import pytest

from wesep_py.cli.options import report_absent
from wesep_py.common.errors import TargetAbsentError


@pytest.mark.parametrize("lines", [[], ["anna is not in it"], ["anna is not in it", "bert is not in it"]])
def test_some_absent_voices_are_printed(lines: list[str], capsys: pytest.CaptureFixture[str]):
    report_absent(lines, all_absent=False)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == lines and not printed.out


def test_if_all_voices_are_absent_the_last_ends_the_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(TargetAbsentError, match=r"^bert is not in it$"):
        report_absent(["anna is not in it", "bert is not in it"], all_absent=True)
    assert capsys.readouterr().err == "anna is not in it\n"
