"""`bench/extract.py --what blocks`, on a model of a moment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

import wesep_py
from bench.extract_blocks import KINDS, cost_of_blocks, recording_of
from bench.joined_trials import Piece


def piece(speaker: str, level: float, seconds: float, sample_rate: int) -> Piece:
    noise = np.random.default_rng(round(100 * level)).standard_normal(round(seconds * sample_rate)).astype(np.float32)
    audio = SimpleNamespace(mixture=level * noise, reference=0.5 * level * noise, enrollment=noise)
    return Piece(audio, speaker, frozenset({speaker, "x"}))


def test_the_speaker_pauses_while_others_speak():
    pieces = [piece("a", 0.1, 1.0, 100), piece("b", 0.2, 0.5, 100), piece("c", 0.3, 0.5, 100)]
    mixture, reference = recording_of(pieces, "a", 4.0, 100)
    assert mixture.shape == reference.shape == (400,) and mixture.all()
    spoken = reference.reshape(-1, 50).any(axis=1)
    assert spoken.tolist() == [True, True, False, True, True, False, True, True]
    np.testing.assert_array_equal(reference[:100], 0.5 * mixture[:100])


def test_blocks_are_compared_with_the_whole(tiny_model: Path):
    extractor = wesep_py.load(tiny_model, "cpu")
    pieces = [piece("a", 0.1, 2.0, 16000), piece("b", 0.2, 2.0, 16000)]
    found = cost_of_blocks(extractor, pieces, 2, 12.0)
    assert list(found) == ["10 s, overlap 2 s"] and len(found["10 s, overlap 2 s"]) == 2
    assert all(0 < abs(value) < 20 for value in found["10 s, overlap 2 s"])
    assert [kind.overlap_s for kind in KINDS.values()] == [4.0, 4.0, 2.0]
