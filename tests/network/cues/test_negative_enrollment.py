"""Negative enrollments: new layers change nothing, a missing one has no influence, and streams agree with the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network
from wesep_py.network.streaming_network import StreamingNetwork
from wesep_py.training.state import load_initial_weights
from wesep_py.training.training_config import InitConfig

BSRNN = {"name": "bsrnn", "hop_ms": 16, "bands": [[250, 4], [1000, 7]], "feature_dim": 8, "num_blocks": 2}
BACKBONES: dict[str, dict[str, Any]] = {
    "bsrnn": BSRNN,
    "bsrnn of frames": {**BSRNN, "norm": "frame"},
    "tf_gridnet": {
        "name": "tf_gridnet", "window_ms": 16, "hop_ms": 8, "feature_dim": 4, "num_blocks": 1, "hidden": 4, "kernel": 4,
        "kernel_hop": 1, "num_heads": 2, "query_size": 128,
    },
    "dpccn": {
        "name": "dpccn", "hop_ms": 16, "channels": 4, "dense_channels": [4], "deep_channels": [4], "dense_layers": 2,
        "tcn_repeats": 1, "tcn_blocks": 2, "pool_channels": 2,
    },
}  # fmt: skip
TF_MAP = {"name": "tf_map", "temperatures": [1, 20], "power": 0.5, "learn_temperatures": True}
CONTEXT, BAND_ATTENTION = {"name": "context", "dim": 8}, {"name": "band_attention", "dim": 6, "hidden": 4}
SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
MIXTURE, ALICE, BOB = (torch.randn(1, n, generator=torch.Generator().manual_seed(n)) for n in (3000, 4100, 5000))


def build(backbone: str, cues: list[dict], negative: bool = True, **changes: Any) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    cues = [{**cue, **({"negative": True} if negative else {})} for cue in cues]
    speaker = SPEAKER if any(cue["name"] == "context" for cue in cues) else None
    config = {"backbone": {**BACKBONES[backbone], **changes}, "speaker": speaker, "cues": cues}
    return build_network({**config, "normalise": "none" if changes.get("causal") else "rms"}).eval()


def wake(network: TargetSpeakerExtractor) -> TargetSpeakerExtractor:
    """Draw the weights that start at zero: those of negative enrollments, and the outputs of attention and FiLM."""
    for name, parameter in network.named_parameters():
        if not parameter.any() and "norm" not in name and not name.startswith("encoder."):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


COMBINATIONS = [
    *((backbone, [TF_MAP]) for backbone in BACKBONES),
    *((backbone, [CONTEXT]) for backbone in BACKBONES),
    ("bsrnn", [TF_MAP, BAND_ATTENTION]),
]


@pytest.mark.parametrize(("backbone", "cues"), COMBINATIONS)
def test_a_network_continued_with_negatives_gives_the_same_estimate(backbone, cues, tmp_path):
    before = wake(build(backbone, cues, negative=False))
    checkpoint.save(tmp_path / "before", before.config, before.state_dict(), {"step": 1})
    network = build(backbone, cues)
    loaded = load_initial_weights(network, InitConfig(str(tmp_path / "before")))
    assert loaded.unused == [] and loaded.fresh and all("negative" in name for name in loaded.fresh)
    with torch.no_grad():
        expected = before(MIXTURE, ALICE).waveforms[0]
        torch.testing.assert_close(network(MIXTURE, ALICE).waveforms[0], expected, rtol=0, atol=0)
        with_bob = network.extract(MIXTURE, network.prepare(ALICE, negative=BOB)).waveforms[0]
    torch.testing.assert_close(with_bob, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("backbone", "cues"), COMBINATIONS)
def test_a_negative_enrollment_has_influence_and_its_padding_none(backbone, cues):
    network = wake(build(backbone, cues))
    with torch.no_grad():
        alone = network(MIXTURE, ALICE).waveforms[0]
        prepared = network.prepare(ALICE, negative=BOB)
        result = network.extract(MIXTURE, prepared).waveforms[0]
        assert (result - alone).abs().max() > 1e-3
        padded = torch.nn.functional.pad(BOB, (0, 2000))
        again = network.prepare(ALICE, negative=padded, negative_lengths=torch.tensor([5000]))
        torch.testing.assert_close(network.extract(MIXTURE, again).waveforms[0], result, atol=1e-5, rtol=1e-4)
        added = network.prepare(ALICE) | network.prepare_negative(BOB)
        torch.testing.assert_close(network.extract(MIXTURE, added).waveforms[0], result, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("backbone", "cues"), COMBINATIONS)
def test_items_without_a_negative_are_extracted_as_alone(backbone, cues):
    network = wake(build(backbone, cues))
    pair = torch.cat([BOB, torch.randn(1, 5000)])
    with torch.no_grad():
        prepared = network.prepare(ALICE.repeat(2, 1), negative=pair, negative_lengths=torch.tensor([5000, 0]))
        first, second = network.extract(MIXTURE.repeat(2, 1), prepared).waveforms[0]
        with_bob = network.extract(MIXTURE, network.prepare(ALICE, negative=BOB)).waveforms[0][0]
        alone = network(MIXTURE, ALICE).waveforms[0][0]
    torch.testing.assert_close(first, with_bob, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(second, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("backbone", "cues"), COMBINATIONS)
def test_the_layers_of_negatives_learn_from_zero(backbone, cues):
    network = build(backbone, cues).train()
    mixture = torch.randn(2, 3000)
    prepared = network.prepare(
        torch.randn(2, 4000), negative=torch.randn(2, 4000), negative_lengths=torch.tensor([4000, 0])
    )
    network.extract(mixture, prepared).waveforms[0].square().mean().backward()
    ends = ("negative", "negative_convolution.weight", "negative_output.weight", "output.weight")
    new = {name: p for name, p in network.named_parameters() if "negative" in name}
    outputs = [p for name, p in new.items() if name.endswith(ends) and not p.any()]
    assert outputs and all(p.grad.any() and p.grad.isfinite().all() for p in outputs)
    network.zero_grad()
    network(mixture, torch.randn(2, 4000)).waveforms[0].square().mean().backward()
    unused = [name for name, p in network.named_parameters() if "negative" in name and p.grad is None]
    assert unused == [], "a step without negatives must use these layers, for several devices"


def test_negative_maps_are_the_maps_of_the_other_person():
    network = build("bsrnn", [TF_MAP])
    analysis = network.backbone.analyse(MIXTURE)
    cue, prepared = network.cues[0], network.prepare(ALICE, negative=BOB)
    tensors = {key.partition(".")[2]: value for key, value in prepared.items()}
    of_bob = {key.partition(".")[2]: value for key, value in network.prepare(BOB).items()}
    expected = cue.steer_features(analysis, analysis.features, of_bob)[:, 2:]
    torch.testing.assert_close(cue.negative_features(analysis, tensors), expected)


def test_several_negatives_are_joined_in_time():
    network = wake(build("bsrnn", [TF_MAP, BAND_ATTENTION]))
    both = network.combine_negatives([network.prepare_negative(BOB), network.prepare_negative(ALICE)])
    frames = both["0.negative_frames"].shape[-1]
    assert (
        frames
        == both["0.negative_mask"].shape[-1]
        == both["1.negative_mask"].shape[-1]
        == 5000 // 256 + 4100 // 256 + 2
    )
    joined = network.combine([network.prepare(ALICE) | both, network.prepare(ALICE)])
    assert joined["0.negative_frames"].shape[-1] == frames + 1 and not joined["0.negative_mask"][0, -1]
    assert network.extract(MIXTURE, joined).waveforms[0].isfinite().all()


@pytest.mark.parametrize(
    ("backbone", "cues"), [("bsrnn", [TF_MAP, CONTEXT]), ("tf_gridnet", [TF_MAP]), ("dpccn", [TF_MAP])]
)
def test_a_stream_with_a_negative_gives_the_whole_estimate(backbone, cues):
    network = wake(build(backbone, cues, causal=True))
    streaming, prepared = StreamingNetwork(network), network.prepare(ALICE, negative=BOB)
    mixture = torch.randn(1, 8000)
    state, parts = streaming.initial_state(1), []
    with torch.no_grad():
        whole = network.extract(mixture, prepared).waveforms[0]
        for block in mixture.split(700, dim=1):
            output = streaming(block, state, prepared)
            state, parts = output.state, [*parts, output.waveform]
    estimate = torch.cat(parts, dim=1)[:, streaming.num_leading :]
    assert estimate.shape[1] > 7000
    torch.testing.assert_close(estimate, whole[:, : estimate.shape[1]], atol=1e-5, rtol=1e-4)


def test_the_live_mode_takes_the_same_negatives():
    network = wake(build("bsrnn of frames", [TF_MAP, BAND_ATTENTION], live=True))
    live, prepared = network.live(), network.prepare(ALICE, negative=BOB)
    with torch.no_grad():
        with_bob, alone = (live.extract(MIXTURE, p).waveforms[0] for p in (prepared, network.prepare(ALICE)))
    assert live.takes_negative and (with_bob - alone).abs().max() > 1e-3


def test_what_takes_no_negative_says_so():
    network = build("bsrnn", [TF_MAP], negative=False)
    with pytest.raises(InputError, match="takes no negative enrollment"):
        network.prepare(ALICE, negative=BOB)
    tasnet = {"backbone": {"name": "conv_tasnet"}, "cues": [{**TF_MAP, "negative": True}]}
    with pytest.raises(ConfigError, match="'conv_tasnet' takes no channels of negative enrollments"):
        build_network(tasnet)
