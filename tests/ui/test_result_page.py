"""Results as HTML: presence, segments, remarks, and names as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.inference.file_extraction import FileResult
from wesep_py.ui.extraction_job import Outcome, Step, VoiceOutcome, clock
from wesep_py.ui.result_page import error_html, outcome_html, status_html
from wesep_py.ui.sessions import Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = Session("token", tmp_path / "session")
    session.folder.mkdir()
    audio.write(tmp_path / "mix.wav", np.zeros(16000, np.float32), 16000)
    session.mixture = session.take(tmp_path / "mix.wav", "mixture")
    return session


def outcome(session: Session, segments: list[dict[str, Any]], remarks: list[str] = (), **values: Any) -> Outcome:
    assert session.mixture is not None
    path = session.mixture.path
    fields = {"presence": 0.93, "threshold": 0.15, "absent": False, "silenced": False, **values}
    result = FileResult(fields.pop("name", "Anna"), path, path, 16000, 10.0, **fields)
    return Outcome([VoiceOutcome(result, segments, ("p1", "p2", "p3"), list(remarks))], [path], 10.0, 2.5, "base")


def test_segments_are_placed_on_the_bar_and_listed(session: Session):
    segments = [{"start_s": 1.0, "end_s": 3.5, "probability": 0.87}, {"start_s": 9.0, "end_s": 9.25}]
    html = outcome_html(session, outcome(session, segments))
    assert "left:10.000%;width:25.000%" in html and "left:90.000%;width:2.500%" in html
    assert "2 segments, 2.8 s of speech" in html
    assert "<td>1.00</td><td>3.50</td><td>0.87</td>" in html and "<td>9.00</td><td>9.25</td><td>–</td>" in html
    assert "0:10 extracted in 2.5 s (0.25 s per second) with base." in html
    assert "does not speak" in outcome_html(session, outcome(session, []))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "is there: probability 0.93, threshold 0.15"),
        ({"verifier": "dvector"}, "threshold 0.15, verified by dvector"),
        (
            {"absent": True, "silenced": True, "presence": 0.02},
            "probability 0.02, threshold 0.15; silence",
        ),
        ({"absent": True}, "the estimate is kept as asked"),
        ({"presence": None, "threshold": None}, "this model does not say whether the voice is there"),
    ],
)
def test_presence_is_said_in_words(session: Session, values: dict[str, Any], text: str):
    assert text in outcome_html(session, outcome(session, [], **values))


def test_names_and_remarks_cannot_be_markup(session: Session):
    html = outcome_html(session, outcome(session, [], ["<script>x</script>"], name='<img src="x" onerror="y">'))
    assert "<script>" not in html and '<img src="x"' not in html and "&lt;script&gt;" in html
    assert "<b>" not in error_html("<b>: no such file") + status_html(Step("<b>", 0.5))


def test_progress_with_and_without_a_known_share():
    assert 'value="0.250"' in status_html(Step("extracting", 0.25))
    assert "value=" not in status_html(Step("enrolling"))
    assert [clock(s) for s in (0, 59.9, 61, 3600)] == ["0:00", "0:59", "1:01", "1:00:00"]
