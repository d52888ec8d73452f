"""Pinned mixtures: configurations without newer options draw the same mixtures as ever, and old recipes render."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, Recipe, RoomConfig, SimulationConfig, Simulator, render

SHORT = EnrollmentConfig(duration_s=(1.0, 2.0))
ALL_NOISE = NoiseConfig(probability=0.8, kinds={"recording": 1, "coloured": 1, "babble": 1})
CONFIGS = {
    "plain": SimulationConfig(duration_s=1.5, enrollment=SHORT),
    "all": SimulationConfig(
        duration_s=1.5,
        num_speakers={1: 1, 2: 1, 3: 1},
        overlap={"full": 1, "longest": 1, "partial": 1},
        noise=ALL_NOISE,
        room=RoomConfig(probability=0.5),
        target="early",
        enrollment=EnrollmentConfig(duration_s=(1.0, 2.0), count=2),
    ),
    "whole": SimulationConfig(
        duration_s=None, overlap={"full": 1, "longest": 1, "partial": 1}, noise=ALL_NOISE, enrollment=SHORT
    ),
}
# Of each configuration a hash of what was drawn, and the RMS of the mixtures that are in no room, before effects,
# conversations and absent voices were there.
PINNED: dict[str, tuple[str, list[float]]] = {
    "plain": ("00f40a2f18f6c5d0", [0.022647, 0.05114, 0.061899, 0.071594, 0.091738, 0.062556]),
    "all": ("05ec0b297ea8ad5d", [0.053697, 0.057754]),
    "whole": ("8aa921e4ece5b4e9", [0.060964, 0.058928, 0.022064, 0.05852, 0.026162, 0.063002]),
}


def rounded(value: Any, with_gains: bool) -> Any:
    """Return values without folders and empty fields, rounded to four digits: the last digits depend on the machine."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if item != [] and (with_gains or key != "gain")}
        return {k: v.rpartition("/")[2] if k == "path" else rounded(v, with_gains) for k, v in kept.items()}
    if isinstance(value, list):
        return [rounded(item, with_gains) for item in value]
    return f"{value:.4g}" if isinstance(value, float) else value


def fingerprint(name: str, utterances: list[Utterance], noises: list[Utterance], reader: FileReader) -> Any:
    """Return a hash of the recipes, and levels; without the gains in rooms, as computed responses may be improved."""
    simulator = Simulator(CONFIGS[name], utterances, noises, reader, seed=7)
    samples = [simulator.sample(1, index) for index in range(6)]
    drawn = [rounded(sample.recipe.to_dict(), sample.recipe.room is None) for sample in samples]
    levels = [float(f"{np.sqrt(np.mean(s.mixture**2)):.5g}") for s in samples if s.recipe.room is None]
    return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:16], levels


@pytest.mark.parametrize("name", CONFIGS)
def test_drawn_recipes_and_samples_are_pinned(
    name: str, utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    drawn, levels = fingerprint(name, utterances, noises, reader)
    assert drawn == PINNED[name][0]
    assert levels == pytest.approx(PINNED[name][1], rel=1e-3)


def test_old_recipe_renders(utterances: list[Utterance], reader: FileReader) -> None:
    """A recipe as version 0.1 wrote it: with all fields of that version, including empty ones."""
    utterance = {
        "utterance_id": "anna-0",
        "speaker_id": "anna",
        "path": str(next(u.path for u in utterances if u.utterance_id == "anna-anna-0")),
        "duration_s": 2.0,
        "start_s": 0.0,
        "speed": 1.0,
    }
    stretch = {"utterance": utterance, "start": 100, "num_samples": 8000, "gain": 0.5}
    values = {
        "seed": 7, "epoch": 0, "index": 3, "attempt": 0, "sample_rate": 16000, "num_samples": 8000,
        "sources": [{"excerpt": stretch, "offset": 0, "enrollments": []}],
        "target": 0, "target_kind": "full", "overlap": "full", "sir_db": [0.0], "snr_db": 10.0,
        "noise": {"kind": "coloured", "gain": 0.01, "stretches": [], "slope_db": -3.0, "seed": 5},
        "version": 1,
    }  # fmt: skip
    sample = render(Recipe.from_dict(values), reader)
    raw = reader.read(utterances[[u.utterance_id for u in utterances].index("anna-anna-0")], 100, 8100)
    assert np.array_equal(sample.images[0], raw * np.float32(0.5))
    assert sample.noise.any() and not sample.distortion.any()
    assert np.array_equal(sample.speaker(0).target, sample.images[0])
