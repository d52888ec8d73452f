from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop import load_wesep
from wesep_py.interop.wesep_conv_tasnet import rename_conv_tasnet, translate_conv_tasnet
from wesep_py.network.extraction_network import TargetSpeakerExtractor

ARGS = {
    "N": 12,
    "L": 16,
    "B": 5,
    "H": 7,
    "P": 3,
    "X": 3,
    "R": 2,
    "spk_emb_dim": 4,
    "spk_fuse_type": "multiply",
    "encoder_type": None,
    "decoder_type": None,
    "joint_training": False,
    "use_spk_transform": False,
}
EMBEDDING_KEY = "0.embedding"


def public_weights(args: dict) -> dict[str, Tensor]:
    """Return random weights of the public layout."""
    torch.manual_seed(0)
    n, b, h, e, x = args["N"], args["B"], args["H"], args["spk_emb_dim"], args["X"]
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.0.weight": (n, 1, 16),
        "encoder.0.bias": (n,),
        "LayerN_S.weight": (n, 1),
        "LayerN_S.bias": (n, 1),
        "BottleN_S.weight": (b, n, 1),
        "BottleN_S.bias": (b,),
        "gen_masks.weight": (n, b, 1),
        "gen_masks.bias": (n,),
        "decoder.weight": (n, 1, 16),
        "decoder.bias": (1,),
    }

    def block(place: str, names: tuple[str, ...], width: int) -> None:
        expand, prelu1, norm1, depthwise, prelu2, norm2, *project = (f"{place}.{name}" for name in names)
        shapes.update({f"{expand}.weight": (h, width, 1), f"{expand}.bias": (h,), f"{prelu1}.weight": (1,)})
        shapes.update({f"{depthwise}.weight": (h, 1, 3), f"{depthwise}.bias": (h,), f"{prelu2}.weight": (1,)})
        shapes.update({f"{norm}.{kind}": (h, 1) for norm in (norm1, norm2) for kind in ("weight", "bias")})
        for last in project:
            shapes.update({f"{last}.weight": (b, h, 1), f"{last}.bias": (b,)})

    plain = ("conv1x1", "PReLU_1", "norm_1", "dwconv", "PReLU_2", "norm_2", "Output")
    if args.get("skip_con"):
        plain = (*plain, "Sc_conv")
    fusing = ("conv1x1", "prelu1", "lnorm1", "dconv", "prelu2", "lnorm2", "sconv")
    fuse, index = args["spk_fuse_type"], 0
    for _ in range(args["R"]):
        left, place = x, f"separation.separation.{index}"
        if fuse == "concatConv":
            block(place, fusing, b + e)
            left, index = x - 1, index + 1
        else:
            layers = ("gamma_fcs.0", "beta_fcs.0") if fuse == "FiLM" else ("linear",)
            width = e + b if fuse == "concat" else e
            shapes.update({f"{place}.fc.{layer}.weight": (b, width) for layer in layers})
            shapes.update({f"{place}.fc.{layer}.bias": (b,) for layer in layers})
            shapes[f"separation.separation.{index + 1}.weight"] = (1,)
            shapes.update({f"separation.separation.{index + 2}.{kind}": (b, 1) for kind in ("weight", "bias")})
            index += 3
        for i in range(left):
            block(f"separation.separation.{index}.separation.{i}", plain, b)
        index += 1
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("fusion", ["concat", "additive", "multiply", "FiLM", "concatConv"])
@pytest.mark.parametrize("skip", [False, True])
def test_all_tensors_of_each_fusion_are_used(fusion, skip):
    args = {**ARGS, "spk_fuse_type": fusion, "skip_con": skip}
    public = public_weights(args)
    network = TargetSpeakerExtractor(translate_conv_tasnet(args)).eval()
    network.load_state_dict(rename_conv_tasnet(public, args))
    assert network.backbone.num_fusion_points == 2
    weights = [value for key, value in public.items() if key.endswith(("Output.weight", "sconv.weight"))]
    for block, expected in zip(network.backbone.blocks, weights, strict=True):
        assert torch.equal(block.project.weight, expected)
    (estimate,) = network.extract(torch.randn(2, 500), {EMBEDDING_KEY: torch.randn(2, 4)}).waveforms
    assert estimate.shape == (2, 500)


def with_norm(weights: dict[str, Tensor], norm: str) -> dict[str, Tensor]:
    """Return the weights of the same network with another normalisation, whose weights are not `[channels, 1]`."""
    if norm == "gLN":
        return weights
    changed = {key: value.squeeze(1) if value.shape[1:] == (1,) else value for key, value in weights.items()}
    if norm == "BN":
        for key, value in list(changed.items()):
            if weights[key].shape[1:] == (1,) and key.endswith("weight"):
                place = key.removesuffix("weight")
                changed |= {
                    f"{place}running_mean": torch.randn(len(value)),
                    f"{place}running_var": 1 + torch.rand(len(value)),
                }
    return changed


def slow_reference(args: dict, weights: dict[str, Tensor], mixture: Tensor, embedding: Tensor) -> Tensor:
    """Compute the public network by layers. A stack returns the sum of its skips, or the output of its last block."""

    def conv(x: Tensor, name: str, **options) -> Tensor:
        return F.conv1d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"].flatten(), weights[f"{name}.bias"].flatten()
        if args["norm"] == "BN":
            return F.batch_norm(x, weights[f"{name}.running_mean"], weights[f"{name}.running_var"], weight, bias)
        if args["norm"] == "cLN":
            return F.layer_norm(x.transpose(1, 2), weight.shape, weight, bias).transpose(1, 2)
        return F.group_norm(x, 1, weight, bias)

    def block(x: Tensor, place: str, names: tuple[str, ...], dilation: int, block_input: Tensor) -> Tensor:
        expand, prelu1, norm1, depthwise, prelu2, norm2 = (f"{place}.{name}" for name in names)
        y = norm(F.prelu(conv(block_input, expand), weights[f"{prelu1}.weight"]), norm1)
        y = conv(y, depthwise, dilation=dilation, padding=dilation, groups=args["H"])
        return norm(F.prelu(y, weights[f"{prelu2}.weight"]), norm2)

    basis = torch.relu(conv(mixture[:, None], "encoder.0", stride=8))
    x, index, inside = conv(norm(basis, "LayerN_S"), "BottleN_S"), 0, args["spk_fuse_type"] == "concatConv"
    for _ in range(args["R"]):
        place = f"separation.separation.{index}"
        if inside:
            block_input = torch.cat([x, embedding[..., None].expand(-1, -1, x.shape[2])], dim=1)
            names = ("conv1x1", "prelu1", "lnorm1", "dconv", "prelu2", "lnorm2")
            x = x + conv(block(x, place, names, 1, block_input), f"{place}.sconv")
        else:
            fused = x * F.linear(embedding, *(weights[f"{place}.fc.linear.{k}"] for k in ("weight", "bias")))[..., None]
            x = norm(
                F.prelu(fused, weights[f"separation.separation.{index + 1}.weight"]),
                f"separation.separation.{index + 2}",
            )
        index += 1 if inside else 3
        skips = []
        for i in range(args["X"] - inside):
            place, names = f"separation.separation.{index}.separation.{i}", ("conv1x1", "PReLU_1", "norm_1", "dwconv")
            y = block(x, place, (*names, "PReLU_2", "norm_2"), 2 ** (i + inside), x)
            x = x + conv(y, f"{place}.Output")
            if args["skip_con"]:
                skips.append(conv(y, f"{place}.Sc_conv"))
        x = sum(skips) if args["skip_con"] else x
        index += 1
    masked = torch.relu(conv(x, "gen_masks")) * basis
    return F.conv_transpose1d(masked, weights["decoder.weight"], weights["decoder.bias"], stride=8)


@pytest.mark.parametrize("norm", ["gLN", "cLN", "BN"])
@pytest.mark.parametrize("fusion", ["multiply", "concatConv"])
@pytest.mark.parametrize("skip", [False, True])
def test_norms_and_skips_compute_what_the_public_code_computes(norm, fusion, skip):
    args = {**ARGS, "norm": norm, "spk_fuse_type": fusion, "skip_con": skip}
    weights = with_norm({key: 0.3 * value for key, value in public_weights(args).items()}, norm)
    mixture, embedding = torch.randn(2, 480), torch.randn(2, 4)
    with torch.no_grad():
        estimate = load_wesep({"model": "ConvTasNet", "args": args}, weights)(mixture, embedding)
    torch.testing.assert_close(estimate, slow_reference(args, weights, mixture, embedding), atol=1e-5, rtol=1e-4)


def test_columns_of_a_concatenation_are_reordered():
    """The columns are of [h; e] there, and of [e; h] here."""
    args = {**ARGS, "spk_fuse_type": "concat"}
    public = public_weights(args)
    theirs = public["separation.separation.0.fc.linear.weight"]
    ours = rename_conv_tasnet(public, args)["cues.0.fusion.layers.0.linear.weight"]
    assert torch.equal(ours, torch.cat([theirs[:, 5:], theirs[:, :5]], dim=1))


def test_causal_network_with_norms_per_frame():
    args = {**ARGS, "norm": "cLN", "causal": True}
    network = TargetSpeakerExtractor(translate_conv_tasnet(args))
    network.load_state_dict(rename_conv_tasnet(with_norm(public_weights(args), "cLN"), args))
    assert network.backbone.latency == 15


def test_tensor_without_counterpart_is_named():
    args = {**ARGS}
    with pytest.raises(CheckpointError, match="pred_linear"):
        rename_conv_tasnet({**public_weights(args), "pred_linear.weight": torch.zeros(3, 4)}, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_type": "Free"}, "encoder_type"),
        ({"decoder_type": "Deep"}, "decoder_type"),
        ({"spk_fuse_type": "glue"}, "spk_fuse_type"),
        ({"norm": "LN"}, "norm"),
        ({"activate": "softmax"}, "activate: 'softmax' runs over the recordings"),
        ({"causal": True}, "averages over time"),
        ({"skip_con": True, "X": 1, "spk_fuse_type": "concatConv"}, "skip_con"),
        ({"multi_fuse": False}, "multi_fuse: false cannot run in WeSep"),
        ({"joint_training": True}, "joint_training: true on waveforms cannot run in WeSep"),
        ({"joint_training": True, "encoder_type": "Multi", "decoder_type": "Multi"}, "N: is 12"),
        ({"use_spk_transform": True}, "use_spk_transform: true with spk_emb_dim 4"),
        ({"skipcon": True}, "did you mean 'skip_con'"),
    ],
)
def test_untranslatable_arguments_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        translate_conv_tasnet({**ARGS, **change})
