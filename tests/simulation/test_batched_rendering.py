"""A batch rendered on a device is what the CPU path renders, one mixture after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import (
    EffectsConfig,
    EnrollmentConfig,
    ModulationConfig,
    NoiseConfig,
    RoomConfig,
    Sample,
    SimulationConfig,
)
from wesep_py.simulation.batched_rendering import DeviceSample, render_on_device
from wesep_py.simulation.description.effects import (
    BandLimitConfig,
    ClipConfig,
    CodecConfig,
    EqualiseConfig,
    LevelConfig,
    PacketLossConfig,
    ResampleConfig,
)
from wesep_py.simulation.description.recipe import Recipe
from wesep_py.simulation.dry_batch import DrySimulator, collate_dry

RATE = 16000
TOLERANCE = 1e-5
SHORT = EnrollmentConfig(duration_s=(0.5, 1.0))
ROOM = RoomConfig(probability=0.7, rt60_s=(0.1, 0.3), num_reflections=256)
NOISE = NoiseConfig(
    probability=0.8,
    kinds={"recording": 1.0, "coloured": 1.0, "babble": 1.0},
    babble_speakers=(1, 1),
    count={1: 1.0, 2: 1.0},
    modulation=ModulationConfig(probability=0.5),
)
BASE = SimulationConfig(duration_s=1.0, min_source_s=0.5, num_speakers={1: 1, 2: 2}, enrollment=SHORT)
ON_DEVICE = EffectsConfig(
    level=LevelConfig(0.5),
    equalise=EqualiseConfig(0.5),
    band_limit=BandLimitConfig(0.5),
    clip=ClipConfig(0.5),
    packet_loss=PacketLossConfig(0.5, share=(0.1, 0.3)),
)
EVERYTHING = replace(ON_DEVICE, codec=CodecConfig(0.5, {"ulaw": 1.0}), resample=ResampleConfig(0.5))
CONFIGS = {
    "dry sources": BASE,
    "noises": replace(BASE, noise=NOISE),
    "rooms, early target": replace(BASE, room=ROOM, target="early"),
    "rooms, direct target": replace(BASE, room=ROOM, target="direct", noise=NOISE),
    "rooms, dry target": replace(BASE, room=ROOM, target="dry"),
    "rooms, full target": replace(BASE, room=ROOM, noise=NOISE),
    "different lengths": replace(
        BASE, duration_s=None, overlap={"full": 1, "longest": 1}, noise=NOISE, room=ROOM, mixture_effects=ON_DEVICE
    ),
    "absent target": replace(BASE, absent_probability=0.5, noise=NOISE),
    "effects": replace(BASE, source_effects=EVERYTHING, mixture_effects=ON_DEVICE, level_db=(-12.0, -6.0)),
    "levels only": replace(BASE, mixture_effects=EffectsConfig(level=LevelConfig())),
    "enrollments": replace(BASE, enrollment=EnrollmentConfig((0.5, 1.0), 2, room=ROOM, noise=NOISE, effects=ON_DEVICE)),
    "enrollments through codecs": replace(BASE, enrollment=replace(SHORT, noise=NOISE, effects=EVERYTHING)),
    "conversation": replace(
        BASE, duration_s=2.0, overlap="conversation", overlap_ratio=(0.0, 0.3), noise=NOISE, edge_s=(0.0, 0.2)
    ),
    "no enrollment": replace(BASE, enrollment=replace(SHORT, count=0)),
}


def make(config: SimulationConfig, utterances: Sequence[Utterance], noises: Sequence[Utterance]) -> DrySimulator:
    return DrySimulator(config, utterances, noises, FileReader(RATE), seed=5)


def assert_same(rendered: DeviceSample, expected: Sample) -> None:
    def near(first: torch.Tensor, second: np.ndarray, peak: float) -> None:
        assert first.dtype == torch.float32 and first.shape == second.shape
        np.testing.assert_allclose(first.numpy(), second, rtol=0, atol=TOLERANCE * peak)

    peak = float(np.abs(expected.mixture).max())
    for name in ("mixture", "images", "targets", "noise", "distortion"):
        near(getattr(rendered, name), getattr(expected, name), peak)
    assert len(rendered.enrollments) == len(expected.enrollments)
    for first, second in zip(rendered.enrollments, expected.enrollments, strict=True):
        near(first, second, float(np.abs(second).max(initial=0.0)))
    np.testing.assert_array_equal(rendered.activity.numpy(), expected.activity)
    assert (rendered.absent_enrollment is None) == (expected.absent_enrollment is None)
    if rendered.absent_enrollment is not None:
        near(rendered.absent_enrollment, expected.absent_enrollment, float(np.abs(expected.absent_enrollment).max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_equals_rendering_on_the_cpu(name: str, utterances, noises):
    simulator = make(CONFIGS[name], utterances, noises)
    keys = [(1, index) for index in range(6)]
    samples = render_on_device(collate_dry([simulator.dry(*key) for key in keys], RATE))
    expected = [simulator.sample(*key) for key in keys]
    assert len(samples) == len(expected)
    for rendered, second in zip(samples, expected, strict=True):
        assert_same(rendered, second)
    drawn = [sample.recipe for sample in expected]
    if name == "different lengths":
        assert len({recipe.num_samples for recipe in drawn}) > 1
    if name == "noises":
        assert len({noise.kind for recipe in drawn for noise in recipe.noises}) == 3
        assert any(noise.modulation for recipe in drawn for noise in recipe.noises)
    if name.startswith("rooms"):
        assert {recipe.room is None for recipe in drawn} == {True, False}
    if name == "effects":
        assert {effect.kind for recipe in drawn for effect in recipe.effects} == {
            "level", "equalise", "band_limit", "clip", "packet_loss"
        }  # fmt: skip


def test_mixture_does_not_depend_on_its_batch(utterances, noises):
    simulator = make(CONFIGS["different lengths"], utterances, noises)
    together = render_on_device(collate_dry([simulator.dry(0, index) for index in range(5)], RATE))
    (alone,) = render_on_device(collate_dry([simulator.dry(0, 2)], RATE))
    peak = float(alone.mixture.abs().max())
    for name in ("mixture", "targets"):
        torch.testing.assert_close(getattr(together[2], name), getattr(alone, name), rtol=0, atol=1e-6 * peak)


def test_the_parts_sum_to_the_mixture(utterances, noises):
    simulator = make(CONFIGS["different lengths"], utterances, noises)
    for sample in render_on_device(collate_dry([simulator.dry(0, index) for index in range(4)], RATE)):
        total = sample.images.sum(dim=0) + sample.noise + sample.distortion
        torch.testing.assert_close(total, sample.mixture, rtol=0, atol=1e-6)


def test_absent_target_is_silent_in_a_batch(utterances, noises):
    simulator = make(replace(CONFIGS["absent target"], absent_probability=1.0), utterances, noises)
    (sample,) = render_on_device(collate_dry([simulator.dry(0, 0)], RATE))
    voice = sample.speaker(sample.recipe.target)
    assert voice.speaker_id == sample.recipe.absent.speaker_id
    assert not voice.target.any() and voice.target.shape == sample.mixture.shape
    assert not voice.activity.any() and voice.activity.dtype == torch.bool
    assert voice.enrollment.any()
    assert sample.speaker(0).target is not None and sample.speaker(0).target.any()


def test_bank_rooms_with_different_direct_taps(utterances, noises, monkeypatch):
    """Responses of banks and computed ones have direct paths at different taps; in a batch they are aligned."""
    from wesep_py.simulation import dry_batch as draw

    simulator = make(CONFIGS["rooms, early target"], utterances, noises)
    keys = [(1, index) for index in range(6)]
    expected = render_on_device(collate_dry([simulator.dry(*key) for key in keys], RATE))
    responses, calls = draw.room_responses, []

    def later(room, sample_rate):
        calls.append(1)
        original = responses(room, sample_rate)
        late = 37 * len(calls)
        full = np.pad(original.full, ((0, 0), (late, 0)))
        return replace(original, full=full, direct_tap=original.direct_tap + late)

    monkeypatch.setattr(draw, "room_responses", later)
    moved = render_on_device(collate_dry([simulator.dry(*key) for key in keys], RATE))
    assert len(calls) > 1
    for first, second in zip(moved, expected, strict=True):
        torch.testing.assert_close(first.mixture, second.mixture, rtol=0, atol=1e-6)
        torch.testing.assert_close(first.targets, second.targets, rtol=0, atol=1e-6)


@pytest.mark.processor
def test_rendering_is_float32_under_mixed_precision(utterances, noises):
    simulator = make(CONFIGS["different lengths"], utterances, noises)
    batch = collate_dry([simulator.dry(0, index) for index in range(3)], RATE)
    plain = render_on_device(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = render_on_device(batch)
    for first, second in zip(plain, mixed, strict=True):
        assert second.mixture.dtype == torch.float32 and torch.equal(first.mixture, second.mixture)


def test_silent_draws_are_repeated_as_on_the_cpu(utterances, tmp_path: Path):
    """Noise that is silent in places: both paths refuse the same draws."""
    import soundfile

    samples = np.zeros(RATE * 20, np.float32)
    samples[::7] = 2.0**-15
    samples[: RATE * 10] = 0.0
    path = tmp_path / "half.wav"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    silent = [Utterance("noise/half", "noise", path, 20.0)]
    modulation = ModulationConfig(1.0, depth_db=(30.0, 60.0), rate_hz=(0.5, 0.5))
    simulator = make(replace(BASE, noise=NoiseConfig(1.0, modulation=modulation)), utterances, silent)
    attempts = [(simulator.dry(0, n).plan.attempt, simulator.draw(0, n).attempt) for n in range(12)]
    assert all(first == second for first, second in attempts)
    assert max(first for first, _ in attempts) > 0


def test_source_silent_at_the_microphone_is_an_error(utterances, noises):
    simulator = make(CONFIGS["dry sources"], utterances, noises)
    dry = simulator.dry(2, 3)
    quiet = dry.dry.copy()
    quiet[0] = 0.0
    with pytest.raises(InputError, match="mixture 3 of epoch 2: a source is silent"):
        render_on_device(collate_dry([replace(dry, dry=quiet)], RATE))


def test_plan_is_the_recipe_without_gains(utterances, noises):
    simulator = make(CONFIGS["noises"], utterances, noises)

    def bare(recipe: Recipe) -> list[object]:
        sources = [(s.excerpt.utterance, s.excerpt.start, s.offset, len(s.enrollments)) for s in recipe.sources]
        return [recipe.attempt, recipe.target, recipe.num_samples, sources]

    dry, recipe = simulator.dry(0, 1), simulator.draw(0, 1)
    assert bare(dry.plan) == bare(recipe)
    assert dry.sir_db == recipe.sir_db
    assert [noise.snr_db for noise in dry.noises][:1] == ([recipe.snr_db] if recipe.noise else [])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["different lengths", "enrollments", "absent target"])
def test_gpu_renders_the_same(name: str, utterances, noises):
    simulator = make(CONFIGS[name], utterances, noises)
    keys = [(1, index) for index in range(6)]
    batch = collate_dry([simulator.dry(*key) for key in keys], RATE).pin_memory().to("cuda", non_blocking=True)
    for rendered, key in zip(render_on_device(batch), keys, strict=True):
        assert rendered.mixture.device.type == "cuda"
        arrays = {field: getattr(rendered, field) for field in ("mixture", "images", "targets", "noise", "distortion")}
        absent = None if rendered.absent_enrollment is None else rendered.absent_enrollment.cpu()
        moved = replace(
            rendered,
            **{field: value.cpu() for field, value in arrays.items()},
            enrollments=tuple(first.cpu() for first in rendered.enrollments),
            activity=rendered.activity.cpu(),
            absent_enrollment=absent,
        )
        assert_same(moved, simulator.sample(*key))
