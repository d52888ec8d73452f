from __future__ import annotations

import json

import pytest
import torch

from wesep_py.errors import ConfigError
from wesep_py.interop import wespeaker_resnet
from wesep_py.speaker import length_mask
from wesep_py.speaker.resnet import ResNet


def small(**arguments) -> ResNet:
    torch.manual_seed(0)
    return ResNet(**{"num_blocks": (1, 2, 1, 1), "channels": 4, "embedding_dim": 8, **arguments}).eval()


@pytest.mark.parametrize("name", ["basic_TAP", "basic_TSDP", "basic_TSTP", "bottleneck_TSTP_two_emb"])
def test_computes_what_the_public_network_computes(shared_parity, name):
    from safetensors import safe_open

    with safe_open(shared_parity / f"wespeaker_resnet_{name}.safetensors", framework="pt") as fixture:
        config = json.loads(fixture.metadata()["config"])
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
    arguments = wespeaker_resnet.translate(config["model"], config["args"], config["block"])
    assert arguments.pop("name") == "resnet"
    network = ResNet(config["args"]["feat_dim"], **arguments).eval()
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    network.load_state_dict(wespeaker_resnet.rename(weights))
    expected = tensors[max(key for key in tensors if key.startswith("output/"))]
    with torch.no_grad():
        embedding = network(tensors["input/0"]).embedding
    assert (embedding - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("length", [60, 61, 64])
def test_padding_changes_nothing(block, length):
    network = small(block=block)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.normal_(module.bias)
    features = torch.randn(1, length, 80)
    padded = torch.cat([features, torch.randn(1, 41, 80)], dim=1)
    alone, masked = network(features), network(padded, length_mask(torch.tensor([length]), length + 41))
    torch.testing.assert_close(masked.embedding, alone.embedding, atol=1e-5, rtol=1e-4)
    valid = alone.frames.shape[2]
    assert masked.mask.sum() == valid
    torch.testing.assert_close(masked.frames[:, :, :valid], alone.frames, atol=1e-5, rtol=1e-4)
    assert (masked.frames[:, :, valid:] == 0).all()


def test_sizes():
    """WeSpeaker's ResNet-34 of 256-dimensional embeddings has 6.63 M parameters."""
    network = ResNet()
    assert network.frame_dim == 256 * 10
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(6.63e6, rel=0.01)
    assert small(second_layer=True)(torch.randn(2, 30, 80)).embedding.shape == (2, 8)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="four numbers"):
        ResNet(num_blocks=(1, 1))
    with pytest.raises(ConfigError, match="did you mean 'ResNet34'"):
        wespeaker_resnet.translate("ResNet3", {})
    with pytest.raises(ConfigError, match="pooling_func 'ASTP'"):
        wespeaker_resnet.translate("ResNet34", {"pooling_func": "ASTP"})
    with pytest.raises(ConfigError, match="BasicBlock"):
        wespeaker_resnet.translate("ResNet", {"num_blocks": [1, 1, 1, 1]}, "Basic")
