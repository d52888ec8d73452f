"""The tables of WeSpeaker's speaker networks: names, arguments with their defaults, and rules that rename the weights.

`FAMILIES` holds one `NetworkFamily` for each network of ours that reads public weights. A family lists the public names
that it knows (`ResNet34`, `ResNet50`, …), the arguments of each with the public defaults, which argument of ours each
of them becomes, and ordered regular expressions from the public names of tensors to ours. A function is beside a
table only where the table cannot say it, as for the stages of ReDimNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_family import NUM_MEL_BINS, REQUIRED, NetworkFamily, PublicNetwork, Rule


def _network(implied: Mapping[str, Any] | None = None, /, **defaults: Any) -> PublicNetwork:
    """Return a row of a table: what the network's name implies, and as keywords the defaults of its arguments."""
    return PublicNetwork(defaults, implied or {})


# What several families share: the pooling and the layers after it.

POOLING_RULES: tuple[Rule, ...] = (
    (r"^pool\.n_query\.", "pool.queries."),
    (r"^(pool\..*)\bheads_att_trans\.(\d+)\.att_0\.", "{1}heads.{2}.0."),
    (r"^(pool\..*)\bheads_att_trans\.(\d+)\.att_1\.", "{1}heads.{2}.2."),
)
"""ASTP's tensors have the same names here and there."""

HEAD_RULES: tuple[Rule, ...] = (
    *POOLING_RULES,
    (r"^seg_1\.", "linear."),
    (r"^seg_bn_1\.", "second.1."),
    (r"^seg_2\.", "second.2."),
)
WITHOUT_SECOND_LAYER = {"embed_dim": "embedding_dim", "pooling_func": "pooling"}
HEAD = {**WITHOUT_SECOND_LAYER, "two_emb_layer": "second_layer"}
POOLED = {"pooling_func": "TSTP", "two_emb_layer": False}


# ResNet, and SimAM-ResNet, whose ResNet lies under `front.` there.

_RESNETS = {
    "ResNet18": ("BasicBlock", (2, 2, 2, 2)),
    "ResNet34": ("BasicBlock", (3, 4, 6, 3)),
    "ResNet50": ("Bottleneck", (3, 4, 6, 3)),
    "ResNet101": ("Bottleneck", (3, 4, 23, 3)),
    "ResNet152": ("Bottleneck", (3, 8, 36, 3)),
    "ResNet221": ("Bottleneck", (6, 16, 48, 3)),
    "ResNet293": ("Bottleneck", (10, 20, 64, 3)),
}
_RESNET_RULES: tuple[Rule, ...] = (
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", "stages.{1-1}.{2}.convs.{3-1}."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", "stages.{1-1}.{2}.norms.{3-1}."),
    (r"^layer(\d)\.(\d+)\.shortcut\.", "stages.{1-1}.{2}.shortcut."),
    (r"^conv1\.", "conv."),
    (r"^bn1\.", "norm."),
    *HEAD_RULES,
)
RESNET = NetworkFamily(
    name="resnet",
    networks={
        "ResNet": _network(block=REQUIRED, num_blocks=REQUIRED, m_channels=32, embed_dim=128, **POOLED),
        **{
            name: _network({"block": block, "num_blocks": num_blocks}, m_channels=32, embed_dim=REQUIRED, **POOLED)
            for name, (block, num_blocks) in _RESNETS.items()
        },
    },
    arguments={"num_blocks": "num_blocks", "m_channels": "channels", **HEAD},
    blocks={"BasicBlock": "basic", "Bottleneck": "bottleneck"},
    block_argument="block",
    rules=_RESNET_RULES,
)

_SIMAMS = {"SimAM_ResNet34_ASP": (3, 4, 6, 3), "SimAM_ResNet100_ASP": (6, 16, 24, 3)}
SIMAM_RESNET = NetworkFamily(
    name="simam_resnet",
    networks={
        name: _network({"num_blocks": num_blocks}, in_planes=64, embed_dim=256, acoustic_dim=80, dropout=0.0)
        for name, num_blocks in _SIMAMS.items()
    },
    arguments={
        **{"num_blocks": "num_blocks", "in_planes": "channels"},
        **{"embed_dim": "embedding_dim", "dropout": "dropout"},
    },
    constants={"pooling": "asp"},
    rules=(
        (r"^front\.", ""),
        (r"\.downsample\.", ".shortcut."),
        (r"^pooling\.attention\.0\.", "pool.linear1."),
        (r"^pooling\.attention\.2\.", "pool.norm."),
        (r"^pooling\.attention\.3\.", "pool.linear2."),
        (r"^bottleneck\.", "linear."),
        *_RESNET_RULES,
    ),
)

# Res2Net and ERes2Net. The public name ends with the size: `Base` has 32 channels in its first stage, the others 64.

_BASE, _LARGE = ({"m_channels": channels, "num_blocks": (3, 4, 6, 3)} for channels in (32, 64))
_RES2NET_DEFAULTS = {"embed_dim": 192, **POOLED}
_RES2NET_ARGUMENTS = {"num_blocks": "num_blocks", "m_channels": "channels", **HEAD}
_RES2NET_RULES: tuple[Rule, ...] = (
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d)\.", "stages.{1-1}."),
    (r"\.conv1\.", ".reduce.conv."),
    (r"\.bn1\.", ".reduce.norm."),
    (r"\.convs\.(\d+)\.", ".convs.{1}.conv."),
    (r"\.bns\.(\d+)\.", ".convs.{1}.norm."),
    (r"\.conv3\.", ".expand.conv."),
    (r"\.bn3\.", ".expand.norm."),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    *HEAD_RULES,
)
RES2NET = NetworkFamily(
    name="res2net",
    networks={
        "Res2Net": _network(m_channels=REQUIRED, num_blocks=REQUIRED, **_RES2NET_DEFAULTS),
        "Res2Net34_Base": _network(_BASE, **_RES2NET_DEFAULTS),
        "Res2Net34_Large": _network(_LARGE, **_RES2NET_DEFAULTS),
    },
    arguments=_RES2NET_ARGUMENTS,
    blocks={"BasicBlockRes2Net": ""},
    rules=_RES2NET_RULES,
)

_WIDER = {"baseWidth": 32, "scale": 2, "expansion": 2}
ERES2NET = NetworkFamily(
    name="eres2net",
    networks={
        "ERes2Net": _network(m_channels=REQUIRED, num_blocks=REQUIRED, **_WIDER, **_RES2NET_DEFAULTS),
        "ERes2Net34_Base": _network(_BASE, **_RES2NET_DEFAULTS),
        "ERes2Net34_Large": _network(_LARGE, **_RES2NET_DEFAULTS),
        "ERes2Net34_aug": _network(_LARGE, baseWidth=24, scale=3, expansion=4, **_RES2NET_DEFAULTS),
    },
    arguments={**_RES2NET_ARGUMENTS, "baseWidth": "base_width", "scale": "scale", "expansion": "expansion"},
    blocks={"BasicBlockERes2Net": ""},
    rules=(
        (r"^fuse_mode12\.", "fusions.0."),
        (r"^fuse_mode123\.", "fusions.1."),
        (r"^fuse_mode1234\.", "fusions.2."),
        (r"^layer(\d)_downsample\.", "downsamples.{1-1}."),
        (r"\.fuse_models\.", ".fusions."),
        (r"\.local_att\.", ".attention."),
        # In the last two stages the first of the convolutions has a name of its own; the numbers of the others shift.
        (r"^(layer[34]\.\d+\.(?:convs|bns))\.(\d+)\.", "{1}.{2+1}."),
        (r"\.conv2_1\.", ".convs.0."),
        (r"\.bn2_1\.", ".bns.0."),
        *_RES2NET_RULES,
    ),
)

# Gemini DF-ResNet.

_GEMINIS = {
    "Gemini_DF_ResNet60": (3, 3, 9, 3),
    "Gemini_DF_ResNet114": (3, 3, 27, 3),
    "Gemini_DF_ResNet183": (3, 8, 45, 3),
    "Gemini_DF_ResNet237": (3, 8, 63, 3),
}
GEMINI = NetworkFamily(
    name="gemini_df_resnet",
    networks={
        "Gemini_DF_ResNet": _network(depths=REQUIRED, dims=REQUIRED, embed_dim=128, **POOLED),
        **{
            name: _network({"depths": depths, "dims": (32, 32, 64, 128, 256)}, embed_dim=REQUIRED, **POOLED)
            for name, depths in _GEMINIS.items()
        },
    },
    arguments={"depths": "num_blocks", "dims": "channels", **HEAD},
    rules=(
        (r"^stages\.(\d)\.(\d+)\.", "stages.{1}.blocks.{2}."),
        (r"(?<=\d\.)conv([1-3])\.", "convs.{1-1}."),
        (r"(?<=\d\.)bn([1-3])\.", "norms.{1-1}."),
        # Their downsampling layers are the stem and the first layers of our stages.
        (r"^downsample_layers\.0\.0\.", "conv."),
        (r"^downsample_layers\.0\.1\.", "norm."),
        (r"^downsample_layers\.([1-4])\.0\.", "stages.{1-1}.conv."),
        (r"^downsample_layers\.([1-4])\.1\.", "stages.{1-1}.norm."),
        *HEAD_RULES,
    ),
)

# x-vector.

XVECTOR = NetworkFamily(
    name="xvector",
    networks={"XVEC": _network(hid_dim=512, stats_dim=1500, embed_dim=512, pooling_func="TSTP")},
    arguments={"hid_dim": "channels", "stats_dim": "frame_dim", **WITHOUT_SECOND_LAYER},
    rules=(
        (r"^frame_([1-5])\.conv_1d\.", "convs.{1-1}."),
        (r"^frame_([1-5])\.bn\.", "norms.{1-1}."),
        *HEAD_RULES,
    ),
)

# ECAPA-TDNN: channels, and whether the attention has the statistics of the whole recording as context (`GLOB`).

_ECAPAS = {
    "ECAPA_TDNN": (512, False),
    "ECAPA_TDNN_c512": (512, False),
    "ECAPA_TDNN_c1024": (1024, False),
    "ECAPA_TDNN_GLOB_c512": (512, True),
    "ECAPA_TDNN_GLOB_c1024": (1024, True),
}
_ECAPA_DEFAULTS = {"embed_dim": 192, "pooling_func": "ASTP", "emb_bn": False}


def _ecapa_context(public: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context of the attention, which the other poolings do not have."""
    context = {"global_context": bool(public["global_context_att"])}
    return context if public["pooling_func"] == "ASTP" else {}


ECAPA_TDNN = NetworkFamily(
    name="ecapa_tdnn",
    networks={
        name: _network(channels=channels, global_context_att=context, **_ECAPA_DEFAULTS)
        for name, (channels, context) in _ECAPAS.items()
    },
    arguments={"channels": "channels", "emb_bn": "embedding_norm", **WITHOUT_SECOND_LAYER},
    constants={"frame_dim": 1536},  # before pooling, whatever the channels
    convert=_ecapa_context,
    rules=(
        (r"^layer1\.bn\.", "layer1.norm."),
        (r"^layer([2-4])\.se_res2block\.0\.", "blocks.{1-2}.expand."),
        (r"^layer([2-4])\.se_res2block\.1\.bns\.", "blocks.{1-2}.res2.norms."),
        (r"^layer([2-4])\.se_res2block\.1\.", "blocks.{1-2}.res2."),
        (r"^layer([2-4])\.se_res2block\.2\.", "blocks.{1-2}.project."),
        (r"^layer([2-4])\.se_res2block\.3\.", "blocks.{1-2}.excite."),
        (r"^(blocks\.\d\.(?:expand|project))\.bn\.", "{1}.norm."),
        (r"^bn\.", "pool_norm."),
        (r"^bn2\.", "embedding_norm."),
        *POOLING_RULES,
    ),
)

# CAM++.

_STEPS = ("batchnorm", "batchnorm_", "relu", "prelu")


def _campplus_nonlinearity(public: Mapping[str, Any]) -> dict[str, Any]:
    """Return the steps of `config_str`, such as `batchnorm-relu`; the last of two of one kind counts."""
    text, steps = public["config_str"], {}
    for step in text.split("-"):
        if step not in _STEPS:
            raise ConfigError(f"encoder: config_str {text!r} cannot be translated; {nearest(step, _STEPS)}")
        steps[step.rstrip("_")] = step
    return {"nonlinearity": list(steps.values())}


def _campplus_shapes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the last 1×1 convolution into a linear layer."""
    if "linear.weight" in weights:
        weights["linear.weight"] = weights["linear.weight"].flatten(1)
    return weights


_CAMPPLUS_DEFAULTS = {"growth_rate": 32, "bn_size": 4, "init_channels": 128, "config_str": "batchnorm-relu"}
CAMPPLUS = NetworkFamily(
    name="campplus",
    networks={"CAMPPlus": _network(embed_dim=512, pooling_func="TSTP", **_CAMPPLUS_DEFAULTS)},
    arguments={
        **{"growth_rate": "growth_rate", "bn_size": "bottleneck_factor", "init_channels": "init_channels"},
        **WITHOUT_SECOND_LAYER,
    },
    blocks={},
    constants={"num_layers": [12, 24, 16]},
    convert=_campplus_nonlinearity,
    reshape=_campplus_shapes,
    rules=(
        (r"^head\.conv1\.", "head.stem.conv."),
        (r"^head\.bn1\.", "head.stem.norm."),
        (r"^head\.conv2\.", "head.last.conv."),
        (r"^head\.bn2\.", "head.last.norm."),
        (r"^head\.layer1\.(\d)\.", "head.blocks.{1}."),
        (r"^head\.layer2\.(\d)\.", "head.blocks.{1+2}."),  # two layers of two blocks there
        (r"\.conv1\.", ".first.conv."),
        (r"\.bn1\.", ".first.norm."),
        (r"\.conv2\.", ".second.conv."),
        (r"\.bn2\.", ".second.norm."),
        (r"\.shortcut\.0\.", ".shortcut.conv."),
        (r"\.shortcut\.1\.", ".shortcut.norm."),
        (r"^xvector\.tdnn\.linear\.", "tdnn."),
        (r"^xvector\.tdnn\.nonlinear\.", "tdnn_activation."),
        (r"^xvector\.block(\d)\.tdnnd(\d+)\.", "blocks.{1-1}.{2-1}."),
        (r"\.nonlinear1\.", ".activation."),
        (r"^(blocks\.\d+\.\d+)\.linear1\.", "{1}.reduce."),
        (r"\.nonlinear2\.", ".inner_activation."),
        (r"\.cam_layer\.linear_local\.", ".conv."),
        (r"\.cam_layer\.", "."),
        (r"^xvector\.transit(\d)\.nonlinear\.", "transitions.{1-1}.0."),
        (r"^xvector\.transit(\d)\.linear\.", "transitions.{1-1}.1."),
        (r"^xvector\.out_nonlinear\.", "activation."),
        (r"^xvector\.stats\.", "pool."),  # the same tensors as `pool.`: they have two names there
        *POOLING_RULES,
        (r"^xvector\.dense\.linear\.", "linear."),
        (r"^xvector\.dense\.nonlinear\.batchnorm\.", "embedding_norm."),
        (r"\.batchnorm\.", ".norm."),
    ),
)

# ReDimNet. Sizes: channels, block, channels in a group, and of each stage the stride, the number of blocks, the width,
# and by how much its context block reduces the channels (none: no context block).

_B2 = ((1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (2, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4))
_B3 = ((1, 6, 4, 32), (2, 6, 2, 32), (1, 8, 2, 32), (2, 10, 2, 16), (1, 10, 1, 16), (2, 8, 1, 16))
_B4 = ((1, 4, 2, 48), (2, 4, 2, 48), (1, 6, 2, 48), (2, 6, 1, 32), (1, 8, 1, 24), (2, 4, 1, 16))
_B6 = ((1, 4, 4, 32), (2, 6, 2, 32), (1, 6, 2, 24), (3, 8, 1, 24), (1, 8, 1, 16), (2, 8, 1, 16))
_REDIMNETS = {
    "B0": (10, "basic_resnet", 1, ((1, 2, 1, 30), (2, 3, 2, 30), (1, 3, 3, 30), (2, 4, 2, 10), (1, 3, 1, 10))),
    "B1": (12, "convnext_like", 8, ((1, 2, 1, None), (2, 3, 1, None), (3, 4, 1, 12), (2, 5, 1, 12), (2, 3, 1, 8))),
    "B2": (16, "convnext_like", 4, _B2),
    "B3": (16, "basic_resnet_fwse", 1, _B3),
    "B4": (32, "basic_resnet_fwse", 1, _B4),
    "B5": (32, "basic_resnet_fwse", 16, _B4),
    "B6": (32, "basic_resnet", 32, _B6),
}
_REDIMNET_NAMES = ("C", "block_2d_type", "group_divisor", "stages_setup")
_REDIMNET_BODY = {"block_1d_type": "conv+att", "out_channels": 0}
_REDIMNET_HEAD = {"embed_dim": 192, "pooling_func": "ASTP", "two_emb_layer": False, "global_context_att": True}
"""WeSpeaker's B1 was once without global context; such weights are read with `global_context_att: false`."""


def _redimnet_stages(public: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stages, the sizes that are zero where there are none, and the context of the attention."""
    if public["block_1d_type"] != "conv+att":
        raise ConfigError(
            f"encoder: block_1d_type {public['block_1d_type']!r} cannot be translated; 'conv+att' is allowed"
        )
    ours: dict[str, Any] = {
        "stages": [
            # Between the width and the reduction, the full form has the kernel sizes of the blocks.
            {"stride": stride, "num_blocks": count, "width": width, "context_reduction": reduction}
            for stride, count, width, *_, reduction in public["stages_setup"]
        ],
        "group_size": public["group_divisor"] or None,
        "frame_dim": public["out_channels"] or None,
    }
    if public["pooling_func"] == "ASTP":
        ours["pooling"] = {"name": "astp", "global_context": bool(public["global_context_att"])}
    return ours


def _redimnet_shapes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the first axis, of size one, of the weights that mix the outputs of stages."""
    return {name: tensor.squeeze(0) if name.startswith("mixes.") else tensor for name, tensor in weights.items()}


REDIMNET = NetworkFamily(
    name="redimnet",
    networks={
        "ReDimNet": _network(
            C=16, block_2d_type="basic_resnet", group_divisor=4, stages_setup=_B2, **_REDIMNET_BODY, **_REDIMNET_HEAD
        ),
        **{
            f"ReDimNet{size}": _network(
                {**_REDIMNET_BODY, **dict(zip(_REDIMNET_NAMES, values, strict=True))}, **_REDIMNET_HEAD
            )
            for size, values in _REDIMNETS.items()
        },
    },
    arguments={"C": "channels", **HEAD},
    blocks={"convnext_like": "convnext", "basic_resnet": "resnet", "basic_resnet_fwse": "resnet_se"},
    block_argument="block_2d_type",
    nullable=("group_divisor", "out_channels"),
    convert=_redimnet_stages,
    reshape=_redimnet_shapes,
    rules=(
        # The weight of a mix of one output has no counterpart: its softmax is always one.
        (r"^backbone\.inputs_weights\.0$", None),
        (r"^backbone\.", ""),
        (r"^inputs_weights\.(\d+)", "mixes.{1-1}"),
        (r"^stem\.0\.", "stem."),
        (r"^stem\.1\.", "stem_norm."),
        (r"^mfa\.", "aggregate."),
        (r"^stage(\d+)\.", "stages.{1}."),
        # A stage of theirs is a list: a convolution, its 2-D blocks, a change of width, its context block.
        (r"^(stages\.\d+)\.(\d+)\.conv_block\.", "{1}.blocks.{2-1}."),
        (r"^(stages\.\d+)\.\d+\.(\d)\.", "{1}.squeeze.{2}."),
        (r"^(stages\.\d+)\.0\.", "{1}.expand."),
        (r"\.conv(\d)\.", ".convs.{1-1}.0."),
        (r"\.conv(\d)pw\.", ".convs.{1-1}.1."),
        (r"\.bn(\d)\.", ".norms.{1-1}."),
        (r"\.se\.squeeze\.", ".excite.linear1."),
        (r"\.se\.exitation\.", ".excite.linear2."),
        (r"\.dwconvs\.0\.", ".conv."),
        (r"\.pwconv1\.", ".pointwise."),
        (r"\.\d+\.red_dim_conv\.0\.", ".context.reduce."),
        (r"\.\d+\.red_dim_conv\.1\.", ".context.norm."),
        (r"\.\d+\.exp_dim_conv\.", ".context.expand."),
        (r"\.\d+\.tcm\.([0-3])\.", ".context.convs.{1}."),
        (r"\.\d+\.tcm\.4\.(?:attention\.|feed_forward\.)?", ".context.attention."),
        (r"\.q_proj\.", ".query."),
        (r"\.k_proj\.", ".key."),
        (r"\.v_proj\.", ".value."),
        (r"\.out_proj\.", ".project."),
        (r"\.layer_norm\.", ".attention_norm."),
        (r"\.intermediate_dense\.", ".linear1."),
        (r"\.output_dense\.", ".linear2."),
        (r"\.final_layer_norm\.", ".norm."),
        *HEAD_RULES,
    ),
)

# RepVGG. Sizes: depth of the stages by letter, and channels as multiples of `_STAGE_CHANNELS`. `g2` and `g4` say in how
# many groups every second block is, up to the 26th.

_STAGE_CHANNELS, _BASE_WIDTH = (64, 128, 256, 512), 64
_DEPTHS = {"TINY": (3, 4, 23, 3), "A": (2, 4, 14, 1), "B": (4, 6, 16, 1), "D": (8, 14, 24, 1)}
_WIDTHS = {
    "TINY_A0": (0.5, 0.5, 0.5, 0.5),
    "A0": (0.75, 0.75, 0.75, 2.5),
    "A1": (1, 1, 1, 2.5),
    "A2": (1.5, 1.5, 1.5, 2.75),
    "B0": (1, 1, 1, 2.5),
    "B1": (2, 2, 2, 4),
    "B2": (2.5, 2.5, 2.5, 5),
    "B3": (3, 3, 3, 5),
    "D2SE": (2.5, 2.5, 2.5, 5),
}
_REPVGGS = (
    *("TINY_A0", "TINY_RSBB_A0", "A0", "RSBB_A0", "A1", "A2", "RSBB_A2", "B0", "RSBB_B0"),
    *("B1", "B1g2", "B1g4", "B2", "B2g2", "B2g4", "B3", "B3g2", "B3g4", "D2SE"),
)
_REPVGG_BODY = {"base_width": _BASE_WIDTH, "head_inplanes": 1}


def _repvgg_size(size: str) -> PublicNetwork:
    """Return the arguments of a named size; `RSBB` has dilated convolutions in place of 1×1."""
    plain, _, groups = size.replace("RSBB_", "").partition("g")
    count = 4 if size == "D2SE" else int(groups or 1)
    implied = {
        "num_blocks": _DEPTHS["TINY" if plain.startswith("TINY") else plain[0]],
        "strides": (1, 1, 2, 2, 2),
        "width_multiplier": _WIDTHS[plain],
        "block": "RepSPK" if "RSBB" in size else "RepVGG",
        "override_groups_map": dict.fromkeys(range(2, 27, 2), count) if count > 1 else {},
    }
    return _network(
        {**_REPVGG_BODY, **implied}, embed_dim=REQUIRED, pooling_func="TSTP", deploy=False, use_se=size == "D2SE"
    )


def _repvgg_sizes(public: Mapping[str, Any]) -> dict[str, Any]:
    """Return the channels of the stages and the groups of each block."""
    multipliers, num_blocks = public["width_multiplier"], public["num_blocks"]
    if public["head_inplanes"] != 1:
        raise ConfigError(f"encoder: head_inplanes {public['head_inplanes']!r} cannot be translated; 1 is allowed")
    if len(multipliers) != len(_STAGE_CHANNELS):
        raise ConfigError(f"encoder: width_multiplier is {multipliers!r}; four numbers are needed")
    widths = [width * (public["base_width"] / _BASE_WIDTH) for width in multipliers]
    groups = {int(number): count for number, count in (public["override_groups_map"] or {}).items()}
    return {
        "channels": [int(base * width) for base, width in zip(_STAGE_CHANNELS, widths, strict=True)],
        # Block 0 of theirs is the stem, which is not grouped.
        "groups": [groups.get(number + 1, 1) for number in range(sum(num_blocks))] if groups else [],
    }


_REPVGG_HEAD = {"embed_dim": 256, "pooling_func": "ASTP", "deploy": False, "use_se": False}
_REPVGG_SIZES = dict.fromkeys(("num_blocks", "strides", "width_multiplier"), REQUIRED)
REPVGG = NetworkFamily(
    name="repvgg",
    networks={
        "RepVGG": _network(block="RepVGG", override_groups_map={}, **_REPVGG_SIZES, **_REPVGG_BODY, **_REPVGG_HEAD),
        **{f"REPVGG_{size}": _repvgg_size(size) for size in _REPVGGS},
    },
    arguments={
        **{"num_blocks": "num_blocks", "strides": "strides", "use_se": "squeeze_excite", "deploy": "folded"},
        **WITHOUT_SECOND_LAYER,
    },
    blocks={"RepVGG": "repvgg", "RepSPK": "rsbb"},
    block_argument="block",
    nullable=("override_groups_map",),
    convert=_repvgg_sizes,
    rules=(
        (r"^stage0\.", "stem."),
        (r"^stage(\d)\.", "stages.{1-1}."),
        (r"\.rbr_dense\.conv\.", ".convs.0."),
        (r"\.rbr_dense\.bn\.", ".norms.0."),
        (r"\.rbr_(?:dense_dilation|1x1)\.conv\.", ".convs.1."),
        (r"\.rbr_(?:dense_dilation|1x1)\.bn\.", ".norms.1."),
        (r"\.rbr_identity\.", ".identity."),
        (r"\.rbr_reparam\.", ".folded."),
        (r"\.se\.fc_", ".excite.linear"),
        *POOLING_RULES,
        (r"^seg\.", "linear."),
    ),
)

FAMILIES = {
    family.name: family
    for family in (
        *(CAMPPLUS, ECAPA_TDNN, ERES2NET, GEMINI, REDIMNET),
        *(REPVGG, RES2NET, RESNET, SIMAM_RESNET, XVECTOR),
    )
}
"""Our name of a speaker network → the family of public networks whose weights it takes."""


def network_names() -> list[str]:
    """Return the public names of all speaker networks that can be read."""
    return [name for family in FAMILIES.values() for name in family.networks]


def family_of(model: str) -> NetworkFamily:
    """Return the family of a public network.

    Raises:
        ConfigError: there is no network of that name.
    """
    for family in FAMILIES.values():
        if model in family.networks:
            return family
    raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, network_names())}")


def translate_network(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """Return the configuration of our network for a public one: `{"name": …, …}` without the number of mel bins.

    Args:
        model: public name, such as `ResNet34`.
        args: the public constructor's arguments; `feat_dim` and `acoustic_dim`, the number of mel bins, are ignored.
        block: class of the residual blocks, where the configuration names it beside the arguments.

    Raises:
        ConfigError: an unknown model, block or pooling; an argument that is unknown or missing, or has an impossible
            value.

    >>> translate_network("ResNet34", {"embed_dim": 256})["num_blocks"]
    [3, 4, 6, 3]
    >>> translate_network("ReDimNetB2", {"embed_dim": 192})["stages"][0]
    {'stride': 1, 'num_blocks': 2, 'width': 1, 'context_reduction': 12}
    """
    return family_of(model).translate(model, args, block)


def translate_encoder(model: str, args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the configuration of the speaker network of an extractor.

    Args:
        model: public name that the extractor's arguments give.
        args: its arguments.
        encoder: `{"model": …, "args": …, "block": …}` of another network, which takes its place.

    Raises:
        ConfigError: as `translate_network`.
    """
    if encoder is None:
        return translate_network(model, args)
    return translate_network(str(encoder.get("model")), encoder.get("args") or {}, encoder.get("block"))


def rename_encoder(model: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a public speaker network under the names that they have in an extractor of ours.

    Raises:
        ConfigError: there is no network of that name.
        CheckpointError: two different tensors get one name.
    """
    return {f"encoder.network.{name}": tensor for name, tensor in family_of(model).rename(state_dict).items()}


def num_mel_bins(args: Mapping[str, Any], default: int = 80) -> int:
    """Return the number of mel bins that a public network takes, from its arguments."""
    return int(args.get(NUM_MEL_BINS, args.get("acoustic_dim", default)))  # the second name is SimAM-ResNet's
