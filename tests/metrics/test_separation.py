from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.metrics import MetricError, attenuation_db, is_silent, si_sdr, si_sdr_improvement
from wesep_py.metrics.separation import checked_signal


def orthogonal_pair(num_samples: int = 8000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two mean-free orthogonal signals of energy 1."""
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, num_samples))
    first -= first.mean()
    first /= np.linalg.norm(first)
    second -= second.mean()
    second -= (second @ first) * first
    return first, second / np.linalg.norm(second)


@pytest.mark.parametrize("ratio_db", [-20.0, -3.0, 0.0, 10.0, 40.0])
def test_known_ratio_of_target_and_orthogonal_error(ratio_db):
    reference, error = orthogonal_pair()
    estimate = reference + 10 ** (-ratio_db / 20) * error
    assert si_sdr(estimate, reference) == pytest.approx(ratio_db, abs=1e-3)


def test_neither_scale_sign_nor_offset_matter():
    reference, error = orthogonal_pair()
    estimate = reference + 0.1 * error
    for changed in (7 * estimate, -estimate, estimate + 3.0):
        assert si_sdr(changed, reference) == pytest.approx(20.0, abs=1e-3)
    assert si_sdr(estimate, 0.5 * reference + 2.0) == pytest.approx(20.0, abs=1e-3)


def test_eps_is_added_to_both_energies():
    reference, error = orthogonal_pair()
    silence = np.zeros_like(reference)
    assert si_sdr(reference, reference) == pytest.approx(10 * np.log10((1 + 1e-8) / 1e-8), abs=1e-6)
    assert si_sdr(silence, reference) == pytest.approx(0.0, abs=1e-9)
    assert si_sdr(error, silence) == pytest.approx(10 * np.log10(1e-8 / (1 + 1e-8)), abs=1e-6)
    assert si_sdr(1e-4 * (reference + error), 1e-4 * reference) == pytest.approx(0.0, abs=1e-9)


def test_equals_asteroid_on_ordinary_signals():
    asteroid = pytest.importorskip("asteroid.losses.sdr")
    rng = np.random.default_rng(3)
    reference = rng.standard_normal((4, 16000)).astype(np.float32)
    estimate = (reference + rng.uniform(0.1, 2, (4, 1)) * rng.standard_normal((4, 16000))).astype(np.float32)
    theirs = -asteroid.SingleSrcNegSDR("sisdr")(torch.from_numpy(estimate), torch.from_numpy(reference))
    np.testing.assert_allclose(si_sdr(estimate, reference), theirs.numpy(), atol=1e-3)


def test_equals_fast_bss_eval_on_ordinary_signals():
    fast_bss_eval = pytest.importorskip("fast_bss_eval")
    rng = np.random.default_rng(4)
    reference = rng.standard_normal(16000)
    estimate = reference + 0.3 * rng.standard_normal(16000)
    theirs = -fast_bss_eval.si_sdr_loss(estimate, reference, zero_mean=True)
    assert si_sdr(estimate, reference) == pytest.approx(float(theirs), abs=1e-4)


def test_equals_asteroid_metrics_but_for_a_silent_estimate():
    """`asteroid.metrics` (pb_bss_eval) adds its eps to the ratio, so that silence has its lowest value, not 0 dB."""
    metrics = pytest.importorskip("asteroid.metrics")
    reference, error = orthogonal_pair()

    def theirs(signal):
        rows = (reference + error, reference, signal)
        return metrics.get_metrics(*(row[None] for row in rows), metrics_list=["si_sdr"])["si_sdr"]

    for estimate in (reference + 0.1 * error, 3 * reference + error - 1.0, error + 0.01 * reference):
        assert si_sdr(estimate, reference) == pytest.approx(theirs(estimate), abs=1e-3)
    assert theirs(np.zeros_like(reference)) == pytest.approx(-80.0)
    assert si_sdr(np.zeros_like(reference), reference) == pytest.approx(0.0, abs=1e-9)


def test_torch_equals_numpy_in_every_precision():
    rng = np.random.default_rng(5)
    reference = rng.standard_normal((2, 3, 4000))
    estimate = reference + 0.2 * rng.standard_normal((2, 3, 4000))
    expected = si_sdr(estimate, reference)
    assert expected.shape == (2, 3)
    double = si_sdr(torch.from_numpy(estimate), torch.from_numpy(reference))
    single = si_sdr(torch.from_numpy(estimate).float(), torch.from_numpy(reference).float())
    half = si_sdr(torch.from_numpy(estimate).bfloat16(), torch.from_numpy(reference).bfloat16())
    assert double.dtype is torch.float64
    assert single.dtype is torch.float32
    assert half.dtype is torch.float32
    np.testing.assert_allclose(double.numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-3)
    np.testing.assert_allclose(half.numpy(), expected, atol=0.1)


def test_gradient_is_right_and_finite_on_silence():
    estimate = torch.randn(2, 30, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(2, 30, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: si_sdr(x, reference), (estimate,))
    silence, noise = torch.zeros(8), torch.randn(8)
    for signal, second in ((silence, noise), (noise, silence), (silence, silence)):
        first = signal.clone().requires_grad_()
        si_sdr(first, second).backward()
        assert first.grad is not None and torch.isfinite(first.grad).all()


def test_ceiling_bends_only_what_comes_near_it():
    reference, error = orthogonal_pair()
    bad, good = reference + error, reference + 1e-4 * error
    assert si_sdr(bad, reference, ceiling_db=30) == pytest.approx(si_sdr(bad, reference), abs=0.01)
    assert si_sdr(good, reference, ceiling_db=30) == pytest.approx(30.0, abs=0.01)
    assert si_sdr(reference + 10**-1.5 * error, reference, ceiling_db=30) == pytest.approx(30 - 3.0103, abs=1e-3)


def test_improvement_is_over_the_mixture():
    reference, error = orthogonal_pair()
    assert si_sdr_improvement(reference + 0.1 * error, reference, reference + 2 * error) == pytest.approx(
        20 + 20 * np.log10(2), abs=1e-3
    )


@pytest.mark.parametrize("lengths", [(10, 9), (0, 0)])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(InputError, match=f"{lengths[0]} samples and reference {lengths[1]}"):
        si_sdr(np.zeros(lengths[0]), np.zeros(lengths[1]))


def test_attenuation_counts_down_from_the_mixture():
    mixture = np.random.default_rng(0).standard_normal(1000)
    assert attenuation_db(mixture, mixture) == pytest.approx(0.0, abs=1e-9)
    assert attenuation_db(0.001 * mixture, mixture) == pytest.approx(60.0, abs=1e-3)
    assert attenuation_db(10 * mixture, mixture) == pytest.approx(-20.0, abs=1e-3)
    energy = np.square(mixture).sum()
    assert attenuation_db(np.zeros(1000), mixture) == pytest.approx(10 * np.log10(energy / 1e-8 + 1), abs=1e-6)


def test_silence_is_an_energy_of_at_most_eps_without_the_mean():
    assert is_silent(np.zeros(100))
    assert is_silent(np.full(100, 0.3, dtype=np.float32))
    assert not is_silent(np.sin(np.arange(100)) * 1e-4)


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (np.zeros(0), r"shape \[0\]"),
        (np.zeros((1, 5)), r"shape \[1, 5\]"),
        (np.array([0, np.inf]), "not finite"),
    ],
)
def test_arrays_that_are_no_signal_are_refused(signal, reason):
    with pytest.raises(MetricError, match=f"the mixture has .*{reason}"):
        checked_signal(signal, "mixture")
