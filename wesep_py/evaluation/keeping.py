"""Audio of some trials beside their numbers: of the first, and of the worst and best."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wesep_py.evaluation.record import TrialRecord
from wesep_py.files import JUNK, is_folder, remove_known
from wesep_py.names import file_name

if TYPE_CHECKING:
    from wesep_py.evaluation.extraction import Extracted

RANKED_BY = ("si_sdri", "si_sdr")
SIGNALS = ("mixture", "enrollment", "estimate", "reference")
"""What is saved of a trial, each in a file."""
FOLDER = re.compile(r"\d{4,}_.*", re.DOTALL)
# The second form is a temporary file, as a process that was killed leaves it.
FILE = re.compile(rf"({'|'.join(SIGNALS)})\.wav|\.({'|'.join(SIGNALS)})\.\w{{8}}\.wav")


def audio_folder(record: TrialRecord) -> str:
    """The name of a trial's folder of audio."""
    return file_name(f"{record.number or 0:04d}_{record.mixture_id}_{record.target_utterance_id}")


def rank(record: TrialRecord) -> float | None:
    """What trials are ranked by: SI-SDRi, else SI-SDR."""
    return next((record.values[name] for name in RANKED_BY if name in record.values), None)


def others_in(folder: Path) -> list[str]:
    """What lies in a folder of saved audio and is not saved audio, by its path within, sorted."""
    others = []
    for path in folder.iterdir() if is_folder(folder) else ():
        if path.name in JUNK:
            continue
        if not FOLDER.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            others.append(path.name)
            continue
        names = [file for file in path.iterdir() if file.name not in JUNK]
        others += [f"{path.name}/{file.name}" for file in names if not FILE.fullmatch(file.name) or file.is_dir()]
    return sorted(others)


def remove_audio(folder: Path) -> None:
    """Remove the audio of all trials, and the folder; whatever else is in it stays."""
    for path in list(folder.iterdir()) if is_folder(folder) else ():
        if FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            _remove(path)
    remove_known(folder, ())


def _remove(folder: Path) -> None:
    """Remove the audio of one trial."""
    if folder.is_dir():
        remove_known(folder, [file.name for file in folder.iterdir() if FILE.fullmatch(file.name)])


class AudioKeeper:
    """Saves `NUMBER_MIXTURE_TARGET/{mixture,enrollment,estimate,reference}.wav`, 32-bit float.

    Args:
        folder: where; made when it is needed. None: nothing is saved.
        first: of so many trials, the first ones of the list.
        extremes: of so many of the worst trials and as many of the best, by SI-SDRi: a trial that is none of them any
            more loses its audio.
        done: trials of an earlier part of the run.
    """

    def __init__(self, folder: Path | None, first: int, extremes: int, done: Iterable[TrialRecord] = ()) -> None:
        self._folder, self._first, self._extremes = folder, first, extremes
        self._ranked: list[tuple[float, int, str]] = []
        for record in done:
            self._insert(record)

    def offer(self, extracted: Extracted) -> None:
        """Save the trial's audio if it is wanted; call it once the trial is scored."""
        record = extracted.record
        if self._folder is None or extracted.audio is None or extracted.estimate is None:
            return
        wanted = (record.number or 0) < self._first
        if self._insert(record) or wanted:
            _save(self._folder / audio_folder(record), extracted)

    def _insert(self, record: TrialRecord) -> bool:
        """Enter a trial into the ranking; whether it is among the extremes now."""
        value = rank(record)
        if not self._extremes or value is None:
            return False
        entry = (value, record.number or 0, audio_folder(record))
        self._ranked = sorted([*self._ranked, entry])
        if len(self._ranked) > 2 * self._extremes:
            out = self._ranked.pop(self._extremes)
            if self._folder is not None and out[1] >= self._first:
                _remove(self._folder / out[2])
            return out != entry
        return True


def _save(folder: Path, extracted: Extracted) -> None:
    from wesep_py.audio import write

    audio, estimate = extracted.audio, extracted.estimate
    assert audio is not None
    folder.mkdir(parents=True, exist_ok=True)
    signals = (audio.mixture, audio.enrollment, estimate, audio.reference)
    for name, signal in zip(SIGNALS, signals, strict=True):
        if signal is not None:
            write(folder / f"{name}.wav", signal, audio.sample_rate, overwrite=True)
