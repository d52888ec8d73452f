from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.network.backbones.largest_tensor import largest_tensor
from wesep_py.network.cues import cue as attention
from wesep_py.network.cues.cue import cross_attention, queries_per_block
from wesep_py.network.extraction_network import build_network

SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
CUES = {
    "usef": {"name": "usef", "channels": 4, "num_heads": 2, "query_dim": 257},
    "context": {"name": "context", "dim": 8},
    "tf_map": {"name": "tf_map", "temperatures": [1, 20]},
    "tf_map of the encoder": {"name": "tf_map", "source": "encoder"},
}


def inputs(frames: int, keys: int = 30):
    torch.manual_seed(0)
    valid = torch.arange(keys)[None] < torch.tensor([[keys], [keys - 9]])
    return torch.randn(2, 2, frames, 6), torch.randn(2, 2, keys, 6), torch.randn(2, 2, keys, 3), valid[:, None, None]


@pytest.mark.parametrize("scores", [1, 500, 2**20])
def test_parts_of_it_are_the_whole(monkeypatch, scores):
    monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", scores)
    query, key, value, valid = inputs(41)
    weights = (query @ key.mT / 6**0.5).masked_fill(~valid, -torch.inf).softmax(dim=3)
    torch.testing.assert_close(cross_attention(query, key, value, valid), weights @ value)


def test_no_tensor_holds_every_pair(monkeypatch):
    whole = [largest_tensor(lambda n=n: cross_attention(*inputs(n))) for n in (100, 400)]
    assert whole == [2 * 2 * 100 * 30, 2 * 2 * 400 * 30]
    monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", 1000)
    assert largest_tensor(lambda: cross_attention(*inputs(400))) == 2 * 2 * 400 * 6  # the query itself


def test_a_frame_at_least():
    assert queries_per_block(10 * attention.MAX_SCORES_PER_BLOCK) == queries_per_block(0) // attention.MAX_SCORES_PER_BLOCK == 1


@pytest.mark.parametrize("name", CUES)
def test_a_cue_computes_the_same_in_parts(monkeypatch, name):
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    hears = name != "usef" and name != "tf_map"
    network = build_network({"backbone": backbone, "speaker": SPEAKER if hears else None, "cues": [CUES[name]]}).eval()
    mixture, prepared = torch.randn(2, 3000), network.prepare(torch.randn(2, 4000), torch.tensor([4000, 2500]))
    with torch.no_grad():
        whole = network.extract(mixture, prepared).waveforms[0]
        monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", 600)
        torch.testing.assert_close(network.extract(mixture, prepared).waveforms[0], whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["usef", "tf_map"])
def test_four_times_the_length_is_four_times_the_memory(monkeypatch, name):
    """Mixture and enrollment both: what holds every pair of their frames grows sixteenfold."""
    torch.manual_seed(0)
    backbone = {"name": "conv_tasnet", "num_filters": 4, "bottleneck": 4, "hidden": 4, "num_stacks": 1}
    network = build_network({"backbone": backbone, "cues": [CUES[name]]})

    def steer(length: int) -> int:
        waveform = torch.randn(1, length)
        prepared = {key.removeprefix("0."): value for key, value in network.prepare(waveform).items()}
        analysis = network.backbone.analyse(waveform)
        return largest_tensor(lambda: network.cues[0].steer_features(analysis, analysis.features, prepared))

    assert steer(16000) > 14 * steer(4000)
    monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", 2**12)
    assert steer(16000) < 4.2 * steer(4000)


@pytest.mark.processor
def test_training_in_bfloat16_on_a_cpu_attends_in_float32():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, n, 8).bfloat16().requires_grad_() for n in (9, 7, 7))
    valid = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_attention(query, key, value, valid)
    exact = nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())
    found.sum().backward()
    assert query.grad is not None and query.grad.dtype == torch.bfloat16
