from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.interop import wespeaker_repvgg
from wesep_py.network.speaker.repvgg import RepBlock, RepVGG
from wesep_py.network.speaker.speaker_network import length_mask, speaker_networks


def small(**arguments) -> RepVGG:
    """A network in evaluation mode whose normalisations do something."""
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


def test_computes_what_the_public_network_computes(shared_parity):
    from safetensors import safe_open

    with safe_open(shared_parity / "wespeaker_repvgg_small.safetensors", framework="pt") as fixture:
        config = json.loads(fixture.metadata()["config"])
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
    arguments = wespeaker_repvgg.translate(config["model"], config["args"])
    network = speaker_networks.build(arguments, "network", num_mel_bins=config["args"]["feat_dim"]).eval()
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    network.load_state_dict(wespeaker_repvgg.rename(weights))
    expected = tensors[max(key for key in tensors if key.startswith("output/"))]
    with torch.no_grad():
        assert (network(tensors["input/0"]).embedding - expected).norm() / expected.norm() < 1e-4
        assert (network.fold()(tensors["input/0"]).embedding - expected).norm() / expected.norm() < 1e-4


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


def test_folded_kernel():
    """Branches of ones, not normalised: the dilated one stands at every second tap, all meet in the middle."""
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
def test_every_parameter_learns(block):
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


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        *(("A0", 8.30), ("A1", 12.78), ("A2", 25.49), ("B0", 14.33), ("B1", 51.82), ("B1g2", 41.36), ("B1g4", 36.12)),
        *(("B2", 80.31), ("B2g4", 55.77), ("B3", 110.96), ("B3g4", 75.62)),
    ],
)
def test_published_sizes(size, millions):
    """Ding et al., table 4: folded, for images of three channels and with a classifier of 1000 classes."""
    arguments = wespeaker_repvgg.translate(f"REPVGG_{size}", {"embed_dim": 256, "deploy": True})
    with torch.device("meta"):
        network = speaker_networks.build(arguments, "network", num_mel_bins=80)
    width = arguments["channels"][-1]
    assert network.frame_dim == width * 10
    more_channels, classifier = 2 * 9 * min(64, arguments["channels"][0]), 1000 * (width + 1)
    parameters = count(network) - count(network.linear) + more_channels + classifier
    assert parameters / 1e6 == pytest.approx(millions, abs=0.0101)


def test_tiny_sizes():
    """WeSpeaker gives 6.26 M parameters for its RepVGG_TINY_A0, folded."""
    with torch.device("meta"):
        tiny = RepVGG(folded=True)
    assert count(tiny) / 1e6 == pytest.approx(6.26, abs=0.005)
    plain, dilated = (
        wespeaker_repvgg.translate(f"REPVGG_TINY_{name}", {"embed_dim": 256}) for name in ("A0", "RSBB_A0")
    )
    assert plain["num_blocks"] == dilated["num_blocks"] == [3, 4, 23, 3]
    assert (plain["block"], dilated["block"]) == ("repvgg", "rsbb")
    assert plain["channels"] == [32, 64, 128, 256]


def test_groups_of_named_sizes():
    groups = wespeaker_repvgg.translate("REPVGG_D2SE", {"embed_dim": 256})["groups"]
    assert len(groups) == 8 + 14 + 24 + 1
    assert groups[:4] == [1, 4, 1, 4] and groups[24:28] == [1, 4, 1, 1]
    assert wespeaker_repvgg.translate("REPVGG_D2SE", {"embed_dim": 256})["squeeze_excite"]
    assert wespeaker_repvgg.translate("REPVGG_B1", {"embed_dim": 256})["groups"] == []
    own = {"num_blocks": [1, 1, 1, 1], "strides": [1] * 5, "width_multiplier": [1] * 4, "override_groups_map": {3: 2}}
    assert wespeaker_repvgg.translate("RepVGG", own)["groups"] == [1, 1, 2, 1]
    assert wespeaker_repvgg.translate("RepVGG", {**own, "override_groups_map": None})["groups"] == []


def test_public_names_of_every_part():
    """Every name that a block of either kind can have in WeSpeaker finds its place."""
    parts = ["rbr_dense", "rbr_1x1"]
    tensors = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = []
    for block in ["stage0", *(f"stage{stage}.0" for stage in range(1, 5))]:
        names += [f"{block}.{part}.conv.weight" for part in parts]
        names += [f"{block}.{part}.bn.{tensor}" for part in parts for tensor in tensors]
        names += [f"{block}.rbr_identity.{tensor}" for tensor in tensors if block == "stage1.0"]
        names += [f"{block}.se.fc_{i}.{tensor}" for i in (1, 2) for tensor in ("weight", "bias")]
    names += [f"{layer}.{tensor}" for layer in ("pool.linear1", "pool.linear2", "seg") for tensor in ("weight", "bias")]
    arguments = {"squeeze_excite": True, "pooling": "astp"}
    network = small(num_blocks=(1, 1, 1, 1), channels=(4, 8, 16, 32), **arguments)
    assert sorted(wespeaker_repvgg.rename(dict.fromkeys(names))) == sorted(network.state_dict())
    assert list(wespeaker_repvgg.rename({"stage3.11.rbr_reparam.bias": None})) == ["stages.2.11.folded.bias"]


def test_impossible_arguments():
    with pytest.raises(ValueError, match=r"num_blocks: is \[1, 1\]; 4 numbers"):
        RepVGG(num_blocks=(1, 1))
    with pytest.raises(ValueError, match="strides"):
        RepVGG(strides=(1, 1, 2, 2, 0))
    with pytest.raises(ValueError, match="groups: is"):
        RepVGG(num_blocks=(1, 1, 1, 1), groups=(1,) * 5)
    with pytest.raises(ValueError, match="groups: 3 do not divide"):
        small(groups=(3,))
    with pytest.raises(ConfigError, match="did you mean 'REPVGG_TINY_A0'"):
        wespeaker_repvgg.translate("REPVGG_TINY_A", {"embed_dim": 256})
    with pytest.raises(ConfigError, match="'num_blocks'"):
        wespeaker_repvgg.translate("RepVGG", {})
    with pytest.raises(ConfigError, match="'embed_dim'"):
        wespeaker_repvgg.translate("REPVGG_A0", {})
    with pytest.raises(ConfigError, match="REPVGG_A0 has no argument 'block'"):
        wespeaker_repvgg.translate("REPVGG_A0", {"embed_dim": 256, "block": "RepSPK"})
    with pytest.raises(ConfigError, match="pooling_func 'XYZ'"):
        wespeaker_repvgg.translate("REPVGG_A0", {"embed_dim": 256, "pooling_func": "XYZ"})
    sizes = {"num_blocks": [1] * 4, "strides": [1] * 5, "width_multiplier": [1] * 4}
    with pytest.raises(ConfigError, match=r"encoder.block: is 'RepSBB'.*RepSPK"):
        wespeaker_repvgg.translate("RepVGG", {**sizes, "block": "RepSBB"})
    with pytest.raises(ConfigError, match="head_inplanes 3"):
        wespeaker_repvgg.translate("RepVGG", {**sizes, "head_inplanes": 3})
    with pytest.raises(ConfigError, match=r"width_multiplier is \[1, 1\]; four"):
        wespeaker_repvgg.translate("RepVGG", {**sizes, "width_multiplier": [1, 1]})
