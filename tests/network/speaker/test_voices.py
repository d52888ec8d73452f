"""All voices of a recording, from every network that can tell them."""

from __future__ import annotations

import inspect

import pytest
import torch

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder, length_mask, speaker_networks
from wesep_py.network.speaker.speaker_network import PoolingNetwork, count

RECURSIVE = {"name": "recursive", "bottleneck": 8}
NETWORKS = [
    {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 24},
    {"name": "resnet", "channels": 4},
    {"name": "xvector", "frame_dim": 24},
    {"name": "dvector", "hidden_dim": 24, "frame_dim": 16, "num_layers": 1},
    {"name": "campplus", "growth_rate": 4, "bottleneck_factor": 2, "head_channels": 4, "num_layers": [2, 1, 1]},
]


def built(config: dict, pooling: dict | str = RECURSIVE):
    torch.manual_seed(0)
    return speaker_networks.build({**config, "embedding_dim": 8, "pooling": pooling}, "network", num_mel_bins=20)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config["name"])
def test_the_first_voice_is_the_embedding_and_padding_counts_for_nothing(config):
    network = built(config).eval()
    features = torch.randn(2, 70, 20)
    out = network(features, length_mask(torch.tensor([70, 45]), 70))
    voices = network.voices(out.frames, out.mask, max_voices=3)
    assert voices.embeddings.shape == (2, 3, 8) and voices.existence_logits.shape == (2, 3)
    torch.testing.assert_close(voices.embeddings[:, 0], out.embedding)
    alone = network(features[1:, :45])
    torch.testing.assert_close(
        voices.embeddings[1:], network.voices(alone.frames, alone.mask, 3).embeddings, atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(voices.embeddings[:, 1], voices.embeddings[:, 0])


@pytest.mark.parametrize("name", speaker_networks.names())
def test_every_network_that_takes_a_pooling_can_tell_voices(name):
    kind = speaker_networks.get(name)
    assert issubclass(kind, PoolingNetwork) == ("pooling" in inspect.signature(kind).parameters)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config["name"])
def test_an_encoder_hears_as_many_voices_as_its_pooling_looks_for(config):
    network = {**config, "embedding_dim": 8, "pooling": {**RECURSIVE, "max_voices": 3}}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000)
    assert encoder.max_voices == 3


def test_voices_are_counted_up_to_the_first_that_is_not_there():
    logits = torch.tensor([[-1.0, 2.0, 2.0], [5.0, -1.0, 2.0], [5.0, 0.1, -2.0]])
    assert count(logits).tolist() == [3, 1, 2] and count(logits, threshold=0.6).tolist() == [3, 1, 1]


def test_where_the_number_is_known_only_those_are_seen_by_batch_normalisation():
    network = built(NETWORKS[0]).train()
    frames, mask = network.encode(torch.randn(3, 40, 20), torch.ones(3, 40, dtype=torch.bool))
    norm, seen = network.pool_norm, []
    norm.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    voices = network.voices(frames, mask, counts=torch.tensor([1, 2, 1]))
    assert seen == [4] and voices.count.tolist() == [1, 2, 1]
    assert (voices.embeddings[0, 1] == 0).all() and (voices.embeddings[1] != 0).all()


def test_an_encoder_tells_voices_of_waveforms():
    network = {**NETWORKS[0], "embedding_dim": 8, "pooling": {**RECURSIVE, "max_voices": 3}}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000).eval()
    waveform, lengths = torch.randn(2, 8000), torch.tensor([8000, 6000])
    voices = encoder.voices(waveform, lengths)
    assert encoder.max_voices == 3 and voices.embeddings.shape == (2, 3, 8)
    torch.testing.assert_close(voices.embeddings[:, 0], encoder(waveform, lengths).embedding)


def test_one_that_hears_one_voice_says_so():
    network = {**NETWORKS[0], "embedding_dim": 8}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000)
    assert encoder.max_voices == 1
    with pytest.raises(InputError, match="hears one voice a recording; one with the pooling 'recursive'"):
        encoder.voices(torch.randn(1, 8000), torch.tensor([8000]))


def test_numbers_out_of_range_are_refused():
    network = built(NETWORKS[0])
    frames, mask = torch.randn(1, 24, 9), torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(InputError, match="max_voices: is 0"):
        network.voices(frames, mask, 0)
    with pytest.raises(InputError, match=r"threshold: is 1"):
        network.voices(frames, mask, threshold=1.0)
    with pytest.raises(ConfigError, match="frames: is 'last_block'; the pooling 'recursive' needs 'pooled'"):
        built({**NETWORKS[0], "frames": "last_block"})
