"""The stretch of a recording that an utterance is, as it was recorded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.files import info, read
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import AudioError

# How far a manifest's duration may reach past the end of its file: durations are rounded and codecs pad.
DURATION_TOLERANCE_S = 0.1
# A duration that ends this close to the end of the file means the end of the file: manifests round to 1 ms.
END_TOLERANCE_S = 0.001
# A stretch of these is cut from the whole: they have to be decoded from their beginning.
LOSSY_SUBTYPES = frozenset({"OPUS", "VORBIS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})

Waveform = NDArray[np.float32]


def cut_utterance(utterance: Utterance) -> tuple[Waveform, int, bool]:
    """The stretch of an utterance as it was recorded: what a `FileReader` resamples.

    Returns:
        float32 `[channels, samples]`, its rate in Hz (speed not applied), and whether it is a whole recording in
        a lossy format.

    Raises:
        AudioError: the file is missing or damaged, or is more than 0.1 s shorter than the utterance says.
    """
    found = info(utterance.path)
    start, stop = round(utterance.start_s * found.sample_rate), round(utterance.stop_s * found.sample_rate)
    if start >= found.num_samples or stop > found.num_samples + DURATION_TOLERANCE_S * found.sample_rate:
        raise AudioError(
            f"{utterance.path}: lasts {found.duration_s:.3f} s, but utterance {utterance.utterance_id!r} is "
            f"said to end at {utterance.stop_s:.3f} s; correct its duration_s, or write the manifest anew"
        )
    to_end = stop > found.num_samples - END_TOLERANCE_S * found.sample_rate
    lossy = found.subtype in LOSSY_SUBTYPES
    if start == 0 and to_end:
        return *read(utterance.path), lossy
    if lossy:
        whole, rate = _decode_whole(utterance.path, utterance.path.stat().st_mtime_ns)
        return whole[:, start : None if to_end else stop], rate, False
    return *read(utterance.path, start, None if to_end else stop), False


@lru_cache(maxsize=1)
def _decode_whole(path: Path, mtime_ns: int) -> tuple[Waveform, int]:
    return read(path)
