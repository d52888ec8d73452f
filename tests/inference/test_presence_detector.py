"""When a voice speaks: blocks, streams and files give the logits of the network; commands print and write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import wesep_py
from wesep_py import audio, checkpoint
from wesep_py.common.errors import InputError
from wesep_py.inference import presence_detector
from wesep_py.inference.presence_detector import HeadDetector, PersonalDetector, load_detector
from wesep_py.network.personal_vad import PersonalVAD, target_logits


def noise(seconds: float, seed: int = 0, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((channels, round(16000 * seconds)))).astype(np.float32)


def make(causal: bool, **config) -> PersonalDetector:
    torch.manual_seed(0)
    return PersonalDetector(PersonalVAD({"hidden": 8, "num_heads": 2, "causal": causal, **config}))


def test_a_causal_network_gives_the_whole_in_any_blocks(tmp_path: Path):
    detector, mixture = make(causal=True), noise(25.003, channels=2)
    voice = detector.enroll((noise(2)[0], 16000))
    both = {name: tensor.expand(2, *tensor.shape[1:]) for name, tensor in voice.tensors.items()}
    with torch.inference_mode():
        whole = target_logits(detector.network(torch.from_numpy(mixture), both))
    parts = list(detector.track(iter(np.split(mixture, [37, 100, 16000, 300000], axis=1)), voice))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole.numpy(), atol=1e-4)
    audio.write(tmp_path / "m.wav", mixture, 16000)
    from_file = detector.detect(tmp_path / "m.wav", voice)
    from_array = detector.detect((mixture, 16000), voice)
    assert len(from_file.logits) == 2501 and from_file.channel == from_array.channel
    np.testing.assert_allclose(from_file.logits, from_array.logits, atol=1e-2)


def test_blocks_of_a_long_recording_agree_with_the_whole(monkeypatch):
    detector, mixture = make(causal=False), noise(20.007)
    voice = detector.enroll((noise(2)[0], 16000))
    whole = detector.detect((mixture, 16000), voice).logits
    assert len(whole) == 2001
    monkeypatch.setattr(presence_detector, "BLOCK_S", 3.0)
    blocks = np.split(mixture, range(5000, mixture.shape[1], 5000), axis=1)
    parts = list(detector.track(iter(blocks), voice))
    assert len(parts) > 3
    joined = np.concatenate(parts, axis=1)[0]
    assert joined.shape == whole.shape
    assert np.abs(joined - whole).max() < 0.2 * np.abs(whole).max()


def test_blocks_of_a_long_recording_have_the_windows_of_the_whole(monkeypatch):
    speaker = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
    detector, mixture = make(causal=False, speaker=speaker, score={"window_s": 0.9, "hop_s": 0.35}), noise(20.007)
    voice = detector.enroll((noise(2)[0], 16000))
    network, scored = detector.network, []
    with torch.inference_mode():
        whole = network.scores(torch.from_numpy(mixture), voice.tensors)[0, :, 0]

    def record(mixture: torch.Tensor, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        scored.append(PersonalVAD.scores(network, mixture, prepared))
        return scored[-1]

    monkeypatch.setattr(network, "scores", record)
    monkeypatch.setattr(presence_detector, "BLOCK_S", 3.0)
    parts = list(detector.track(iter(np.split(mixture, range(5000, mixture.shape[1], 5000), axis=1)), voice))
    assert sum(part.shape[1] for part in parts) == len(whole)
    start = 0
    for part, scores in zip(parts, scored, strict=True):
        begin = max(0, start - 500) // 35 * 35  # the context of 5 s, and what is missing to a whole number of hops
        inside = scores[0, start - begin : start - begin + part.shape[1], 0]
        torch.testing.assert_close(inside, whole[start : start + part.shape[1]], atol=1e-5, rtol=0)
        start += part.shape[1]


def test_silence_is_absence_and_one_channel_is_enough():
    detector = make(causal=False)
    voice = detector.enroll((noise(2)[0], 16000))
    assert detector.detect((np.zeros(32000, np.float32), 16000), voice).probability < 1e-6
    two = np.concatenate([np.zeros((1, 32000), np.float32), noise(2)])
    presence = detector.detect((two, 16000), voice)
    assert presence.channel == 1 and presence.probability > 1e-6


def test_the_bundled_models_live_head_is_that_of_its_stream():
    extractor = wesep_py.load(device="cpu", verify="none")
    detector = load_detector(device="cpu")
    assert isinstance(detector, HeadDetector)
    mixture, voice = noise(4.01), extractor.enroll((noise(3, seed=1)[0], 16000))
    found = detector.detect((mixture, 16000), voice)
    expected = extractor.live().extract((mixture[0], 16000), voice).detection
    assert len(found.logits) == len(expected.logits)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3)
    assert found.calibration == expected.calibration
    parts = list(detector.track(iter(np.split(mixture, [10, 5000, 30000], axis=1)), voice))
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[0], expected.logits, atol=1e-3)


def test_models_and_voices_that_do_not_fit_are_refused(tiny_model: Path, tmp_path: Path):
    with pytest.raises(InputError, match="use `wesep extract --timeline`"):
        load_detector(tiny_model, "cpu")
    network = make(causal=True).network
    checkpoint.save(tmp_path / "vad", network.config, network.state_dict(), {"step": 1})
    detector = load_detector(tmp_path / "vad", "cpu")
    with pytest.raises(InputError, match="was enrolled with another model"):
        detector.detect((noise(1), 16000), make(causal=True).enroll((noise(2)[0], 16000)))
    with pytest.raises(InputError, match="no enrollment was given"):
        detector.enroll()
    with pytest.raises(InputError, match="no embedding"):
        detector.enroll(np.ones(4, dtype=np.float32))


def test_the_command_prints_segments_and_tells_absent_voices(wesep, tiny_speech: Path, tmp_path: Path, monkeypatch):
    network = make(causal=False).network
    for bias, status in ((6.0, 0), (-6.0, 3)):
        with torch.no_grad():
            network.output.weight.zero_()
            network.output.bias.copy_(torch.tensor([0.0, bias, 0.0]))
        folder = tmp_path / f"vad{status}"
        checkpoint.save(folder, network.config, network.state_dict(), {"step": 1})
        arguments = ["when", tiny_speech / "bert/bert-0.wav", "--model", folder, "--device", "cpu"]
        enrollments = [f"--enroll=anna={tiny_speech}/anna/anna-0.wav", f"--enroll=carl={tiny_speech}/carl/carl-0.wav"]
        ran = wesep(*arguments, *enrollments, "-o", tmp_path / f"{status}.srt")
        assert ran.status == status, ran.err
        lines = [line.split() for line in ran.out.splitlines()]
        assert [line[0] for line in lines] == ([] if status else ["anna", "carl"])
        absent = [line.partition(" is not in ")[0] for line in ran.err.splitlines()]
        assert absent == (["anna", "wesep when: carl"] if status else [])
        assert (tmp_path / f"{status}.srt").read_text().count("-->") == len(lines)
        rows = json.loads(wesep(*arguments, *enrollments, "--json").out) if not status else None
        assert rows is None or rows["targets"][0]["presence"] > 0.9
    again = wesep(*arguments, *enrollments, "-o", tmp_path / "0.srt")
    assert again.status == 2 and "exists already" in again.message
    wrong = wesep(*arguments, *enrollments, "-o", tmp_path / "o.wav")
    assert wrong.status == 2 and "a timeline is written as" in wrong.message
