"""SI-SDR, the SNR family, spectral distances and absent energy: known values, silent targets, refused arguments."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.metrics import si_sdr
from wesep_py.training.losses import SDSDR, SISDR, SNR, AbsentEnergy, MultiResolutionSpectral, ThresholdedSDR, losses


def output_of(*waveforms: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(waveforms=waveforms)


@pytest.fixture
def target() -> torch.Tensor:
    return torch.randn(3, 800, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def estimate(target: torch.Tensor) -> torch.Tensor:
    return target + 0.3 * torch.randn(3, 800, generator=torch.Generator().manual_seed(1))


def test_si_sdr_is_the_negative_mean_of_the_metric(target, estimate):
    loss = losses.build({"name": "si_sdr"}, where="loss")
    assert loss(output_of(estimate), target, {}).item() == pytest.approx(-si_sdr(estimate, target).mean().item())


def test_si_sdr_weighs_the_waveforms(target, estimate):
    loss = losses.build({"name": "si_sdr", "weights": [0.8, 0.1, 0.1]}, where="loss")
    waveforms = (estimate, estimate + 0.5, target + 2 * estimate.flip(1))
    expected = -sum(w * si_sdr(x, target).mean() for w, x in zip((0.8, 0.1, 0.1), waveforms, strict=True))
    assert loss(output_of(*waveforms), target, {}).item() == pytest.approx(expected.item(), abs=1e-5)


def test_si_sdr_skips_silent_targets(target, estimate):
    with_silence = torch.cat([target, torch.zeros(1, 800)])
    estimates = torch.cat([estimate, torch.ones(1, 800).cumsum(1)]).requires_grad_()
    value = SISDR()(output_of(estimates), with_silence, {})
    assert value.item() == pytest.approx(SISDR()(output_of(estimate), target, {}).item())
    value.backward()
    assert estimates.grad is not None
    assert estimates.grad[:3].abs().sum() > 0
    assert estimates.grad[3].abs().sum() == 0


def test_si_sdr_of_silent_targets_alone_is_0_with_zero_gradients():
    estimate = torch.randn(2, 100, requires_grad=True)
    value = SISDR()(output_of(estimate), torch.zeros(2, 100), {})
    assert value.item() == 0
    value.backward()
    assert estimate.grad is not None and (estimate.grad == 0).all()


def test_si_sdr_of_a_silent_estimate_has_finite_gradients(target):
    estimate = torch.zeros(3, 800, requires_grad=True)
    SISDR()(output_of(estimate), target, {}).backward()
    assert estimate.grad is not None and torch.isfinite(estimate.grad).all()


def test_si_sdr_ceiling(target):
    close = target + 1e-4 * torch.randn_like(target)
    assert SISDR(ceiling_db=30)(output_of(close), target, {}).item() == pytest.approx(-30, abs=0.01)
    assert SISDR()(output_of(close), target, {}).item() < -70


def test_si_sdr_of_half_precision_output_is_computed_in_float32(target, estimate):
    value = SISDR()(output_of(estimate.bfloat16()), target, {})
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(SISDR()(output_of(estimate), target, {}).item(), abs=0.05)


def test_minimising_si_sdr_finds_the_target(target):
    estimate = torch.randn(3, 800, generator=torch.Generator().manual_seed(2)).requires_grad_()
    optimiser = torch.optim.Adam([estimate], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        SISDR()(output_of(estimate), target, {}).backward()
        optimiser.step()
    assert si_sdr(estimate, target).min().item() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [0.5, -0.5]}, "weights is"),
        ({"weights": [0.0]}, "not all zero"),
        ({"weights": []}, "not all zero"),
        ({"ceiling_db": 0.0}, "give a number of dB > 0"),
        ({"celling_db": 3}, "did you mean 'ceiling_db'"),
    ],
)
def test_si_sdr_refuses_impossible_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        losses.build({"name": "si_sdr", **arguments}, where="loss")


def test_si_sdr_refuses_outputs_that_do_not_fit(target):
    with pytest.raises(ValueError, match="3 waveforms and the si_sdr loss has no weights"):
        SISDR()(output_of(target, target, target), target, {})
    with pytest.raises(ValueError, match="1 waveforms and the si_sdr loss has 2 weights"):
        SISDR(weights=(1.0, 1.0))(output_of(target), target, {})
    with pytest.raises(ValueError, match=r"shape \[3, 799\] and the target \[3, 800\]"):
        SISDR()(output_of(target[:, 1:]), target, {})


# Two orthogonal signals of energy 4.
TARGET = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
ERROR = torch.tensor([[1.0, 1.0, -1.0, -1.0]])


def sdr_value(loss, *estimates: torch.Tensor, target: torch.Tensor = TARGET) -> float:
    return loss(SimpleNamespace(waveforms=estimates), target, {}).item()


@pytest.mark.parametrize(
    ("loss", "estimate", "expected"),
    [
        (SNR(), TARGET + 0.1 * ERROR, -20.0),
        (SNR(), 0.9 * TARGET, -20.0),  # level counts
        (SNR(), 0 * TARGET, 0.0),
        (ThresholdedSDR(30), TARGET, -30.0),
        (ThresholdedSDR(20), TARGET + 0.1 * ERROR, -16.9897),  # 10 log10(1 / (0.01 + 0.01))
        (ThresholdedSDR(30), 0 * TARGET, 0.0043),
        (SDSDR(), TARGET + 0.1 * ERROR, -20.0),
        (SDSDR(), 0.5 * TARGET, 0.0),  # |0.5 s|² = |s - 0.5 s|²
        (SDSDR(), 2 * TARGET, -6.0206),
    ],
)
def test_known_values_of_the_snr_family(loss, estimate: torch.Tensor, expected: float):
    assert sdr_value(loss, estimate) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("name", "theirs"), [("snr", "snr"), ("sd_sdr", "sdsdr")])
def test_asteroid_agrees_with_the_snr_family(name: str, theirs: str):
    sdr = pytest.importorskip("asteroid.losses.sdr")
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 4, 2000, generator=generator)
    estimate = 0.7 * target + 0.3 * noise
    expected = sdr.SingleSrcNegSDR(theirs, zero_mean=False)(estimate, target).mean().item()
    assert sdr_value(losses.build({"name": name}, "loss"), estimate, target=target) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["snr", "thresholded_sdr", "sd_sdr"])
def test_snr_family_skips_silent_targets_with_finite_gradients(name: str):
    loss = losses.build({"name": name}, "loss")
    target = torch.cat([TARGET, torch.zeros(1, 4)])
    estimate = torch.cat([TARGET + 0.1 * ERROR, ERROR]).requires_grad_()
    value = loss(SimpleNamespace(waveforms=(estimate,)), target, {})
    assert value.item() == pytest.approx(sdr_value(loss, TARGET + 0.1 * ERROR), abs=1e-4)
    value.backward()
    assert estimate.grad[0].abs().sum() > 0 and (estimate.grad[1] == 0).all()
    silent = torch.zeros(1, 4, requires_grad=True)
    loss(SimpleNamespace(waveforms=(silent,)), TARGET, {}).backward()
    assert silent.grad.isfinite().all()


def test_a_target_marked_absent_is_skipped():
    output = SimpleNamespace(waveforms=(torch.cat([TARGET + 0.1 * ERROR, ERROR]),))
    batch = {"present": torch.tensor([1, 0])}
    assert SNR()(output, torch.cat([TARGET, TARGET]), batch).item() == pytest.approx(-20, abs=1e-3)


def test_snr_weighs_the_waveforms():
    loss = losses.build({"name": "snr", "weights": [0.8, 0.2]}, "loss")
    assert sdr_value(loss, TARGET + 0.1 * ERROR, 0 * TARGET) == pytest.approx(-16.0, abs=1e-3)
    with pytest.raises(ValueError, match="gives 2 waveforms and the snr loss has no weights"):
        sdr_value(SNR(), TARGET, TARGET)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "thresholded_sdr", "ceiling_db": 0.0}, "ceiling_db is 0.0"),
        ({"name": "snr", "weights": [-1.0]}, r"weights is \[-1.0\]"),
        ({"name": "sd_sdr", "ceiling_db": 3.0}, "ceiling_db: unknown key"),
    ],
)
def test_snr_family_refuses_impossible_arguments(config: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        losses.build(config, "loss")


NOISE = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


def spectral_value(
    estimate: torch.Tensor, target: torch.Tensor = NOISE, mixture: torch.Tensor = NOISE, **arguments
) -> float:
    output = SimpleNamespace(waveforms=(estimate,))
    return MultiResolutionSpectral(**arguments)(output, target, {"mixture": mixture}).item()


SINGLE_DISTANCES = {
    "magnitude": {"magnitude": 1.0, "power": 1.0},
    "log": {"magnitude": 0.0, "log_magnitude": 1.0},
    "complex": {"magnitude": 0.0, "complex": 1.0, "power": 1.0},
    "convergence": {"magnitude": 0.0, "convergence": 1.0},
}


@pytest.mark.parametrize("kind", SINGLE_DISTANCES)
def test_spectral_distance_is_0_for_equal_signals_at_any_level(kind: str):
    assert spectral_value(NOISE, **SINGLE_DISTANCES[kind]) == pytest.approx(0, abs=1e-4)
    reference = spectral_value(0.5 * NOISE, **SINGLE_DISTANCES[kind])
    assert reference > 0.1
    assert spectral_value(0.005 * NOISE, 0.01 * NOISE, 0.01 * NOISE, **SINGLE_DISTANCES[kind]) == pytest.approx(
        reference, rel=1e-3
    )


def test_spectral_distances_of_half_the_amplitude():
    """Magnitudes of white noise of variance 1 are Rayleigh: their mean is sqrt(pi) / 2."""
    assert spectral_value(0.5 * NOISE, **SINGLE_DISTANCES["log"]) == pytest.approx(0.6931, abs=1e-3)
    assert spectral_value(0.5 * NOISE, **SINGLE_DISTANCES["convergence"]) == pytest.approx(0.5, abs=1e-3)
    half_of_the_mean = 0.5 * torch.pi**0.5 / 2
    assert spectral_value(0.5 * NOISE, **SINGLE_DISTANCES["magnitude"]) == pytest.approx(half_of_the_mean, rel=0.03)
    assert spectral_value(0.5 * NOISE, **SINGLE_DISTANCES["complex"]) == pytest.approx(half_of_the_mean, rel=0.03)


def test_only_the_complex_distance_depends_on_the_sign():
    assert spectral_value(-NOISE, **SINGLE_DISTANCES["magnitude"]) == pytest.approx(0, abs=1e-6)
    assert spectral_value(-NOISE, **SINGLE_DISTANCES["complex"]) == pytest.approx(2 * torch.pi**0.5 / 2, rel=0.03)
    # |S|^(1/2) of a Rayleigh magnitude has the mean gamma(1.25); a quarter of the amplitude is half of it.
    assert spectral_value(0.25 * NOISE, **{**SINGLE_DISTANCES["complex"], "power": 0.5}) == pytest.approx(
        0.5 * 0.9064, rel=0.03
    )
    compressed = {**SINGLE_DISTANCES["complex"], "power": 0.5}
    assert (
        spectral_value(-NOISE, **compressed)
        > spectral_value(-0.25 * NOISE, **compressed)
        > spectral_value(0.25 * NOISE, **compressed)
    )


def test_spectral_weights_add_up_and_resolutions_are_averaged():
    both = spectral_value(0.5 * NOISE, magnitude=0.0, log_magnitude=2.0, convergence=3.0)
    assert both == pytest.approx(2 * 0.6931 + 3 * 0.5, abs=3e-3)
    single = [spectral_value(NOISE.flip(1), window_lengths=(length,)) for length in (256, 1024)]
    assert spectral_value(NOISE.flip(1), window_lengths=(256, 1024)) == pytest.approx(sum(single) / 2, rel=1e-4)


def test_spectral_skips_silent_targets_with_finite_gradients():
    everything = MultiResolutionSpectral(magnitude=1, log_magnitude=1, complex=1, convergence=1)
    target = NOISE.clone()
    target[1] = 0
    for estimate in (torch.zeros(2, 8000, requires_grad=True), NOISE.clone().requires_grad_()):
        everything(SimpleNamespace(waveforms=(estimate,)), target, {"mixture": NOISE}).backward()
        assert estimate.grad.isfinite().all() and (estimate.grad[1] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_lengths": [255]}, "window_lengths: are"),
        ({"window_lengths": []}, "window_lengths: are"),
        ({"power": 0.0}, "power: is 0.0"),
        ({"magnitude": 0.0}, "not all 0"),
        ({"complex": -1.0}, "weights >= 0"),
    ],
)
def test_spectral_refuses_impossible_arguments(arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        losses.build({"name": "multi_resolution_spectral", **arguments}, "loss")


def absent_value(estimate: torch.Tensor, target: torch.Tensor, mixture: torch.Tensor, **arguments) -> torch.Tensor:
    batch = {"mixture": mixture}
    return AbsentEnergy(**arguments)(SimpleNamespace(waveforms=(estimate,)), target, batch)


@pytest.mark.parametrize(
    ("level_db", "expected"), [(0, 0.04), (-10, -9.59), (-20, -16.99), (-30, -19.59), (-40, -19.96)]
)
@pytest.mark.parametrize("gain", [1.0, 1e-2])
def test_absent_energy_depends_on_the_floor_not_on_the_level(level_db: float, expected: float, gain: float):
    mixture = gain * torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    value = absent_value(mixture * 10 ** (level_db / 20), torch.zeros(1, 1000), mixture)
    assert value.item() == pytest.approx(expected, abs=0.01)


def test_absent_energy_counts_present_targets_as_0():
    mixture = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    target = mixture.clone()
    target[3] = 0
    estimate = mixture.clone().requires_grad_()
    value = absent_value(estimate, target, mixture)
    assert value.item() == pytest.approx(0.0432 / 4, abs=1e-4)
    value.backward()
    assert (estimate.grad[:3] == 0).all() and (estimate.grad[3] * mixture[3]).sum() > 0


def test_absent_energy_of_silence_is_finite():
    estimate = torch.zeros(2, 10, requires_grad=True)
    mixture = torch.stack([torch.ones(10), torch.zeros(10)])
    value = absent_value(estimate, torch.zeros(2, 10), mixture)
    assert value.item() == pytest.approx(-20.0, abs=1e-3)
    value.backward()
    assert estimate.grad.isfinite().all()


def test_absent_energy_refuses_impossible_arguments():
    with pytest.raises(ConfigError, match=r"loss: floor_db is 3\.0; give a number of dB below 0"):
        losses.build({"name": "absent_energy", "floor_db": 3}, "loss")
    with pytest.raises(ConfigError, match="weights is"):
        losses.build({"name": "absent_energy", "weights": [0.0]}, "loss")
