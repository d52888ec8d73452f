"""All options at once: parts sum to the mixture, recipes render bit-exact, processes and order change nothing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import (
    ConversationConfig,
    EffectsConfig,
    EnrollmentConfig,
    ModulationConfig,
    NoiseConfig,
    Recipe,
    RoomConfig,
    Sample,
    SimulationConfig,
    Simulator,
    render,
)
from wesep_py.simulation.description.effects import (
    BandLimitConfig,
    ClipConfig,
    CodecConfig,
    EqualiseConfig,
    LevelConfig,
    PacketLossConfig,
    ResampleConfig,
)
from wesep_py.simulation.simulated_corpus import draw_recipes, render_tree

CHEAP = {"vorbis": 1.0, "mp3": 1.0, "ulaw": 1.0, "gsm": 1.0, "ima_adpcm": 1.0}
KINDS: dict[str, EffectsConfig] = {
    "level": EffectsConfig(level=LevelConfig()),
    "equalise": EffectsConfig(equalise=EqualiseConfig()),
    "band_limit": EffectsConfig(band_limit=BandLimitConfig()),
    "clip": EffectsConfig(clip=ClipConfig()),
    "codec": EffectsConfig(codec=CodecConfig(codecs=CHEAP)),
    "resample": EffectsConfig(resample=ResampleConfig()),
    "packet_loss": EffectsConfig(packet_loss=PacketLossConfig(share=(0.1, 0.2))),
}
ANY = EffectsConfig(
    level=LevelConfig(0.5),
    equalise=EqualiseConfig(0.5),
    band_limit=BandLimitConfig(0.3),
    clip=ClipConfig(0.5),
    codec=CodecConfig(0.5, CHEAP),
    resample=ResampleConfig(0.3),
    packet_loss=PacketLossConfig(0.3),
)
NOISE = NoiseConfig(
    probability=0.8,
    count={1: 1, 2: 1},
    kinds={"recording": 1, "coloured": 1, "babble": 1},
    babble_speakers=(1, 1),
    modulation=ModulationConfig(probability=0.5),
)
ROOM = RoomConfig(probability=0.5, num_reflections=256, rt60_s=(0.2, 0.3))
EVERYTHING = SimulationConfig(
    duration_s=2.5,
    num_speakers={1: 1, 2: 2},
    overlap={"full": 1, "longest": 1, "partial": 1, "conversation": 2},
    overlap_ratio=(0.0, 0.3),
    overlap_measure="activity",
    edge_s=(0.0, 0.2),
    absent_probability=0.3,
    conversation=ConversationConfig(turn_s=(0.5, 1.0), pause_s=(0.1, 0.3)),
    level_db=(-20.0, 0.0),
    noise=NOISE,
    room=ROOM,
    target="early",
    source_effects=ANY,
    mixture_effects=ANY,
    enrollment=EnrollmentConfig(duration_s=(0.6, 1.0), count=2, noise=NOISE, room=ROOM, effects=ANY),
)
PARTS = ("mixture", "images", "noise", "distortion", "targets", "activity")


@pytest.fixture(scope="module")
def simulator(utterances: list[Utterance], noises: list[Utterance], reader: FileReader) -> Simulator:
    return Simulator(EVERYTHING, utterances, noises, reader, seed=5)


def _hash(sample: Sample) -> str:
    arrays = [getattr(sample, name) for name in PARTS]
    enrollments = [*sample.enrollments, *([] if sample.absent_enrollment is None else [sample.absent_enrollment])]
    return hashlib.sha256(b"".join(array.tobytes() for array in (*arrays, *enrollments))).hexdigest()


def _check_sum(sample: Sample, peak: float) -> None:
    total = sample.images.astype(np.float64).sum(axis=0) + sample.noise + sample.distortion
    assert np.abs(sample.mixture - total).max() <= 4 * np.finfo(np.float32).eps
    assert np.abs(sample.mixture).max() <= peak * (1 + 1e-6)
    assert all(np.isfinite(getattr(sample, name)).all() for name in PARTS)


@pytest.mark.parametrize("kind", KINDS)
def test_mixture_effects_are_its_distortion(
    kind: str, utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    base = {"duration_s": 1.2, "noise": NOISE, "enrollment": EnrollmentConfig(duration_s=(0.6, 1.0))}
    plain = Simulator(SimulationConfig(**base), utterances, noises, reader)
    changed = Simulator(SimulationConfig(mixture_effects=KINDS[kind], **base), utterances, noises, reader)
    for index in range(2):
        before, sample = plain.sample(0, index), changed.sample(0, index)
        _check_sum(sample, 0.9)
        assert [effect.kind for effect in sample.recipe.effects] == [kind]
        assert not np.allclose(sample.mixture, before.mixture, atol=1e-5)
        assert sample.distortion.any() == (kind != "level")
        if kind != "level":  # the parts are as before, but for one gain where the mixture would exceed its peak
            gain = np.abs(sample.images).max() / np.abs(before.images).max()
            assert gain <= 1 + 1e-6
            np.testing.assert_allclose(sample.images, before.images * gain, atol=1e-6)
            np.testing.assert_allclose(sample.noise, before.noise * gain, atol=1e-6)
            expected = sample.recipe.effects[0].apply(before.mixture, 16000) * gain
            np.testing.assert_allclose(sample.mixture, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_source_effects_are_part_of_the_image(kind: str, utterances: list[Utterance], reader: FileReader) -> None:
    base = {"duration_s": 1.2, "enrollment": EnrollmentConfig(duration_s=(0.6, 1.0))}
    plain = Simulator(SimulationConfig(**base), utterances, [], reader)
    changed = Simulator(SimulationConfig(source_effects=KINDS[kind], **base), utterances, [], reader)
    before, sample = plain.sample(0, 0), changed.sample(0, 0)
    _check_sum(sample, 0.9)
    assert not sample.distortion.any() and sample.targets is sample.images
    for image, old, source in zip(sample.images, before.images, sample.recipe.sources, strict=True):
        assert [effect.kind for effect in source.effects] == [kind]
        raw = old / np.float32(before.recipe.sources[0].excerpt.gain)  # clipping and coding follow the level
        cosine = np.dot(image, old) / np.linalg.norm(image) / np.linalg.norm(old)
        assert raw.any() and 0.3 < cosine < 1 - 1e-6


def test_all_options_sum_and_render_bit_exact(simulator: Simulator) -> None:
    kinds: set[str] = set()
    for index in range(12):
        sample = simulator.sample(0, index)
        _check_sum(sample, 0.9)
        recipe = Recipe.from_dict(json.loads(json.dumps(sample.recipe.to_dict())), "again")
        assert recipe == sample.recipe
        assert _hash(render(recipe, FileReader(16000))) == _hash(sample)
        effects = [*sample.recipe.effects, *(effect for source in sample.recipe.sources for effect in source.effects)]
        kinds |= {effect.kind for effect in effects}
    assert kinds == set(KINDS)


def test_samples_do_not_depend_on_order_or_history(
    simulator: Simulator, utterances: list[Utterance], noises: list[Utterance]
) -> None:
    other = Simulator(EVERYTHING, list(reversed(utterances)), noises, FileReader(16000), seed=5)
    ours = [_hash(simulator.sample(1, index)) for index in range(5)]
    assert [_hash(other.sample(1, index)) for index in reversed(range(5))] == ours[::-1]
    assert len(set(ours)) == 5


def _sample_hashes(simulator: Simulator, indices: range) -> list[str]:
    return [_hash(simulator.sample(2, index)) for index in indices]


def test_result_does_not_depend_on_processes(simulator: Simulator) -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, context) as pool:
        halves = list(pool.map(_sample_hashes, [simulator] * 2, [range(4), range(4, 8)]))
    assert halves[0] + halves[1] == _sample_hashes(simulator, range(8))


def test_written_parts_sum_to_written_mixture(simulator: Simulator, tmp_path: Path) -> None:
    recipes, failures = draw_recipes(simulator, 6)
    assert not failures and render_tree(recipes, tmp_path / "tree") == []
    for recipe in recipes:
        sample = simulator.sample(0, recipe.index)
        read = {
            part: soundfile.read(tmp_path / "tree" / part / f"{recipe.mixture_id}.wav")[0]
            for part in ("mix_both", "noise", "distortion", *(f"s{k + 1}" for k in range(len(recipe.sources))))
        }
        assert np.array_equal(read["mix_both"].astype(np.float32), sample.mixture)
        images = sum(read[f"s{k + 1}"] for k in range(len(recipe.sources)))
        np.testing.assert_allclose(read["mix_both"], images + read["noise"] + read["distortion"], atol=5e-7)


def test_activity_is_written_as_rttm(simulator: Simulator, tmp_path: Path) -> None:
    recipes = [simulator.draw(0, index) for index in range(2)]
    render_tree(recipes, tmp_path / "tree")
    for recipe in recipes:
        sample = simulator.sample(0, recipe.index)
        active_by_speaker = {source.speaker_id: np.zeros(sample.activity.shape[1], bool) for source in recipe.sources}
        for line in (tmp_path / "tree" / "activity" / f"{recipe.mixture_id}.rttm").read_text().splitlines():
            kind, name, channel, start, length, *_, speaker, _, _ = line.split()
            assert (kind, name, channel) == ("SPEAKER", recipe.mixture_id, "1")
            active_by_speaker[speaker][round(float(start) * 100) : round((float(start) + float(length)) * 100)] = True
        for source, active in zip(recipe.sources, sample.activity, strict=True):
            assert np.array_equal(active_by_speaker[source.speaker_id], active)
