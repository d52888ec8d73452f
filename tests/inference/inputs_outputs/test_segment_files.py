"""Files of segments: their samples, names and list, from blocks of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.common.errors import InputError
from wesep_py.inference.inputs_outputs.segment_files import (
    LIST_NAME,
    SegmentFile,
    SegmentWriter,
    listed_files,
    segment_files,
    write_segment_list,
)
from wesep_py.inference.inputs_outputs.timeline import SpeechSegment, Timeline


def timeline() -> Timeline:
    segments = (SpeechSegment(0.1, 0.25, 0.9), SpeechSegment(0.3, 0.4), SpeechSegment(0.8, 1.0))
    return Timeline("alice", 1.0, segments, "presence")


@pytest.mark.parametrize("step", [37, 800, 8000])
def test_each_segment_has_its_samples(step: int, tmp_path: Path):
    voice = np.random.default_rng(0).uniform(-1, 1, (2, 8000)).astype(np.float32)
    files = segment_files(tmp_path, timeline(), 8000, 8000, ".wav")
    with SegmentWriter(files, lambda path: audio.AudioWriter(path, 8000, 2)) as writer:
        for begin in range(0, 8000, step):
            writer.write(voice[:, begin : begin + step])
    assert [file.path.name for file in files] == [
        "alice_00000.100-00000.250.wav",
        "alice_00000.300-00000.400.wav",
        "alice_00000.800-00001.000.wav",
    ]
    for file in files:
        np.testing.assert_array_equal(audio.read(file.path)[0], voice[:, file.start : file.stop])


def test_the_list_names_files_and_times(tmp_path: Path):
    files = segment_files(tmp_path, timeline(), 8000, 8000, ".flac")
    write_segment_list(tmp_path, "meeting.wav", [timeline()], [files])
    lines = (tmp_path / LIST_NAME).read_text().splitlines()
    assert lines[0] == "file,target,start_s,end_s,duration_s,probability,recording"
    assert lines[1] == "alice_00000.100-00000.250.flac,alice,0.100,0.250,0.150,0.9000,meeting.wav" and len(lines) == 4
    assert listed_files(tmp_path) == []
    files[1].path.touch()
    assert listed_files(tmp_path) == [files[1].path]
    (tmp_path / LIST_NAME).write_text("name,phone\n")
    with pytest.raises(InputError, match="is no list of segments"):
        listed_files(tmp_path)


def test_an_error_leaves_no_unfinished_segment(tmp_path: Path):
    file = SegmentFile(tmp_path / "a.wav", 10, 100)
    with pytest.raises(RuntimeError), SegmentWriter([file], lambda path: audio.AudioWriter(path, 8000, 1)) as writer:
        writer.write(np.zeros((1, 50), np.float32))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
