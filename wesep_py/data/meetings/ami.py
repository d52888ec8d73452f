"""The AMI meeting corpus: meetings of three to five people, with headset and array microphones and timed words.

    amicorpus/ES2004a/audio/ES2004a.Mix-Headset.wav, ES2004a.Array1-01.wav
    ami_public_manual_1.6.2/
      corpusResources/meetings.xml      for each meeting the letter of each participant and a name in the whole corpus
      words/ES2004a.A.words.xml         what participant A says: words with their times, punctuation, other sounds

Source: Carletta et al., "The AMI meeting corpus: a pre-announcement", MLMI 2005;
https://groups.inf.ed.ac.uk/ami/corpus.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

from wesep_py.common.errors import InputError, quoted, shorten
from wesep_py.common.textfiles import open_lines
from wesep_py.data.meetings.meeting import Interval, Meeting, SpokenSegment

Microphone = Literal["Mix-Headset", "Array1-01"]
"""The sum of all headset microphones, or the first microphone of the array on the table."""
AMIPart = Literal["dev", "test", "all"]
MEETINGS: dict[str, tuple[str, ...]] = {
    "dev": (
        *(f"{name}{part}" for name in ("ES2011", "IS1008", "TS3004") for part in "abcd"),
        *("IB4001", "IB4002", "IB4003", "IB4004", "IB4010", "IB4011"),
    ),
    "test": tuple(f"{name}{part}" for name in ("ES2004", "IS1009", "TS3003", "EN2002") for part in "abcd"),
}
"""Meetings of the partition Full-corpus-ASR, which the diarization lists of BUT use too."""
ANNOTATIONS = "ami_public_manual_1.6.2"
_NITE_ID = "{http://nite.sourceforge.net/}id"


def read_ami(
    folder: str | os.PathLike[str],
    part: AMIPart = "test",
    names: Sequence[str] | None = None,
    microphone: Microphone = "Mix-Headset",
    rttm: str | os.PathLike[str] | None = None,
    on_skip: Callable[[str], object] | None = None,
) -> list[Meeting]:
    """Return meetings of AMI, those whose recordings exist.

    Args:
        folder: holds `amicorpus` (or `wav_db`) and `ami_public_manual_1.6.2`.
        part: `dev` or `test` of Full-corpus-ASR; `all`: every meeting of the annotations.
        names: of meetings, such as ES2004a, in place of a part; `None`: those of the part.
        microphone: whose recording is used.
        rttm: folder with `MEETING.rttm` (AMI-diarization-setup, `only_words/rttms/test`), from which the activity is
            taken; `None`: from the times of the words.
        on_skip: called with a line for each meeting that is left out.

    Raises:
        InputError: there is no meeting, or a file is missing or malformed.
        AudioError: a recording cannot be read.
    """
    from wesep_py.audio import info

    if part not in get_args(AMIPart) or microphone not in get_args(Microphone):
        raise InputError(
            f"part is {part!r} and microphone {microphone!r}; give one of {get_args(AMIPart)} and "
            f"{get_args(Microphone)}"
        )
    root = Path(folder)
    annotations = root / ANNOTATIONS if (root / ANNOTATIONS).is_dir() else root
    participants = _read_participants(annotations / "corpusResources" / "meetings.xml")
    meetings = []
    listed = sorted(participants) if part == "all" else MEETINGS[part]
    for name in listed if names is None else names:
        recording = _find_recording(root, name, microphone)
        if name not in participants or recording is None:
            reason = "meetings.xml does not name it" if name not in participants else f"no {name}.{microphone}.wav"
            if on_skip is not None:
                on_skip(f"{name}: {reason}")
            continue
        spoken = [
            segment
            for letter, speaker_id in participants[name].items()
            for segment in _read_words(annotations / "words" / f"{name}.{letter}.words.xml", speaker_id)
        ]
        activity = {} if rttm is None else _read_activity(Path(rttm) / f"{name}.rttm", name, participants[name])
        about = info(recording)
        meetings.append(Meeting(name, recording.absolute(), about.duration_s, spoken, activity, {"site": name[:2]}))
    if not meetings:
        raise InputError(
            f"{folder}: holds no meeting such as amicorpus/ES2004a/audio/ES2004a.{microphone}.wav; give the folder of "
            f"amicorpus and {ANNOTATIONS}"
        )
    return meetings


def _find_recording(root: Path, name: str, microphone: str) -> Path | None:
    for folder in (root / "amicorpus", root / "wav_db", root):
        path = folder / name / "audio" / f"{name}.{microphone}.wav"
        if path.is_file():
            return path
    return None


def _read_participants(path: Path) -> dict[str, dict[str, str]]:
    """Return for each meeting the name of each participant, by letter."""
    participants: dict[str, dict[str, str]] = {}
    for meeting in _read_xml(path, "the meetings of AMI").iter("meeting"):
        name = meeting.get("observation")
        letters = {speaker.get("nxt_agent"): speaker.get("global_name") for speaker in meeting.iter("speaker")}
        if name is None or not letters or None in letters:
            raise InputError(f"{path}: a meeting has no observation, or a speaker no nxt_agent; get the file again")
        # Where a participant has no name in the corpus, the letter tells those of one meeting apart.
        participants[name] = {str(letter): known or f"{name}.{letter}" for letter, known in letters.items()}
    if not participants:
        raise InputError(f"{path}: names no meeting; get {ANNOTATIONS} again")
    return participants


def _read_words(path: Path, speaker_id: str) -> list[SpokenSegment]:
    """Return the words of a participant; punctuation and other sounds are left out.

    A word without times is said where the one before it ends; one that ends before it begins has no length.
    """
    words: list[SpokenSegment] = []
    for element in _read_xml(path, "the words of a participant").iter("w"):
        text = (element.text or "").strip()
        if element.get("punc") == "true" or not text:
            continue
        before_s = words[-1].end_s if words else 0.0
        try:
            start_s = float(element.get("starttime") or before_s)
            end_s = max(start_s, float(element.get("endtime") or start_s))
        except ValueError:
            start_s, end_s = 0.0, float("inf")
        if not 0 <= start_s <= end_s < float("inf"):
            times = f"{quoted(element.get('starttime') or '')} to {quoted(element.get('endtime') or '')}"
            raise InputError(f"{path}: word {element.get(_NITE_ID)} is from {times}; seconds are needed")
        words.append(SpokenSegment(speaker_id, start_s, end_s, text))
    return words


def _read_activity(path: Path, name: str, participants: dict[str, str]) -> dict[str, list[Interval]]:
    """Return when each participant speaks, by an RTTM file; participants are named as in the corpus, or by letter."""
    names = {**{known: known for known in participants.values()}, **participants}
    activity: dict[str, list[Interval]] = {}
    for number, line in enumerate(open_lines(path, "the RTTM of a meeting"), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start_s, duration_s, speaker_id = float(fields[3]), float(fields[4]), names[fields[7]]
        except (ValueError, IndexError, KeyError) as error:
            raise InputError(
                f"{path}:{number}: is {quoted(line)}; times and a participant of {name} are needed ("
                f"{shorten(', '.join(participants.values()))})"
            ) from error
        activity.setdefault(speaker_id, []).append((start_s, start_s + duration_s))
    if not activity:
        raise InputError(f"{path}: has no SPEAKER line; give a folder with an RTTM file for each meeting")
    return activity


def _read_xml(path: Path, what: str) -> ElementTree.Element:
    """Return the root element of an XML file.

    Raises:
        InputError: it is missing, or is not well-formed.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {what} are needed") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: is not well-formed XML ({shorten(error)}); get the annotations again") from error
