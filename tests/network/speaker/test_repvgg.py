from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.interop.public import read, relative_error
from wesep_py.interop import load_wespeaker
from wesep_py.network.speaker.repvgg import RepBlock, RepVGG
from wesep_py.network.speaker.speaker_network import length_mask


def small(**arguments) -> RepVGG:
    """Return a network in evaluation mode whose normalisations are not the identity."""
    torch.manual_seed(0)
    network = RepVGG(**{"num_blocks": (1, 2, 2, 1), "channels": (4, 8, 8, 12), "embedding_dim": 8, **arguments}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_folding_keeps_the_output_of_a_public_network(shared_parity):
    config, weights, (features,), (expected,) = read(shared_parity, "wespeaker_repvgg_small")
    network = load_wespeaker(config, weights).network
    with torch.no_grad():
        assert relative_error(network(features).embedding, expected) < 1e-4
        assert relative_error(network.fold()(features).embedding, expected) < 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"block": "rsbb"},
        {"groups": (1, 2, 4, 1, 2)},
        {"block": "rsbb", "groups": (2, 2, 4), "squeeze_excite": True},
        {"strides": (2, 1, 2, 3, 1)},
    ],
)
def test_folding_changes_no_output(arguments):
    network = small(**arguments)
    features, mask = torch.randn(2, 60, 80), length_mask(torch.tensor([60, 37]), 60)
    before, parameters = network(features, mask), count(network)
    assert network.fold() is network
    after = network(features, mask)
    torch.testing.assert_close(after.embedding, before.embedding, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.frames, before.frames, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    if arguments.get("block") != "rsbb":
        assert count(network) < parameters

    built = small(**arguments, folded=True)
    built.load_state_dict(network.state_dict())
    torch.testing.assert_close(built(features, mask).embedding, after.embedding)
    torch.testing.assert_close(network.fold()(features, mask).embedding, after.embedding)


def test_folded_kernel_of_ones():
    """Branches of ones, not normalised: the dilated kernel is at every second tap, and all overlap in the middle."""
    block = RepBlock(1, 1, 1, 1, "rsbb", squeeze_excite=False, folded=False).eval()
    for conv in block.convs:
        nn.init.ones_(conv.weight)
    for norm in [*block.norms, block.identity]:
        norm.eps = 0.0
    block.fold()
    assert block.folded.weight[0, 0].tolist() == [
        [1, 0, 1, 0, 1],
        [0, 1, 1, 1, 0],
        [1, 1, 3, 1, 1],
        [0, 1, 1, 1, 0],
        [1, 0, 1, 0, 1],
    ]
    assert block.folded.bias.tolist() == [0]


@pytest.mark.parametrize("arguments", [{}, {"block": "rsbb"}, {"squeeze_excite": True, "pooling": "astp"}])
@pytest.mark.parametrize("length", [60, 61, 64])
def test_padding_changes_nothing(arguments, length):
    network = small(**arguments)
    features = torch.randn(1, length, 80)
    batch = torch.cat([features, torch.randn(1, 41, 80)], dim=1).repeat(2, 1, 1)
    alone, padded = network(features), network(batch, length_mask(torch.tensor([length, length + 41]), length + 41))
    torch.testing.assert_close(padded.embedding[:1], alone.embedding, atol=1e-5, rtol=1e-4)
    valid = alone.frames.shape[2]
    assert padded.mask[0].sum() == valid
    torch.testing.assert_close(padded.frames[:1, :, :valid], alone.frames, atol=1e-4, rtol=1e-4)
    assert (padded.frames[0, :, valid:] == 0).all()
    assert not torch.allclose(padded.embedding[1], alone.embedding[0], atol=1e-3)


@pytest.mark.parametrize("length", [1, 10])
@pytest.mark.parametrize("block", ["repvgg", "rsbb"])
def test_short_recordings(length, block):
    output = small(block=block)(torch.randn(2, length, 80))
    assert output.embedding.shape == (2, 8)
    assert output.embedding.isfinite().all()
    assert output.frames.shape == (2, 12 * 10, -(-length // 8))


@pytest.mark.parametrize("block", ["repvgg", "rsbb"])
def test_gradients_reach_every_parameter(block):
    network = small(block=block, channels=(32, 32, 32, 32), squeeze_excite=True).train()
    network(torch.randn(3, 40, 80)).embedding.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.processor
def test_half_precision():
    network, features = small(), torch.randn(2, 50, 80)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(features).embedding
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, network(features).embedding, atol=0.1, rtol=0.1)


def test_size_of_the_tiny_network():
    """WeSpeaker gives 6.26 M parameters for its RepVGG_TINY_A0, folded."""
    with torch.device("meta"):
        tiny = RepVGG(folded=True)
    assert count(tiny) / 1e6 == pytest.approx(6.26, abs=0.005)


def test_impossible_arguments():
    with pytest.raises(ValueError, match=r"num_blocks: is \[1, 1\]; 4 numbers"):
        RepVGG(num_blocks=(1, 1))
    with pytest.raises(ValueError, match="strides"):
        RepVGG(strides=(1, 1, 2, 2, 0))
    with pytest.raises(ValueError, match="groups: is"):
        RepVGG(num_blocks=(1, 1, 1, 1), groups=(1,) * 5)
    with pytest.raises(ValueError, match="groups: 3 do not divide"):
        small(groups=(3,))
