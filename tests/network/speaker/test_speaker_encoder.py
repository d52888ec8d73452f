"""The speaker encoder: any sample rate, padding, modes of training, errors."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wesep_py import checkpoint
from wesep_py.audio import info
from wesep_py.common.config import construct
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.data import Utterance, write_manifest
from wesep_py.inference.enrolling.enrollment import embed_windows
from wesep_py.network.extraction_network import TargetSpeakerExtractor, load_network
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder, build_encoder, length_mask, load_encoder
from wesep_py.training import train

NETWORK = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}


def encoder(sample_rate: int = 16000, **config) -> SpeakerEncoder:
    torch.manual_seed(0)
    speaker_encoder = build_encoder({"network": NETWORK, **config}, sample_rate)
    assert speaker_encoder is not None
    return speaker_encoder


def save(encoder: SpeakerEncoder, folder) -> str:
    checkpoint.save(folder, {"network": NETWORK}, {f"network.{k}": v for k, v in encoder.network.state_dict().items()})
    return str(folder)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_any_rate_and_length(sample_rate):
    speaker_encoder = encoder(sample_rate).eval()
    for size in (10, sample_rate):
        out = speaker_encoder(torch.randn(2, size), torch.tensor([size, size]))
        assert out.embedding.shape == (2, speaker_encoder.embedding_dim)
        assert torch.isfinite(out.embedding).all()


def test_padding_changes_nothing():
    speaker_encoder, waveform = encoder().eval(), torch.randn(1, 16000)
    padded = torch.cat([waveform, torch.zeros(1, 8000)], dim=1)
    alone = speaker_encoder(waveform, torch.tensor([16000])).embedding
    torch.testing.assert_close(speaker_encoder(padded, torch.tensor([16000])).embedding, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("front_end", ["filterbank", "mel"])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_both_filterbanks_take_any_rate_and_ignore_padding(front_end, sample_rate):
    speaker_encoder = encoder(sample_rate, front_end=front_end, filterbank={"num_mel_bins": 24}).eval()
    waveform = torch.randn(2, sample_rate)
    padded = torch.cat([waveform, torch.zeros(2, 3000)], dim=1)
    lengths = torch.full((2,), sample_rate)
    alone = speaker_encoder(waveform, lengths).embedding
    torch.testing.assert_close(speaker_encoder(padded, lengths).embedding, alone, atol=1e-4, rtol=1e-3)


def test_front_ends_refuse_arguments_of_others():
    speaker_encoder = encoder(front_end="mel", filterbank={"window_ms": 16.0, "hop_ms": 4.0})
    assert (speaker_encoder.filterbank.window_length, speaker_encoder.filterbank.hop_length) == (256, 64)
    with pytest.raises(ConfigError, match=r"speaker.filterbank.frame_length_ms: unknown key; .*window_ms"):
        encoder(front_end="mel", filterbank={"frame_length_ms": 25.0})


def test_frozen_encoder_has_no_gradients_and_no_training_mode(tmp_path):
    """No parameter and no buffer changes, whatever the model around it does."""
    speaker_encoder = encoder(mode="frozen", checkpoint=save(encoder(), tmp_path / "encoder"))
    model = torch.nn.ModuleList([speaker_encoder, torch.nn.Linear(8, 1)])
    before = {k: v.clone() for k, v in speaker_encoder.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    for _ in range(3):
        model.train()
        model[1](speaker_encoder(torch.randn(4, 8000), torch.full((4,), 8000)).embedding).sum().backward()
        optimiser.step()
    assert not any(p.requires_grad for p in speaker_encoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in speaker_encoder.state_dict().items())


@pytest.mark.parametrize("mode", ["joint", "finetune"])
def test_joint_and_finetuned_encoders_learn(tmp_path, mode):
    source = encoder()
    torch.nn.init.ones_(source.network.linear.bias)
    speaker_encoder = encoder(mode=mode, checkpoint=save(source, tmp_path / "encoder"))
    assert torch.equal(speaker_encoder.network.linear.bias, source.network.linear.bias)
    speaker_encoder.train()(torch.randn(4, 8000), torch.full((4,), 8000)).embedding.sum().backward()
    assert all(p.grad is not None for p in speaker_encoder.network.parameters())
    assert speaker_encoder.training


def test_errors_of_configurations_and_checkpoints(tmp_path):
    with pytest.raises(ConfigError, match="needs a checkpoint"):
        construct(SpeakerConfig, {"network": NETWORK, "mode": "frozen"}, "speaker")
    with pytest.raises(ConfigError, match=r"speaker.filterbank.num_mel_bin: unknown key; did you mean 'num_mel_bins'"):
        encoder(filterbank={"num_mel_bin": 40})
    with pytest.raises(ConfigError, match="needs a key 'name'"):
        build_encoder({"network": {}}, 16000)
    path = save(encoder(), tmp_path / "encoder")
    with pytest.raises(CheckpointError, match="does not fit"):
        encoder(network={**NETWORK, "channels": 32}, checkpoint=path)


SSL_FORM: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"conv_dim": [12, 12], "conv_kernel": [10, 8], "conv_stride": [5, 32], "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "hidden_dropout": 0.1},
}
ECAPA = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8, "embedding_norm": True}
RESNET = {"name": "resnet", "num_blocks": [1, 1, 1, 1], "channels": 4, "embedding_dim": 8, "dropout": 0.1}
XVECTOR = {"name": "xvector", "channels": 16, "frame_dim": 24, "embedding_dim": 8}
SPEAKERS: dict[str, dict[str, Any]] = {
    "ecapa": {"network": ECAPA, "filterbank": {"num_mel_bins": 20, "dither": 1.0}},
    "resnet": {"network": RESNET, "filterbank": {"num_mel_bins": 20}, "spec_augment": {}},
    "xvector": {"network": XVECTOR, "filterbank": {"num_mel_bins": 20}},
    "self_supervised": {
        "network": ECAPA,
        "front_end": "self_supervised",
        "self_supervised": {"kind": "wavlm", "config": SSL_FORM, "training": "full"},
    },
}
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the package transformers")
SPEAKER_NAMES = [pytest.param(name, marks=[needs_transformers] * (name == "self_supervised")) for name in SPEAKERS]


@pytest.fixture(scope="module")
def corpus(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    files = [file for speaker in ("anna", "bert") for file in sorted((tiny_speech / speaker).glob("*.wav"))]
    utterances = [Utterance(file.stem, file.parent.name, file, info(file).duration_s) for file in files]
    write_manifest(utterances, folder / "train.jsonl")
    return folder


def pretrained(speaker: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """Save an encoder with statistics that a new one does not have; return its weights."""
    torch.manual_seed(1)
    encoder = build_encoder(speaker, 16000)
    encoder.train()(torch.randn(3, 8000), torch.full((3,), 8000))
    checkpoint.save(folder, {"speaker": speaker, "sample_rate": 16000}, encoder.state_dict())
    return {key: value.clone() for key, value in encoder.state_dict().items()}


def trained(speaker: dict[str, Any], corpus: Path, experiment: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of the encoder, and all others, after three steps of training an extractor with it."""
    train(
        {
            "experiment": str(experiment),
            "model": {
                "backbone": {"name": "bsrnn", "feature_dim": 4, "num_blocks": 1},
                "speaker": speaker,
                "cues": [{"name": "embedding", "fusion": "film"}],
            },
            "data": {"root": str(corpus), "train": ["train.jsonl"], "workers": 0},
            "simulation": {
                "duration_s": 0.5,
                "min_source_s": 0.25,
                "num_speakers": {2: 1},
                "enrollment": {"duration_s": [0.5, 0.6]},
            },
            "optim": {"lr": 0.01, "weight_decay": 0.1},
            "train": {
                "steps": 3,
                "batch_size": 2,
                "epoch_size": 4,
                "device": "cpu",
                "threads": 1,
                "precision": "32-true",
            },
            "checkpoint": {"every_steps": 3, "keep": 1, "average": 1},
            "log": {"every_steps": 3, "audio_samples": 0},
        }
    )
    weights = checkpoint.load(experiment / "checkpoints" / "last").state_dict
    own = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    return own, {key: value for key, value in weights.items() if not key.startswith("encoder.")}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


@pytest.mark.parametrize("name", SPEAKER_NAMES)
def test_frozen_encoder_is_bit_exact_after_training(name, corpus, tmp_path):
    before = pretrained(SPEAKERS[name], tmp_path / "encoder")
    speaker = {**SPEAKERS[name], "mode": "frozen", "checkpoint": str(tmp_path / "encoder")}
    after, rest = trained(speaker, corpus, tmp_path / "exp")
    assert differing(before, after) == set()
    assert any("running_var" in key for key in after), "there are statistics that could have moved"
    assert any(value.any() for key, value in rest.items() if key.startswith("cues")), "the cue's layers learned"


@pytest.mark.parametrize("name", [SPEAKER_NAMES[0], SPEAKER_NAMES[-1]])
def test_finetuned_encoder_changes_in_training(name, corpus, tmp_path):
    before = pretrained(SPEAKERS[name], tmp_path / "encoder")
    speaker = {**SPEAKERS[name], "mode": "finetune", "checkpoint": str(tmp_path / "encoder")}
    after, _ = trained(speaker, corpus, tmp_path / "exp")
    moved = differing(before, after)
    assert {key for key in before if "running_mean" in key or key == "network.linear.weight"} <= moved
    assert all((after[key] - before[key]).abs().max() < 0.1 for key in moved if key.endswith("linear.weight"))
    if name == "self_supervised":
        assert {"filterbank.layer_weights", "filterbank.model.feature_projection.projection.weight"} <= moved


def test_joint_encoder_changes_in_training(corpus, tmp_path):
    after, _ = trained(SPEAKERS["ecapa"], corpus, tmp_path / "exp")
    new = build_encoder(SPEAKERS["ecapa"], 16000).state_dict()
    assert {key for key in new if "norm" in key and not key.endswith("num_batches_tracked")} <= differing(new, after)
    assert all(value == 3 for key, value in after.items() if key.endswith("num_batches_tracked"))


DVECTOR = {
    "network": {"name": "dvector", "hidden_dim": 8, "frame_dim": 8, "embedding_dim": 6, "pooling": "last"},
    "front_end": "slaney_mel",
    "filterbank": {"num_mel_bins": 12},
    "min_level_dbfs": -30.0,
    "windows": {"num_frames": 40, "hop_frames": 20},
}


def saved_dvector(folder: Path) -> str:
    torch.manual_seed(0)
    made = build_encoder(DVECTOR, 16000)
    assert made is not None
    checkpoint.save(folder, DVECTOR, made.state_dict())
    return str(folder)


def test_network_of_the_checkpoint_is_taken_if_none_is_given(tmp_path):
    """A model made so is complete: its own checkpoint does not need the encoder's."""
    folder = saved_dvector(tmp_path / "dvector")
    config = {
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
        "speaker": {"checkpoint": folder, "mode": "frozen"},
        "cues": [{"name": "embedding"}],
    }
    network = TargetSpeakerExtractor(config)
    assert network.config["speaker"]["network"] == DVECTOR["network"]
    assert network.config["speaker"]["windows"]["hop_frames"] == 20
    checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    shutil.rmtree(folder)
    loaded = load_network(tmp_path / "model")
    assert loaded.config == network.config
    waveform, lengths = 0.1 * torch.randn(1, 16000), torch.tensor([16000])
    expected = network.encoder(waveform, lengths).embedding
    assert torch.equal(loaded.encoder(waveform, lengths).embedding, expected)
    embedding = load_encoder(tmp_path / "model")(waveform, lengths).embedding  # with gradients: rounds differently
    torch.testing.assert_close(embedding.detach(), expected)


def test_enrollment_reaches_an_encoder_with_a_level_at_its_own_level(tmp_path):
    """The network divides enrollments by their level; a d-vector depends on it."""
    config = {
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
        "speaker": {"checkpoint": saved_dvector(tmp_path / "dvector"), "mode": "frozen"},
        "cues": [{"name": "embedding"}],
        "highpass_hz": 0,
    }
    network = TargetSpeakerExtractor(config).eval()
    lengths = torch.tensor([16000, 12000])
    waveform = torch.randn(2, 16000) * torch.tensor([[0.3], [0.08]]) * length_mask(lengths, 16000)
    prepared = network.prepare(waveform, lengths)["0.embedding"]
    torch.testing.assert_close(prepared, network.encoder(waveform, lengths).embedding)
    at_one = network.encoder(waveform / 0.3, lengths).embedding
    assert (prepared - at_one).abs().max() > 1e-3
    windows = [row[:size].numpy() for row, size in zip(waveform, lengths, strict=True)]
    torch.testing.assert_close(torch.from_numpy(embed_windows(network, windows, "cpu")), prepared)


def test_keys_that_the_checkpoint_describes_are_refused_beside_it(tmp_path):
    folder = saved_dvector(tmp_path / "dvector")
    with pytest.raises(ConfigError, match="sample_rate: is given without 'network'"):
        construct(SpeakerConfig, {"checkpoint": folder, "sample_rate": 8000}, "speaker")
    with pytest.raises(ConfigError, match="holds weights alone"):
        construct(SpeakerConfig, {"checkpoint": "avg_model.pt"}, "speaker")
    with pytest.raises(ConfigError, match="no such model"):
        construct(SpeakerConfig, {"checkpoint": str(tmp_path / "none")}, "speaker")
    untrusted = {
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
        "speaker": {"checkpoint": folder},
        "cues": [{"name": "embedding"}],
    }
    checkpoint.save(tmp_path / "model", untrusted, {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no other checkpoint is read"):
        load_network(tmp_path / "model")
