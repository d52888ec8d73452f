"""The short-time Fourier transform equals torch's, and its inverse restores every sample at every length."""

from __future__ import annotations

import pytest
import torch

from wesep_py.features import STFT


def _inverse_error(stft: STFT, num_samples: int) -> torch.Tensor:
    waveform = torch.rand(num_samples) * 2 - 1
    spectrum = stft(waveform)
    assert spectrum.shape == (stft.num_bins, stft.num_frames(num_samples))
    return (stft.inverse(spectrum, num_samples) - waveform).abs()


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize(("window_length", "hop_length"), [(64, 16), (64, 21), (50, 10), (64, 1)])
def test_the_inverse_restores_every_length(window: str, pad_mode: str, window_length: int, hop_length: int):
    stft = STFT(window_length, hop_length, window, pad_mode=pad_mode)
    for num_samples in range(1, 3 * window_length + 1):
        assert _inverse_error(stft, num_samples).max() < 1e-5, num_samples


def test_the_inverse_restores_every_length_at_the_usual_size():
    stft = STFT(512, 128)
    for num_samples in [*range(1, 1537, 7), 511, 512, 513, 1535, 1536]:
        assert _inverse_error(stft, num_samples).max() < 1e-5, num_samples


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
@pytest.mark.parametrize(("window_length", "hop_length"), [(64, 16), (64, 32), (64, 20)])
def test_the_inverse_restores_every_length_without_centring(window: str, window_length: int, hop_length: int):
    stft = STFT(window_length, hop_length, window, centred=False)
    for num_samples in range(1, 3 * window_length + 1):
        assert _inverse_error(stft, num_samples).max() < 1e-5, num_samples


@pytest.mark.parametrize(("window_length", "hop_length"), [(64, 16), (64, 12), (50, 10), (64, 32)])
def test_the_asymmetric_windows_restore_every_length(window_length: int, hop_length: int):
    stft = STFT(window_length, hop_length, "asymmetric")
    for num_samples in range(1, 3 * window_length + 1):
        error = _inverse_error(stft, num_samples)
        # With a hop of half a window, the edge of the last window fades out, as with the symmetric windows.
        restored = num_samples if hop_length < window_length / 2 else max(0, num_samples - 14)
        assert (error[:restored] < 1e-5).all(), num_samples


def test_the_asymmetric_windows_overlap_to_one_and_amplify_nothing():
    for hop_length in (128, 96, 80):
        stft = STFT(512, hop_length, "asymmetric")
        total = stft.synthesis_weights().unflatten(0, (2, hop_length)).sum(dim=0)
        torch.testing.assert_close(total, torch.ones(hop_length))
        assert stft.synthesis_window.max() < 1.001


def test_a_frame_of_the_asymmetric_transform_reaches_one_hop_ahead():
    stft = STFT(512, 128, "asymmetric")
    assert (stft.start, stft.stop, stft.synthesis_start) == (-384, 128, -128)
    waveform = torch.randn(2000)
    changed = waveform.clone()
    changed[1000:] = 0
    same = (stft(waveform) == stft(changed)).all(dim=0)
    assert same[: (1000 - 128) // 128 + 1].all() and not same[(1000 - 128) // 128 + 1 :].any()


@pytest.mark.parametrize(
    "stft", [STFT(64, 16), STFT(64, 20, "sqrt_hann"), STFT(64, 16, centred=False), STFT(64, 16, "asymmetric")]
)
def test_frames_and_their_signals_are_those_of_the_whole_transform(stft: STFT):
    waveform, num_frames = torch.randn(2, 333), stft.num_frames(333)
    total = (num_frames - 1) * stft.hop_length + stft.window_length
    segment = torch.nn.functional.pad(waveform, (-stft.start, total + stft.start - 333))
    torch.testing.assert_close(stft.frames(segment), stft(waveform), atol=1e-5, rtol=0)
    signals, estimate = stft.frame_signals(stft(waveform)), torch.zeros(2, 2000)
    weights = torch.zeros(2000)
    for frame in range(num_frames):
        first = 500 + frame * stft.hop_length + stft.synthesis_start
        estimate[:, first : first + signals.shape[1]] += signals[:, :, frame]
        weights[first : first + signals.shape[1]] += stft.synthesis_weights()
    restored = estimate / weights.clamp_min(0.01)
    torch.testing.assert_close(restored[:, 500:833], stft.inverse(stft(waveform), 333), atol=1e-5, rtol=0)


def test_the_asymmetric_window_needs_centred_frames():
    with pytest.raises(ValueError, match="'asymmetric' needs centred frames and pad_mode 'constant'"):
        STFT(64, 16, "asymmetric", centred=False)


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
def test_half_overlap_fades_out_the_last_samples_only(window: str):
    stft = STFT(128, 64, window)
    for num_samples in range(1, 385):
        error = _inverse_error(stft, num_samples)
        restored = num_samples if num_samples % 64 == 0 else max(num_samples - 14, 64 * (num_samples // 64))
        assert (error[:restored] < 1e-5).all()
        assert (error < 1.0).all()


def test_half_overlap_does_not_amplify_an_error_of_the_network():
    stft = STFT(128, 64)
    spectrum = 0.01 * torch.randn(65, 101, dtype=torch.complex64)
    waveform = stft.inverse(spectrum, 6400 + 63)
    assert waveform[-14:].abs().max() < 10 * waveform[:-14].abs().max()


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize("num_samples", [257, 512, 1000, 1024, 4001])
def test_the_spectrum_equals_torch_stft(pad_mode: str, num_samples: int):
    waveform = torch.randn(2, num_samples)
    expected = torch.stft(
        waveform, 512, 128, window=torch.hann_window(512), center=True, pad_mode=pad_mode, return_complex=True
    )
    torch.testing.assert_close(STFT(512, 128, pad_mode=pad_mode)(waveform), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("num_samples", [1024, 4001])
def test_the_inverse_of_any_spectrum_equals_torch_istft(num_samples: int):
    stft = STFT(512, 128)
    spectrum = torch.randn(2, 257, stft.num_frames(num_samples), dtype=torch.complex64)
    spectrum[:, 0].imag.zero_()
    spectrum[:, -1].imag.zero_()
    expected = torch.istft(spectrum, 512, 128, window=torch.hann_window(512), length=num_samples)
    torch.testing.assert_close(stft.inverse(spectrum, num_samples), expected, atol=1e-5, rtol=1e-4)


def test_a_sine_is_in_the_bin_of_its_frequency():
    waveform = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    magnitude = STFT(512, 128)(waveform)[:, 60].abs()
    assert magnitude.argmax() == 32  # 1000 Hz / (16000 Hz / 512)
    assert magnitude[32] == pytest.approx(512 / 4, rel=1e-3)  # half the amplitude times the window's sum


def test_without_centring_a_frame_depends_on_the_past_only():
    stft = STFT(64, 16, centred=False)
    waveform = torch.randn(640)
    changed = waveform.clone()
    changed[320:] = torch.randn(320)
    same = (stft(waveform) == stft(changed)).all(dim=0)
    assert same[: 320 // 16].all()
    assert not same[320 // 16 :].any()


def test_leading_axes_are_kept():
    stft = STFT(64, 16)
    waveform = torch.randn(2, 3, 4, 333)
    spectrum = stft(waveform)
    assert spectrum.shape == (2, 3, 4, 33, 21)
    torch.testing.assert_close(spectrum[1, 2, 3], stft(waveform[1, 2, 3]))
    assert stft.inverse(spectrum, 333).shape == waveform.shape


@pytest.mark.processor
def test_autocast_and_half_precision_compute_in_float32():
    stft = STFT(512, 128)
    waveform = torch.randn(2, 2000)
    expected = stft(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spectrum = stft(waveform)
        assert torch.equal(spectrum, expected)
        assert torch.equal(stft.inverse(spectrum, 2000), stft.inverse(expected, 2000))
    assert stft(waveform.bfloat16()).dtype == torch.complex64
    assert stft(waveform.double()).dtype == torch.complex128


def test_gradients_pass_gradcheck():
    stft = STFT(8, 2)
    waveform = torch.randn(2, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: torch.view_as_real(stft(x)), (waveform,))
    spectrum = stft(waveform.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: stft.inverse(s, 13), (spectrum,))


def test_num_frames_takes_a_tensor_of_lengths():
    lengths = torch.tensor([1, 127, 128, 1000])
    for centred in (True, False):
        stft = STFT(512, 128, centred=centred)
        assert stft.num_frames(lengths).tolist() == [stft(torch.zeros(n)).shape[-1] for n in lengths.tolist()]


def test_a_checkpoint_holds_no_window():
    assert not STFT(512, 128).state_dict()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"window_length": 511, "hop_length": 128}, "window_length: is 511; an even"),
        ({"window_length": 0, "hop_length": 1}, "window_length"),
        ({"window_length": 512, "hop_length": 257}, "half a window \\(256\\)"),
        ({"window_length": 512, "hop_length": 0}, "hop_length"),
        ({"window_length": 512, "hop_length": 128, "window": "kaiser"}, "'kaiser'; 'hann'"),
        ({"window_length": 512, "hop_length": 128, "pad_mode": "circular"}, "pad_mode"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, word: str):
    with pytest.raises(ValueError, match=word):
        STFT(**arguments)


def test_empty_waveforms_and_wrong_spectra_are_refused():
    stft = STFT(64, 16)
    with pytest.raises(ValueError, match="no samples"):
        stft(torch.zeros(2, 0))
    with pytest.raises(ValueError, match="100 samples have 33 and 7"):
        stft.inverse(torch.zeros(33, 6, dtype=torch.complex64), 100)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_spectrum():
    stft, waveform = STFT(512, 128), torch.randn(2, 5001)
    on_gpu = stft.cuda()(waveform.cuda())
    torch.testing.assert_close(stft.inverse(on_gpu, 5001).cpu(), waveform, atol=1e-5, rtol=0)
    torch.testing.assert_close(on_gpu.cpu(), stft.cpu()(waveform), atol=1e-3, rtol=1e-4)
