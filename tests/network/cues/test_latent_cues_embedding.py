"""The embedding cue: embeddings computed elsewhere, transform, unit length and speaker logits."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.cues import EmbeddingCue
from wesep_py.network.cues.latent_cues import EmbeddingTransform
from wesep_py.network.extraction_network import build_network

BACKBONE = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}


def build(cue, **model):
    torch.manual_seed(0)
    return build_network({"backbone": BACKBONE, "cues": [{"name": "embedding", **cue}], **model}).eval()


def test_embeddings_computed_elsewhere_are_fused():
    network = build({"fusion": "multiply", "embedding_dim": 5}, highpass_hz=0)
    mixture, embedding = torch.randn(2, 2000), torch.randn(2, 5)
    out = network.extract(mixture, {"0.embedding": embedding}).waveforms[0]
    layer = network.cues[0].fusion.layers[0].linear
    analysis = network.backbone.analyse(mixture / mixture.square().mean(dim=1, keepdim=True).sqrt())
    latent, _ = network.backbone.encode(
        analysis.features, lambda point, latent: latent * layer(embedding)[:, None, None]
    )
    expected = network.backbone.synthesise(latent, analysis, 2000)[0]
    expected = expected * mixture.square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="no speaker encoder; compute embeddings of 5 numbers elsewhere"):
        network(mixture, torch.randn(2, 4000))
    for recording in (torch.randn(2, 4000), torch.zeros(2, 0)):
        prepared = network.prepare(recording, embedding=embedding)
        assert torch.equal(network.extract(mixture, prepared).waveforms[0], out)
    with pytest.raises(InputError, match="has 6 numbers, and this model takes 5"):
        network.prepare(torch.zeros(2, 0), embedding=torch.randn(2, 6))


def test_another_cue_uses_the_recording_beside_an_embedding():
    network = build({"embedding_dim": 5})
    both = build_network(
        {"backbone": BACKBONE, "cues": [{"name": "tf_map"}, {"name": "embedding", "embedding_dim": 5}]}
    )
    own_encoder = build({}, speaker=SPEAKER)
    dims = [each.external_embedding_dim for each in (network, both, own_encoder)]
    assert dims == [5, 5, None]
    recording, embedding = torch.randn(2, 4000), torch.randn(2, 5)
    alone = build_network({"backbone": BACKBONE, "cues": [{"name": "tf_map"}]}).prepare(recording)
    prepared = both.prepare(recording, embedding=embedding)
    assert torch.equal(prepared.pop("1.embedding"), embedding)
    assert prepared.keys() == alone.keys() and all(torch.equal(prepared[key], alone[key]) for key in alone)


def test_a_split_embedding_gives_each_point_its_part():
    """At the output of two blocks with skip connections there are four points."""
    torch.manual_seed(0)
    sizes = {"num_filters": 8, "bottleneck": 3, "hidden": 4, "blocks_per_stack": 2, "num_stacks": 2}
    backbone = {"name": "conv_tasnet", "fusion_place": "output", "skip": True, "skip_sum": "network", **sizes}
    cue = {"name": "embedding", "fusion": "scale", "split": True, "embedding_dim": 12}
    network = build_network({"backbone": backbone, "cues": [cue]}).eval()
    features, embedding = network.backbone.analyse(torch.randn(2, 800)), torch.randn(2, 12)
    latent, _ = network.encode(features, {"0.embedding": embedding})
    parts = embedding[..., None].split(3, dim=1)
    expected, _ = network.backbone.encode(features.features, lambda point, latent: latent * parts[point])
    torch.testing.assert_close(latent, expected)
    with pytest.raises(ConfigError, match=r"cues\[0\]: split: an embedding of 13 numbers has no 4 equal parts"):
        build_network({"backbone": backbone, "cues": [{**cue, "embedding_dim": 13}]})
    with pytest.raises(ConfigError, match="'scale' has no layer, so it needs an embedding of 3 numbers; it is given 2"):
        build_network({"backbone": backbone, "cues": [{**cue, "embedding_dim": 8}]})


def test_an_encoder_and_embeddings_from_elsewhere_exclude_each_other():
    with pytest.raises(ConfigError, match="this model has a 'speaker'"):
        build({"embedding_dim": 5}, speaker=SPEAKER)
    with pytest.raises(ValueError, match="embedding_dim: is 0"):
        EmbeddingCue(embedding_dim=0)


def test_with_unit_length_only_the_direction_matters():
    network = build({"fusion": "multiply", "embedding_dim": 5, "unit_length": True})
    plain = build({"fusion": "multiply", "embedding_dim": 5})
    mixture, embedding = torch.randn(2, 2000), torch.randn(2, 5)
    out, long = (network.extract(mixture, {"0.embedding": e}).waveforms[0] for e in (embedding, 50 * embedding))
    torch.testing.assert_close(out, long, atol=1e-6, rtol=1e-4)
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    torch.testing.assert_close(out, plain.extract(mixture, {"0.embedding": unit}).waveforms[0])


def test_the_transform_starts_as_the_identity_and_is_trained():
    plain, transformed = (build({"fusion": "add", "embedding_dim": 6, "transform": t}) for t in (False, True))
    transformed.load_state_dict(plain.state_dict(), strict=False)
    mixture, prepared = torch.randn(2, 2000), {"0.embedding": torch.randn(2, 6)}
    out = transformed.extract(mixture, prepared).waveforms[0]
    assert torch.equal(out, plain.extract(mixture, prepared).waveforms[0])
    out.square().sum().backward()
    assert transformed.cues[0].transform.widen.weight.grad.any()


def test_the_transform_equals_its_formula():
    layer, embedding = EmbeddingTransform(6), torch.randn(2, 6)
    torch.nn.init.normal_(layer.widen.weight)
    hidden = (embedding @ layer.narrow.weight.T + layer.narrow.bias).clamp_min(0)
    assert hidden.shape == (2, 3)
    torch.testing.assert_close(layer(embedding), embedding + hidden @ layer.widen.weight.T)


def test_speaker_logits_are_computed_from_the_embedding():
    network = build({"fusion": "add", "num_speakers": 10}, speaker=SPEAKER)
    enrollment = torch.randn(2, 8000)
    out = network(torch.randn(2, 2000), enrollment)
    embedding = network.prepare(enrollment)["0.embedding"]
    torch.testing.assert_close(out.speaker_logits, network.cues[0].classifier(embedding))
    assert out.speaker_logits.shape == (2, 10)


def test_a_single_speaker_is_refused():
    with pytest.raises(ConfigError, match="2 or more is allowed"):
        build({"num_speakers": 1}, speaker=SPEAKER)
