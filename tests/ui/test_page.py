"""Handlers of the page that need no server: suggestions, marking them, and which voices are extracted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.inference.test_single_speaker import BandExtractor, TwoBandEncoder, conversation  # noqa: F401
from wesep_py.inference import single_speaker

pytest.importorskip("gradio")

from wesep_py.ui.page import MARKED, OWN, PageHandlers
from wesep_py.ui.sessions import NamedVoice, Sessions

REQUEST = SimpleNamespace(session_hash="a page")


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageHandlers]:
    monkeypatch.setattr(single_speaker, "find_encoder", lambda *_: TwoBandEncoder())
    sessions = Sessions(tmp_path / "sessions", idle_s=3600.0, grace_s=1000.0)
    yield PageHandlers(SimpleNamespace(load=lambda _: BandExtractor()), sessions)
    sessions.close()


def test_suggested_segments_are_those_of_find(handlers: PageHandlers, conversation: Path):  # noqa: F811
    session = handlers.sessions.of(REQUEST.session_hash)
    session.mixture = session.take(conversation, "mixture")
    status, radio = handlers.suggest("base", REQUEST)
    expected = single_speaker.find_solo_segments(conversation, BandExtractor(), TwoBandEncoder())
    assert "one in five holds a second voice" in status and len(radio.choices) == len(expected) >= 3
    for (label, value), segment in zip(radio.choices, expected, strict=True):
        assert label.startswith(f"voice {segment.voice}: {segment.start_s:.1f} to {segment.end_s:.1f} s (")
        mark = handlers.mark_suggestion(value).value
        assert mark == pytest.approx({"start": segment.start_s, "end": segment.end_s}, abs=0.005)
        assert session.cut(mark["start"], mark["end"]).about.duration_s == pytest.approx(2.4, abs=1.61)


def test_without_a_mixture_nothing_is_suggested(handlers: PageHandlers):
    line, _ = handlers.suggest("base", REQUEST)
    assert 'role="alert"' in line and "no mixture is here" in line


def test_the_source_decides_what_is_shown(handlers: PageHandlers):
    for source in (OWN, MARKED):
        enrollment, marking = handlers.show_source(source)
        assert (enrollment.visible, marking.visible) == (source == OWN, source == MARKED)


def test_the_voice_of_the_form_joins_one_of_its_name():
    from wesep_py.ui.page import _merged

    anna, bert, more = NamedVoice("Anna", ["a"]), NamedVoice("Bert", ["b"]), NamedVoice("Anna", ["c"])
    assert _merged([anna, bert], more) == [NamedVoice("Anna", ["a", "c"]), bert]
    assert _merged([bert], anna) == [bert, anna] and _merged([bert], None) == [bert]
    assert anna.recordings == ["a"], "what is kept on the page stays as it is"
