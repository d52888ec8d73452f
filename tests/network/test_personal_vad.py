"""The personal VAD: frames, padding, causality, saving and what it refuses."""

from __future__ import annotations

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.network.extraction_network import load_network
from wesep_py.network.personal_vad import PersonalVAD, load_personal_vad, target_logits

SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
KINDS = {"attention": {}, "causal": {"causal": True}, "embedding": {"speaker": SPEAKER}}
KINDS["score"] = {"speaker": SPEAKER, "score": {"window_s": 0.4, "hop_s": 0.2}}


def build(kind: str, **changes) -> PersonalVAD:
    torch.manual_seed(0)
    return PersonalVAD({"hidden": 8, "num_heads": 2, **KINDS[kind], **changes}).eval()


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("kind", KINDS)
def test_each_10_ms_has_a_frame(kind, sample_rate):
    network = build(kind, sample_rate=sample_rate)
    prepared = network.prepare(torch.randn(1, sample_rate))
    hop = network.hop_length
    for samples, frames in ((1, 1), (hop, 1), (hop + 1, 2), (50 * hop, 50)):
        assert network(torch.randn(1, samples), prepared).shape == (1, frames, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_mixture_and_enrollment_has_no_influence(kind):
    network = build(kind)
    mixture, enrollment = torch.randn(1, 8000), torch.randn(1, 12000)
    alone = network(mixture, network.prepare(enrollment))
    longer = torch.nn.functional.pad(enrollment, (0, 5000))
    prepared = network.prepare(longer, torch.tensor([12000]))
    torch.testing.assert_close(network(mixture, prepared), alone, atol=1e-5, rtol=1e-4)
    if kind in (
        "attention",
        "causal",
    ):  # two directions see the zeros after a mixture
        padded = network(torch.nn.functional.pad(mixture, (0, 3200)), prepared, torch.tensor([8000]))
        tolerance = {"atol": 1e-5, "rtol": 1e-4} if kind == "causal" else {"atol": 0.3, "rtol": 0}
        torch.testing.assert_close(padded[:, :40], alone[:, :40], **tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_enrollment_decides_and_every_parameter_learns(kind):
    network = build(kind).train()
    mixture, alice, bob = torch.randn(2, 8000), torch.randn(2, 12000), torch.randn(2, 12000).cumsum(dim=1)
    result = network(mixture, network.prepare(alice))
    assert (result - network(mixture, network.prepare(bob))).abs().max() > 1e-4
    result.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_causal_network_in_segments_gives_the_whole():
    network = build("causal")
    mixture, prepared = torch.randn(1, 16000), network.prepare(torch.randn(1, 16000))
    whole, padded = network(mixture, prepared), network.padded(mixture)
    hop, parts, state, start = network.hop_length, [], None, 0
    for count in (1, 30, 69):
        segment = padded[:, start * hop : (start + count) * hop + network.before + network.after]
        logits, state = network.classify(segment, prepared, state)
        parts, start = [*parts, logits], start + count
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)
    changed = torch.cat([mixture[:, :8000], torch.randn(1, 8000)], dim=1)
    same = (8000 - network.after) // hop
    torch.testing.assert_close(network(changed, prepared)[:, :same], whole[:, :same], atol=1e-5, rtol=1e-4)


def test_the_score_of_a_window_is_its_cosine_with_the_enrollment():
    network = build("score")  # windows of 6400 samples; their middles at 3200, 6400, 9600 and so on
    mixture = torch.randn(1, 16000)
    enrollment = mixture[:, 6400:12800]
    embedding = torch.nn.functional.normalize(
        network.encoder(mixture[:, 3200:9600], torch.tensor([6400])).embedding, dim=1
    )
    prepared = network.prepare(enrollment)
    scores = network.scores(mixture, prepared)[0, :, 0]
    assert scores.shape == (100,)
    # The middles of frames 39 and 40 lie on both sides of a window's middle.
    expected = (embedding * prepared["embedding"]).sum()
    torch.testing.assert_close((scores[39] + scores[40]) / 2, expected, atol=1e-2, rtol=0)
    torch.testing.assert_close((scores[59] + scores[60]) / 2, torch.tensor(1.0), atol=1e-2, rtol=0)
    assert scores.argmax() in (59, 60) and (scores[41:59].diff() > 0).all()
    assert (scores[:20] == scores[0]).all(), "before the first middle, the score is that of the first window"
    # Two mixtures with two targets each: neighbours that are equal, and those that are not.
    mixtures = torch.cat([mixture, mixture, torch.randn(1, 16000), mixture])
    targets = {name: torch.cat([value, value.flip(1), value, value]) for name, value in prepared.items()}
    together = network.scores(mixtures, targets)
    for row in range(4):
        alone = network.scores(mixtures[row : row + 1], {name: value[row : row + 1] for name, value in targets.items()})
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_the_gain_of_a_recording_does_not_matter():
    network = build("attention")
    mixture, prepared = torch.randn(1, 8000), network.prepare(torch.randn(1, 8000))
    torch.testing.assert_close(network(0.01 * mixture, prepared), network(mixture, prepared), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_same_logits(kind, tmp_path):
    network = build(kind)
    checkpoint.save(tmp_path / "vad", network.config, network.state_dict(), {"step": 1})
    loaded = load_personal_vad(tmp_path / "vad")
    mixture, enrollment = torch.randn(1, 8000), torch.randn(1, 8000)
    assert loaded.config == network.config
    assert torch.equal(loaded(mixture, loaded.prepare(enrollment)), network(mixture, network.prepare(enrollment)))
    with pytest.raises(CheckpointError, match="is a personal VAD, no extractor; `wesep when`"):
        load_network(tmp_path / "vad")


def test_other_models_and_sizes_are_refused(tiny_model):
    with pytest.raises(CheckpointError, match="is no personal VAD; train one with task: presence"):
        load_personal_vad(tiny_model)
    for wrong, message in (
        ({"hidden": 9}, "an even multiple"),
        ({"sample_rate": 4000}, "8000 Hz"),
        ({"x": 1}, "unknown key"),
        ({"score": {}}, "score: compares embeddings; give a speaker encoder"),
        ({"score": {}, "speaker": SPEAKER, "causal": True}, "score: looks at whole windows"),
        ({"score": {"hop_s": 2.0}, "speaker": SPEAKER}, r"hop_s: is 2.0; 0.01 s to window_s \(1.5 s\)"),
        ({"score": {"window_s": 20}, "speaker": SPEAKER}, "window_s: is 20"),
    ):
        with pytest.raises(ConfigError, match=message):
            PersonalVAD(wrong)


def test_target_logits_are_the_odds_against_both_other_classes():
    logits = torch.randn(4, 7, 3)
    probability = logits.softmax(dim=-1)[..., 1]
    torch.testing.assert_close(target_logits(logits).sigmoid(), probability)
