from __future__ import annotations

import numpy as np
import pytest

from wesep_py.metrics import MetricError, sdr


def test_known_ratio_of_white_noises():
    rng = np.random.default_rng(0)
    reference, noise = rng.standard_normal((2, 200_000))
    # 512 of 200,000 dimensions of the noise are explained by the filter: within 0.05 dB of the ratio of
    # energies.
    assert sdr(reference + 0.1 * noise, reference) == pytest.approx(20.0, abs=0.05)


def test_a_filter_of_512_taps_is_forgiven_and_a_longer_delay_is_not():
    rng = np.random.default_rng(1)
    reference = np.concatenate([rng.standard_normal(20_000), np.zeros(1000)])
    echo = reference + 0.5 * np.roll(reference, 400)
    assert sdr(echo, reference) > 60
    assert sdr(np.roll(reference, 600), reference) < 0


def test_equals_mir_eval():
    separation = pytest.importorskip("mir_eval.separation")
    rng = np.random.default_rng(2)
    reference = np.convolve(rng.standard_normal(8000), [1, 0.8, 0.3])
    noise = 0.3 * rng.standard_normal(len(reference))
    estimate = np.convolve(reference, [0.5, 0.2])[: len(reference)] + noise
    theirs, *_ = separation.bss_eval_sources(reference[None], estimate[None], compute_permutation=False)
    assert sdr(estimate, reference) == pytest.approx(float(theirs[0]), abs=0.02)


def test_equals_fast_bss_eval_in_torch():
    """The package's torch backend is a second implementation of the same formula."""
    import torch

    backend = pytest.importorskip("fast_bss_eval.torch")
    rng = np.random.default_rng(3)
    reference = rng.standard_normal(8000)
    estimate = reference + 0.5 * rng.standard_normal(8000)
    theirs = -backend.sdr_loss(*(torch.from_numpy(x)[None] for x in (estimate, reference)), clamp_db=100.0)
    assert sdr(estimate, reference) == pytest.approx(theirs.item(), abs=1e-6)


def test_a_perfect_estimate_is_finite():
    reference = np.random.default_rng(4).standard_normal(4000)
    assert sdr(3 * reference, reference) == pytest.approx(100.0, abs=1.0)


@pytest.mark.parametrize(
    ("estimate", "reference", "reason"),
    [
        (np.ones(4000), np.zeros(4000), "the reference is silent"),
        (np.zeros(4000), np.sin(np.arange(4000)), "the estimate is silent"),
        (np.full(4000, np.nan), np.sin(np.arange(4000)), "the estimate has samples that are not finite"),
        (np.ones(3999), np.ones(4000), "3999 samples and the reference 4000"),
        (np.ones((2, 4000)), np.ones(4000), r"shape \[2, 4000\]"),
    ],
)
def test_reasons(estimate, reference, reason):
    with pytest.raises(MetricError, match=reason):
        sdr(estimate, reference)
