from __future__ import annotations

import pytest
import torch

from wesep_py.network.backbones.spectrum import SpectrumHead


def test_a_mask_is_one_before_training():
    """With no latent only the bias is left: 1 + 0i times the mixture."""
    head, mixture = SpectrumHead(3, causal=True, estimate=None), torch.randn(2, 5, 7, dtype=torch.complex64)
    assert torch.equal(head(torch.zeros(2, 3, 7, 5), mixture), mixture)


def test_a_mask_is_a_complex_product():
    head = SpectrumHead(1, causal=False, estimate="mask")
    torch.nn.init.zeros_(head.conv.weight)
    head.conv.bias.data = torch.tensor([0.0, 2.0])
    mixture = torch.full((1, 2, 2), 3 + 1j)
    assert torch.equal(head(torch.zeros(1, 1, 2, 2), mixture), torch.full((1, 2, 2), -2 + 6j))


def test_a_spectrum_does_not_depend_on_the_mixture():
    head, latent = SpectrumHead(3, causal=False, estimate=None), torch.randn(1, 3, 7, 5)
    one, other = (head(latent, torch.randn(1, 5, 7, dtype=torch.complex64)) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("estimate", ["spectrum", "mask"])
def test_there_is_nobody_in_silence(estimate):
    """One recording of the batch is silent: its estimate is zero, the other's is not."""
    head, mixture = SpectrumHead(3, causal=False, estimate=estimate), torch.randn(2, 5, 7, dtype=torch.complex64)
    mixture[0] = 0
    silent, other = head(torch.randn(2, 3, 7, 5), mixture)
    assert (silent == 0).all()
    assert (other != 0).all()


@pytest.mark.parametrize("estimate", ["spectrum", "mask"])
def test_a_causal_one_sees_one_frame(estimate):
    head, mixture = SpectrumHead(3, causal=True, estimate=estimate), torch.randn(1, 5, 7, dtype=torch.complex64)
    latent = torch.randn(1, 3, 7, 5)
    changed = latent.clone()
    changed[:, :, 4] = 0
    same = (head(latent, mixture) == head(changed, mixture)).all(dim=1)[0]
    assert same.tolist() == [True] * 4 + [False] + [True] * 2
