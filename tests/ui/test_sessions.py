"""Sessions: uploads get a name of their own, segments are cut, and everything is deleted in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError
from wesep_py.ui.sessions import MAX_VOICES, Session, Sessions


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    made = Sessions(tmp_path / "sessions", idle_s=3600.0, grace_s=1000.0)
    yield made
    made.close()


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "up load.wav"
    audio.write(path, np.linspace(-0.5, 0.5, 32000, dtype=np.float32), 16000)
    return path


def test_an_upload_stays_in_the_session_when_it_is_deleted(sessions: Sessions, upload: Path):
    session = sessions.of("a")
    recording = session.take(upload, "mixture")
    upload.unlink()
    assert audio.read(recording.path)[0].shape == (1, 32000) and recording.label == "up load.wav"
    assert recording.path.is_relative_to(session.folder)
    with pytest.raises(AudioError, match=r"^up load\.wav: the upload is gone; give the recording again$"):
        session.take(upload, "mixture")


def test_two_sessions_with_the_same_upload_do_not_share_its_file(sessions: Sessions, upload: Path):
    first, second = (sessions.of(key).take(upload, "mixture") for key in ("a", "b"))
    assert first.path != second.path
    sessions.of("a").drop(first)
    assert second.path.exists() and upload.exists()


def test_what_browsers_do_not_play_gets_a_wav_beside_it(sessions: Sessions, tmp_path: Path):
    path = tmp_path / "talk.w64"
    waveform = np.array([[0.5, -1.5, 1.5, 0.25] * 100], np.float32)
    audio.write(path, waveform, 8000)
    recording = sessions.of("a").take(path, "mixture")
    assert recording.path.suffix == ".w64" and recording.playable.suffix == ".wav"
    copy, rate = audio.read(recording.playable)
    assert rate == 8000
    np.testing.assert_allclose(copy, waveform.clip(-1, 1), atol=2**-14)


def test_a_segment_is_cut_to_the_sample(sessions: Sessions, upload: Path):
    session = sessions.of("a")
    with pytest.raises(InputError, match="no mixture was given"):
        session.cut(0.5, 1.0)
    session.mixture = session.take(upload, "mixture")
    cut = session.cut(0.5, 1.25)
    np.testing.assert_array_equal(audio.read(cut.path)[0], audio.read(upload)[0][:, 8000:20000])
    assert cut.label == "0.50 to 1.25 s of up load.wav"
    with pytest.raises(InputError, match="ends at 1 s and begins at 1 s"):
        session.cut(1.0, 1.0)
    with pytest.raises(AudioError, match=r"it lasts 2\.000 s"):
        session.cut(1.0, 3.0)


def test_names_and_numbers_of_voices_are_limited(sessions: Sessions, upload: Path):
    session = sessions.of("a")
    recording = session.take(upload, "enrollment")
    for name in ("", " \n", "x" * 61):
        with pytest.raises(InputError, match="1 to 60 are allowed"):
            session.add_voice(name, recording)
    for number in range(MAX_VOICES):
        session.add_voice(f"voice {number}", recording)
    assert len(session.add_voice(" voice  0 ", recording).recordings) == 2
    with pytest.raises(InputError, match=f"there are {MAX_VOICES} voices already"):
        session.add_voice("one more", recording)
    session.remove_voice("voice 0")
    assert not recording.path.exists() and session.add_voice("one more", recording)


def test_a_closed_page_is_deleted_after_its_grace_unless_it_returns(tmp_path: Path):
    sessions = Sessions(tmp_path / "sessions", idle_s=3600.0, grace_s=1.0)
    kept, left = sessions.of("kept"), sessions.of("left")
    sessions.leave("kept")
    sessions.leave("left")
    assert sessions.of("kept") is kept, "a phone comes back to a page in the background"
    until = time.monotonic() + 20
    while left.folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not left.folder.exists() and kept.folder.exists() and sessions.by_token(left.token) is None
    sessions.close()
    assert not kept.folder.exists()


def test_an_unused_session_is_deleted_but_not_one_that_extracts(sessions: Sessions):
    idle, busy, used = (sessions.of(key) for key in ("idle", "busy", "used"))
    for session in (idle, busy):
        session.last_used -= 3601
    with busy.busy:
        sessions.remove_expired()
        assert not idle.folder.exists() and busy.folder.exists() and used.folder.exists()
        sessions.leave("busy")
        busy.left_at = time.monotonic() - 1001
        sessions.remove_expired()
        assert busy.stop.is_set() and busy.folder.exists(), "stopped first"
    sessions.remove_expired()
    assert not busy.folder.exists() and len(sessions) == 1


def test_tokens_are_random_and_links_change_with_the_file(sessions: Sessions, upload: Path):
    first, second = sessions.of("a"), sessions.of("b")
    assert first.token != second.token and len(first.token) >= 24
    recording = first.take(upload, "mixture")
    link = first.link(recording.path)
    assert link.startswith(f"session/{first.token}/mixture1/up%20load.wav?v=")
    recording.path.touch()
    assert first.link(recording.path) != link
    with pytest.raises(InputError, match="names no session"):
        sessions.of(None)


def test_lines_name_files_without_their_folders(tmp_path: Path):
    session = Session("token", tmp_path / "token")
    line = session.one_line(AudioError(f"{tmp_path}/token/mixture12/my talk.wav: is damaged"))
    assert line == "my talk.wav: is damaged"
