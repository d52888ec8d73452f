from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.interop import wespeaker_redimnet
from wesep_py.network.speaker.redimnet import AttentionLayer, ConvNeXtBlock, ReDimNet, ReDimNetStage, ResidualBlock
from wesep_py.network.speaker.speaker_network import length_mask, speaker_networks

TENSORS = ("weight", "bias")
NORM = (*TENSORS, "running_mean", "running_var", "num_batches_tracked")
STAGES = (ReDimNetStage(1, 1, 2, 8), ReDimNetStage(2, 1), ReDimNetStage(2, 1, 1, 4))


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, with normalisations that do something."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


def small(**arguments) -> ReDimNet:
    torch.manual_seed(0)
    given = {"num_mel_bins": 16, "channels": 4, "stages": STAGES, "embedding_dim": 8, "group_size": 2, **arguments}
    network = lively(ReDimNet(**given))
    for mix in network.mixes:
        nn.init.normal_(mix)
    return network


def named(model: str, **args) -> ReDimNet:
    """The network of a public name, without its weights."""
    with torch.device("meta"):
        arguments = wespeaker_redimnet.translate(model, args)
        return speaker_networks.build(arguments, "network", num_mel_bins=args.get("feat_dim", 72))


def test_computes_what_the_public_network_computes(shared_parity):
    from safetensors import safe_open

    with safe_open(shared_parity / "wespeaker_redimnet_b0.safetensors", framework="pt") as fixture:
        config = json.loads(fixture.metadata()["config"])
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
    arguments = wespeaker_redimnet.translate(config["model"], config["args"])
    network = speaker_networks.build(arguments, "network", num_mel_bins=config["args"]["feat_dim"]).eval()
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    network.load_state_dict(wespeaker_redimnet.rename(weights))
    expected = tensors[max(key for key in tensors if key.startswith("output/"))]
    with torch.no_grad():
        embedding = network(tensors["input/0"]).embedding
    assert (embedding - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        {"block": "convnext"},
        {"block": "resnet"},
        {"block": "resnet_se", "pooling": {"name": "astp", "global_context": True}},
        {"block": "resnet", "group_size": None, "frame_dim": 24, "second_layer": True},
    ],
)
def test_padding_changes_nothing(arguments):
    network, length = small(**arguments), 60
    features = torch.randn(1, length, 16)
    batch = torch.cat([features, torch.randn(1, 41, 16)], dim=1).repeat(2, 1, 1)
    alone, padded = network(features), network(batch, length_mask(torch.tensor([length, length + 41]), length + 41))
    torch.testing.assert_close(padded.embedding[:1], alone.embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.frames[:1, :, :length], alone.frames, atol=1e-4, rtol=1e-4)
    assert padded.mask.sum(dim=1).tolist() == [length, length + 41]
    assert (padded.frames[0, :, length:] == 0).all()
    assert not torch.allclose(padded.embedding[1], alone.embedding[0], atol=1e-3)


@pytest.mark.parametrize("length", [1, 10])
def test_short_recordings(length):
    output = small(block="resnet_se")(torch.randn(2, length, 16))
    assert output.embedding.shape == (2, 8)
    assert output.embedding.isfinite().all()
    assert output.frames.shape == (2, 4 * 16, length)


@pytest.mark.parametrize("block", ["convnext", "resnet", "resnet_se"])
def test_every_parameter_learns(block):
    network = small(block=block, channels=16, frame_dim=24, second_layer=True)
    network(torch.randn(2, 40, 16)).embedding.square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Softmax does not see what is added to all frames alike; there rounding may be all that is left of a gradient.
    assert [name for name in idle if not name.endswith(("attention.key.bias", "pool.linear2.bias"))] == []


@pytest.mark.processor
def test_half_precision():
    network, features = small(block="resnet_se"), torch.randn(2, 50, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(features).embedding
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, network(features).embedding, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("excite", [False, True])
def test_residual_block(excite):
    """Against its formula, on a recording without padding."""
    torch.manual_seed(0)
    block, x = lively(ResidualBlock(6, 5, 2, excite)), torch.randn(2, 6, 5, 9)
    (conv1, point1), (conv2, point2) = block.convs
    assert conv1.groups == conv2.groups == 3
    out = block.norms[1](point2(conv2(block.norms[0](torch.relu(point1(conv1(x)))))))
    if excite:
        hidden = torch.relu(block.excite.linear1(out.mean(dim=(1, 3))))
        out = out * torch.sigmoid(block.excite.linear2(hidden))[:, None, :, None]
    expected = torch.relu(x + out)
    torch.testing.assert_close(block(x, torch.ones(2, 9, dtype=torch.bool)), expected)


def test_convnext_block():
    torch.manual_seed(0)
    block, x = lively(ConvNeXtBlock(6, 3, 3, axes=2)), torch.randn(2, 6, 5, 9)
    assert block.conv.groups == 2
    expected = x + block.pointwise(nn.functional.gelu(block.norm(block.conv(x))))
    torch.testing.assert_close(block(x, torch.ones(2, 9, dtype=torch.bool)), expected)


def test_attention_looks_at_valid_frames_only():
    """Four heads, each frame the average of the valid ones by the softmax of scaled products; written out."""
    torch.manual_seed(0)
    layer, x, valid = AttentionLayer(8), torch.randn(1, 7, 8), 4
    query, key, value = (part(x)[0] for part in (layer.query, layer.key, layer.value))
    heads = []
    for head in range(4):
        dims = slice(2 * head, 2 * head + 2)
        weights = (query[:, dims] @ key[:valid, dims].T / 2**0.5).softmax(dim=1)
        heads.append(weights @ value[:valid, dims])
    seen = layer.attention_norm(x + layer.project(torch.cat(heads, dim=1)))
    expected = layer.norm(seen + layer.linear2(nn.functional.gelu(layer.linear1(seen), approximate="tanh")))
    torch.testing.assert_close(layer(x, length_mask(torch.tensor([valid]), 7)), expected)


@pytest.mark.parametrize(
    ("size", "num_mel_bins", "counted", "published"),
    [
        *(("B0", 60, 1.0, 1.0), ("B1", 72, 2.1, 2.2), ("B2", 72, 4.9, 4.7), ("B3", 72, 3.2, 3.0)),
        *(("B4", 72, 6.4, 6.3), ("B5", 72, 7.65, 9.2), ("B6", 72, 15.0, 15.0)),
    ],
)
def test_published_sizes(size, num_mel_bins, counted, published):
    """Millions of parameters that WeSpeaker counts for its networks, and (but for B5) nearly those of the paper."""
    network = named(f"ReDimNet{size}", feat_dim=num_mel_bins)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    assert parameters == pytest.approx(counted, abs=0.05)
    assert size == "B5" or parameters == pytest.approx(published, rel=0.08)


def public_names(arguments: dict) -> list[str]:
    """The names of all tensors that WeSpeaker's network of our arguments has, but for its pooling."""
    names = [f"backbone.inputs_weights.{i}" for i in range(len(arguments["stages"]) + 1)]
    names += [f"{layer}.{tensor}" for layer in ("backbone.stem.0", "backbone.stem.1", "seg_1") for tensor in TENSORS]
    if arguments["second_layer"]:
        names += [f"seg_2.{tensor}" for tensor in TENSORS] + [f"seg_bn_1.{tensor}" for tensor in NORM[2:]]
    if arguments["frame_dim"]:
        names += [f"backbone.mfa.0.{tensor}" for tensor in TENSORS] + [f"backbone.mfa.1.{tensor}" for tensor in NORM]
    for number, stage in enumerate(arguments["stages"]):
        layers = [{"": TENSORS}]
        for _ in range(stage["num_blocks"]):
            if arguments["block"] == "convnext":
                layers.append(
                    {".conv_block.dwconvs.0": TENSORS, ".conv_block.norm": NORM, ".conv_block.pwconv1": TENSORS}
                )
                continue
            block = {}
            for i in (1, 2):
                block |= {f".conv_block.conv{i}": TENSORS[:1], f".conv_block.bn{i}": NORM}
                block |= {} if arguments["group_size"] is None else {f".conv_block.conv{i}pw": TENSORS}
            if arguments["block"] == "resnet_se":
                block |= {f".conv_block.se.{part}": TENSORS for part in ("squeeze", "exitation")}
            layers.append(block)
        if stage["width"] > 1:
            layers.append({".0": TENSORS, ".1": NORM, ".3": TENSORS})
        layers.append({})
        if stage["context_reduction"]:
            parts = ["red_dim_conv.0", "red_dim_conv.1", "exp_dim_conv", "tcm.4.layer_norm", "tcm.4.final_layer_norm"]
            parts += [f"tcm.4.attention.{name}_proj" for name in ("q", "k", "v", "out")]
            parts += [f"tcm.4.feed_forward.{name}_dense" for name in ("intermediate", "output")]
            parts += [f"tcm.{i}.{name}" for i in range(4) for name in ("dwconvs.0", "pwconv1")]
            layers.append(dict.fromkeys((f".{part}" for part in parts), TENSORS))
            layers[-1] |= {f".tcm.{i}.norm": NORM for i in range(4)}
        for index, parts in enumerate(layers):
            names += [f"backbone.stage{number}.{index}{part}.{t}" for part, tensors in parts.items() for t in tensors]
    return names


@pytest.mark.parametrize("model", wespeaker_redimnet.MODELS)
@pytest.mark.parametrize("args", [{}, {"two_emb_layer": True, "pooling_func": "TSTP"}])
def test_public_names_find_their_places(model, args):
    args = {**args, "out_channels": 96} if model == "ReDimNet" else args
    arguments = wespeaker_redimnet.translate(model, args)
    ours = wespeaker_redimnet.rename({name: torch.zeros(1) for name in public_names(arguments)})
    network = named(model, **args)
    assert sorted(ours) == sorted(name for name in network.state_dict() if not name.startswith("pool."))


def test_translation():
    assert wespeaker_redimnet.translate("ReDimNetB1", {})["stages"][0] == {
        "stride": 1,
        "num_blocks": 2,
        "width": 1,
        "context_reduction": None,
    }
    assert wespeaker_redimnet.translate("ReDimNetB3", {})["block"] == "resnet_se"
    assert wespeaker_redimnet.translate("ReDimNetB3", {})["pooling"] == {"name": "astp", "global_context": True}
    local = wespeaker_redimnet.translate("ReDimNetB1", {"global_context_att": False})
    assert local["pooling"] == {"name": "astp", "global_context": False}
    own = wespeaker_redimnet.translate(
        "ReDimNet", {"C": 8, "stages_setup": [(2, 1, 1, [(3, 3)], None)], "embed_dim": 4}
    )
    assert (own["channels"], own["block"], own["group_size"], len(own["stages"])) == (8, "resnet", 4, 1)
    assert (own["embedding_dim"], own["second_layer"], own["frame_dim"]) == (4, False, None)
    ungrouped = wespeaker_redimnet.translate("ReDimNet", {"group_divisor": None, "out_channels": None})
    assert (ungrouped["group_size"], ungrouped["frame_dim"]) == (None, None)


def test_impossible_arguments():
    with pytest.raises(ConfigError, match="num_mel_bins: is 80; the stages' strides need a multiple of 12"):
        named("ReDimNetB6", feat_dim=80)
    with pytest.raises(ValueError, match="context_reduction: is 10, of 64"):
        small(stages=(ReDimNetStage(1, 1, 1, 10),))
    with pytest.raises(ValueError, match="group_size: is 3; one that divides 10"):
        small(channels=10, group_size=3, stages=(ReDimNetStage(1, 1),))
    with pytest.raises(ValueError, match="group_size: is 0"):
        small(group_size=0)
    with pytest.raises(ValueError, match="frame_dim: is 0"):
        small(frame_dim=0)
    with pytest.raises(ValueError, match="stride: is 0"):
        ReDimNetStage(0, 1)
    with pytest.raises(ConfigError, match="did you mean 'ReDimNetB6'"):
        wespeaker_redimnet.translate("ReDimNetB7", {})
    with pytest.raises(ConfigError, match="pooling_func 'XYZ'"):
        wespeaker_redimnet.translate("ReDimNetB0", {"pooling_func": "XYZ"})
    with pytest.raises(ConfigError, match="block_1d_type 'gru'"):
        wespeaker_redimnet.translate("ReDimNet", {"block_1d_type": "gru"})
    with pytest.raises(ConfigError, match="block_2d_type 'resnet'"):
        wespeaker_redimnet.translate("ReDimNet", {"block_2d_type": "resnet"})
    with pytest.raises(ConfigError, match="ReDimNetB0 has no argument 'embed_dims'; did you mean 'embed_dim'"):
        wespeaker_redimnet.translate("ReDimNetB0", {"embed_dims": 192})
