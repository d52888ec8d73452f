"""`bench/extract.py`, with small models, and networks and trials whose answer is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import wesep_py
from bench.extract import (
    BLOCK_LENGTHS,
    blocks,
    levels,
    noise_mixture,
    precision,
    shifted,
    table,
    turns_of,
    write_noise_mixture,
)
from bench.joined_trials import PresentTrial
from wesep_py import audio
from wesep_py.common.half_precision import unsupported
from wesep_py.network.extraction_network import NetworkOutput


def test_noise_mixtures_of_any_length(tmp_path: Path):
    write_noise_mixture(tmp_path / "a.wav", 31.5, 16000)
    assert audio.info(tmp_path / "a.wav").num_samples == 504000
    assert 0 < np.abs(noise_mixture(1.0, 16000)).max() < 1.5
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


@pytest.mark.processor
def test_smaller_numbers_cost_a_little(tiny_model: Path):
    rng = np.random.default_rng(0)
    trial = SimpleNamespace(**{name: rng.standard_normal(16000) for name in ("mixture", "enrollment", "reference")})
    rows = {row["name"]: row for row in precision(str(tiny_model), 2.0, 1, [trial])}
    assert list(rows) == ["float32", "int8", *([] if unsupported("cpu") else ["bf16"])]
    full, integer = rows["float32"], rows["int8"]
    assert full["to_float32_db"] is None and 5 < integer["to_float32_db"] < 120
    if brain := rows.get("bf16"):
        assert 5 < brain["to_float32_db"] < 80 and full["bytes"] == brain["bytes"]
    assert full["largest_loss_db"] == 0 != integer["largest_loss_db"]
    assert integer["largest_loss_db"] == pytest.approx(full["si_sdri_db"] - integer["si_sdri_db"])
    assert integer["bytes"] < full["bytes"]


@pytest.mark.processor
def test_without_trials_there_is_no_si_sdri(tiny_model: Path):
    assert {row["si_sdri_db"] for row in precision(str(tiny_model), 0.5, 1, [])} == {None}


def trial_of(speaker: str, level: float, seconds: float, sample_rate: int) -> PresentTrial:
    noise = np.random.default_rng(round(100 * level)).standard_normal(round(seconds * sample_rate)).astype(np.float32)
    rendered = SimpleNamespace(mixture=level * noise, reference=0.5 * level * noise, enrollment=noise)
    return PresentTrial(rendered, speaker, frozenset({speaker, "x"}))


def test_the_speaker_pauses_while_others_speak():
    trials = [trial_of("a", 0.1, 1.0, 100), trial_of("b", 0.2, 0.5, 100), trial_of("c", 0.3, 0.5, 100)]
    mixture, reference = turns_of(trials, "a", 4.0, 100)
    assert mixture.shape == reference.shape == (400,) and mixture.all()
    spoken = reference.reshape(-1, 50).any(axis=1)
    assert spoken.tolist() == [True, True, False, True, True, False, True, True]
    np.testing.assert_array_equal(reference[:100], 0.5 * mixture[:100])


def test_blocks_are_compared_with_the_whole(tiny_model: Path):
    extractor = wesep_py.load(tiny_model, "cpu")
    trials = [trial_of("a", 0.1, 2.0, 16000), trial_of("b", 0.2, 2.0, 16000)]
    differences = blocks(extractor, trials, 2, 12.0)
    assert list(differences) == ["10 s, overlap 2 s"] and len(differences["10 s, overlap 2 s"]) == 2
    assert all(0 < abs(value) < 20 for value in differences["10 s, overlap 2 s"])
    assert [overlap_s for _, overlap_s, _ in BLOCK_LENGTHS.values()] == [4.0, 4.0, 2.0]


def test_shifts_cost_time_and_change_the_result(tiny_model: Path):
    extractor = wesep_py.load(tiny_model, "cpu")
    one, four = shifted(extractor, [trial_of("a", 0.1, 2.0, 16000)], [1, 4])
    assert (one["shifts"], four["shifts"]) == (1, 4) and one["si_sdr_db"] != four["si_sdr_db"]
    assert four["si_sdr_db"] - one["si_sdr_db"] == pytest.approx(four["si_sdri_db"] - one["si_sdri_db"])
    assert four["computed"] > 1.5 * one["computed"] > 0


@pytest.mark.parametrize("present", [True, False])
def test_levels_are_the_networks_own_corrected_and_fitted(present: bool):
    mixture = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    reference = mixture if present else np.zeros_like(mixture)
    trial = SimpleNamespace(mixture=mixture, enrollment=mixture, reference=reference)
    network = SimpleNamespace(
        prepare=lambda enrollment: {}, extract=lambda mixture, prepared: NetworkOutput((0.1 * mixture,))
    )
    measured = levels(SimpleNamespace(network=network, sample_rate=16000), trial)
    assert measured == pytest.approx([-20.0, -14.0, 0.0], abs=0.02)
