"""Sessions: each visitor has a folder with a mixture, voices and results, and at most one extraction at a time.

    visit ─► Sessions.of(key) ─► Session ─► … ─► leave ─► after `grace_s`, or unused for `idle_s`: folder removed

The key is Gradio's, one for each open page. The token is random; links to the files of a session contain it, so that
nobody else can guess them.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError, reason
from wesep_py.common.names import file_name

if TYPE_CHECKING:
    from wesep_py.inference import Voice

log = logging.getLogger(__name__)
MAX_VOICES = 16
"""Largest number of voices of a session."""
MAX_NAME = 60
"""Longest name of a voice, in characters."""
# What every browser plays; other recordings are converted to be heard.
_PLAYABLE = {".wav", ".mp3", ".ogg", ".opus", ".flac", ".m4a", ".mp4", ".webm"}
_READ_S = 30.0


@dataclass(frozen=True)
class SessionRecording:
    """A recording of a session.

    Attributes:
        path: the file.
        playable: the same sound as a file that browsers play; often the file itself.
        about: its header.
        label: name for the visitor.
    """

    path: Path
    playable: Path
    about: audio.AudioInfo
    label: str


@dataclass
class NamedVoice:
    """A voice that a visitor named.

    Attributes:
        name: unique in the session.
        recordings: its enrollment recordings.
    """

    name: str
    recordings: list[SessionRecording] = field(default_factory=list)


@dataclass
class Session:
    """One visitor.

    Attributes:
        token: random, part of the links to the files.
        folder: holds all files of the session.
        mixture: the recording to extract from.
        voices: by name, in the order in which they were added.
        live_voice: enrolled for the live tab.
        stop: set to stop the extraction that runs.
        busy: held while an extraction runs.
        live: held while a live stream runs.
        last_used: time of the last request, by `time.monotonic`.
        left_at: time at which the page was closed; `None` while it is open.
    """

    token: str
    folder: Path
    mixture: SessionRecording | None = None
    voices: dict[str, NamedVoice] = field(default_factory=dict)
    live_voice: tuple[str, Voice] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    busy: threading.Lock = field(default_factory=threading.Lock)
    live: threading.Lock = field(default_factory=threading.Lock)
    last_used: float = field(default_factory=time.monotonic)
    left_at: float | None = None
    num_files: int = 0

    def new_folder(self, what: str) -> Path:
        """Return a new folder of the session: `what1`, `what2`, …"""
        self.num_files += 1
        folder = self.folder / f"{what}{self.num_files}"
        folder.mkdir(parents=True)
        return folder

    def take(self, upload: str | os.PathLike[str], what: str, stem: str | None = None) -> SessionRecording:
        """Take an uploaded recording into the session, and check that it can be read.

        The file gets a second name in the folder of the session; the upload itself is deleted by age.

        Args:
            upload: the file.
            what: `mixture`, `enrollment`, …; names the folder.
            stem: name of the file without suffix; by default that of the upload.

        Raises:
            AudioError: it is no recording, or damaged.
        """
        source = Path(upload)
        folder = self.new_folder(what)
        path = folder / f"{file_name(stem or source.stem)}{source.suffix}"
        try:
            try:
                path.hardlink_to(source)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, path)
            about = audio.info(path)
            return SessionRecording(path, _playable(path, about), about, path.name)
        except FileNotFoundError:
            shutil.rmtree(folder)
            raise AudioError(f"{source.name}: the upload is gone; give the recording again") from None
        except Exception:
            shutil.rmtree(folder)
            raise

    def drop(self, recording: SessionRecording | None) -> None:
        """Remove the files of a recording."""
        if recording is not None:
            shutil.rmtree(recording.path.parent, ignore_errors=True)

    def cut(self, start_s: float, end_s: float) -> SessionRecording:
        """Cut a segment of the mixture out, as an enrollment.

        Raises:
            InputError: there is no mixture, or the segment is empty.
            AudioError: the segment reaches past the end of the mixture.
        """
        from wesep_py.audio.reading import FileSegment, read_file_segment

        if self.mixture is None:
            raise InputError("no mixture was given; drop or record one before marking a segment of it")
        if not end_s > start_s:
            raise InputError(
                f"the segment ends at {end_s:g} s and begins at {start_s:g} s; mark some seconds of speech"
            )
        waveform, rate = read_file_segment(FileSegment(str(self.mixture.path), start_s, end_s))
        path = self.new_folder("segment") / f"{file_name(self.mixture.path.stem)}@{start_s:.2f}-{end_s:.2f}.wav"
        audio.write(path, waveform, rate)
        label = f"{start_s:.2f} to {end_s:.2f} s of {self.mixture.label}"
        return SessionRecording(path, path, audio.info(path), label)

    def add_voice(self, name: str, recording: SessionRecording) -> NamedVoice:
        """Add a recording to the voice of a name; a new name is a new voice.

        Raises:
            InputError: no name, or a name that is too long; too many voices.
        """
        name = checked_name(name)
        if name not in self.voices and len(self.voices) >= MAX_VOICES:
            raise InputError(f"there are {MAX_VOICES} voices already; remove one first")
        voice = self.voices.setdefault(name, NamedVoice(name))
        voice.recordings.append(recording)
        return voice

    def remove_voice(self, name: str) -> None:
        """Remove a voice with its recordings."""
        if (voice := self.voices.pop(name, None)) is not None:
            for recording in voice.recordings:
                self.drop(recording)

    def link(self, path: Path) -> str:
        """Return the address of a file of the session, relative to the page; it changes when the file does."""
        from urllib.parse import quote

        return f"session/{self.token}/{quote(str(path.relative_to(self.folder)))}?v={path.stat().st_mtime_ns}"

    def one_line(self, error: BaseException) -> str:
        """Return the line for an error, as the command line prints it, with the names of files without folders."""
        return re.sub(re.escape(str(self.folder)) + r"/(?:\w+/)*", "", reason(error))


def checked_name(name: str) -> str:
    """Return the name of a voice without white space at its ends.

    Raises:
        InputError: it is empty or too long.
    """
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME:
        raise InputError(f"the name has {len(name)} characters; 1 to {MAX_NAME} are allowed")
    return name


def _playable(path: Path, about: audio.AudioInfo) -> Path:
    """Return a file with the same sound that browsers play."""
    if path.suffix.lower() in _PLAYABLE:
        return path
    copy = path.parent / "playable.wav"
    with audio.AudioWriter(copy, about.sample_rate, about.num_channels, "PCM_16") as writer:
        for block in audio.read_blocks(path, round(_READ_S * about.sample_rate)):
            writer.write(block.clip(-1.0, 1.0 - 2**-15))
    return copy


class Sessions:
    """All visitors, by Gradio's key of an open page.

    Args:
        folder: for the folders of the sessions.
        idle_s: a session that is not used for that long is removed.
        grace_s: a session whose page was closed is removed after that time; a phone closes the connection of a page
            in the background, and opens it again.
    """

    def __init__(self, folder: Path, idle_s: float, grace_s: float) -> None:
        self.folder, self.idle_s, self.grace_s = folder, idle_s, grace_s
        self._by_key: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._remove_old, name="old sessions", daemon=True).start()

    def of(self, key: str | None) -> Session:
        """Return the session of an open page; the first call makes it.

        Raises:
            InputError: there is no key.
        """
        if not key:
            raise InputError("the request names no session; open the page, or use gradio_client")
        with self._lock:
            if key not in self._by_key:
                token = secrets.token_urlsafe(18)
                session = Session(token, self.folder / token)
                session.folder.mkdir(parents=True)
                self._by_key[key] = session
            session = self._by_key[key]
            session.last_used, session.left_at = time.monotonic(), None
            return session

    def by_token(self, token: str) -> Session | None:
        """Return the session of a token; `None` if there is none, or none any more."""
        with self._lock:
            found = next((s for s in self._by_key.values() if secrets.compare_digest(s.token, token)), None)
            if found is not None:
                found.last_used = time.monotonic()
            return found

    def leave(self, key: str | None) -> None:
        """Note that a page was closed."""
        with self._lock:
            if key in self._by_key:
                self._by_key[key].left_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._by_key)

    def remove_expired(self) -> None:
        """Remove the sessions that were left or are not used; one that extracts is stopped first."""
        now = time.monotonic()
        with self._lock:
            for key, session in list(self._by_key.items()):
                was_left = session.left_at is not None and now - session.left_at >= self.grace_s
                if not was_left and (session.busy.locked() or now - session.last_used < self.idle_s):
                    continue
                session.stop.set()
                if session.busy.acquire(blocking=False):  # else it is removed when the extraction has stopped
                    del self._by_key[key]
                    shutil.rmtree(session.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop all extractions and remove all files."""
        self._closed.set()
        with self._lock:
            for session in self._by_key.values():
                session.stop.set()
            self._by_key.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_old(self) -> None:
        while not self._closed.wait(min(10.0, max(0.1, self.grace_s / 2))):
            try:
                self.remove_expired()
            except Exception:
                log.exception("removing old sessions failed")
