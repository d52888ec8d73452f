from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from wesep_py.errors import CheckpointError, ConfigError
from wesep_py.extractor import TargetSpeakerExtractor
from wesep_py.interop.wesep_conv_tasnet import rename, signature, translate

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
}
EMBEDDING_KEY = "0.embedding"


def read(path: Path) -> tuple[dict, dict[str, dict[str, Tensor]]]:
    """A fixture's arguments, and its tensors by kind (`weight`, `input`, `output`)."""
    tensors: dict[str, dict[str, Tensor]] = {"weight": {}, "input": {}, "output": {}}
    with safe_open(path, "pt") as file:
        args = json.loads(file.metadata()["config"])["args"]
        for key in file.keys():  # noqa: SIM118
            kind, _, name = key.partition("/")
            tensors[kind][name] = file.get_tensor(key)
    return args, tensors


@pytest.mark.parametrize("name", ["convtasnet_None", "convtasnet_Deep", "spexplus_concatConv_multi"])
def test_the_public_output_comes_out(shared_parity, name):
    args, tensors = read(shared_parity / f"wesep_{name}.safetensors")
    network = TargetSpeakerExtractor(translate(args)).eval()
    network.load_state_dict(rename(tensors["weight"], args))
    mixture, given = tensors["input"]["0"], tensors["input"]["1"]
    with torch.no_grad():
        prepared = network.prepare(given) if signature(args)[0] == "waveform" else {EMBEDDING_KEY: given}
        estimates = network.extract(mixture, prepared).waveforms
    assert len(estimates) == len(tensors["output"])
    for i, estimate in enumerate(estimates):
        expected = tensors["output"][str(i)]
        assert (expected.dim() == 3) == signature(args)[1]
        expected = expected.view_as(estimate)
        assert (estimate - expected).norm() / expected.norm() < 1e-5


def public_weights(args: dict, grouped: bool = True) -> dict[str, Tensor]:
    """Random weights under the public names; stacks after a single fusion in one list, or one each."""
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
        expand, prelu1, norm1, depthwise, prelu2, norm2, project = (f"{place}.{name}" for name in names)
        shapes.update({f"{expand}.weight": (h, width, 1), f"{expand}.bias": (h,), f"{prelu1}.weight": (1,)})
        shapes.update({f"{depthwise}.weight": (h, 1, 3), f"{depthwise}.bias": (h,), f"{prelu2}.weight": (1,)})
        shapes.update({f"{norm}.{kind}": (h, 1) for norm in (norm1, norm2) for kind in ("weight", "bias")})
        shapes.update({f"{project}.weight": (b, h, 1), f"{project}.bias": (b,)})

    plain = ("conv1x1", "PReLU_1", "norm_1", "dwconv", "PReLU_2", "norm_2", "Output")
    fusing = ("conv1x1", "prelu1", "lnorm1", "dconv", "prelu2", "lnorm2", "sconv")
    fuse, index = args["spk_fuse_type"], 0
    for stack in range(args["R"]):
        left = x
        if stack == 0 or args["multi_fuse"]:
            place = f"separation.separation.{index}"
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
        together = grouped and not args["multi_fuse"]
        start = 0 if not together or stack == 0 else stack * x - (fuse == "concatConv")
        for i in range(left):
            block(f"separation.separation.{index}.separation.{start + i}", plain, b)
        if not together:
            index += 1
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("fusion", ["concat", "additive", "multiply", "FiLM", "concatConv"])
@pytest.mark.parametrize(("multi", "grouped"), [(True, True), (False, True), (False, False)])
def test_every_weight_of_every_fusion_finds_its_place(fusion, multi, grouped):
    args = {**ARGS, "spk_fuse_type": fusion, "multi_fuse": multi}
    public = public_weights(args, grouped)
    network = TargetSpeakerExtractor(translate(args)).eval()
    network.load_state_dict(rename(public, args))
    assert network.backbone.num_fusion_points == (2 if multi else 1)
    weights = [value for key, value in public.items() if key.endswith(("Output.weight", "sconv.weight"))]
    for block, expected in zip(network.backbone.blocks, weights, strict=True):
        assert torch.equal(block.project.weight, expected)
    (estimate,) = network.extract(torch.randn(2, 500), {EMBEDDING_KEY: torch.randn(2, 4)}).waveforms
    assert estimate.shape == (2, 500)


def test_a_concatenation_is_turned_round():
    """[h; e] there, [e; h] here."""
    args = {**ARGS, "spk_fuse_type": "concat", "multi_fuse": True}
    public = public_weights(args)
    theirs = public["separation.separation.0.fc.linear.weight"]
    ours = rename(public, args)["cues.0.fusion.layers.0.linear.weight"]
    assert torch.equal(ours, torch.cat([theirs[:, 5:], theirs[:, :5]], dim=1))


def test_per_frame_norms_and_causality():
    args = {**ARGS, "norm": "cLN", "causal": True, "multi_fuse": True}
    network = TargetSpeakerExtractor(translate(args))
    # Their norm over the channels of a frame keeps [channels].
    public = public_weights(args)
    public = {key: value.squeeze(1) if value.shape[1:] == (1,) else value for key, value in public.items()}
    network.load_state_dict(rename(public, args))
    assert network.backbone.latency == 15


def test_a_weight_without_a_place_is_named():
    args = {**ARGS, "multi_fuse": True}
    with pytest.raises(CheckpointError, match="pred_linear"):
        rename({**public_weights(args), "pred_linear.weight": torch.zeros(3, 4)}, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_type": "Free"}, "encoder_type"),
        ({"decoder_type": "Deep"}, "decoder_type"),
        ({"spk_fuse_type": "glue"}, "spk_fuse_type"),
        ({"norm": "BN"}, "norm"),
        ({"activate": "softmax"}, "activate"),
        ({"causal": True}, "averages over time"),
        ({"skip_con": True}, "skip_con"),
        ({"joint_training": True}, "joint_training"),
    ],
)
def test_what_cannot_be_translated_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        translate({**ARGS, **change})
