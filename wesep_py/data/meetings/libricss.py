"""LibriCSS: utterances of LibriSpeech, played by loudspeakers in a meeting room and recorded by seven microphones.

    for_release/OV20/overlap_ratio_20.0_sil0.1_1.0_session3_actual20.0/
      record/raw_recording.wav          seven channels, 16 kHz; the first is used
      transcription/meeting_info.txt    start_time, end_time, speaker, utterance_id, transcription, separated by tabs

Ten sessions of ten minutes for each of six conditions: 0S and 0L (no overlap, short and long pauses), OV10 to OV40
(10 to 40 % overlap).

Source: Chen et al., "Continuous speech separation: dataset and analysis", ICASSP 2020;
https://github.com/chenzhuo1011/libri_css.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from wesep_py.common.errors import InputError, quoted
from wesep_py.common.textfiles import open_lines
from wesep_py.data.meetings.meeting import Meeting, SpokenSegment

CONDITIONS = ("0S", "0L", "OV10", "OV20", "OV30", "OV40")
INFO_COLUMNS = ("start_time", "end_time", "speaker", "utterance_id", "transcription")
_SESSION = re.compile(r"_session(\d+)_")


def read_libricss(folder: str | os.PathLike[str], sessions: Sequence[int] | None = None) -> list[Meeting]:
    """Return the sessions of LibriCSS, by condition and number.

    Args:
        folder: `for_release`, or the folder that holds it.
        sessions: numbers of the sessions; `None`: all.

    Raises:
        InputError: there is no session, or a file is missing or malformed.
        AudioError: a recording cannot be read.
    """
    from wesep_py.audio import info

    root = Path(folder)
    root = root / "for_release" if (root / "for_release").is_dir() else root
    meetings = []
    for condition in CONDITIONS:
        for session in sorted((root / condition).glob("overlap_ratio_*")):
            match = _SESSION.search(session.name)
            if match is None or (sessions is not None and int(match[1]) not in sessions):
                continue
            recording = session / "record" / "raw_recording.wav"
            meetings.append(
                Meeting(
                    f"{condition}_session{match[1]}",
                    recording.absolute(),
                    info(recording).duration_s,
                    _read_info(session / "transcription" / "meeting_info.txt"),
                    groups={"condition": condition},
                )
            )
    if not meetings:
        raise InputError(
            f"{folder}: holds no session such as OV10/overlap_ratio_10.0_sil0.1_1.0_session0_actual10.1; give the "
            "folder for_release of LibriCSS"
        )
    return meetings


def _read_info(path: Path) -> list[SpokenSegment]:
    segments = []
    for number, line in enumerate(open_lines(path, "the meeting_info.txt of a session"), start=1):
        fields = line.rstrip("\n").split("\t")
        if number == 1 and tuple(fields) == INFO_COLUMNS:
            continue
        if not line.strip():
            continue
        place = f"{path}:{number}"
        if len(fields) != len(INFO_COLUMNS):
            raise InputError(f"{place}: has {len(fields)} fields; {', '.join(INFO_COLUMNS)} are needed")
        try:
            start_s, end_s = float(fields[0]), float(fields[1])
        except ValueError:
            start_s = end_s = 0.0
        if not 0 <= start_s < end_s < float("inf"):
            raise InputError(f"{place}: is from {quoted(fields[0])} to {quoted(fields[1])}; rising times are needed")
        segments.append(SpokenSegment(fields[2], start_s, end_s, fields[4].strip()))
    if not segments:
        raise InputError(f"{path}: names no utterance")
    return segments
