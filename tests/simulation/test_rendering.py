"""Rendering against a slow reference: each source read, placed, convolved and scaled step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, RoomConfig, Sample, SimulationConfig, Simulator, render
from wesep_py.simulation.rendering import frame_activity, mix
from wesep_py.simulation.rooms.reverberation import room_responses

SHORT = EnrollmentConfig(duration_s=(1.0, 2.0))


def _dry(sample: Sample, reader: FileReader) -> np.ndarray:
    placed = np.zeros(sample.images.shape, dtype=np.float64)
    for row, source in zip(placed, sample.recipe.sources, strict=True):
        excerpt = source.excerpt
        raw = reader.read(excerpt.utterance)[excerpt.start : excerpt.start + excerpt.num_samples]
        row[source.offset : source.offset + raw.size] = raw.astype(np.float64) * excerpt.gain
    return placed


def test_images_are_the_placed_sources(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(duration_s=2.0, num_speakers=3, overlap="longest", enrollment=SHORT)
    simulator = Simulator(config, utterances, [], reader)
    for index in range(5):
        sample = render(simulator.draw(0, index), reader)
        np.testing.assert_allclose(sample.images, _dry(sample, reader), atol=1e-6)
        assert np.array_equal(sample.targets, sample.images)
        assert not sample.noise.any() and not sample.distortion.any()


@pytest.mark.parametrize("target", ["dry", "early", "full"])
def test_images_in_a_room_are_convolved(utterances: list[Utterance], reader: FileReader, target: str) -> None:
    config = SimulationConfig(duration_s=1.5, room=RoomConfig(), target=target, enrollment=SHORT)  # type: ignore[arg-type]
    sample = Simulator(config, utterances, [], reader).sample(0, 1)
    assert sample.recipe.room is not None
    responses = room_responses(sample.recipe.room, 16000)
    tap = responses.direct_tap
    for source, dry in enumerate(_dry(sample, reader)):
        image = np.convolve(dry, responses.full[source])[tap : tap + dry.size]
        np.testing.assert_allclose(sample.images[source], image, atol=1e-5)
        wanted = {
            "dry": dry * responses.direct_gains[source],
            "early": np.convolve(dry, responses.early[source])[tap : tap + dry.size],
            "full": image,
        }[target]
        np.testing.assert_allclose(sample.targets[source], wanted, atol=1e-5)


def test_sample_equals_rendered_draw(utterances: list[Utterance], noises: list[Utterance], reader: FileReader) -> None:
    noise = NoiseConfig(probability=1.0, kinds={"recording": 1.0, "coloured": 1.0, "babble": 1.0})
    config = SimulationConfig(duration_s=1.5, noise=noise, room=RoomConfig(), target="early", enrollment=SHORT)
    simulator = Simulator(config, utterances, noises, reader)
    for index in range(5):
        ours, theirs = simulator.sample(0, index), render(simulator.draw(0, index), FileReader(16000))
        assert ours.recipe == theirs.recipe
        for name in ("mixture", "images", "noise", "targets", "activity"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
        assert all(map(np.array_equal, ours.enrollments, theirs.enrollments))


def test_enrollments_are_joined(utterances: list[Utterance], reader: FileReader) -> None:
    config = SimulationConfig(duration_s=1.5, enrollment=EnrollmentConfig(duration_s=(1.0, 1.0), count=3))
    sample = Simulator(config, utterances, [], reader).sample(0, 0)
    for source, enrollment in zip(sample.recipe.sources, sample.enrollments, strict=True):
        assert len(source.enrollments) == 3
        assert enrollment.dtype == np.float32 and enrollment.shape == (3 * 16000,)
        last = source.enrollments[-1]
        raw = reader.read(last.utterance, last.start, last.stop)
        np.testing.assert_allclose(enrollment[-16000:], raw * np.float32(last.gain))


def test_rendering_does_not_modify_its_input(utterances: list[Utterance]) -> None:
    # Levels applied in place would make the same utterance drift from use to use.
    reader = FileReader(16000)
    simulator = Simulator(SimulationConfig(duration_s=1.5, enrollment=SHORT), utterances, [], reader)
    before = [reader.read(utterance) for utterance in utterances]
    for index in range(10):
        simulator.sample(0, index)
    assert all(np.array_equal(reader.read(u), old) for u, old in zip(utterances, before, strict=True))


def test_activity_follows_the_speech() -> None:
    waveform = np.zeros(16000, dtype=np.float32)
    waveform[4800:9600] = 0.1
    activity = frame_activity(waveform, 16000)
    assert activity.shape == (100,)
    assert np.array_equal(np.flatnonzero(activity), np.arange(30, 60))
    assert frame_activity(waveform[:161], 16000).shape == (2,)


def test_reader_of_another_rate_is_refused(utterances: list[Utterance], reader: FileReader) -> None:
    recipe = Simulator(SimulationConfig(duration_s=1.5, enrollment=SHORT), utterances, [], reader).draw(0, 0)
    with pytest.raises(InputError, match=r"is for 16000 Hz, the reader gives 8000 Hz"):
        render(recipe, FileReader(8000))


def test_mixture_is_the_sum_in_the_order_of_its_parts() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, 1000)).astype(np.float32)
    noise, distortion = rng.standard_normal((2, 1000)).astype(np.float32)
    expected = (((images[0] + images[1]) + images[2]) + noise) + distortion
    assert np.array_equal(mix(images, noise, distortion), expected)
    assert np.array_equal(mix(images), images[0] + images[1] + images[2])
    batch = mix(torch.from_numpy(np.stack([images, images])), torch.from_numpy(np.stack([noise, noise])))
    assert batch.shape == (2, 1000) and batch.dtype == torch.float32
    torch.testing.assert_close(batch[1].numpy(), mix(images, noise), rtol=0, atol=1e-6)
