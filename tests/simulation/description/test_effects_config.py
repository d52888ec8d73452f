"""Drawing of effects: probabilities, order and ranges; messages for wrong values."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import ConfigError
from wesep_py.simulation.description.effects import (
    BandLimitConfig,
    ClipConfig,
    Clipping,
    CodecConfig,
    CodecRoundTrip,
    EffectsConfig,
    Equalisation,
    EqualiseConfig,
    LevelConfig,
    LevelDrift,
    PacketLoss,
    PacketLossConfig,
    ResampleConfig,
    ResampleRoundTrip,
    SpeedConfig,
)
from wesep_py.simulation.description.simulation_config import SimulationConfig

ALL = EffectsConfig(
    LevelConfig(),
    EqualiseConfig(),
    BandLimitConfig(),
    ClipConfig(),
    CodecConfig(),
    ResampleConfig(),
    PacketLossConfig(),
)
ORDER = ["level", "equalise", "band_limit", "clip", "codec", "resample", "packet_loss"]


def test_effects_are_drawn_in_fixed_order() -> None:
    assert [effect.kind for effect in ALL.draw(np.random.default_rng(0), 16000)] == ORDER
    assert EffectsConfig().draw(np.random.default_rng(0), 16000) == ()


def test_each_effect_has_its_probability() -> None:
    config = EffectsConfig(clip=ClipConfig(probability=0.2), resample=ResampleConfig(probability=0.7))
    rng = np.random.default_rng(0)
    drawn = Counter(effect.kind for _ in range(1000) for effect in config.draw(rng, 16000))
    assert drawn["clip"] == pytest.approx(200, abs=50) and drawn["resample"] == pytest.approx(700, abs=50)


def test_drawn_values_are_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        level, equaliser, _, clip, codec, resampled, packets = ALL.draw(rng, 16000)
        assert isinstance(level, LevelDrift) and -3 <= level.begin_db <= 3 and -3 <= level.end_db <= 3
        assert isinstance(equaliser, Equalisation) and np.abs(equaliser.coefficients).max() <= 0.375
        poles = np.abs(np.roots([1.0, *equaliser.coefficients[2:]]))
        assert poles.max() < 1
        assert isinstance(clip, Clipping) and 10 ** (-12 / 20) <= clip.fraction <= 10 ** (-1 / 20)
        assert isinstance(codec, CodecRoundTrip) and codec.compression in {0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
        assert resampled == ResampleRoundTrip(8000)
        assert isinstance(packets, PacketLoss) and 0.01 <= packets.share <= 0.1


def test_saved_config_is_read_back_equal() -> None:
    assert construct(EffectsConfig, to_plain(ALL)) == ALL


def test_resampling_to_higher_rate_changes_nothing() -> None:
    config = EffectsConfig(resample=ResampleConfig(rates_hz=(24000,)))
    (effect,) = config.draw(np.random.default_rng(0), 16000)
    waveform = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert np.array_equal(effect.apply(waveform, 16000), waveform)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: LevelConfig(probability=2.0), "probability"),
        (lambda: LevelConfig(change_db=(3.0, -3.0)), "change_db"),
        (lambda: EqualiseConfig(coefficient=0.6), "coefficient"),
        (lambda: EqualiseConfig(low_hz=(0.0, 100.0)), "low_hz"),
        (lambda: BandLimitConfig(low_hz=(100.0, 4000.0)), "high_hz"),
        (lambda: ClipConfig(below_peak_db=(-1.0, 3.0)), "below_peak_db"),
        (lambda: CodecConfig(codecs={"oppus": 1.0}), "did you mean 'opus'"),
        (lambda: CodecConfig(compression=(0.0, 1.0)), "compression"),
        (lambda: ResampleConfig(rates_hz=()), "rates_hz"),
        (lambda: PacketLossConfig(share=(0.0, 0.9)), "share"),
        (lambda: PacketLossConfig(packet_ms=0.0), "packet_ms"),
    ],
)
def test_value_out_of_range_is_named(make: object, key: str) -> None:
    with pytest.raises(ValueError, match=key) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)


def test_drawing_speed_changes_no_other_effect() -> None:
    with_speed = replace(ALL, speed=SpeedConfig(factor=(0.9, 1.1)))
    assert with_speed.draw(np.random.default_rng(4), 16000) == ALL.draw(np.random.default_rng(4), 16000)
    rng = np.random.default_rng(0)
    drawn = [with_speed.draw_speed(rng, 16000) for _ in range(300)]
    factors = {speed.factor for (speed,) in drawn}
    assert factors == {round(0.9 + 0.01 * step, 2) for step in range(21)}
    half = EffectsConfig(speed=SpeedConfig(probability=0.5))
    assert sum(len(half.draw_speed(rng, 16000)) for _ in range(400)) == pytest.approx(200, abs=50)
    assert ALL.draw_speed(rng, 16000) == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"source_effects": {"speed": {}}},
            r"source_effects\.speed: .* another speaker: set data\.speeds",
        ),
        ({"mixture_effects": {"speed": {}}}, r"mixture_effects\.speed: .* not aligned with its targets"),
        ({"enrollment": {"effects": {"speed": {"factor": [0, 1]}}}}, r"enrollment\.effects\.speed: factor: is \[0"),
    ],
)
def test_impossible_speed_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        construct(SimulationConfig, values)
