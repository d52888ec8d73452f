"""What blocks cost: a recording made of trials, extracted whole and in blocks; for `bench/extract.py --what blocks`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.joined_trials import Piece, join, others
from wesep_py.inference import Blocks
from wesep_py.metrics.separation import si_sdr

KINDS = {
    "30 s, overlap 4 s": Blocks(30.0, 4.0, 2.0),
    "20 s, overlap 4 s": Blocks(20.0, 4.0, 2.0),
    "10 s, overlap 2 s": Blocks(10.0, 2.0, 1.0),
}


def recording_of(
    pieces: Sequence[Piece], speaker: str, duration_s: float, sample_rate: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A recording in which a speaker takes turns with pauses, while others speak all the time; and the speaker alone.

    Mixtures with the speaker and without alternate, each with its own other speakers.
    """
    rng = np.random.default_rng(seed)
    own = [piece.audio for piece in pieces if piece.speaker == speaker]
    pauses = others(pieces, speaker, rng)
    mixtures, alone = [], []
    for i in range(max(len(own), len(pauses))):
        spoken, pause = own[i % len(own)], pauses[i % len(pauses)]
        mixtures += [spoken.mixture, pause]
        alone += [spoken.reference, np.zeros_like(pause)]
    num_samples = round(duration_s * sample_rate)
    return join(mixtures, num_samples), join(alone, num_samples)


def cost_of_blocks(
    extractor: Any, pieces: Sequence[Piece], recordings: int, duration_s: float
) -> dict[str, list[float]]:
    """For each kind of blocks: SI-SDR by blocks minus SI-SDR of the whole, in dB, of each recording.

    The voices are those of whom the list has the most trials; shorter kinds of blocks than the recording are left out.
    """
    rate = extractor.sample_rate
    found: dict[str, list[float]] = {name: [] for name, kind in KINDS.items() if kind.block_s < duration_s}
    for speaker, _ in Counter(piece.speaker for piece in pieces).most_common(recordings):
        mixture, reference = recording_of(pieces, speaker, duration_s, rate)
        enrollment = next(piece.audio.enrollment for piece in pieces if piece.speaker == speaker)
        voice = extractor.enroll((enrollment, rate))
        whole = extractor.extract((mixture, rate), voice, Blocks(2 * duration_s, 4.0, 2.0)).waveform
        for name in found:
            estimate = extractor.extract((mixture, rate), voice, KINDS[name]).waveform
            found[name].append(float(si_sdr(estimate, reference) - si_sdr(whole, reference)))
    return found


def blocks_row(
    extractor: Any, pieces: Sequence[Piece], recordings: int, duration_s: float
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and row of the table."""
    found = cost_of_blocks(extractor, pieces, recordings, duration_s)
    count = max((len(values) for values in found.values()), default=0)
    row = [f"{min(values):+.3f} to {max(values):+.3f} dB" for values in found.values()]
    return (f"{count} recordings of {duration_s:g} s", *found), [("by blocks minus whole", *row)]
