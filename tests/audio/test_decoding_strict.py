"""A recording that is not as its header says: one warning, or an error in strict reading."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio
from wesep_py.audio.decoding import STRICT_VARIABLE, is_strict, report_fault, strict_reading
from wesep_py.audio.reading import decode_audio
from wesep_py.common.errors import AudioError
from wesep_py.data.reader import measure_durations


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    path = tmp_path / "cut.wav"
    soundfile.write(path, np.full(1000, 0.5), 16000)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_strict_reading_holds_inside_its_block(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(STRICT_VARIABLE, raising=False)
    with strict_reading(False):
        assert not is_strict()
    with strict_reading():
        assert is_strict() and os.environ[STRICT_VARIABLE] == "1"
        with strict_reading(False):
            assert is_strict()
    assert not is_strict() and STRICT_VARIABLE not in os.environ
    monkeypatch.setenv(STRICT_VARIABLE, "0")
    with strict_reading():
        assert is_strict()
    assert os.environ[STRICT_VARIABLE] == "0" and not is_strict()


def test_a_fault_is_reported_once_per_file(caplog):
    for _ in range(3):
        report_fault("a.wav", "is cut short", (1,))
    report_fault("a.wav", "is cut short", (2,))
    assert caplog.messages == ["a.wav: is cut short"] * 2


def test_strict_reading_refuses_in_every_function(cut: Path):
    assert audio.info(cut).num_samples == 900
    with strict_reading():
        for act in (audio.info, audio.read, lambda path: decode_audio(path.read_bytes(), str(path))):
            with pytest.raises(AudioError, match=r"cut\.wav: is cut short.*get a whole copy"):
                act(cut)


def test_durations_omit_faulty_files_in_strict_reading(cut: Path, caplog):
    left_out: list[str] = []
    assert measure_durations([cut], lambda _, why: left_out.append(why)) == {cut: 900 / 16000}
    assert len(caplog.messages) == 1 and left_out == []
    with strict_reading():
        assert measure_durations([cut], lambda _, why: left_out.append(why)) == {}
    assert len(left_out) == 1 and left_out[0].startswith(f"{cut}: is cut short")
