"""The renaming rules of WeSpeaker's networks, on names and shapes that the fixtures do not have."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import CheckpointError
from wesep_py.interop.wespeaker_networks import (
    CAMPPLUS,
    ECAPA_TDNN,
    ERES2NET,
    REDIMNET,
    REPVGG,
    RES2NET,
    translate_network,
)
from wesep_py.network.speaker import RepVGG, speaker_networks

POOLINGS = ("TAP", "TSDP", "TSTP", "ASTP", "MHASTP", "MQMHASTP")
TENSORS = ("weight", "bias")
NORM = (*TENSORS, "running_mean", "running_var", "num_batches_tracked")


def test_names_of_the_second_layer():
    public = {"seg_1.weight": 0, "seg_bn_1.running_mean": 0, "seg_2.bias": 0}
    assert list(RES2NET.rename(public)) == ["linear.weight", "second.1.running_mean", "second.2.bias"]


def test_names_of_campplus_beyond_those_of_the_fixture():
    attention = torch.randn(4, 8, 1)
    renamed = CAMPPLUS.rename(
        {
            "xvector.block2.tdnnd24.nonlinear1.prelu.weight": torch.ones(3),
            "xvector.transit3.nonlinear.batchnorm.running_var": torch.ones(3),
            "xvector.out_nonlinear.prelu.weight": torch.ones(3),
            "xvector.dense.linear.weight": torch.ones(2, 3, 1),
            "xvector.stats.linear1.weight": attention,
            "pool.linear1.weight": attention,
        }
    )
    assert {name: tuple(tensor.shape) for name, tensor in renamed.items()} == {
        "blocks.1.23.activation.prelu.weight": (3,),
        "transitions.2.0.norm.running_var": (3,),
        "activation.prelu.weight": (3,),
        "linear.weight": (2, 3),
        "pool.linear1.weight": (4, 8, 1),
    }
    with pytest.raises(CheckpointError, match=r"become 'pool\.linear1\.weight'"):
        CAMPPLUS.rename({"xvector.stats.linear1.weight": attention, "pool.linear1.weight": attention + 1})


@pytest.mark.parametrize("pooling", POOLINGS)
def test_names_of_poolings_of_ecapa(pooling):
    """Names of public weights, from their module tree."""
    arguments = translate_network("ECAPA_TDNN", {"channels": 16, "embed_dim": 8, "pooling_func": pooling})
    network = speaker_networks.build(arguments, "network", num_mel_bins=8)
    assert arguments["pooling"] == pooling.lower() and arguments["frame_dim"] == 1536
    theirs = {
        "MHASTP": {"pool.heads_att_trans.1.att_1.weight": (1, 64, 1)},
        "MQMHASTP": {"pool.n_query.1.heads_att_trans.7.att_0.weight": (64, 192, 1)},
    }.get(pooling, {})
    for key, shape in theirs.items():
        (ours,) = ECAPA_TDNN.rename({key: torch.zeros(shape)})
        assert network.state_dict()[ours].shape == shape
    assert network.eval()(torch.randn(1, 12, 8)).embedding.shape == (1, 8)


def eres2net_shapes(channels: int, base_width: int, scale: int, expansion: int) -> dict[str, tuple[int, ...]]:
    """Return WeSpeaker's names and shapes of the convolutions of an ERes2Net with one block per stage."""
    shapes, before = {"conv1.weight": (channels, 1, 3, 3)}, channels
    for stage in (1, 2, 3, 4):
        planes = channels * 2 ** (stage - 1)
        width, after, at = planes * base_width // 64, planes * expansion, f"layer{stage}.0"
        shapes[f"{at}.conv1.weight"] = (width * scale, before, 1, 1)
        shapes[f"{at}.conv3.weight"] = (after, width * scale, 1, 1)
        shapes[f"{at}.shortcut.0.weight"] = (after, before, 1, 1)
        if stage > 2:
            shapes[f"{at}.conv2_1.weight"] = (width, width, 3, 3)
            for i in range(scale - 1):
                shapes[f"{at}.fuse_models.{i}.local_att.0.weight"] = (width // 4, 2 * width, 1, 1)
                shapes[f"{at}.fuse_models.{i}.local_att.3.weight"] = (width, width // 4, 1, 1)
        for i in range(scale - 1 if stage > 2 else scale):
            shapes[f"{at}.convs.{i}.weight"] = (width, width, 3, 3)
        if stage > 1:
            shapes[f"layer{stage - 1}_downsample.weight"] = (after, before, 3, 3)
            fusion = "fuse_mode" + "1234"[:stage]
            shapes[f"{fusion}.local_att.0.weight"] = (after // 4, 2 * after, 1, 1)
            shapes[f"{fusion}.local_att.3.weight"] = (after, after // 4, 1, 1)
        before = after
    return shapes


def test_convolutions_of_eres2net_have_the_eres2net_shapes():
    args = {"m_channels": 64, "num_blocks": [1, 1, 1, 1], "baseWidth": 24, "scale": 3, "expansion": 4}
    with torch.device("meta"):
        network = speaker_networks.build(translate_network("ERes2Net", args), "network")
        weights = {name: torch.empty(shape) for name, shape in eres2net_shapes(64, 24, 3, 4).items()}
    numbers = {name: torch.full((1,), float(i)) for i, name in enumerate(weights)}
    renamed = ERES2NET.rename(numbers)
    shapes = dict(zip(renamed, (tuple(tensor.shape) for tensor in weights.values()), strict=True))
    ours = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 4}
    assert shapes == ours
    # The first convolution of the last two stages has a name of its own, so the others' numbers shift.
    assert renamed["stages.3.0.convs.2.conv.weight"] == numbers["layer4.0.convs.1.weight"]
    assert renamed["stages.1.0.convs.2.conv.weight"] == numbers["layer2.0.convs.2.weight"]


def redimnet_names(arguments: dict) -> list[str]:
    """Return the names of all tensors of WeSpeaker's network with our arguments, except for those of its pooling."""
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


@pytest.mark.parametrize("model", REDIMNET.networks)
@pytest.mark.parametrize("args", [{}, {"two_emb_layer": True, "pooling_func": "TSTP"}])
def test_all_names_of_redimnet_have_a_counterpart(model, args):
    args = {**args, "out_channels": 96} if model == "ReDimNet" else args
    arguments = translate_network(model, args)
    ours = REDIMNET.rename({name: torch.zeros(1) for name in redimnet_names(arguments)})
    with torch.device("meta"):
        network = speaker_networks.build(arguments, "network", num_mel_bins=72)
    assert sorted(ours) == sorted(name for name in network.state_dict() if not name.startswith("pool."))


def test_all_names_of_repvgg_have_a_counterpart():
    """All names that a block of either kind can have in WeSpeaker."""
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
    network = RepVGG(num_blocks=(1, 1, 1, 1), channels=(4, 8, 16, 32), embedding_dim=8, **arguments)
    assert sorted(REPVGG.rename(dict.fromkeys(names))) == sorted(network.state_dict())
    assert list(REPVGG.rename({"stage3.11.rbr_reparam.bias": None})) == ["stages.2.11.folded.bias"]
