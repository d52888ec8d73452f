from __future__ import annotations

import json

import pytest
import torch

from wesep_py.speaker import ECAPATDNN, AttentiveStatisticsPooling, length_mask

OURS_TO_THEIRS = (
    ("blocks.0.", "layer2."), ("blocks.1.", "layer3."), ("blocks.2.", "layer4."),
    (".expand.norm.", ".se_res2block.0.bn."), (".expand.", ".se_res2block.0."),
    (".res2.norms.", ".se_res2block.1.bns."), (".res2.", ".se_res2block.1."),
    (".project.norm.", ".se_res2block.2.bn."), (".project.", ".se_res2block.2."), (".excite.", ".se_res2block.3."),
    ("layer1.norm.", "layer1.bn."), ("pool_norm.", "bn."), ("embedding_norm.", "bn2."),
)  # fmt: skip


def translate(key: str) -> str:
    for ours, theirs in OURS_TO_THEIRS:
        key = key.replace(ours, theirs)
    return key


@pytest.mark.parametrize("name", ["wespeaker_ecapa_glob", "wespeaker_ecapa_local"])
def test_computes_what_the_public_network_computes(shared_parity, name):
    from safetensors import safe_open

    with safe_open(shared_parity / f"{name}.safetensors", framework="pt") as fixture:
        args = json.loads(fixture.metadata()["config"])["args"]
        weights = {k.removeprefix("weight/"): fixture.get_tensor(k) for k in fixture.keys() if k.startswith("weight/")}  # noqa: SIM118
        features, expected = fixture.get_tensor("input/0"), fixture.get_tensor("output/0")
    network = ECAPATDNN(
        args["feat_dim"],
        args["channels"],
        embedding_dim=args["embed_dim"],
        global_context=args["global_context_att"],
        embedding_norm=args.get("emb_bn", False),
    ).eval()
    network.load_state_dict({key: weights[translate(key)] for key in network.state_dict()})
    with torch.no_grad():
        embedding = network(features).embedding
    assert (embedding - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("global_context", [False, True])
def test_padding_changes_nothing(global_context):
    torch.manual_seed(0)
    network = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8, global_context=global_context).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.normal_(module.bias)
    features = torch.randn(1, 60, 80)
    padded = torch.cat([features, torch.randn(1, 40, 80)], dim=1)
    alone, masked = network(features), network(padded, length_mask(torch.tensor([60]), 100))
    torch.testing.assert_close(masked.embedding, alone.embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(masked.frames[:, :, :60], alone.frames, atol=1e-5, rtol=1e-4)
    assert (masked.frames[:, :, 60:] == 0).all()


def test_uniform_attention_is_the_plain_mean_and_deviation():
    pooling = AttentiveStatisticsPooling(4)
    torch.nn.init.zeros_(pooling.linear2.weight)
    torch.nn.init.zeros_(pooling.linear2.bias)
    frames = torch.randn(2, 4, 50)
    pooled = pooling(frames, torch.ones(2, 50, dtype=torch.bool))
    expected = torch.cat([frames.mean(dim=2), frames.std(dim=2, unbiased=False)], dim=1)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-4)


def test_channels_must_divide():
    with pytest.raises(ValueError, match="multiple of res2_scale"):
        ECAPATDNN(channels=20)


def test_frames_of_the_last_block():
    torch.manual_seed(0)
    pooled = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8).eval()
    last = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8, frames="last_block").eval()
    last.load_state_dict(pooled.state_dict())
    features = torch.randn(2, 60, 80)
    assert torch.equal(last(features).embedding, pooled(features).embedding)
    assert last(features).frames.shape == (2, last.frame_dim, 60) == (2, 16, 60)
    assert pooled(features).frames.shape == (2, pooled.frame_dim, 60) == (2, 32, 60)
