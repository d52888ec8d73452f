"""The presence verifier: what it measures, what it decides, which calibration is used, and voice prints."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import wesep_py
from tests.conftest import VOICES, make_voice
from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.inference import Blocks, Extractor, Presence, Voice
from wesep_py.inference.file_extraction import extract_file
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget
from wesep_py.inference.presence_decision.presence_verifier import (
    EVIDENCE,
    PresenceVerifier,
    VerifiedSignals,
    VerifierCalibration,
    WindowCutter,
    active_parts,
    active_windows,
    load_verifier,
    save_verifier,
)
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import build_encoder

DVECTOR = {
    "network": {"name": "dvector", "hidden_dim": 8, "frame_dim": 8, "embedding_dim": 6, "pooling": "last"},
    "windows": {"num_frames": 40, "hop_frames": 20},
}
WEIGHTS = {"head": 0.5, "estimate": 2.0, "mixture": -1.0, "residual": -0.5, "level": 0.1}


class ToneEncoder(torch.nn.Module):
    """Embeds a recording as its energy in bands of 500 Hz, of unit length: tones are voices."""

    sample_rate = 16000
    config = SimpleNamespace(network={})

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> SimpleNamespace:
        rows = [torch.fft.rfft(w[:n], n=16000).abs().square() for w, n in zip(waveform, lengths, strict=True)]
        energy = torch.stack([row[:8000].unflatten(0, (16, 500)).sum(dim=1) for row in rows])
        return SimpleNamespace(embedding=torch.nn.functional.normalize(energy, dim=1))


def tone(frequency_hz: float, duration_s: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(16000 * duration_s)) / 16000).astype(np.float32)


def calibration(**changes) -> VerifierCalibration:
    return replace(VerifierCalibration("tones", "e", "m", WEIGHTS, 0.3, 0.6), **changes)


def test_evidence_is_head_cosines_and_level():
    verifier = PresenceVerifier(ToneEncoder(), "tones", "e")
    low, high = tone(250), 0.5 * tone(3250)
    voice = verifier.embed_voice([low], [1.0])
    presence = Presence(1.5, np.zeros(20, np.float32), 0.1)
    of_low = verifier.verify(presence, voice, VerifiedSignals(low, low + high))
    assert of_low.probability is None and presence.probability == presence.head_probability
    assert of_low.evidence["head"] == 1.5
    assert of_low.evidence["estimate"] == pytest.approx(1, abs=1e-3)
    assert of_low.evidence["residual"] == pytest.approx(0, abs=1e-3)
    assert of_low.evidence["mixture"] == pytest.approx(1 / np.hypot(1, 0.25), abs=1e-2)
    assert of_low.evidence["level"] == pytest.approx(10 * np.log10(1 / 1.25), abs=1e-2)
    silent = verifier.verify(presence, voice, VerifiedSignals(0 * low, low + high))
    assert silent.evidence["estimate"] == 0 and silent.evidence["level"] == -40


def test_decision_is_the_logistic_of_the_evidence():
    verifier = PresenceVerifier(ToneEncoder(), "tones", "e", calibration(growth=0.4))
    low = tone(250)
    presence = Presence(1.5, np.zeros(160, np.float32), 0.1)
    decision = verifier.verify(presence, verifier.embed_voice([low], [1.0]), VerifiedSignals(low, low))
    values = {**decision.evidence, "head": 1.5 - 0.4 * np.log2(16 / 4)}
    score = sum(WEIGHTS[name] * values[name] for name in EVIDENCE) + 0.3
    assert decision.probability == pytest.approx(1 / (1 + np.exp(-score)))
    verified = replace(presence, verification=decision)
    assert (verified.probability, verified.threshold) == (decision.probability, 0.6)
    assert verified.is_present == (decision.probability >= 0.6)
    assert verified.head_probability == presence.probability


def test_long_pauses_are_left_out_and_short_ones_stay():
    loud, quiet = tone(250), 0.001 * tone(250, 4.0)
    assert np.array_equal(active_parts(np.concatenate([quiet, loud]), 16000), loud)
    short = np.concatenate([loud, quiet[:12800], loud])
    assert np.array_equal(active_parts(short, 16000), short)
    assert len(active_parts(np.concatenate([0.0 * quiet, loud[:6400]]), 16000)) == 4 * 6400  # at least 1.6 s
    assert np.array_equal(active_parts(loud[:5000], 16000), loud[:5000])


def test_windows_of_a_long_recording_are_those_with_the_voice():
    logits = np.full(600, -5.0, np.float32)
    logits[300:350] = 3.0  # 30 to 35 s
    windows = active_windows(Presence(0.0, logits, 0.1), 16000)
    assert len(windows) == 8 and sum(last - first for first, last in windows) == 16 * 16000
    assert {(30 * 16000, 32 * 16000), (32 * 16000, 34 * 16000), (34 * 16000, 36 * 16000)} <= set(windows)
    assert active_windows(Presence(0.0, logits[:160], 0.1), 16000) == [(0, 256000)]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_windows_are_cut_from_blocks_of_any_size(size):
    signal = np.arange(500, dtype=np.float32)
    cutter = WindowCutter([(3, 20), (20, 31), (400, 510)])
    for start in range(0, len(signal), size):
        cutter.push(signal[start : start + size])
    assert np.array_equal(cutter.samples(), np.concatenate([signal[3:31], signal[400:]]))


# In an extractor.


def make_extractor(**changes) -> Extractor:
    """Return a small model with a presence head, and a verifier of random weights."""
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "presence": {}})
    encoder = build_encoder(DVECTOR, 16000)
    assert encoder is not None
    verifier = PresenceVerifier(encoder, "tones", "e", calibration(**changes))
    return Extractor(network, "cpu", "tiny", "m", verifier=verifier)


@pytest.fixture
def mixture() -> np.ndarray:
    return (make_voice(*VOICES["anna"], 7.3, seed=1) + make_voice(*VOICES["bert"], 7.3, seed=2)) / 3


def enroll(extractor: Extractor) -> Voice:
    return extractor.enroll((make_voice(*VOICES["anna"], 2.0, seed=3), 16000))


def test_result_has_the_verified_probability(mixture):
    extractor = make_extractor()
    voice = enroll(extractor)
    result = extractor.extract((mixture, 16000), voice)
    verification = result.detection.verification
    assert result.presence == verification.probability != result.detection.head_probability
    residual = mixture - result.waveform
    embeddings = extractor.verifier.embed([active_parts(signal, 16000) for signal in (result.waveform, residual)])
    cosines = embeddings @ voice.verifier.values
    measured = [verification.evidence[name] for name in ("estimate", "residual")]
    np.testing.assert_allclose(measured, cosines, atol=1e-4)
    batch = extractor.extract_batch([(mixture, 16000)] * 2, [voice, voice])
    assert [item.presence for item in batch] == pytest.approx([result.presence] * 2, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_long_file_is_verified_as_in_memory(tmp_path, mixture, channels):
    extractor = make_extractor()
    voice, blocks = enroll(extractor), Blocks.of(2.0)
    samples = np.stack([mixture, 0.3 * mixture])[:channels]
    soundfile.write(tmp_path / "m.wav", samples.T, 16000, subtype="FLOAT")
    expected = extractor.extract(tmp_path / "m.wav", voice, blocks)
    target = ExtractionTarget("anna", voice, tmp_path / "out.wav")
    (result,) = extract_file(extractor, tmp_path / "m.wav", [target], blocks=blocks)
    assert result.presence == pytest.approx(expected.presence, abs=1e-5) and result.threshold == 0.6
    assert result.verifier == "tones"
    assert expected.detection.verification.probability == expected.presence


def test_voice_print_keeps_the_embedding_and_one_without_it_is_warned_about(tmp_path, mixture, caplog):
    extractor = make_extractor()
    voice = enroll(extractor)
    loaded = Voice.load(voice.save(tmp_path / "anna.voice"))
    np.testing.assert_allclose(loaded.verifier.values, voice.verifier.values, atol=1e-6)
    expected = extractor.extract((mixture, 16000), voice).presence
    assert extractor.extract((mixture, 16000), loaded).presence == pytest.approx(expected, abs=1e-5)
    plain = Extractor(extractor.network, "cpu", "tiny", "m")
    old = Voice.load(enroll(plain).save(tmp_path / "old.voice"))
    assert old.verifier is None
    with caplog.at_level(logging.WARNING):
        result = extractor.extract((mixture, 16000), old)
        extractor.extract((mixture, 16000), old)
    assert result.detection.verification is None and result.presence == result.detection.head_probability
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "old.voice: was enrolled without the verifier tones" in warnings[0]
    other = replace(loaded, verifier=replace(loaded.verifier, encoder_hash="other"))
    assert extractor.extract((mixture, 16000), other).detection.verification is None


def test_damaged_embedding_in_a_voice_print_is_one_line(tmp_path):
    voice = enroll(make_extractor())
    damaged = replace(voice, verifier=replace(voice.verifier, values=np.array([np.nan])))
    with pytest.raises(InputError, match="is damaged"):
        Voice.load(damaged.save(tmp_path / "anna.voice"))


def test_enrollment_is_assessed_with_the_verifiers_encoder():
    extractor = make_extractor()
    assert enroll(extractor).quality.untold is None
    plain = Extractor(extractor.network, "cpu", "tiny", "m")
    assert enroll(plain).quality.untold is not None


# Which verifier is used.


@pytest.fixture
def saved(tmp_path: Path, monkeypatch) -> tuple[Path, str]:
    """Return a model's folder whose verifier is calibrated for the encoder `tones`, which is installed."""
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    extractor = make_extractor()
    torch.manual_seed(1)
    encoder = build_encoder(DVECTOR, 16000)
    assert encoder is not None
    installed = checkpoint.load(checkpoint.save(tmp_path / "home" / "models" / "tones", DVECTOR, encoder.state_dict()))
    folder = checkpoint.save(tmp_path / "model", extractor.network.config, extractor.network.state_dict())
    fitted = calibration(encoder_hash=installed.hash, model_hash=checkpoint.load(folder).hash)
    before = checkpoint.load(folder).hash
    save_verifier(folder, fitted, {"fitted_on": ["lists"]})
    assert checkpoint.load(folder).hash == before
    return folder, installed.hash


def test_installed_encoder_is_used_by_default(saved):
    folder, encoder_hash = saved
    verifier = wesep_py.load(folder, "cpu").verifier
    assert verifier.name == "tones" and verifier.encoder_hash == encoder_hash
    assert verifier.calibration.weights == WEIGHTS
    assert wesep_py.load(folder, "cpu", verify="none").verifier is None
    assert wesep_py.load(folder, "cpu", verify="tones").verifier.calibration == verifier.calibration


def test_encoder_that_is_not_installed_is_left_out_unless_named(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "empty"))
    assert wesep_py.load(saved[0], "cpu").verifier is None
    with pytest.raises(InputError, match=r"--verify tones: no such speaker encoder .*wesep models pull dvector"):
        wesep_py.load(saved[0], "cpu", verify="tones")


@pytest.mark.parametrize(
    ("changed", "message"), [("model_hash", "other weights of the model"), ("encoder_hash", "another tones")]
)
def test_calibration_of_other_weights_is_not_used(saved, caplog, changed, message):
    folder, encoder_hash = saved
    fitted = calibration(encoder_hash=encoder_hash, model_hash=checkpoint.load(folder).hash)
    save_verifier(folder, replace(fitted, **{changed: "other"}), {})
    with caplog.at_level(logging.WARNING):
        assert wesep_py.load(folder, "cpu").verifier is None
    assert message in caplog.text
    assert wesep_py.load(folder, "cpu", verify="tones").verifier.calibration is None


def test_model_without_head_and_live_mode_refuse_a_verifier(saved, tiny_model):
    with pytest.raises(InputError, match="has no presence head, which a verifier needs"):
        wesep_py.load(tiny_model, "cpu", verify="tones")
    assert wesep_py.load(tiny_model, "cpu").verifier is None
    with pytest.raises(InputError, match="the live mode has no verifier"):
        wesep_py.load("base", "cpu", live=True, verify="tones")


def test_damaged_calibrations_are_refused():
    with pytest.raises(ValueError, match="weights: has"):
        calibration(weights={"head": 1.0})
    with pytest.raises(ValueError, match="threshold: is 2"):
        calibration(threshold=2.0)
    from wesep_py.inference.presence_decision.presence_verifier import read_verifiers

    stored = {"presence_verifiers": {"tones": {**asdict(calibration()), "offset": "high"}}}
    with pytest.raises(CheckpointError, match="the calibration of a verifier is damaged"):
        read_verifiers(stored)
    assert read_verifiers({}) == {}
    with pytest.raises(InputError, match="of another encoder"):
        PresenceVerifier(ToneEncoder(), "tones", "x", calibration())
    assert load_verifier("none", "m", "m", {}, 16000) is None
