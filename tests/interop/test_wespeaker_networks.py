"""The tables of WeSpeaker's networks: sizes that are published, arguments, defaults and errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.interop.wespeaker_networks import FAMILIES, family_of, network_names, translate_network
from wesep_py.network.speaker import speaker_networks

MILLIONS = {
    "ResNet18": 4.11,
    "ResNet34": 6.63,
    "ResNet50": 11.13,
    "ResNet101": 15.89,
    "ResNet152": 19.81,
    "ResNet221": 23.79,
    "ResNet293": 28.63,
    "SimAM_ResNet34_ASP": 25.21,
    "SimAM_ResNet100_ASP": 50.23,
    "Gemini_DF_ResNet60": 4.05,
    "Gemini_DF_ResNet114": 6.53,
    "Gemini_DF_ResNet183": 9.20,
    "Gemini_DF_ResNet237": 11.68,
    "XVEC": 4.61,
    "ECAPA_TDNN_c512": 5.80,
    "ECAPA_TDNN_c1024": 14.26,
    "ECAPA_TDNN_GLOB_c512": 6.19,
    "ECAPA_TDNN_GLOB_c1024": 14.66,
}
"""Parameters; of ResNet-34, 221, 293, x-vector and ECAPA as WeSpeaker's results list them (VoxCeleb v2)."""
REPVGG_SIZES = {"num_blocks": [1] * 4, "strides": [1] * 5, "width_multiplier": [1] * 4}


def build(arguments: dict, num_mel_bins: int = 80) -> nn.Module:
    """Build the network of translated arguments without its weights."""
    with torch.device("meta"):
        return speaker_networks.build(arguments, "network", num_mel_bins=num_mel_bins)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["ResNet34", "ResNet293", "Res2Net34_Base", "ReDimNetB2", "REPVGG_TINY_A0", "XVEC"])
def test_a_name_has_one_family(name):
    assert network_names().count(name) == 1
    ours = next(key for key, family in FAMILIES.items() if family is family_of(name))
    assert ours == family_of(name).name and ours.startswith(name.lower()[:4])


# Sizes


@pytest.mark.parametrize("model", MILLIONS)
def test_sizes_of_the_published_networks(model):
    embed_dim = 512 if model == "XVEC" else 192 if model.startswith("ECAPA") else 256
    network = build(translate_network(model, {"embed_dim": embed_dim}))
    assert count(network) / 1e6 == pytest.approx(MILLIONS[model], abs=0.006)


@pytest.mark.parametrize(
    ("model", "embedding_dim", "millions"),
    [("ERes2Net34_Base", 192, 6.61), ("ERes2Net34_Large", 192, 22.46)],
)
def test_sizes_of_eres2net(model, embedding_dim, millions):
    """As in 3D-Speaker, by the authors of the paper."""
    network = build(translate_network(model, {"feat_dim": 80, "embed_dim": embedding_dim}))
    assert count(network) == pytest.approx(millions * 1e6, rel=1e-3)


def test_size_of_res2net():
    """As in WeSpeaker's table of VoxCeleb results."""
    network = build(translate_network("Res2Net34_Base", {"feat_dim": 80, "embed_dim": 256}))
    assert count(network) == pytest.approx(4.68e6, rel=3e-3)
    assert network.frame_dim == 32 * 8 * 2 * 10


@pytest.mark.parametrize(
    ("size", "num_mel_bins", "counted", "published"),
    [
        *(("B0", 60, 1.0, 1.0), ("B1", 72, 2.1, 2.2), ("B2", 72, 4.9, 4.7), ("B3", 72, 3.2, 3.0)),
        *(("B4", 72, 6.4, 6.3), ("B5", 72, 7.65, 9.2), ("B6", 72, 15.0, 15.0)),
    ],
)
def test_sizes_of_redimnet(size, num_mel_bins, counted, published):
    """Millions of parameters that WeSpeaker counts for its networks; except for B5 they are near those of the paper."""
    network = build(translate_network(f"ReDimNet{size}", {"feat_dim": num_mel_bins}), num_mel_bins)
    parameters = count(network) / 1e6
    assert parameters == pytest.approx(counted, abs=0.05)
    assert size == "B5" or parameters == pytest.approx(published, rel=0.08)


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        *(("A0", 8.30), ("A1", 12.78), ("A2", 25.49), ("B0", 14.33), ("B1", 51.82), ("B1g2", 41.36), ("B1g4", 36.12)),
        *(("B2", 80.31), ("B2g4", 55.77), ("B3", 110.96), ("B3g4", 75.62)),
    ],
)
def test_sizes_of_repvgg(size, millions):
    """Ding et al. (2021), table 4, counts the folded networks, with images of three channels and 1000 classes."""
    arguments = translate_network(f"REPVGG_{size}", {"embed_dim": 256, "deploy": True})
    network = build(arguments)
    width = arguments["channels"][-1]
    assert network.frame_dim == width * 10
    more_channels, classifier = 2 * 9 * min(64, arguments["channels"][0]), 1000 * (width + 1)
    parameters = count(network) - count(network.linear) + more_channels + classifier
    assert parameters / 1e6 == pytest.approx(millions, abs=0.0101)


def test_tiny_sizes_of_repvgg():
    plain, dilated = (translate_network(f"REPVGG_TINY_{name}", {"embed_dim": 256}) for name in ("A0", "RSBB_A0"))
    assert plain["num_blocks"] == dilated["num_blocks"] == [3, 4, 23, 3]
    assert (plain["block"], dilated["block"]) == ("repvgg", "rsbb")
    assert plain["channels"] == [32, 64, 128, 256]


def test_groups_of_named_sizes_of_repvgg():
    groups = translate_network("REPVGG_D2SE", {"embed_dim": 256})["groups"]
    assert len(groups) == 8 + 14 + 24 + 1
    assert groups[:4] == [1, 4, 1, 4] and groups[24:28] == [1, 4, 1, 1]
    assert translate_network("REPVGG_D2SE", {"embed_dim": 256})["squeeze_excite"]
    assert translate_network("REPVGG_B1", {"embed_dim": 256})["groups"] == []
    own = {"num_blocks": [1, 1, 1, 1], "strides": [1] * 5, "width_multiplier": [1] * 4, "override_groups_map": {3: 2}}
    assert translate_network("RepVGG", own)["groups"] == [1, 1, 2, 1]
    assert translate_network("RepVGG", {**own, "override_groups_map": None})["groups"] == []


# Arguments


def test_defaults_are_wespeakers():
    resnet = translate_network("ResNet", {"num_blocks": [1, 1, 1, 1]}, "BasicBlock")
    assert (resnet["channels"], resnet["embedding_dim"], resnet["second_layer"]) == (32, 128, False)
    assert translate_network("ResNet34", {"embed_dim": 256, "pooling_func": "ASTP"})["pooling"] == "astp"
    assert translate_network("ECAPA_TDNN", {})["global_context"] is False
    assert translate_network("ECAPA_TDNN_GLOB_c512", {})["global_context"] is True
    assert "global_context" not in translate_network("ECAPA_TDNN_GLOB_c512", {"pooling_func": "TSTP"})
    assert translate_network("SimAM_ResNet34_ASP", {"dropout": 0.3})["dropout"] == 0.3
    assert translate_network("Gemini_DF_ResNet183", {"embed_dim": 8, "two_emb_layer": True})["second_layer"]


def test_arguments_of_campplus():
    args = {
        "feat_dim": 72,
        "embed_dim": 16,
        "pooling_func": "ASTP",
        "growth_rate": 6,
        "bn_size": 3,
        "init_channels": 10,
        "config_str": "batchnorm_-prelu",
    }
    arguments = translate_network("CAMPPlus", args)
    network = speaker_networks.build(arguments, "network", num_mel_bins=72)
    assert network.linear.weight.shape == (16, 2 * network.frame_dim)
    assert network.tdnn.weight.shape == (10, 32 * 9, 5)
    assert network.blocks[2][15].reduce.out_channels == 3 * 6
    assert network.blocks[0][0].conv.out_channels == 6
    assert [name for name, _ in network.activation.named_children()] == ["norm", "prelu"]
    assert not network.activation.norm.affine
    defaults = translate_network("CAMPPlus", {})
    assert defaults["embedding_dim"] == 512
    assert defaults["nonlinearity"] == ["batchnorm", "relu"]


def test_arguments_of_eres2net():
    augmented = translate_network("ERes2Net34_aug", {"feat_dim": 80, "embed_dim": 512})
    assert {key: augmented[key] for key in ("channels", "base_width", "scale", "expansion")} == {
        "channels": 64,
        "base_width": 24,
        "scale": 3,
        "expansion": 4,
    }
    assert translate_network("ERes2Net34_aug", {"scale": 2})["scale"] == 2
    assert translate_network("ERes2Net34_Large", {})["channels"] == 64


def test_arguments_of_res2net():
    large = translate_network("Res2Net34_Large", {"embed_dim": 256, "two_emb_layer": True})
    assert (large["channels"], large["num_blocks"], large["second_layer"]) == (64, [3, 4, 6, 3], True)
    args = {"m_channels": 8, "num_blocks": [1, 1, 1, 1], "pooling_func": "ASTP"}
    own = translate_network("Res2Net", args, "BasicBlockRes2Net")
    assert (own["channels"], own["num_blocks"], own["embedding_dim"]) == (8, [1, 1, 1, 1], 192)


def test_arguments_of_redimnet():
    assert translate_network("ReDimNetB1", {})["stages"][0] == {
        "stride": 1,
        "num_blocks": 2,
        "width": 1,
        "context_reduction": None,
    }
    assert translate_network("ReDimNetB3", {})["block"] == "resnet_se"
    assert translate_network("ReDimNetB3", {})["pooling"] == {"name": "astp", "global_context": True}
    local = translate_network("ReDimNetB1", {"global_context_att": False})
    assert local["pooling"] == {"name": "astp", "global_context": False}
    own = translate_network("ReDimNet", {"C": 8, "stages_setup": [(2, 1, 1, [(3, 3)], None)], "embed_dim": 4})
    assert (own["channels"], own["block"], own["group_size"], len(own["stages"])) == (8, "resnet", 4, 1)
    assert (own["embedding_dim"], own["second_layer"], own["frame_dim"]) == (4, False, None)
    ungrouped = translate_network("ReDimNet", {"group_divisor": None, "out_channels": None})
    assert (ungrouped["group_size"], ungrouped["frame_dim"]) == (None, None)


# Errors


@pytest.mark.parametrize(
    ("model", "args", "block", "message"),
    [
        ("ResNet3", {}, None, "did you mean 'ResNet34'"),
        ("ResNet34", {}, None, "needs its argument 'embed_dim'"),
        ("ResNet34", {"embed_dim": 8, "pooling_func": "ASTPP"}, None, "pooling_func 'ASTPP'.*'ASTP'"),
        ("ResNet34", {"embd_dim": 8}, None, "no argument 'embd_dim'; did you mean 'embed_dim'"),
        ("ResNet34", {"embed_dim": 8, "num_blocks": [1, 1, 1, 1]}, None, "ResNet34 has no argument 'num_blocks'"),
        ("ResNet", {"num_blocks": [1, 1, 1, 1]}, None, "ResNet needs its argument 'block'.*BasicBlock"),
        ("ResNet", {"num_blocks": [1, 1, 1, 1]}, "Basic", "encoder.block: is 'Basic'.*BasicBlock"),
        ("SimAM_ResNet50_ASP", {}, None, "did you mean 'SimAM_ResNet.*SimAM_ResNet100_ASP, SimAM_ResNet34_ASP"),
        ("SimAM_ResNet34_ASP", {"pooling_func": "TSTP"}, None, "no argument 'pooling_func'"),
        ("Gemini_DF_ResNet", {"depths": [1, 1, 1, 1]}, None, "needs its argument 'dims'"),
        ("Gemini_DF_ResNet6", {}, None, "did you mean 'Gemini_DF_ResNet60'"),
        ("XVEC", {"pooling_func": "ASP"}, None, "pooling_func 'ASP' cannot be translated"),
        ("XVECTOR", {}, None, "did you mean 'XVEC'"),
        ("ECAPA_TDNN_c2048", {}, None, "did you mean 'ECAPA_TDNN_c1024'"),
        ("ECAPA_TDNN", {"width": 8}, None, "no argument 'width'"),
        ("CAMPlus", {}, None, "did you mean 'CAMPPlus'"),
        ("CAMPPlus", {"growth_rates": 8}, None, "did you mean 'growth_rate'"),
        ("CAMPPlus", {"config_str": "batchnor-relu"}, None, "did you mean 'batchnorm'"),
        ("CAMPPlus", {"pooling_func": "NoPooling"}, None, "pooling_func 'NoPooling'"),
        ("CAMPPlus", {}, "BasicBlock", "no choice of blocks"),
        ("ERes2Net34_Aug", {}, None, "did you mean 'ERes2Net34_aug'"),
        ("ERes2Net34_Base", {"scale": 3}, None, "no argument 'scale'"),
        ("ERes2Net34_Base", {}, "Bottleneck", "BasicBlockERes2Net"),
        ("Res2Net34_base", {}, None, "did you mean 'Res2Net34_Base'"),
        ("Res2Net", {"num_blocks": [1, 1, 1, 1]}, None, "needs its argument 'm_channels'"),
        ("Res2Net34_Base", {"m_channels": 8}, None, "no argument 'm_channels'"),
        ("Res2Net34_Base", {"pooling_func": "NoPooling"}, None, "pooling_func 'NoPooling'"),
        ("Res2Net34_Base", {}, "BasicBlock", "BasicBlockRes2Net"),
        ("ReDimNetB7", {}, None, "did you mean 'ReDimNetB6'"),
        ("ReDimNetB0", {"pooling_func": "XYZ"}, None, "pooling_func 'XYZ'"),
        ("ReDimNet", {"block_1d_type": "gru"}, None, "block_1d_type 'gru'"),
        ("ReDimNet", {"block_2d_type": "resnet"}, None, "block_2d_type: is 'resnet'.*basic_resnet"),
        ("ReDimNetB0", {"embed_dims": 192}, None, "ReDimNetB0 has no argument 'embed_dims'; did you mean 'embed_dim'"),
        ("REPVGG_TINY_A", {"embed_dim": 256}, None, "did you mean 'REPVGG_TINY_A0'"),
        ("RepVGG", {}, None, "'num_blocks'"),
        ("REPVGG_A0", {}, None, "'embed_dim'"),
        ("REPVGG_A0", {"embed_dim": 256, "block": "RepSPK"}, None, "REPVGG_A0 has no argument 'block'"),
        ("REPVGG_A0", {"embed_dim": 256, "pooling_func": "XYZ"}, None, "pooling_func 'XYZ'"),
        ("RepVGG", {**REPVGG_SIZES, "block": "RepSBB"}, None, "encoder.block: is 'RepSBB'.*RepSPK"),
        ("RepVGG", {**REPVGG_SIZES, "head_inplanes": 3}, None, "head_inplanes 3"),
        ("RepVGG", {**REPVGG_SIZES, "width_multiplier": [1, 1]}, None, r"width_multiplier is \[1, 1\]; four"),
    ],
)
def test_untranslatable_networks_are_refused(model, args, block, message):
    with pytest.raises(ConfigError, match=message):
        translate_network(model, args, block)


def test_bins_that_the_strides_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="num_mel_bins: is 80; the stages' strides need a multiple of 12"):
        build(translate_network("ReDimNetB6", {}), 80)
