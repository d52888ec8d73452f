"""Noise: SNR of several noises, groups of folders, modulation, looping, and the slope of coloured noise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio import active_level_db, rms
from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance, find_noises
from wesep_py.simulation import EnrollmentConfig, ModulationConfig, NoiseConfig, NoiseGroup, SimulationConfig, Simulator
from wesep_py.simulation.description.recipe import Modulation, NoiseRecipe
from wesep_py.simulation.noise import coloured_noise, loop_recording, modulation_gains, render_noise

SHORT = EnrollmentConfig(duration_s=(1.0, 2.0))
KINDS = {"recording": 1.0, "coloured": 1.0, "babble": 1.0}


def _simulator(
    noise: NoiseConfig, utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> Simulator:
    # So loud that no frame comes near -80 dB, where activity ends whatever the loudest frame is.
    config = SimulationConfig(duration_s=1.2, level_db=(-15.0, -15.0), noise=noise, enrollment=SHORT)
    return Simulator(config, utterances, noises, reader)


@pytest.fixture(scope="module")
def musan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of MUSAN in its layout."""
    root = tmp_path_factory.mktemp("corpora") / "musan"
    rng = np.random.default_rng(0)
    for name in ("music/fma/music-fma-0000", "noise/free-sound/noise-free-sound-0000", "noise/sound-bible/noise-1",
                 "speech/librivox/speech-librivox-0000"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / f"{name}.wav", 0.05 * rng.standard_normal(16000), 16000, subtype="PCM_16")
    return root


def test_each_of_several_noises_has_its_snr(
    utterances: list[Utterance], noises: list[Utterance], reader: FileReader
) -> None:
    config = NoiseConfig(
        probability=1.0, count={2: 1, 3: 1}, kinds=KINDS, snr_db=(5.0, 9.0), kind_snr_db={"babble": [15.0, 16.0]}
    )
    simulator = _simulator(config, utterances, noises, reader)
    counts = set()
    for index in range(8):
        sample = simulator.sample(0, index)
        recipe = sample.recipe
        counts.add(len(recipe.noises))
        speech_db = active_level_db(sample.images.sum(axis=0), 16000)
        total = np.zeros_like(sample.noise)
        for number, noise in enumerate(recipe.noises):
            snr_db = noise.snr_db if number else recipe.snr_db
            low, high = (15.0, 16.0) if noise.kind == "babble" else (5.0, 9.0)
            assert snr_db is not None and low <= snr_db <= high
            rendered = render_noise(noise, recipe.num_samples, reader) * np.float32(noise.gain)
            assert speech_db - active_level_db(rendered, 16000) == pytest.approx(snr_db, abs=0.02)
            total += rendered
        np.testing.assert_allclose(sample.noise, total, atol=1e-6)
    assert counts == {2, 3}


def test_groups_have_their_weights_and_snr(utterances: list[Utterance], reader: FileReader, musan: Path) -> None:
    noises = find_noises(["musan"], musan.parent)
    groups = (
        NoiseGroup("musan/noise", weight=3.0),
        NoiseGroup("music", weight=1.0, snr_db=(30.0, 30.0)),
    )
    simulator = _simulator(NoiseConfig(probability=1.0, groups=groups), utterances, noises, reader)
    drawn = Counter()
    for index in range(60):
        recipe = simulator.draw(0, index)
        assert recipe.noise is not None
        name = recipe.noise.stretches[0].utterance.path.name
        drawn[name] += 1
        assert (recipe.snr_db == 30.0) == name.startswith("music")
    assert drawn["music-fma-0000.wav"] == pytest.approx(15, abs=9)
    assert drawn["noise-1.wav"] > 5 and drawn["noise-free-sound-0000.wav"] > 5
    assert set(drawn) == {"music-fma-0000.wav", "noise-1.wav", "noise-free-sound-0000.wav"}


def test_group_without_recordings_is_named(utterances: list[Utterance], reader: FileReader, musan: Path) -> None:
    noises = find_noises(["musan"], musan.parent)
    for groups in ((NoiseGroup("musan/babble"),), (NoiseGroup("musan"), NoiseGroup("musan/noise"))):
        with pytest.raises(InputError, match=r"noise\.groups\[\d\]\.folder: no noise recording lies in a folder"):
            _simulator(NoiseConfig(probability=1.0, groups=groups), utterances, noises, reader)


def test_modulation_of_the_level() -> None:
    modulation = Modulation(rate_hz=2.0, depth_db=12.0, phase=0.0)
    gains_db = 20 * np.log10(modulation_gains(modulation, 16000, 16000))
    assert gains_db.max() == pytest.approx(6.0, abs=1e-3) and gains_db.min() == pytest.approx(-6.0, abs=1e-3)
    assert gains_db[2000] == pytest.approx(6.0, abs=1e-3) and gains_db[6000] == pytest.approx(-6.0, abs=1e-3)
    noise = render_noise(NoiseRecipe("coloured", seed=1, modulation=modulation), 16000, FileReader(16000))
    loud, quiet = rms(noise[1500:2500]), rms(noise[5500:6500])
    assert 20 * np.log10(loud / quiet) == pytest.approx(12.0, abs=1.0)


def test_share_of_modulated_noises(utterances: list[Utterance], reader: FileReader) -> None:
    config = NoiseConfig(
        probability=1.0, kinds={"coloured": 1.0}, modulation=ModulationConfig(probability=0.5, depth_db=(6.0, 8.0))
    )
    simulator = _simulator(config, utterances, [], reader)
    swings = [simulator.draw(0, index).noises[0].modulation for index in range(60)]
    assert sum(modulation is not None for modulation in swings) == pytest.approx(30, abs=12)
    assert all(6.0 <= modulation.depth_db <= 8.0 for modulation in swings if modulation is not None)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: NoiseConfig(count=0), "count"),
        (lambda: NoiseConfig(count={9: 1.0}), "count"),
        (lambda: NoiseConfig(kind_snr_db={"bable": [0.0, 1.0]}), "did you mean 'babble'"),
        (lambda: NoiseConfig(kind_snr_db={"babble": [3.0]}), "kind_snr_db.babble"),
        (lambda: NoiseConfig(kind_snr_db={"babble": [3.0, 1.0]}), "kind_snr_db.babble"),
        (lambda: NoiseGroup("musan", weight=0.0), "weight"),
        (lambda: NoiseGroup("/"), "folder"),
        (lambda: ModulationConfig(depth_db=(-1.0, 3.0)), "depth_db"),
        (lambda: ModulationConfig(rate_hz=(0.0, 3.0)), "rate_hz"),
    ],
)
def test_value_out_of_range_is_named(make: object, key: str) -> None:
    with pytest.raises(ValueError, match=key) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)


def test_recording_is_looped() -> None:
    recording = np.arange(5, dtype=np.float32)
    assert loop_recording(recording, 3, 9).tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert loop_recording(recording, 13, 2).tolist() == [3, 4]
    assert loop_recording(recording, 0, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("slope_db", [-6.0, -3.0, 0.0, 3.0])
def test_coloured_noise_has_its_slope(slope_db: float) -> None:
    noise = coloured_noise(20 * 16000, 16000, slope_db, seed=1)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.1, rel=0.05)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz_per_bin = 16000 / noise.size
    # Power density in octaves around 250 Hz … 4 kHz.
    densities = [
        power[int(f / 1.414 / hz_per_bin) : int(f * 1.414 / hz_per_bin)].mean() for f in (250, 500, 1000, 2000)
    ]
    per_octave = np.diff(10 * np.log10(densities))
    np.testing.assert_allclose(per_octave, slope_db, atol=0.5)


def test_coloured_noise_is_a_function_of_its_seed() -> None:
    assert np.array_equal(coloured_noise(1000, 16000, -3.0, 5), coloured_noise(1000, 16000, -3.0, 5))
    assert not np.array_equal(coloured_noise(1000, 16000, -3.0, 5), coloured_noise(1000, 16000, -3.0, 6))
