from __future__ import annotations

import json

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.interop import wespeaker_eres2net
from wesep_py.network.speaker import speaker_networks
from wesep_py.network.speaker.res2net import ERes2Net


def test_computes_what_the_public_network_computes(shared_parity):
    from safetensors import safe_open

    with safe_open(shared_parity / "wespeaker_eres2net.safetensors", framework="pt") as fixture:
        config = json.loads(fixture.metadata()["config"])
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
    arguments = wespeaker_eres2net.translate(config["model"], config["args"])
    network = speaker_networks.build(arguments, "network", num_mel_bins=config["args"]["feat_dim"]).eval()
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    network.load_state_dict(wespeaker_eres2net.rename(weights))
    with torch.no_grad():
        embedding = network(tensors["input/0"]).embedding
    assert (embedding - tensors["output/0"]).norm() / tensors["output/0"].norm() < 1e-5


def test_fuses_globally_from_the_second_stage_on_and_locally_from_the_third():
    network = ERes2Net(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)
    assert [stage[0].fusions is not None for stage in network.stages] == [False, False, True, True]
    seen = []
    for fusion in network.fusions:
        fusion.register_forward_hook(lambda _, images, fused: seen.append((images[0].shape, fused)))
    output = network.eval()(torch.randn(2, 60, 80))
    assert [tuple(shape) for shape, _ in seen] == [(2, 16, 40, 30), (2, 32, 20, 15), (2, 64, 10, 8)]
    torch.testing.assert_close(output.frames, seen[-1][1].flatten(1, 2))


@pytest.mark.parametrize(
    ("model", "embedding_dim", "millions"),
    [("ERes2Net34_Base", 192, 6.61), ("ERes2Net34_Large", 192, 22.46)],
)
def test_published_sizes(model, embedding_dim, millions):
    """As 3D-Speaker, of the paper's authors, has them."""
    arguments = wespeaker_eres2net.translate(model, {"feat_dim": 80, "embed_dim": embedding_dim})
    with torch.device("meta"):
        network = speaker_networks.build(arguments, "network", num_mel_bins=80)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, rel=1e-3)


def public_shapes(channels: int, base_width: int, scale: int, expansion: int) -> dict[str, tuple[int, ...]]:
    """WeSpeaker's names and shapes of the convolutions of an ERes2Net with one block a stage."""
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


def test_the_augmented_size_has_the_public_shapes():
    args = {"m_channels": 64, "num_blocks": [1, 1, 1, 1], "baseWidth": 24, "scale": 3, "expansion": 4}
    with torch.device("meta"):
        network = ERes2Net(**{k: v for k, v in wespeaker_eres2net.translate("ERes2Net", args).items() if k != "name"})
        weights = {name: torch.empty(shape) for name, shape in public_shapes(64, 24, 3, 4).items()}
    numbers = {name: torch.full((1,), float(i)) for i, name in enumerate(weights)}
    renamed = wespeaker_eres2net.rename(numbers)
    shapes = dict(zip(renamed, (tuple(tensor.shape) for tensor in weights.values()), strict=True))
    ours = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 4}
    assert shapes == ours
    # The first convolution of the last two stages has a name of its own, so the others' numbers shift.
    assert renamed["stages.3.0.convs.2.conv.weight"] == numbers["layer4.0.convs.1.weight"]
    assert renamed["stages.1.0.convs.2.conv.weight"] == numbers["layer2.0.convs.2.weight"]


def test_translates_its_sizes():
    augmented = wespeaker_eres2net.translate("ERes2Net34_aug", {"feat_dim": 80, "embed_dim": 512})
    assert {key: augmented[key] for key in ("channels", "base_width", "scale", "expansion")} == {
        "channels": 64,
        "base_width": 24,
        "scale": 3,
        "expansion": 4,
    }
    assert wespeaker_eres2net.translate("ERes2Net34_aug", {"scale": 2})["scale"] == 2
    assert wespeaker_eres2net.translate("ERes2Net34_Large", {})["channels"] == 64


def test_impossible():
    with pytest.raises(ValueError, match="channels: attentive fusion of 2 channels"):
        ERes2Net(num_blocks=(1, 1, 1, 1), channels=1, base_width=64, expansion=1)
    with pytest.raises(ConfigError, match="did you mean 'ERes2Net34_aug'"):
        wespeaker_eres2net.translate("ERes2Net34_Aug", {})
    with pytest.raises(ConfigError, match="no argument 'scale'"):
        wespeaker_eres2net.translate("ERes2Net34_Base", {"scale": 3})
    with pytest.raises(ConfigError, match="BasicBlockERes2Net"):
        wespeaker_eres2net.translate("ERes2Net34_Base", {}, "Bottleneck")
