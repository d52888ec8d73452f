"""One extraction of the page: progress, stopping and resuming, outputs of earlier runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from wesep_py import audio
from wesep_py.common.errors import InputError
from wesep_py.inference import Extractor, load
from wesep_py.ui.extraction_job import RESULTS, Done, ExtractionStopped, Step, extract_voices, steps_of
from wesep_py.ui.sessions import NamedVoice, Session


@pytest.fixture(scope="module")
def extractor(tiny_model: Path) -> Extractor:
    return load(tiny_model, "cpu")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A session with a mixture of 70 s, which is extracted in three blocks."""
    folder = tmp_path / "session"
    folder.mkdir()
    session = Session("token", folder)
    long = np.concatenate([make_voice(*VOICES["anna"], 17.5, seed) for seed in range(4)])
    audio.write(tmp_path / "long.wav", long + 0.01, SAMPLE_RATE, "PCM_16")
    session.mixture = session.take(tmp_path / "long.wav", "mixture")
    return session


def voice(session: Session, tmp_path: Path, name: str = "Anna") -> NamedVoice:
    path = tmp_path / f"{name}.wav"
    audio.write(path, make_voice(*VOICES["anna"], 3.0, 9), SAMPLE_RATE, overwrite=True)
    return NamedVoice(name, [session.take(path, "enrollment")])


def test_a_long_recording_tells_its_share_and_the_rest(session: Session, extractor: Extractor, tmp_path: Path):
    steps: list[Step] = []
    outcome = extract_voices(session, extractor, [voice(session, tmp_path)], False, steps.append)
    shares = [step.share for step in steps if step.share is not None]
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0 and len(shares) >= 3
    assert [step.text for step in steps][:2] == ["enrolling Anna", "extracting"] and steps[-1].text == "drawing"
    assert any("extracting: 0:" in step.text and "of 1:10" in step.text for step in steps)
    assert outcome.duration_s == 70.0 and [path.suffix for path in outcome.timelines] == [
        ".json", ".csv", ".rttm", ".srt"
    ]  # fmt: skip


def test_a_stopped_extraction_resumes_and_ends_the_same(session: Session, extractor: Extractor, tmp_path: Path):
    given = [voice(session, tmp_path)]
    folder = session.folder / RESULTS
    whole = extract_voices(session, extractor, given, False, lambda step: None)
    expected = whole.voices[0].result.output.read_bytes()
    for path in folder.iterdir():
        path.unlink()

    def stop(step: Step) -> None:
        if step.share is not None and step.share > 0.3:
            session.stop.set()

    with pytest.raises(ExtractionStopped, match="Extract again continues"):
        extract_voices(session, extractor, given, False, stop)
    assert not list(folder.glob("*.wav")), "no output before it is complete"
    steps: list[Step] = []
    again = extract_voices(session, extractor, given, False, steps.append)
    assert next(step.share for step in steps if step.share is not None) > 0.2
    assert again.voices[0].result.output.read_bytes() == expected
    assert not [path for path in folder.iterdir() if "partial" in path.name]


def test_outputs_of_earlier_extractions_are_removed(session: Session, extractor: Extractor, tmp_path: Path):
    for name in ("Anna", "Bert"):
        outcome = extract_voices(session, extractor, [voice(session, tmp_path, name)], False, lambda step: None)
    names = {path.name for path in (session.folder / RESULTS).iterdir()}
    assert "long_Bert.wav" in names and not [name for name in names if "Anna" in name]
    assert [v.result.name for v in outcome.voices] == ["Bert"]


def test_a_second_extraction_of_a_session_is_refused(session: Session, extractor: Extractor, tmp_path: Path):
    with session.busy, pytest.raises(InputError, match="an extraction is running on this page"):
        extract_voices(session, extractor, [voice(session, tmp_path)], False, lambda step: None)
    extract_voices(session, extractor, [voice(session, tmp_path)], False, lambda step: None)


def test_steps_come_while_the_work_runs_and_errors_come_out():
    go = threading.Event()

    def work(tell):
        tell(Step("first"))
        assert go.wait(10)
        tell(Step("second"))
        tell(Step("third"))
        return 7

    steps = steps_of(work)
    assert next(steps) == Step("first")
    go.set()
    time.sleep(0.3)  # what nobody has waited for is left out but for the last
    assert list(steps) in ([Step("third"), Done(7)], [Done(7)], [Step("second"), Step("third"), Done(7)])

    def fail(tell):
        raise InputError("a.wav: is empty")

    with pytest.raises(InputError, match=r"a\.wav: is empty"):
        list(steps_of(fail))
