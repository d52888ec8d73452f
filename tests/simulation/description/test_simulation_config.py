"""Configuration of the simulation: shorthands, and messages that name the key of every value out of range."""

from __future__ import annotations

import pytest

from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import ConfigError
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig


def test_shorthands_become_weights() -> None:
    config = SimulationConfig(num_speakers=3, overlap="partial")
    assert config.speaker_weights == {3: 1.0}
    assert config.overlap_weights == {"partial": 1.0}


def test_text_keys_become_numbers() -> None:
    assert SimulationConfig(num_speakers={"1": 1, "2": 3}).num_speakers == {1: 1.0, 2: 3.0}  # type: ignore[dict-item]


def test_saved_config_is_read_back_equal() -> None:
    config = SimulationConfig(
        num_speakers={1: 1, 3: 2}, noise=NoiseConfig(probability=0.5), room=RoomConfig(), target="early"
    )
    assert construct(SimulationConfig, to_plain(config)) == config


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: SimulationConfig(sir_db=(5.0, -5.0)), "sir_db"),
        (lambda: SimulationConfig(duration_s=0.0), "duration_s"),
        (lambda: SimulationConfig(num_speakers=5), "num_speakers"),
        (lambda: SimulationConfig(num_speakers={2: -1.0}), "num_speakers.2"),
        (lambda: SimulationConfig(num_speakers={2: 0.0}), "num_speakers"),
        (lambda: SimulationConfig(overlap="ful"), "did you mean 'full'"),
        (lambda: SimulationConfig(overlap_ratio=(0.0, 1.5)), "overlap_ratio"),
        (lambda: SimulationConfig(peak=1.5), "peak"),
        (lambda: SimulationConfig(level_db=(-20.0, 3.0)), "level_db"),
        (lambda: SimulationConfig(duration_s=1.0, min_source_s=2.0), "min_source_s"),
        (lambda: NoiseConfig(probability=1.5), "probability"),
        (lambda: NoiseConfig(kinds={"pink": 1.0}), "kinds"),
        (lambda: NoiseConfig(babble_speakers=(0, 4)), "babble_speakers"),
        (lambda: RoomConfig(rt60_s=(0.0, 0.5)), "rt60_s"),
        (lambda: RoomConfig(height_m=(1.0, 3.0)), "height_m"),
        (lambda: RoomConfig(num_reflections=1), "num_reflections"),
        (lambda: EnrollmentConfig(duration_s=(0.1, 3.0)), "duration_s"),
        (lambda: EnrollmentConfig(count=-1), "count"),
        (lambda: EnrollmentConfig(gap_s=-1.0), "gap_s"),
    ],
)
def test_value_out_of_range_is_named(make: object, key: str) -> None:
    with pytest.raises(ValueError, match=key) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)


def test_error_names_full_yaml_key() -> None:
    with pytest.raises(ConfigError, match=r"^simulation\.noise: snr_db"):
        construct(SimulationConfig, {"noise": {"snr_db": [10, 0]}}, "simulation")
    with pytest.raises(ConfigError, match=r"^simulation\.room\.rt60: unknown key; did you mean 'rt60_s'"):
        construct(SimulationConfig, {"room": {"rt60": [0.1, 0.2]}}, "simulation")
