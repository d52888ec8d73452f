from __future__ import annotations

import itertools

import pytest
import torch

from wesep_py.network.backbones.spectrum import STANDARD_BANDS, BandLinear, BandNorm, band_widths, group_bands


def test_the_published_bands_at_16_khz():
    assert band_widths(16000, 257) == [3] * 15 + [6] * 10 + [16] * 5 + [64] + [8]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 44100, 48000])
def test_the_bands_cover_every_bin_once_at_any_rate(sample_rate):
    num_bins = round(sample_rate * 0.032) // 2 + 1
    widths = band_widths(sample_rate, num_bins)
    assert sum(widths) == num_bins
    assert min(widths) >= 1
    groups = group_bands(widths)
    assert groups[0].start == 0 and groups[-1].stop == num_bins
    assert all(a.stop == b.start for a, b in itertools.pairwise(groups))


def test_a_band_below_one_bin_is_refused():
    with pytest.raises(ValueError, match="narrower than one bin"):
        band_widths(48000, 129, STANDARD_BANDS)


def test_band_layers_equal_a_layer_a_band():
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
