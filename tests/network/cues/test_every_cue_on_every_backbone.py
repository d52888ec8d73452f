"""Every cue, and several at once, on every backbone: lengths, gradients, causality and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

ECAPA = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
BRANCH = {"front_end": "backbone", "network": {"name": "spex_plus", "channels": 16, "embedding_dim": 8}}
TCN = {"name": "conv_tasnet", "num_filters": 12, "bottleneck": 6, "hidden": 8, "blocks_per_stack": 2, "num_stacks": 2}
BACKBONES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "conv_tasnet": ({**TCN, "kernels_ms": [4], "hop_ms": 2}, ECAPA),
    "td_speakerbeam": ({**TCN, "kernels_ms": [2.5], "hop_ms": 1.25, "fusion_blocks": [2]}, BRANCH),
    "spexplus": ({**TCN, "kernels_ms": [2.5, 10, 20], "hop_ms": 1.25, "fusion_place": "inside"}, BRANCH),
    "dpccn": (
        {
            "name": "dpccn",
            "hop_ms": 16,
            "channels": 4,
            "dense_channels": [4],
            "deep_channels": [4, 6],
            "dense_layers": 2,
            "tcn_repeats": 1,
            "tcn_blocks": 2,
            "pool_channels": 2,
        },
        ECAPA,
    ),
    "tf_gridnet": (
        {
            "name": "tf_gridnet",
            "window_ms": 16,
            "hop_ms": 8,
            "feature_dim": 4,
            "num_blocks": 2,
            "hidden": 4,
            "kernel": 4,
            "kernel_hop": 4,
            "num_heads": 2,
            "query_size": 128,
        },
        ECAPA,
    ),
    "skim": (
        {
            "name": "skim",
            "kernel_ms": 4,
            "hop_ms": 2,
            "num_filters": 12,
            "dim": 6,
            "hidden": 4,
            "num_blocks": 2,
            "segment": 9,
        },
        ECAPA,
    ),
    "sepformer": (
        {
            "name": "sepformer",
            "kernel_ms": 4,
            "hop_ms": 2,
            "num_filters": 12,
            "feature_dim": 8,
            "num_repeats": 1,
            "intra_layers": 1,
            "inter_layers": 1,
            "num_heads": 2,
            "hidden": 8,
            "chunk": 20,
            "chunk_hop": 10,
        },
        ECAPA,
    ),
    "bsrnn": (
        {"name": "bsrnn", "hop_ms": 16, "bands": [[250, 4], [1000, 7]], "feature_dim": 8, "num_blocks": 2},
        ECAPA,
    ),
}
EMBEDDING, CONTEXT = {"name": "embedding", "fusion": "multiply"}, {"name": "context", "dim": 8}
TF_MAP, USEF = {"name": "tf_map", "temperatures": [1, 20]}, {"name": "usef", "channels": 4, "num_heads": 2}
ENCODER_MAP, LISTEN_FIRST = {"name": "tf_map", "source": "encoder"}, {"name": "listen_first"}
CUES = {
    "embedding": [EMBEDDING],
    "tf_map": [TF_MAP],
    "tf_map of the encoder": [ENCODER_MAP],
    "context": [CONTEXT],
    "usef": [USEF],
    "listen_first": [LISTEN_FIRST],
    "multilevel": [TF_MAP, CONTEXT, EMBEDDING],
    "all": [TF_MAP, ENCODER_MAP, CONTEXT, EMBEDDING, {**USEF, "keep_features": True}, LISTEN_FIRST],
}
CAN_BE_CAUSAL = [name for name in BACKBONES if name != "sepformer"]
CAUSAL = {name: each for name, each in CUES.items() if ENCODER_MAP not in each}


def build(name: str, cues: list[dict[str, Any]], causal: bool = False, **model) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    backbone, speaker = BACKBONES[name]
    if causal:
        backbone = {**backbone, "causal": True} | ({"kernel_hop": 1} if name == "tf_gridnet" else {})
    needs_encoder = any(cue["name"] in ("embedding", "context") or cue is ENCODER_MAP for cue in cues)
    config = {"backbone": backbone, "speaker": speaker if needs_encoder else None, "cues": cues}
    network = build_network({**config, "normalise": "none" if causal else "rms", **model})
    for module in network.cues.modules():
        for layer in (getattr(module, "scale", None), getattr(module, "shift", None)):
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight)  # FiLM starts at zero, where nothing reaches the encoder
    return network


def train(network: TargetSpeakerExtractor, length: int, enrolled: int) -> dict[str, torch.Tensor | None]:
    """Compute the gradients of two recordings; check that estimates have their length and gradients are finite."""
    mixture, enrollment = torch.randn(2, length), torch.randn(2, enrolled)
    out = network.train()(mixture, enrollment, torch.tensor([enrolled, max(1, enrolled // 2)]))
    assert all(estimate.shape == mixture.shape for estimate in out.waveforms)
    sum(estimate.square().sum() for estimate in out.waveforms).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, grad in gradients.items() if grad is not None and not torch.isfinite(grad).all()] == []
    return gradients


def check_gradients(network: TargetSpeakerExtractor, gradients: dict[str, torch.Tensor | None]) -> None:
    """Check that every parameter has a gradient; not the last layers of an encoder whose embedding no cue uses."""
    embedded = any(type(cue).__name__ == "EmbeddingCue" for cue in network.cues)
    slopes = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, torch.nn.PReLU)}
    lacking = [
        name
        for name, grad in gradients.items()
        if grad is None or (not grad.any() and name not in slopes)  # the few inputs of a PReLU may all be above 0
    ]
    # A bias before a normalisation over the same axis, or a softmax over time, has no gradient by its nature.
    wrong = [name for name in lacking if not name.endswith("bias") and (embedded or not name.startswith("encoder."))]
    assert wrong == []
    if network.encoder is not None:
        assert any(grad is not None and grad.any() for name, grad in gradients.items() if name.startswith("encoder."))


@pytest.mark.parametrize("cues", CUES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_combination_gives_every_parameter_a_gradient(backbone, cues):
    network = build(backbone, CUES[cues])
    check_gradients(network, train(network, 1501, 4000))
    prepared, mixture = network.eval().prepare(torch.randn(2, 3000)), torch.randn(2, 700)
    joined = network.combine([prepared, prepared])
    assert torch.isfinite(network.extract(mixture, joined).waveforms[0]).all()


@pytest.mark.parametrize("fusion", ["concat", "add", "multiply", "film"])
@pytest.mark.parametrize(("points", "shared"), [("first", False), ("all", False), ("all", True), ("last", False)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_fusion_at_every_point_gives_gradients(backbone, points, shared, fusion):
    count = 1 if backbone in ("dpccn", "td_speakerbeam") else 2
    selection = [count - 1] if points == "last" else points
    network = build(backbone, [{"name": "embedding", "fusion": fusion, "points": selection, "shared": shared}])
    assert network.backbone.num_fusion_points == count
    assert len(network.cues[0].fusion.layers) == (count if points == "all" and not shared else 1)
    check_gradients(network, train(network, 901, 2400))


@pytest.mark.parametrize("cues", CUES)
@pytest.mark.parametrize("sample_rate", [8000, 24000, 48000])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_recordings_of_one_sample_work_at_any_rate(backbone, sample_rate, cues):
    network = build(backbone, CUES[cues], sample_rate=sample_rate)
    assert (network.backbone.sample_rate, network.sample_rate) == (sample_rate, sample_rate)
    train(network, 1, sample_rate // 10)
    with torch.no_grad():
        estimates = network.eval()(torch.randn(2, 1), torch.randn(2, 1)).waveforms
    assert all(estimate.shape == (2, 1) and torch.isfinite(estimate).all() for estimate in estimates)


@pytest.mark.parametrize("cues", CAUSAL)
@pytest.mark.parametrize("backbone", CAN_BE_CAUSAL)
def test_causal_networks_train_do_not_look_ahead_and_stream(backbone, cues):
    network = build(backbone, CAUSAL[cues], causal=True)
    check_gradients(network, train(network, 901, 2400))
    network.eval()
    mixture, prepared, at = torch.randn(1, 1500), network.prepare(torch.randn(1, 2000)), 1200
    changed = torch.cat([mixture[:, :at], torch.randn(1, 300)], dim=1)
    with torch.no_grad():
        before, after = (network.extract(waveform, prepared).waveforms[0] for waveform in (mixture, changed))
        assert (before != after)[:, at - network.latency : at].any() or network.backbone.stride > 128
        torch.testing.assert_close(
            before[:, : at - network.latency], after[:, : at - network.latency], atol=1e-6, rtol=1e-5
        )
        analysis = network.backbone.analyse(mixture)
        whole, _ = network.encode(analysis, prepared)
        latents, state, start = [], None, 0
        for stop in (1, 4, analysis.num_frames):
            latent, state = network.encode(analysis.frames(start, stop), prepared, state)
            latents, start = [*latents, latent], stop
    axis = network.backbone.frame_axis
    torch.testing.assert_close(torch.cat(latents, dim=axis), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", CAN_BE_CAUSAL)
def test_impossible_combinations_are_refused_with_a_reason(backbone):
    points = build(backbone, [EMBEDDING]).backbone.num_fusion_points
    wrong = [
        ([ENCODER_MAP], {"causal": True}, "needs the whole mixture"),
        ([USEF, USEF], {}, "two cues would replace the backbone's features"),
        ([{**EMBEDDING, "points": [points]}], {}, f"indices from 0 to {points - 1}"),
        ([{**USEF, "norm": "group"}], {"causal": True}, "averages over time"),
        ([ENCODER_MAP], {"speaker": None}, "needs a speaker encoder"),
        ([CONTEXT], {"speaker": None}, "needs a speaker encoder"),
    ]
    if backbone != "bsrnn":
        wrong.append(([{**CONTEXT, "projection": "band"}], {}, "has no bands; use 'shared'"))
    for cues, changes, message in wrong:
        with pytest.raises(ConfigError, match=message):
            build(backbone, cues, **changes)
