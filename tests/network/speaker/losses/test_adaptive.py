from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.speaker_losses import AdaptiveMarginSoftmax, AMSoftmax


def test_equal_margins_are_am_softmax_less_the_reward():
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(6, 5, scale=20.0, initial_margin=0.3, reward=4.0).double()
    fixed = AMSoftmax(6, 5, scale=20.0, margin=0.3).double()
    fixed.weight.data.copy_(loss.weight.data)
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    expected = fixed(embeddings, labels).loss - 4.0 * 0.3
    torch.testing.assert_close(loss(embeddings, labels).loss, expected, atol=1e-6, rtol=0)


def test_gradient_of_the_margins_by_its_formula():
    """d loss / d m_c = s Σ_{i: y = c} (1 − p_i) / batch − reward / speakers; of the logit, times m (1 − m / max)."""
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(6, 5, scale=20.0, max_margin=0.5, reward=4.0).double()
    loss.margin_logits.data = torch.randn(5, dtype=torch.float64)
    embeddings, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 4])
    loss(embeddings, labels).loss.backward()
    with torch.no_grad():
        p = torch.softmax(loss.logits(embeddings, labels, loss.cosines(embeddings)), 1)
        expected = torch.full((5,), -4.0 / 5, dtype=torch.float64)
        for i, y in enumerate(labels.tolist()):
            expected[y] += 20 * (1 - p[i, y]) / 4
        margins = loss.margins()
        torch.testing.assert_close(loss.margin_logits.grad, expected * margins * (1 - margins / 0.5))


def test_speakers_that_are_easy_to_tell_get_larger_margins():
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(8, 4, scale=16.0, reward=5.0)
    loss.weight.requires_grad_(False)
    easy, near = torch.eye(8)[0], torch.eye(8)[2]
    loss.weight.data[0], loss.weight.data[1] = easy, torch.eye(8)[1]
    loss.weight.data[2], loss.weight.data[3] = near, near + 0.3 * torch.eye(8)[3]
    embeddings, labels = loss.weight.data + 0.02 * torch.randn(4, 8), torch.arange(4)
    for _ in range(150):
        (slopes,) = torch.autograd.grad(loss(embeddings, labels).loss, loss.margin_logits)
        loss.margin_logits.data -= slopes
    margins = loss.margins()
    assert margins[:2].min() > margins[2:].max() + 0.1
    assert margins.min() > 0 and margins.max() < 0.5


def test_impossible_arguments():
    with pytest.raises(ValueError, match="initial_margin < max_margin"):
        AdaptiveMarginSoftmax(4, 3, initial_margin=0.6)
    with pytest.raises(ValueError, match="reward: is 40"):
        AdaptiveMarginSoftmax(4, 3, reward=40.0)
    with pytest.raises(ValueError, match="scale"):
        AdaptiveMarginSoftmax(4, 3, scale=0.0)
