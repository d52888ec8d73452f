"""Repair: which extractions are taken for the wrong voice, what replaces them, and which encoder compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import wesep_py
from tests.inference.networks import BandNetwork
from tests.inference.presence_decision.test_presence_verifier import DVECTOR, ToneEncoder, tone
from wesep_py import checkpoint
from wesep_py.common.errors import InputError
from wesep_py.inference import Blocks, Extractor
from wesep_py.inference.file_extraction import extract_file
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget
from wesep_py.inference.presence_decision.presence_verifier import PresenceVerifier
from wesep_py.inference.presence_decision.repair import comparison
from wesep_py.network.extraction_network import NetworkOutput, build_network
from wesep_py.network.speaker import build_encoder

LOW, HIGH = tone(250), 0.5 * tone(3250)
ENCODER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}


class Confused(BandNetwork):
    """Extracts the louder of the two halves of the spectrum, whoever is enrolled."""

    def extract(self, mixture: Tensor, prepared: dict[str, Tensor]) -> NetworkOutput:
        spectrum = torch.fft.rfft(mixture)
        low = torch.fft.rfftfreq(mixture.shape[1], 1 / self.sample_rate) < self.cutoff_hz
        halves = [torch.fft.irfft(spectrum * part, n=mixture.shape[1]) for part in (low, ~low)]
        energies = torch.stack([half.square().sum() for half in halves])
        logits = torch.tensor([self.presence_logits]) if self.presence_logits else None
        return NetworkOutput((self.gain * halves[int(energies.argmax())],), logits)


def verifier() -> PresenceVerifier:
    return PresenceVerifier(ToneEncoder(), "tones", "e")


def extractor(network: BandNetwork | None = None, **options) -> Extractor:
    return Extractor(network or Confused(), verifier=verifier(), **options)


@pytest.mark.parametrize("kind", [True, "requery", "swap"])
def test_the_wrong_voice_is_repaired(kind):
    extracts = extractor()
    voice = extracts.enroll((HIGH, 16000))
    mixture = (LOW + HIGH, 16000)
    wrong = extracts.extract(mixture, voice)
    np.testing.assert_allclose(wrong.waveform, LOW, atol=0.02)
    assert not wrong.repaired
    right = extracts.extract(mixture, voice, repair=kind)
    assert right.repaired
    np.testing.assert_allclose(right.waveform, HIGH, atol=0.02)


@pytest.mark.parametrize("kind", ["requery", "swap"])
def test_the_right_voice_is_left_as_it_is(kind):
    extracts = extractor(repair=kind)
    voice, mixture = extracts.enroll((LOW, 16000)), (LOW + HIGH, 16000)
    result = extracts.extract(mixture, voice)
    assert not result.repaired
    assert (result.waveform == extracts.extract(mixture, voice, repair=False).waveform).all()


def test_a_second_extraction_that_is_no_nearer_is_not_used():
    """From the residual the network extracts low frequencies only, which are silent there."""
    extracts = extractor(BandNetwork(), repair="requery")
    voice, mixture = extracts.enroll((HIGH, 16000)), (LOW + HIGH, 16000)
    assert not extracts.extract(mixture, voice).repaired
    assert extracts.extract(mixture, voice, repair="swap").repaired


def test_the_margin_decides(monkeypatch):
    extracts = extractor(repair="swap")
    voice, mixture = extracts.enroll((0.4 * LOW + HIGH, 16000)), (LOW + HIGH, 16000)
    assert extracts.extract(mixture, voice).repaired
    monkeypatch.setattr("wesep_py.inference.presence_decision.repair.MARGIN", 0.99)
    assert not extracts.extract(mixture, voice).repaired


def test_a_silent_recording_is_not_repaired():
    extracts = extractor(repair="swap")
    result = extracts.extract((np.zeros(16000, np.float32), 16000), extracts.enroll((LOW, 16000)))
    assert not result.repaired and not result.waveform.any()


@pytest.mark.parametrize("kind", ["requery", "swap"])
def test_files_of_several_channels_and_another_rate_keep_their_form(kind, tmp_path: Path):
    time_s = np.arange(96000) / 48000
    low, high = np.sin(2 * np.pi * 250 * time_s), 0.5 * np.sin(2 * np.pi * 3250 * time_s)
    stereo = np.stack([low + high, 0.5 * (low + high)], axis=1)
    soundfile.write(tmp_path / "mixture.wav", 0.5 * stereo, 48000)
    extracts = extractor(repair=kind)
    result = extracts.extract(tmp_path / "mixture.wav", extracts.enroll((HIGH, 16000)))
    assert result.repaired and result.waveform.shape == (2, 96000) and result.subtype == "PCM_16"
    np.testing.assert_allclose(result.waveform[0, 4800:-4800], 0.5 * high[4800:-4800], atol=0.03)
    np.testing.assert_allclose(result.waveform[1], 0.5 * result.waveform[0], atol=0.01)


def test_presence_is_measured_again():
    extracts = extractor(Confused(presence_logits=(2.0,) * 20), repair="swap")
    voice, mixture = extracts.enroll((HIGH, 16000)), (LOW + HIGH, 16000)
    before, after = (extracts.extract(mixture, voice, repair=kind).detection for kind in (False, True))
    assert before.verification.evidence["estimate"] == pytest.approx(0, abs=0.05)
    assert after.verification.evidence["estimate"] == pytest.approx(1, abs=0.05)
    swapped = extracts.extract(mixture, voice).detection
    assert swapped.verification.evidence["estimate"] == pytest.approx(1, abs=0.05)


def test_the_models_own_encoder_compares_if_there_is_no_other():
    torch.manual_seed(0)
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": ENCODER,
            "cues": [{"name": "tf_map"}, {"name": "embedding"}],
        }
    )
    extracts, noise = Extractor(network), np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    voice = extracts.enroll((noise.cumsum() * 0.01, 16000))
    ours = comparison(extracts, voice)([noise, (noise.cumsum() * 0.01).astype(np.float32), 0 * noise])
    with torch.inference_mode():
        embedding = network.embed(torch.from_numpy(noise)[None])
    expected = torch.nn.functional.cosine_similarity(embedding, voice.tensors["1.embedding"]).item()
    assert ours[0] == pytest.approx(expected, abs=1e-4) and ours[1] == pytest.approx(1, abs=1e-3) and ours[2] == 0
    assert extracts.extract((noise, 16000), voice, repair=True).waveform.shape == noise.shape


def test_a_model_without_any_encoder_cannot_repair():
    with pytest.raises(InputError, match="has no embedding of its own to repair by"):
        Extractor(BandNetwork(), repair="swap")
    plain = Extractor(BandNetwork())
    with pytest.raises(InputError, match="wesep models pull dvector"):
        plain.extract((LOW, 16000), plain.enroll((LOW, 16000)), repair=True)


def test_a_voice_enrolled_without_the_encoder_is_refused():
    extracts = extractor()
    voice = replace(extracts.enroll((LOW, 16000)), verifier=None)
    with pytest.raises(InputError, match="was enrolled without the encoder"):
        extracts.extract((LOW + HIGH, 16000), voice, repair=True)


@pytest.mark.parametrize("kind", ["both", 3])
def test_an_unknown_kind_is_refused(kind):
    extracts = extractor()
    with pytest.raises(InputError, match="none, requery, swap are allowed"):
        extracts.extract((LOW, 16000), extracts.enroll((LOW, 16000)), repair=kind)


def test_files_say_what_was_repaired_and_long_ones_are_refused(tmp_path: Path):
    soundfile.write(tmp_path / "mixture.wav", 0.5 * (LOW + HIGH), 16000)
    extracts = extractor(repair="requery")
    targets = [
        ExtractionTarget(name, extracts.enroll((voice, 16000)), tmp_path / f"{name}.wav")
        for name, voice in (("low", LOW), ("high", HIGH))
    ]
    results = extract_file(extracts, tmp_path / "mixture.wav", targets)
    assert [result.repaired for result in results] == [False, True]
    with pytest.raises(InputError, match="a repair is for recordings of one block"):
        extract_file(extracts, tmp_path / "mixture.wav", targets, blocks=Blocks(1.0, 0.2, 0.1), overwrite=True)


def test_batches_are_repaired_one_by_one():
    extracts = extractor(repair="requery")
    voices = [extracts.enroll((voice, 16000)) for voice in (LOW, HIGH)]
    results = extracts.extract_batch([(LOW + HIGH, 16000)] * 2, voices)
    assert [result.repaired for result in results] == [False, True]


def test_a_model_without_a_presence_head_loads_an_encoder_to_repair_by(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    folder = checkpoint.save(tmp_path / "model", network.config, network.state_dict(), {})
    with pytest.raises(InputError, match="has no embedding of its own"):
        wesep_py.load(folder, "cpu", repair="swap")
    torch.manual_seed(0)
    encoder = build_encoder(DVECTOR, 16000)
    checkpoint.save(tmp_path / "encoder", DVECTOR, encoder.state_dict())
    loaded = wesep_py.load(folder, "cpu", repair="swap", verify=str(tmp_path / "encoder"))
    assert loaded.verifier.name == "encoder" and loaded.repair == "swap"
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert loaded.extract((noise, 16000), loaded.enroll((noise, 16000))).waveform.shape == noise.shape
