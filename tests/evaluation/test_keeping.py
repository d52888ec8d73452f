"""Where the audio of a trial is saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.evaluation.results import TrialRecord, audio_folder


@pytest.mark.parametrize("name", ["/elsewhere/evil", "../../evil", "nu\0l", "x" * 400, "a/b"])
def test_ids_never_leave_the_folder(name: str):
    for record in (TrialRecord(name, "t", "e.wav", number=3), TrialRecord("m", name, "e.wav", number=3)):
        folder = audio_folder(record)
        assert folder.startswith("0003_") and Path(folder).name == folder and len(folder) <= 255 and "\0" not in folder
    assert audio_folder(TrialRecord("m-1_n-2", "m-1", "e.wav", number=12)) == "0012_m-1_n-2_m-1"
