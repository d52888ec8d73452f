"""A self-supervised front end: tiny random models of each kind, from a form and from a local folder."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wesep_py import checkpoint
from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.network.speaker import SpeakerEncoder, build_encoder
from wesep_py.network.speaker.self_supervised import SelfSupervised

KINDS = ("wavlm", "wav2vec2", "hubert")
FORM: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"conv_dim": [12, 12], "conv_kernel": [10, 8], "conv_stride": [5, 4], "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
NETWORK = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}

needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the package transformers")


def front_end(kind: str = "wavlm", form: dict[str, Any] | None = None, **arguments: Any) -> SelfSupervised:
    torch.manual_seed(0)
    return construct(SelfSupervised, {"kind": kind, "config": {**FORM, **(form or {})}, **arguments}, "ssl").eval()


def encoder(initialise: bool = True, **config: Any) -> SpeakerEncoder:
    torch.manual_seed(0)
    ssl = {"kind": "wavlm", "config": FORM}
    speaker_encoder = build_encoder(
        {"network": NETWORK, "front_end": "self_supervised", "self_supervised": ssl, **config}, 16000, initialise
    )
    assert speaker_encoder is not None
    return speaker_encoder


def folder_of(front: SelfSupervised, folder: Path, do_normalize: bool | None = None) -> Path:
    """Write a model to a folder as the package does."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    front.model.config.save_pretrained(folder)
    save_file(front.model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    if do_normalize is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    return folder


@needs_transformers
@pytest.mark.parametrize("form", [{}, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_package_whatever_the_padding(kind, form):
    front = front_end(kind, form, mean_norm=False, normalise=False)
    torch.nn.init.normal_(front.layer_weights)
    waveform, short = torch.randn(1, 1600), torch.randn(1, 1111)
    with torch.no_grad():
        theirs = front.model(waveform, output_hidden_states=True)
        # Some versions of the package give the last one without the final normalisation.
        states = [*theirs.hidden_states[:-1], theirs.last_hidden_state]
        weights = front.layer_weights.softmax(0)
        expected = sum(weight * state for weight, state in zip(weights, states, strict=True))
        torch.testing.assert_close(front(waveform), expected, atol=1e-5, rtol=1e-4)
        alone = front(short)
        lengths = torch.tensor([1600, 1111])
        padded = torch.cat([short, torch.full((1, 489), 9.0)], dim=1)
        both = front(torch.cat([waveform, padded]), lengths)
    count = alone.shape[1]
    assert front.frame_lengths(lengths).tolist() == [both.shape[1], count]
    torch.testing.assert_close(both[1, :count], alone[0], atol=1e-5, rtol=1e-4)
    assert not both[1, count:].any() and alone.std() > 0.01


@needs_transformers
def test_statistics_of_the_first_convolution_are_the_packages():
    """Our normalisation over valid frames replaces the package's; without padding it is the same."""
    from transformers import HubertModel

    front = front_end("hubert", mean_norm=False, normalise=False, layers="last")
    theirs = HubertModel(front.model.config).eval()
    theirs.load_state_dict(front.model.state_dict())
    waveform = torch.randn(2, 2000) + 0.3
    with torch.no_grad():
        torch.testing.assert_close(front(waveform), theirs(waveform).last_hidden_state, atol=1e-5, rtol=1e-4)


@needs_transformers
def test_normalised_waveforms_and_features():
    front = front_end(form=LARGE)
    waveform = torch.randn(2, 1600)
    assert front.normalise and not front_end().normalise
    with torch.no_grad():
        features = front(waveform)
        torch.testing.assert_close(front(0.01 * waveform + 0.5), features, atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(features.mean(dim=1), torch.zeros(2, 16), atol=1e-5, rtol=0)
        assert not torch.allclose(front_end(form=LARGE, normalise=False)(0.01 * waveform + 0.5), features, atol=1e-2)
    lengths = torch.tensor([1600, 700])
    with torch.no_grad():
        torch.testing.assert_close(front(waveform, lengths)[1:, :33], front(waveform[1:, :700]), atol=1e-4, rtol=1e-3)


@needs_transformers
@pytest.mark.parametrize("samples", [1, 400, 401])
def test_any_length(samples):
    front = front_end()
    features = front(torch.randn(2, samples), torch.full((2,), samples))
    assert features.shape == (2, int(front.frame_lengths(torch.tensor(samples))), 16) and features.isfinite().all()
    assert (front.window_length, front.hop_length) == (45, 20)


def moved(front: SelfSupervised, steps: int = 2) -> set[str]:
    """Return the parts that training steps change: `model`, `adapters`, `layer_weights`."""
    before = {key: value.clone() for key, value in front.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in front.parameters() if p.requires_grad], lr=0.5)
    target = torch.randn(2, 33, 16)
    for _ in range(steps):
        front.train()
        optimiser.zero_grad()
        (front(torch.randn(2, 700)) - target).square().mean().backward()
        optimiser.step()
    return {key.partition(".")[0] for key, value in front.state_dict().items() if not torch.equal(before[key], value)}


@needs_transformers
@pytest.mark.parametrize("kind", KINDS)
def test_trained_parts_follow_the_mode(kind):
    assert moved(front_end(kind)) == {"layer_weights"}
    adapted = front_end(kind, training="adapters")
    start = {key: value.clone() for key, value in adapted.adapters.named_parameters()}
    assert moved(adapted) == {"layer_weights", "adapters"}
    assert not any(torch.equal(start[key], value) for key, value in adapted.adapters.named_parameters())
    full = front_end(kind, training="full")
    assert moved(full) == {"layer_weights", "model"}
    assert all(p.grad is not None for p in full.parameters())


@needs_transformers
def test_adapters_start_as_identity_and_frozen_has_no_dropout():
    waveform = torch.randn(2, 700)
    plain, adapted = front_end(), front_end(training="adapters")
    adapted.model.load_state_dict(plain.model.state_dict())
    torch.testing.assert_close(adapted(waveform), plain(waveform))
    dropping = {"hidden_dropout": 0.5, "layerdrop": 0.9, "mask_time_prob": 0.9, "mask_time_length": 2}
    assert torch.equal(front_end(form=dropping).train()(waveform), plain(waveform))
    full = front_end(form=dropping, training="full").train()
    assert not torch.equal(full(waveform), full(waveform))
    torch.testing.assert_close(full.eval()(waveform), plain(waveform))


@pytest.mark.processor
@needs_transformers
def test_bfloat16_autocast_reaches_the_model():
    speaker_encoder, waveform = encoder().eval(), torch.randn(2, 1600)
    lengths, seen = torch.tensor([1600, 1000]), []
    speaker_encoder.filterbank.model.encoder.layers[0].feed_forward.register_forward_hook(
        lambda *a: seen.append(a[2].dtype)
    )
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = speaker_encoder(waveform, lengths).embedding
    assert low.dtype == torch.float32 and seen == [torch.bfloat16]
    torch.testing.assert_close(low, speaker_encoder(waveform, lengths).embedding, atol=0.2, rtol=0.2)


@needs_transformers
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_encoder_with_a_self_supervised_front_end(sample_rate):
    speaker_encoder = build_encoder(to_plain(encoder().config), sample_rate)
    waveform, lengths = torch.randn(2, sample_rate), torch.tensor([sample_rate, sample_rate // 2])
    speaker_encoder.eval()
    out = speaker_encoder(waveform, lengths)
    alone = speaker_encoder(waveform[1:, : sample_rate // 2], lengths[1:])
    torch.testing.assert_close(out.embedding[1:], alone.embedding, atol=1e-4, rtol=1e-3)
    speaker_encoder.train()(waveform, lengths).embedding.square().sum().backward()
    learns = {key for key, value in speaker_encoder.named_parameters() if value.grad is not None and value.grad.any()}
    assert "filterbank.layer_weights" in learns and not any("filterbank.model" in key for key in learns)


@needs_transformers
def test_checkpoint_loads_without_the_models_folder(tmp_path):
    public = front_end("hubert", LARGE)
    folder = folder_of(public, tmp_path / "hubert", do_normalize=False)
    ssl = {"kind": "hubert", "path": str(folder)}
    speaker_encoder = encoder(self_supervised=ssl).eval()
    for key, value in public.model.state_dict().items():
        assert torch.equal(speaker_encoder.filterbank.model.state_dict()[key], value), key
    assert speaker_encoder.filterbank.normalise is False, "the folder's preprocessor says so"
    config = {"speaker": to_plain(speaker_encoder.config)}
    checkpoint.save(tmp_path / "encoder", config, speaker_encoder.state_dict())
    shutil.rmtree(folder)
    saved = checkpoint.load(tmp_path / "encoder")
    again = build_encoder(saved.config["speaker"], 16000, initialise=False)
    again.load_state_dict(saved.state_dict)
    waveform, lengths = torch.randn(1, 1600), torch.tensor([1600])
    assert torch.equal(again.eval()(waveform, lengths).embedding, speaker_encoder(waveform, lengths).embedding)
    frozen = encoder(**{**config["speaker"], "mode": "frozen", "checkpoint": str(tmp_path / "encoder")})
    assert torch.equal(frozen(waveform, lengths).embedding, speaker_encoder(waveform, lengths).embedding)
    assert not any(p.requires_grad for p in frozen.parameters())
    with pytest.raises(CheckpointError, match=r"does not fit the configured front end .*tensors that differ: 13"):
        encoder(**{**config["speaker"], "checkpoint": str(tmp_path / "encoder"),
                   "self_supervised": {**config["speaker"]["self_supervised"], "path": None, "training": "adapters",
                                       "layers": "last"}})  # fmt: skip


@needs_transformers
def test_extractor_loads_without_the_models_folder(tmp_path):
    from wesep_py.network.extraction_network import build_network, load_network

    folder = folder_of(front_end(), tmp_path / "wavlm")
    speaker = {
        "network": NETWORK,
        "front_end": "self_supervised",
        "self_supervised": {"kind": "wavlm", "path": str(folder)},
    }
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    network = build_network({"backbone": backbone, "speaker": speaker, "cues": [{"name": "embedding"}]}).eval()
    checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    shutil.rmtree(folder)
    again, mixture = load_network(tmp_path / "model"), torch.randn(1, 1600)
    with torch.no_grad():
        assert torch.equal(again(mixture, mixture).waveforms[0], network(mixture, mixture).waveforms[0])


@needs_transformers
def test_errors_of_configurations_and_folders(tmp_path):
    folder = folder_of(front_end(), tmp_path / "wavlm")
    cases = [
        ({"kind": "wavlm", "path": str(tmp_path / "none")}, r"path: .*none: no such folder; .*nothing is downloaded"),
        ({"kind": "hubert", "path": str(folder)}, "model_type: is 'wavlm', but .*kind is 'hubert'"),
        ({"kind": "wavlm"}, "path: is missing; give the folder of a model"),
        ({"kind": "wavml", "config": FORM}, "kind: is 'wavml'; did you mean 'wavlm'"),
        ({"kind": "wavlm", "config": {**FORM, "hiden_size": 8}}, r"config.hiden_size: unknown key; did you mean 'hidd"),
        ({"kind": "wavlm", "config": {**FORM, "num_attention_heads": 3}}, "no WavLM can be built from it"),
        ({"kind": "wavlm", "config": FORM, "adapter_dim": 0}, "adapter_dim: is 0; 1 or more is needed"),
    ]
    for arguments, message in cases:
        with pytest.raises(ConfigError, match=message):
            encoder(self_supervised=arguments)
    with pytest.raises(ConfigError, match="sample_rate: is 8000; self-supervised models take 16000 Hz"):
        encoder(sample_rate=8000)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="weights cannot be read"):
        encoder(self_supervised={"kind": "wavlm", "path": str(folder)})
    partial = front_end()
    del partial.model.encoder.layers[1]
    partial.model.config.num_hidden_layers = 2
    with pytest.raises(ConfigError, match=r"\d+ tensors are missing \(the first: encoder.layers.1"):
        encoder(self_supervised={"kind": "wavlm", "path": str(folder_of(partial, tmp_path / "partial"))})
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config.json: cannot be read"):
        encoder(self_supervised={"kind": "wavlm", "path": str(folder)})


def test_missing_package_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"needs the package transformers, .* pip install 'wesep-py\[ssl\]'"):
        encoder()
    with pytest.raises(ConfigError, match="self_supervised: is not used with front_end 'filterbank'"):
        encoder(front_end="filterbank")
    with pytest.raises(ConfigError, match="filterbank: is not used with front_end 'self_supervised'"):
        encoder(filterbank={"num_mel_bins": 40})


def test_filterbank_does_not_import_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    speaker_encoder = build_encoder({"network": NETWORK}, 16000)
    assert isinstance(speaker_encoder.eval()(torch.randn(1, 1600), torch.tensor([1600])).embedding, Tensor)
