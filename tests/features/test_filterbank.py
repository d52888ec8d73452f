"""Mel filterbanks: they equal torchaudio's, WeSpeaker's or their definition; padding is masked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torchaudio
from torchaudio.compliance import kaldi

from wesep_py.features import KaldiFilterbank, SlaneyMel, WesepMel


def _coloured_noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    """Return coloured noise with a constant offset, float32 [samples]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_samples, generator=generator).cumsum(0) * 1e-3 + 0.01


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("window", ["hamming", "hanning", "povey", "rectangular"])
@pytest.mark.parametrize(
    ("num_mel_bins", "low_hz", "high_hz"), [(80, 20.0, 0.0), (40, 0.0, 3800.0), (23, 60.0, -400.0)]
)
def test_kaldi_filterbank_equals_torchaudio_for_every_option(
    sample_rate: int, window: str, num_mel_bins: int, low_hz: float, high_hz: float
):
    waveform = _coloured_noise(sample_rate)
    expected = kaldi.fbank(
        waveform[None] * 32768, num_mel_bins=num_mel_bins, sample_frequency=sample_rate, window_type=window,
        low_freq=low_hz, high_freq=high_hz, dither=0.0, energy_floor=0.0,
    )  # fmt: skip
    features = KaldiFilterbank(
        sample_rate, num_mel_bins, window=window, low_hz=low_hz, high_hz=high_hz, mean_norm=False
    )(waveform[None])[0]
    assert features.shape == expected.shape
    # Both compute in float32; bins without energy differ most.
    assert (features - expected).norm() / expected.norm() < 1e-5
    torch.testing.assert_close(features, expected, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize(("frame_length_ms", "frame_shift_ms", "scale"), [(25.0, 10.0, 1.0), (32.0, 8.0, 32768.0)])
@pytest.mark.parametrize("num_samples", [512, 1000, 16001])
def test_kaldi_filterbank_equals_torchaudio_for_every_frame_size(num_samples, frame_length_ms, frame_shift_ms, scale):
    waveform = _coloured_noise(num_samples)
    expected = kaldi.fbank(
        waveform[None] * scale, num_mel_bins=40, frame_length=frame_length_ms, frame_shift=frame_shift_ms,
        window_type="hamming", dither=0.0,
    )  # fmt: skip
    filterbank = KaldiFilterbank(
        num_mel_bins=40, frame_length_ms=frame_length_ms, frame_shift_ms=frame_shift_ms, scale=scale, mean_norm=False
    )
    features = filterbank(waveform[None])[0]
    assert features.shape == expected.shape
    assert (features - expected).norm() / expected.norm() < 1e-5
    assert filterbank.frame_lengths(torch.tensor([num_samples])).item() == len(expected)


def test_kaldi_filterbank_equals_wespeaker(shared_parity: Path):
    from safetensors.torch import load_file

    tensors = load_file(shared_parity / "wespeaker_fbank80.safetensors")
    for key, mean_norm in (("output/0", False), ("output/1", True)):
        features = KaldiFilterbank(mean_norm=mean_norm)(tensors["input/0"])[0]
        assert (features - tensors[key]).norm() / tensors[key].norm() <= 1e-4


@pytest.mark.parametrize("mean_norm", [True, False])
def test_a_padded_batch_gives_the_features_of_each_utterance(mean_norm: bool):
    filterbank = KaldiFilterbank(mean_norm=mean_norm)
    lengths = torch.tensor([16000, 9000, 401, 100])
    waveforms = [_coloured_noise(int(n), seed) for seed, n in enumerate(lengths)]
    # The values of the padding do not matter.
    batch = torch.randn(4, 16000)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    batch[3, 100:400] = 0.0  # shorter than a window: extended with zeros
    features, counts = filterbank(batch, lengths), filterbank.frame_lengths(lengths)
    assert counts.tolist() == [98, 54, 1, 1]
    for row, waveform, count in zip(features, waveforms, counts, strict=True):
        torch.testing.assert_close(row[:count], filterbank(waveform[None])[0], atol=1e-4, rtol=1e-4)
        assert (row[count:] == 0).all()


@pytest.mark.parametrize("num_samples", [1, 399, 400])
def test_a_waveform_shorter_than_a_window_gives_one_frame(num_samples: int):
    filterbank = KaldiFilterbank(mean_norm=False)
    waveform = _coloured_noise(num_samples)[None]
    features = filterbank(waveform)
    assert features.shape == (1, 1, 80) and features.isfinite().all()
    padded = torch.nn.functional.pad(waveform, (0, 400 - num_samples))
    assert torch.equal(features, filterbank(padded))
    assert filterbank.frame_lengths(torch.tensor([num_samples])).item() == 1


def test_silence_gives_finite_and_constant_features():
    features = KaldiFilterbank(mean_norm=False)(torch.zeros(1, 4000))
    assert torch.allclose(features, torch.tensor(torch.finfo(torch.float32).eps).log())
    assert KaldiFilterbank()(torch.zeros(1, 4000)).abs().max() < 1e-5


def test_mean_normalisation_removes_the_level():
    filterbank, waveform = KaldiFilterbank(), _coloured_noise(8000)[None]
    assert filterbank(waveform).mean(dim=1).abs().max() < 1e-4
    torch.testing.assert_close(filterbank(0.1 * waveform), filterbank(waveform), atol=1e-3, rtol=1e-3)


def test_dither_is_in_training_only_and_from_torch_s_generator():
    waveform = _coloured_noise(4000)[None]
    filterbank = KaldiFilterbank(dither=1.0)
    plain = KaldiFilterbank()(waveform)
    assert torch.equal(filterbank.eval()(waveform), plain)
    torch.manual_seed(3)
    first = filterbank.train()(waveform)
    torch.manual_seed(3)
    assert torch.equal(filterbank(waveform), first)
    assert not torch.equal(first, plain) and not torch.equal(filterbank(waveform), first)


def test_gradients_pass_gradcheck():
    filterbank = KaldiFilterbank(num_mel_bins=10, scale=100.0)
    waveform = _coloured_noise(600)[None].double().requires_grad_()
    assert torch.autograd.gradcheck(filterbank, (waveform,), fast_mode=True)


def test_gradients_of_silence_are_finite():
    waveform = torch.zeros(1, 4000, requires_grad=True)
    KaldiFilterbank()(waveform).sum().backward()
    assert waveform.grad.isfinite().all()


@pytest.mark.processor
def test_autocast_computes_in_float32():
    filterbank, waveform = KaldiFilterbank(), _coloured_noise(4000)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(filterbank(waveform), filterbank(waveform).float())
        inside = filterbank(waveform)
    assert inside.dtype == torch.float32 and torch.equal(inside, filterbank(waveform))


def test_a_checkpoint_holds_no_filters():
    assert not KaldiFilterbank().state_dict()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"window": "kaiser"}, "window: is 'kaiser'; hamming"),
        ({"high_hz": 9000.0}, "8000"),
        ({"low_hz": 500.0, "high_hz": 400.0}, "low_hz"),
        ({"num_mel_bins": 0}, "num_mel_bins"),
        ({"frame_shift_ms": 0.0}, "at least 2 and 1"),
        ({"dither": -1.0}, "dither"),
    ],
)
def test_invalid_kaldi_arguments_are_refused(arguments: dict, word: str):
    with pytest.raises(ValueError, match=word):
        KaldiFilterbank(**arguments)


@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (2, 0)])
def test_invalid_shapes_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"\[batch, samples\]"):
        KaldiFilterbank()(torch.zeros(shape))


@pytest.mark.gpu
def test_the_gpu_gives_the_same_features():
    filterbank, waveform = KaldiFilterbank(), _coloured_noise(16000)[None]
    expected = filterbank(waveform)
    assert (filterbank.cuda()(waveform.cuda()).cpu() - expected).norm() / expected.norm() < 1e-4


def test_wesep_mel_equals_its_definition_in_a_frame():
    """Frame 5 of a sine: 512 pre-emphasised samples around sample 640, windowed, transformed, squared, filtered."""
    mel = WesepMel(num_mel_bins=7)
    waveform = torch.sin(torch.arange(2000) * 2 * math.pi * 440 / 16000)[None]
    features = mel(waveform)
    emphasised = waveform[0].clone()
    emphasised[1:] -= 0.97 * waveform[0, :-1]
    frames = [emphasised[t * 128 - 256 : t * 128 + 256] * torch.hamming_window(512) for t in (5, 6, 7)]
    logs = [(torch.fft.rfft(frame).abs().square() @ mel.filters + 1e-8).log() for frame in frames]
    # The mean over time is subtracted, so only differences between frames can be compared.
    torch.testing.assert_close(features[0, 6] - features[0, 5], logs[1] - logs[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features[0, 7] - features[0, 5], logs[2] - logs[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(1, 7), atol=1e-5, rtol=0)


def test_wesep_filters_are_triangles_equally_spaced_in_mel():
    filters = WesepMel(num_mel_bins=10, window_ms=256.0).filters
    peaks = filters.argmax(dim=0) * 16000 / 4096
    mel = 2595 * torch.log10(1 + peaks / 700)
    torch.testing.assert_close(mel.diff(), mel.diff().mean().expand(9), atol=3.0, rtol=0)
    assert 0.9 < filters.max() <= 1 and filters.min() == 0
    assert not filters[:5].any(), "nothing below 20 Hz"


def test_wesep_filters_equal_those_of_a_public_checkpoint(shared_parity):
    from safetensors import safe_open

    with safe_open(shared_parity / "wesep_bsrnn_joint_wave.safetensors", framework="pt") as fixture:
        filters, window = (
            fixture.get_tensor(f"weight/spk_encoder.{name}") for name in ("mel_scale.fb", "spectrogram.window")
        )
    torch.testing.assert_close(WesepMel().filters, filters, atol=1e-5, rtol=0)
    assert torch.equal(WesepMel().window, window)


@pytest.mark.parametrize("length", [1, 2, 100, 700, 1280])
def test_wesep_mel_ignores_padding(length):
    mel, waveform = WesepMel(), torch.randn(2, length)
    alone = mel(waveform)
    assert alone.shape == (2, length // 128 + 1, 80) and torch.isfinite(alone).all()
    padded = mel(torch.cat([waveform, torch.zeros(2, 500)], dim=1), torch.tensor([length, length]))
    torch.testing.assert_close(padded[:, : alone.shape[1]], alone, atol=1e-5, rtol=1e-4)
    assert not padded[:, alone.shape[1] :].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"window_ms": 0.01}, "window_ms"), ({"num_mel_bins": 0}, "num_mel_bins"), ({"low_hz": 8000.0}, "low_hz")],
)
def test_invalid_wesep_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WesepMel(**arguments)


@pytest.mark.parametrize(("padding", "pad_mode"), [("zeros", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_slaney_mel_equals_torchaudio(sample_rate: int, padding, pad_mode: str):
    waveform = _coloured_noise(sample_rate)
    front_end = SlaneyMel(sample_rate, padding=padding)
    expected = torchaudio.transforms.MelSpectrogram(
        sample_rate, front_end.window_length, hop_length=front_end.hop_length, n_mels=40, norm="slaney",
        mel_scale="slaney", pad_mode=pad_mode,
    )(waveform).T  # fmt: skip
    features = front_end(waveform[None])[0]
    assert len(features) == front_end.frame_lengths(torch.tensor([sample_rate])).item()
    torch.testing.assert_close(features, expected[: len(features)], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_slaney_mel_ignores_padding(padding):
    front_end, waveform = SlaneyMel(padding=padding), _coloured_noise(8000)
    padded = torch.stack([torch.cat([waveform, torch.ones(3000)]), _coloured_noise(11000, seed=1)])
    features = front_end(padded, torch.tensor([8000, 11000]))
    alone = front_end(waveform[None])[0]
    torch.testing.assert_close(features[0, : len(alone)], alone, rtol=1e-4, atol=1e-9)
    assert not features[0, len(alone) :].any()


def test_slaney_mel_refuses_impossible_sizes():
    with pytest.raises(ValueError, match="num_mel_bins: is 0"):
        SlaneyMel(num_mel_bins=0)
    with pytest.raises(ValueError, match="at least 2 and 1 are needed"):
        SlaneyMel(hop_ms=0.0)
