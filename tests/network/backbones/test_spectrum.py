"""Band splitting, layers per band, and the head that makes the target's spectrum."""

from __future__ import annotations

import itertools

import pytest
import torch

from wesep_py.network.backbones.spectrum import (
    STANDARD_BANDS,
    BandLinear,
    BandNorm,
    SpectrumHead,
    band_widths,
    group_bands,
)


def test_standard_bands_at_16_khz_are_the_published_ones():
    assert band_widths(16000, 257) == [3] * 15 + [6] * 10 + [16] * 5 + [64] + [8]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 44100, 48000])
def test_bands_cover_every_bin_once_at_any_sample_rate(sample_rate):
    num_bins = round(sample_rate * 0.032) // 2 + 1
    widths = band_widths(sample_rate, num_bins)
    assert sum(widths) == num_bins
    assert min(widths) >= 1
    groups = group_bands(widths)
    assert groups[0].start == 0 and groups[-1].stop == num_bins
    assert all(a.stop == b.start for a, b in itertools.pairwise(groups))


def test_a_band_narrower_than_a_bin_is_refused():
    with pytest.raises(ValueError, match="narrower than one bin"):
        band_widths(48000, 129, STANDARD_BANDS)


def test_band_layers_equal_one_layer_per_band():
    x = torch.randn(2, 3, 5, 4)
    linear, norm = BandLinear(3, 4, 6), BandNorm(3, 4, over_time=True, eps=1e-7)
    torch.nn.init.normal_(norm.weight)
    for band in range(3):
        by_hand = x[:, band] @ linear.weight[band] + linear.bias[band]
        torch.testing.assert_close(linear(x)[:, band], by_hand)
        group_norm = torch.nn.functional.group_norm(
            x[:, band].transpose(1, 2), 1, norm.weight[band, 0], norm.bias[band, 0], 1e-7
        )
        torch.testing.assert_close(norm(x)[:, band], group_norm.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_the_mask_starts_at_one():
    """Without a latent only the bias remains: 1 + 0i times the mixture."""
    head, mixture = SpectrumHead(3, causal=True, estimate=None), torch.randn(2, 5, 7, dtype=torch.complex64)
    assert torch.equal(head(torch.zeros(2, 3, 7, 5), mixture), mixture)


def test_a_mask_multiplies_the_mixture_as_a_complex_number():
    head = SpectrumHead(1, causal=False, estimate="mask")
    torch.nn.init.zeros_(head.conv.weight)
    head.conv.bias.data = torch.tensor([0.0, 2.0])
    mixture = torch.full((1, 2, 2), 3 + 1j)
    assert torch.equal(head(torch.zeros(1, 1, 2, 2), mixture), torch.full((1, 2, 2), -2 + 6j))


def test_a_spectrum_does_not_depend_on_the_mixture():
    head, latent = SpectrumHead(3, causal=False, estimate=None), torch.randn(1, 3, 7, 5)
    first, second = (head(latent, torch.randn(1, 5, 7, dtype=torch.complex64)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("estimate", ["spectrum", "mask"])
def test_a_silent_mixture_gives_a_zero_spectrum(estimate):
    """One recording of the batch is silent: its estimate is zero, the other one is not."""
    head, mixture = SpectrumHead(3, causal=False, estimate=estimate), torch.randn(2, 5, 7, dtype=torch.complex64)
    mixture[0] = 0
    silent, other = head(torch.randn(2, 3, 7, 5), mixture)
    assert (silent == 0).all()
    assert (other != 0).all()


@pytest.mark.parametrize("estimate", ["spectrum", "mask"])
def test_a_causal_head_sees_one_frame(estimate):
    head, mixture = SpectrumHead(3, causal=True, estimate=estimate), torch.randn(1, 5, 7, dtype=torch.complex64)
    latent = torch.randn(1, 3, 7, 5)
    changed = latent.clone()
    changed[:, :, 4] = 0
    same = (head(latent, mixture) == head(changed, mixture)).all(dim=1)[0]
    assert same.tolist() == [True] * 4 + [False] + [True] * 2
