"""Mixtures of every YAML of simulation/, measured: speakers, levels, SIR, SNR, rooms, overlap."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio.level import active_level_db, loudness_lufs
from wesep_py.common.config import construct, load_yaml
from wesep_py.simulation.description.simulation_config import SimulationConfig
from wesep_py.simulation.rendering import Sample
from wesep_py.simulation.rooms.acoustics import rt60_s
from wesep_py.simulation.rooms.bank_making import RoomBankConfig, make_bank
from wesep_py.simulation.rooms.reverberation import room_responses
from wesep_py.simulation.simulated_corpus import CorpusConfig, make_simulator
from wesep_py.simulation.speech.conversation import conversation_overlap_ratio

FOLDER = Path(__file__).resolve().parents[2] / "simulation"
COUNT = 16
MIXTURES = (
    "librimix_like",
    "libri3mix_like",
    "librinmix_like",
    "librimix_reverberant",
    "whamr_like",
    "meeting_like",
    "conversation_like",
)


@pytest.fixture(scope="module")
def drawn(corpus: Path):
    """`drawn(name, key=value, …)`: the configuration of a YAML and its first mixtures."""

    @cache
    def draw(name: str, *overrides: str) -> tuple[SimulationConfig, list[Sample]]:
        settings = construct(CorpusConfig, load_yaml(FOLDER / f"{name}.yaml", [*_here(corpus), *overrides]))
        simulator = make_simulator(settings)
        return settings.simulation, [simulator.sample(0, index) for index in range(COUNT)]

    return draw


def test_every_yaml_is_tested():
    others = {"room_bank", "noise_lmdb"}  # below, and in test_noise_layouts.py
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*MIXTURES, *others}


@pytest.mark.parametrize("name", MIXTURES)
def test_parts_levels_sir_and_snr(drawn, name: str):
    config, samples = drawn(name)
    sirs, snrs = [], []
    for sample in samples:
        recipe, rate = sample.recipe, sample.recipe.sample_rate
        parts = sample.images.sum(axis=0) + sample.noise + sample.distortion
        assert np.allclose(parts, sample.mixture, atol=1e-5)
        assert np.abs(sample.mixture).max() <= config.peak + 1e-4
        assert config.speaker_weights[len(recipe.sources)] > 0 and len(sample.images) == len(recipe.sources)
        if recipe.effects:
            continue  # they change levels after these are set
        levels_db = [active_level_db(image, rate) for image in sample.images]
        measured = [levels_db[recipe.reference] - level for level in levels_db]
        assert measured == pytest.approx(recipe.sir_db, abs=0.05)
        if config.loudness is not None:
            continue  # test_loudness_is_that_of_librimix
        level_db = active_level_db(sample.mixture, rate)
        loudest = max(np.abs(part).max() for part in (*sample.images, sample.noise, sample.mixture))
        assert level_db <= config.level_db[1] + 0.1
        assert level_db >= config.level_db[0] - 0.1 or loudest > config.peak - 0.01
        sirs += [sir for source, sir in enumerate(recipe.sir_db) if source != recipe.reference]
        if len(recipe.noises) == 1:
            snr_db = active_level_db(sample.images.sum(axis=0), rate) - active_level_db(sample.noise, rate)
            assert snr_db == pytest.approx(recipe.snr_db, abs=0.1)
            snrs.append((recipe.noises[0].kind, snr_db))
    if config.loudness is None:
        _spans(sirs, config.sir_db)
    for kind, snr_db in snrs:
        low, high = config.noise.snr_range(kind)
        assert low - 0.1 <= snr_db <= high + 0.1


@pytest.mark.parametrize("name", MIXTURES[:4])
def test_loudness_is_that_of_librimix(drawn, name: str):
    config, samples = drawn(name)
    voices, noises = [], []
    for sample in samples:
        if max(np.abs(part).max() for part in (*sample.images, sample.noise, sample.mixture)) > config.peak - 0.01:
            continue  # all parts together are scaled down
        rate = sample.recipe.sample_rate
        voices += [loudness_lufs(image, rate) for image in sample.images]
        noises.append(loudness_lufs(sample.noise, rate))
    assert len(noises) > COUNT // 2
    for found, (low, high) in ((voices, (-33, -25)), (noises, (-38, -30))):
        _spans(found, (low - 0.01, high + 0.01))


@pytest.mark.parametrize("name", MIXTURES[:5])
def test_corpora_for_evaluation_are_noisy_and_whole(drawn, name: str):
    config, samples = drawn(name)
    lengths = {sample.mixture.size for sample in samples}
    assert config.duration_s is None and config.noise.probability == 1
    for sample in samples:
        assert np.abs(sample.noise).max() > 0
        assert {(source.offset, source.excerpt.num_samples) for source in sample.recipe.sources} == {
            (0, sample.mixture.size)
        }
    assert lengths <= {round(5.0 * 16000)}  # as long as the miniature's utterances


def test_the_numbers_of_speakers(drawn):
    counts = {name: [len(sample.images) for sample in drawn(name)[1]] for name in MIXTURES}
    assert set(counts["librimix_like"]) == set(counts["whamr_like"]) == {2}
    assert set(counts["libri3mix_like"]) == {3}
    assert {2, 3} <= set(counts["librinmix_like"]) <= {1, 2, 3, 4} and len(set(counts["librinmix_like"])) >= 3
    assert set(counts["meeting_like"]) == {1, 2, 3} == set(counts["conversation_like"])


@pytest.mark.parametrize("name", ["librimix_reverberant", "whamr_like", "meeting_like", "conversation_like"])
def test_rooms_have_configured_size_and_decay(drawn, name: str):
    config, samples = drawn(name)
    rooms = [sample.recipe.room for sample in samples if sample.recipe.room is not None]
    assert len(rooms) >= (COUNT if config.room.probability == 1 else COUNT // 2)
    ratios = []
    for room in rooms:
        for size, bounds in zip(
            room.size_m, (config.room.length_m, config.room.width_m, config.room.height_m), strict=True
        ):
            assert bounds[0] <= size <= bounds[1]
        assert config.room.rt60_s[0] <= room.rt60_s <= config.room.rt60_s[1]
        assert max(room.distances_m) <= config.room.distance_m[1] + 1e-6
        responses = room_responses(room, 16000)
        ratios.append(rt60_s(responses.full[0, responses.direct_tap :], 16000) / room.rt60_s)
    _spans([room.rt60_s for room in rooms], config.room.rt60_s)
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("name", "kind"), [("whamr_like", "direct"), ("librimix_reverberant", "early")])
def test_targets_of_rooms_have_less_reverberation_than_the_images(drawn, name: str, kind: str):
    for sample in drawn(name)[1]:
        assert sample.recipe.target_kind == kind
        late = sample.images - sample.targets
        assert np.sum(late**2) > 0 and not np.allclose(sample.targets, sample.images)
    for sample in drawn("librimix_like")[1]:
        assert np.array_equal(sample.targets, sample.images)


def test_conversations_overlap_and_some_targets_are_absent(drawn):
    # The ratio is that of the voices before rooms, which prolong them: without a room, all else stays as it was drawn.
    config, samples = drawn("conversation_like", "simulation.room.probability=0", "simulation.source_effects=null")
    talks = [sample for sample in samples if sample.recipe.overlap == "conversation" and len(sample.images) > 1]
    ratios = [sample.recipe.overlap_ratio for sample in talks]
    for sample, ratio in zip(talks, ratios, strict=True):
        assert conversation_overlap_ratio(list(sample.activity)) == pytest.approx(ratio, abs=0.02)
    _spans(ratios, config.overlap_ratio)
    assert {sample.mixture.size for sample in samples} == {12 * 16000}
    absent = sum(sample.recipe.absent is not None for sample in samples)
    assert 2 <= absent <= 11  # of 16, at 0.4


def test_other_versions_of_whamr(drawn):
    _, samples = drawn("whamr_like", "sample_rate=8000", "simulation.overlap=longest", "speech=[uneven.jsonl]")
    for sample in samples:
        lengths = {source.excerpt.num_samples for source in sample.recipe.sources}
        assert sample.recipe.sample_rate == 8000 and sample.mixture.size == max(lengths) <= 5 * 8000
    assert any(len({source.excerpt.num_samples for source in sample.recipe.sources}) == 2 for sample in samples)


@pytest.mark.parametrize("name", MIXTURES)
def test_command_renders_the_yaml(corpus: Path, tmp_path: Path, wesep, name: str):
    ran = wesep("simulate", FOLDER / f"{name}.yaml", *_here(corpus), "-o", tmp_path / "out", "--count", 2, "--jobs", 1)
    assert ran.status == 0, ran.err
    for file in sorted((tmp_path / "out" / "mix_both").iterdir()):
        images = sorted(path for path in (tmp_path / "out").glob(f"s[0-9]/{file.name}"))
        others = [tmp_path / "out" / part / file.name for part in ("noise", "distortion")]
        parts = [soundfile.read(path)[0] for path in (*images, *others) if path.is_file()]
        assert images and np.allclose(sum(parts), soundfile.read(file)[0], atol=1e-5)
    assert len((tmp_path / "out" / "map_mixture2enrollment").read_text().splitlines()) >= 2


def test_bank_rooms_are_within_their_ranges(tmp_path: Path):
    changes = ["simulated.count=2", "simulated.num_sources=2", "simulated.num_rays=500"]
    config = construct(RoomBankConfig, load_yaml(FOLDER / "room_bank.yaml", changes))
    bank = make_bank(config, tmp_path / "rooms")
    assert (len(bank.rooms), len(bank.responses), bank.sample_rate) == (2, 4, 16000)
    low, high = config.simulated.rt60_s
    for room in bank.rooms:
        assert low * 0.9 <= room["rt60_s"] <= high * 1.5


def _here(corpus: Path) -> list[str]:
    uneven = corpus / "uneven.jsonl"
    if not uneven.exists():  # every other utterance is one second shorter
        lines = (corpus / "speech.jsonl").read_text().splitlines()
        uneven.write_text(
            "\n".join(
                line.replace('"duration_s": 5.0', '"duration_s": 4.0') if number % 2 else line
                for number, line in enumerate(lines)
            )
        )
    return [f"root={corpus}", "speech=[speech.jsonl]", "noise=[noise]"]


def _spans(values: list[float], bounds: tuple[float, float]) -> None:
    """Check that values are within a range and fill more than a third of it."""
    low, high = bounds
    assert low - 1e-6 <= min(values) and max(values) <= high + 1e-6
    assert max(values) - min(values) > (high - low) / 3
