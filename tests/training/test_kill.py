"""A run that is killed while it saves: whatever was written by then, it goes on, to the same end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training.runs import assert_same, weights
from wesep_py.training import train
from wesep_py.training.state import load_state

RENAMES_OF_A_SAVE = 9
"""Snapshot; three files and two folders of `checkpoints/last`; `next.pt`, `previous.pt`, `last.pt`."""


def die_at(rename: int) -> None:
    """End this process, without any clean-up, before its rename of that number from now on."""
    count = 0
    for name in ("replace", "rename"):
        original = getattr(Path, name)

        def counted(self, target, original=original):
            nonlocal count
            if str(self).rpartition("/")[2].startswith(
                (".step", "next", "last", ".last", ".next")
            ) or "checkpoints" in str(self):
                count += 1
                if count == rename:
                    os._exit(9)
            return original(self, target)

        setattr(Path, name, counted)


@pytest.mark.parametrize("rename", [RENAMES_OF_A_SAVE + 1, RENAMES_OF_A_SAVE + 6, RENAMES_OF_A_SAVE + 9])
def test_killed_while_saving(settings, tmp_path: Path, rename: int):
    """In the second save, after step 4: the first, after step 2, is what must be left at least."""
    train(settings(experiment=str(tmp_path / "unbroken")))
    child = os.fork()
    if child == 0:
        die_at(rename)
        train(settings())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert load_state(tmp_path / "exp" / "state").progress.step >= 2
    assert train(settings()).step == 6
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    assert_same(weights(tmp_path / "unbroken", "average"), weights(tmp_path / "exp", "average"))
