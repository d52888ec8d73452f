"""The common part of the adapters: length, delay, switches without clicks, the first turn, errors."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.integrations.agents import (
    RATE,
    EchoModel,
    as_int16,
    late,
    live_extractor,
    mixture,
    speech,
    voice_of_gain,
)
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.integrations import FrameFilter


def _opened(model: EchoModel | None = None, voice: object = None, **options) -> FrameFilter:
    frames = FrameFilter(model or EchoModel(), voice or (None if options else voice_of_gain(0.5)), **options)
    frames.open(RATE)
    return frames


def _run(frames: FrameFilter, samples: np.ndarray, size: int = 320) -> np.ndarray:
    """Return the output of a filter that gets samples [samples] in frames of `size`."""
    parts = [frames.process(samples[None, at : at + size])[0] for at in range(0, len(samples), size)]
    return np.concatenate(parts)


def test_no_torch_is_imported():
    code = "import sys, wesep_py.integrations.frame_filter; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [1, 7, 160, 320, 5000])
def test_the_output_is_that_of_the_stream(size: int):
    extractor = live_extractor()
    voice = extractor.enroll((speech("anna", 2.0, seed=5), RATE))
    samples = mixture(0.3 if size == 1 else 1.0)
    stream = extractor.stream(voice, RATE, constant_delay=True)
    frames = FrameFilter(extractor, voice)
    frames.open(RATE)
    expected = [stream.process(samples[at : at + size]) for at in range(0, len(samples), size)]
    np.testing.assert_array_equal(_run(frames, samples, size), np.concatenate(expected))
    assert frames.is_extracting
    assert frames.delay == stream.delay
    assert frames.presence == pytest.approx(stream.presence, abs=1e-6)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (24000, 1), (48000, 2)])
def test_any_rate_and_number_of_channels(rate: int, channels: int):
    frames = FrameFilter(live_extractor(), (speech(), RATE))
    frames.open(rate, channels)
    samples = np.stack([mixture(1.0)] * channels)
    outputs = [frames.process(samples[:, at : at + 441]) for at in range(0, samples.shape[1], 441)]
    result = np.concatenate(outputs, axis=1)
    assert result.shape == samples.shape
    assert result.dtype == np.int16
    expected = live_extractor().stream(frames.voice, rate, channels, constant_delay=True).process(samples)
    np.testing.assert_allclose(result, expected, atol=1)


def test_a_voice_is_a_recording_a_print_or_an_enrolled_one(tmp_path: Path):
    import soundfile

    extractor = live_extractor()
    soundfile.write(tmp_path / "alice.wav", speech(), RATE, subtype="PCM_16")
    voice = extractor.enroll(tmp_path / "alice.wav")
    voice.save(tmp_path / "alice.voice")
    results = []
    for source in (tmp_path / "alice.wav", str(tmp_path / "alice.voice"), voice):
        frames = FrameFilter(extractor, source)
        frames.open(RATE)
        results.append(_run(frames, mixture(1.0)))
    # Tensors that were read from a file lie elsewhere in memory, so some processors round differently: by one step.
    for result in results[1:]:
        np.testing.assert_allclose(result.astype(int), results[0].astype(int), atol=1)


def test_a_model_is_loaded_by_its_path(tmp_path: Path):
    from wesep_py import checkpoint

    network = live_extractor().network
    folder = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    frames = FrameFilter(folder, (speech(), RATE), device="cpu")
    frames.open(RATE)
    assert _run(frames, mixture(0.5)).shape == (8000,)


def test_a_model_that_cannot_stream_is_refused_at_once(tiny_model: Path):
    with pytest.raises(ConfigError, match="live"):
        FrameFilter(tiny_model, first_turn_s=3.0, device="cpu")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "voice: is missing; give a recording, a voice print, or first_turn_s"),
        ({"voice": voice_of_gain(1), "first_turn_s": 3}, "give one of the two"),
        ({"first_turn_s": 0.1}, "0.5 to 30 s"),
        ({"first_turn_s": True}, "0.5 to 30 s"),
        ({"first_turn_s": float("nan")}, "0.5 to 30 s"),
        ({"voice": voice_of_gain(1), "on_presence": 3}, "on_presence"),
        ({"voice": voice_of_gain(1), "model": object()}, "enroll and stream"),
    ],
)
def test_wrong_arguments_are_one_line(options: dict, match: str):
    with pytest.raises(InputError, match=match) as caught:
        FrameFilter(**{"model": EchoModel(), **options})
    assert "\n" not in str(caught.value)


def test_what_is_no_voice_is_refused():
    extractor = live_extractor()
    with pytest.raises(InputError, match="voice"):
        FrameFilter(extractor, object())
    frames = FrameFilter(extractor, (speech(), RATE))
    before = frames.voice
    for is_open in (False, True):
        if is_open:
            frames.open(RATE)
        with pytest.raises(InputError):
            frames.change_voice(None)
        assert frames.voice is before


@pytest.mark.parametrize(
    "samples",
    [np.zeros(320, np.int16), np.zeros((2, 320), np.int16), np.zeros((1, 320), np.float32)],
    ids=["axes", "channels", "type"],
)
def test_wrong_samples_are_one_line(samples: np.ndarray):
    frames = _opened()
    with pytest.raises(InputError, match=r"int16 \[1, samples\] is needed"):
        frames.process(samples)


def test_a_filter_that_is_not_open_says_so():
    frames = FrameFilter(EchoModel(), voice_of_gain(0.5))
    for call in (lambda: frames.process(np.zeros((1, 3), np.int16)), lambda: frames.process_bytes(b"123456")):
        with pytest.raises(InputError, match="not open"):
            call()
    with pytest.raises(InputError, match="1000 to 768000 Hz"):
        FrameFilter(live_extractor(), (speech(), RATE)).open(7)


# Switching.


def test_switched_off_the_mixture_passes_bit_exact_with_the_same_delay():
    frames = _opened()
    frames.enabled = False
    samples = mixture(1.0)
    np.testing.assert_array_equal(_run(frames, samples, 333), late(samples, frames.delay))
    assert frames.presence is None
    frames = _opened()
    frames.enabled = False
    frames.open(RATE)
    np.testing.assert_array_equal(_run(frames, samples, 333), late(samples, frames.delay))


@pytest.mark.parametrize("size", [50, 320, 4000])
def test_a_switch_neither_clicks_nor_shifts(size: int):
    """A slow sine: samples without a jump differ by little, and every sample is the delayed input times 0.5 to 1."""
    samples = as_int16(0.5 * np.sin(2 * np.pi * 50 * np.arange(4 * RATE) / RATE))
    frames, parts = _opened(), []
    for number, at in enumerate(range(0, len(samples), RATE // 2)):
        frames.enabled = number % 2 == 0
        parts.append(_run(frames, samples[at : at + RATE // 2], size))
    result = np.concatenate(parts).astype(float)
    expected = late(samples, frames.delay).astype(float)
    assert np.abs(np.diff(result)).max() < np.abs(np.diff(expected)).max() + 0.5 * 16384 / 160 + 2
    loud = np.abs(expected) > 2000
    gains = result[loud] / expected[loud]
    assert 0.4999 - 1e-3 < gains.min() < 0.501 and 0.999 < gains.max() < 1.001
    # Off at once; on `delay` samples later, since the stream begins anew.
    half, fade = RATE // 2, RATE // 100
    np.testing.assert_array_equal(result[half + fade + 1 : 2 * half], expected[half + fade + 1 : 2 * half])
    np.testing.assert_array_equal(result[2 * half : 2 * half + 300], expected[2 * half : 2 * half + 300])
    np.testing.assert_allclose(result[2 * half + 461 : 3 * half], expected[2 * half + 461 : 3 * half] / 2, atol=0.5)


def test_switching_within_a_cross_fade_does_not_click():
    samples = np.full(RATE, 10000, np.int16)
    frames = _opened()
    _run(frames, samples)
    parts = []
    for number in range(200):
        frames.enabled = number % 3 == 0
        parts.append(_run(frames, samples[:37], 37))
    jumps = np.abs(np.diff(np.concatenate(parts).astype(int)))
    assert jumps.max() <= np.ceil(5000 / 160) + 1


def test_a_switched_off_filter_computes_nothing():
    frames = _opened()
    frames.enabled = False
    frames.process(np.ones((1, 1000), np.int16))
    num_in = frames._stream.num_in
    frames.process(np.ones((1, 1000), np.int16))
    assert frames._stream.num_in == num_in


def test_the_real_stream_continues_after_a_switch():
    """After the switch the output is that of a stream that began there, at the same place in time."""
    extractor = live_extractor()
    voice = extractor.enroll((speech(), RATE))
    frames = FrameFilter(extractor, voice)
    frames.open(RATE)
    samples, at = mixture(2.0), 16000
    frames.enabled = False
    _run(frames, samples[:at])
    frames.enabled = True
    result = _run(frames, samples[at:])
    expected = extractor.stream(voice, RATE, constant_delay=True).process(samples[at:])
    start = frames.delay + RATE // 100 + 1
    np.testing.assert_allclose(result[start:], expected[start:], atol=1)
    passed = late(samples, frames.delay)[at:]
    np.testing.assert_array_equal(result[: frames.delay], passed[: frames.delay])


# Bytes.


@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_any_number_of_bytes(channels: int):
    frames = FrameFilter(EchoModel(gain=1.0), voice_of_gain(1.0))
    frames.open(RATE, channels)
    audio = mixture(1.0).tobytes()
    rng, parts, at = np.random.default_rng(0), [], 0
    while at < len(audio):
        size = int(rng.integers(0, 700))
        piece = audio[at : at + size]
        parts.append(frames.process_bytes(piece))
        assert len(parts[-1]) == len(piece)
        at += size
    result = np.frombuffer(b"".join(parts), np.int16).reshape(-1, channels)
    expected = np.frombuffer(audio, np.int16).reshape(-1, channels)
    shift = frames.delay + 1  # one sample later from the first frame on that ends within a sample
    np.testing.assert_array_equal(result[shift + 700 :], expected[700:-shift])


def test_whole_samples_are_not_shifted_by_bytes():
    frames = _opened(EchoModel(gain=1.0), voice_of_gain(1.0))
    samples = mixture(1.0)
    audio = samples.tobytes()
    result = b"".join(frames.process_bytes(audio[at : at + 640]) for at in range(0, len(audio), 640))
    np.testing.assert_array_equal(np.frombuffer(result, np.int16), late(samples, frames.delay))
    assert frames.process_bytes(b"") == b""


# The first turn.


def _room(duration_s: float) -> np.ndarray:
    return as_int16(0.001 * np.random.default_rng(1).standard_normal(round(duration_s * RATE)))


def test_the_first_turn_is_enrolled_and_then_extracted():
    model = EchoModel()
    frames = _opened(model, first_turn_s=2.0)
    num_before = len(model.enrolled)
    samples = np.concatenate([_room(5.0), as_int16(speech("anna", 3.5)), _room(0.5), as_int16(speech("bert", 2.0))])
    first = _run(frames, samples[: 5 * RATE])
    assert frames._job is None and frames.voice is None
    second = _run(frames, samples[5 * RATE : 9 * RATE])
    assert frames.wait_for_enrollment(10)
    third = _run(frames, samples[9 * RATE :])
    assert frames.is_extracting
    expected = late(samples, frames.delay)
    np.testing.assert_array_equal(first, expected[: 5 * RATE])
    np.testing.assert_allclose(third[1000:], expected[9 * RATE + 1000 :] / 2, atol=1)
    assert len(second) == 4 * RATE
    ((recording, rate),) = model.enrolled[num_before:]
    assert rate == RATE
    assert 2.0 <= recording.shape[1] / RATE < 3.5
    assert np.sqrt((recording**2).mean()) > 0.03  # the speech, not the room


def test_the_first_turn_of_a_real_model():
    extractor = live_extractor()
    frames = FrameFilter(extractor, first_turn_s=1.5)
    frames.open(24000)
    samples = as_int16(np.concatenate([speech("anna", 3.0), speech("bert", 2.0)]))
    for at in range(0, len(samples), 480):
        frames.process(samples[None, at : at + 480])
        if frames._job is not None:
            assert frames.wait_for_enrollment(60)
    assert frames.is_extracting
    assert frames.voice.enrolled_s >= 1.5


def test_audio_passes_while_the_first_turn_is_enrolled_in_a_thread():
    may_end, begun = threading.Event(), threading.Event()

    class SlowModel(EchoModel):
        def enroll(self, source: object) -> object:
            if threading.current_thread().name.startswith("enroll"):
                begun.set()
                assert may_end.wait(20)
            return super().enroll(source)

    frames = _opened(SlowModel(), first_turn_s=1.0)
    samples = as_int16(speech("anna", 3.0))
    result = _run(frames, samples)
    assert begun.wait(20)
    np.testing.assert_array_equal(result, late(samples, frames.delay))
    may_end.set()
    assert frames.wait_for_enrollment(20)
    _run(frames, samples)
    assert frames.is_extracting


def test_a_first_turn_that_cannot_be_enrolled_is_followed_by_another(caplog: pytest.LogCaptureFixture):
    class PickyModel(EchoModel):
        def enroll(self, source: object) -> object:
            if len(self.enrolled) == 1:
                self.enrolled.append(source)
                raise InputError("the enrollment is too noisy")
            return super().enroll(source)

    frames = _opened(PickyModel(), first_turn_s=1.0)
    samples = as_int16(speech("anna", 3.0))
    for at in range(0, len(samples), 320):
        _run(frames, samples[at : at + 320])
        if frames._job is not None or caplog.records:
            break
    assert not frames.wait_for_enrollment(20)
    _run(frames, samples)
    assert frames.wait_for_enrollment(20)
    assert "too noisy" in caplog.text
    assert len(caplog.records) == 1


def test_nothing_is_collected_while_extraction_is_off():
    frames = _opened(first_turn_s=1.0)
    frames.enabled = False
    _run(frames, as_int16(speech("anna", 3.0)))
    assert not frames.wait_for_enrollment(1)
    assert frames._turn.speech_s == 0


def test_closing_forgets_a_first_turn_but_no_voice_that_was_given():
    frames = _opened(first_turn_s=1.0)
    _run(frames, as_int16(speech("anna", 3.0)))
    assert frames.wait_for_enrollment(20)
    frames.open(8000)  # another rate: the same session
    assert frames.voice is not None
    frames.close()
    assert frames.voice is None
    frames.open(RATE)
    samples = mixture(0.5)
    np.testing.assert_array_equal(_run(frames, samples), late(samples, frames.delay))
    frames = _opened()
    frames.close()
    assert frames.voice is not None


# Voices, presence, errors.


def test_the_voice_changes_while_running_and_before_the_first_turn():
    frames = _opened()
    samples = np.full(RATE, 10000, np.int16)
    _run(frames, samples)
    frames.change_voice(voice_of_gain(0.25))
    assert (_run(frames, samples) == 2500).all()
    frames = _opened(first_turn_s=3.0)
    _run(frames, samples)
    frames.change_voice(voice_of_gain(0.25))
    assert (_run(frames, samples)[1000:] == 2500).all()


def test_presence_is_reported():
    values: list[float] = []
    frames = FrameFilter(EchoModel(), voice_of_gain(0.5), on_presence=values.append)
    frames.report_presence()
    frames.open(RATE)
    frames.process(np.ones((1, 320), np.int16))
    frames.report_presence()
    frames.enabled = False
    frames.process(np.ones((1, 3200), np.int16))
    frames.report_presence()
    assert values == [0.25]


def test_after_an_error_of_the_model_the_mixture_passes(caplog: pytest.LogCaptureFixture):
    frames = _opened(EchoModel(failing_after=5000))
    samples = np.full(RATE, 1000, np.int16)
    result = _run(frames, samples, 500)
    expected = late(samples, frames.delay)
    np.testing.assert_array_equal(result[5000:], expected[5000:])
    assert [record.getMessage() for record in caplog.records] == [
        "extraction failed, the mixture passes: RuntimeError: out of memory"
    ]
    frames.enabled = True  # tries again
    _run(frames, samples[:4000])
    assert frames.is_extracting


def test_silence_stays_silent():
    frames = FrameFilter(live_extractor(), (speech(), RATE))
    frames.open(RATE)
    assert not _run(frames, np.zeros(RATE, np.int16)).any()


def test_two_filters_share_a_model_in_two_threads():
    extractor = live_extractor()
    filters = [FrameFilter(extractor, (speech(name), RATE)) for name in ("anna", "bert")]
    alone = []
    for frames in filters:
        frames.open(RATE)
        alone.append(_run(frames, mixture(1.0)))
        frames.open(RATE)
    together: list[np.ndarray | None] = [None, None]

    def work(number: int) -> None:
        together[number] = _run(filters[number], mixture(1.0))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        np.testing.assert_allclose(together[number], alone[number], atol=1)


@pytest.mark.parametrize("framework", ["pipecat", "livekit"])
def test_without_the_framework_one_line_names_the_extra(framework: str, monkeypatch: pytest.MonkeyPatch):
    import importlib

    monkeypatch.setitem(sys.modules, framework, None)
    for name in [name for name in sys.modules if name.startswith(f"{framework}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"wesep_py.integrations.{framework}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'wesep-py\[{framework}\]'") as caught:
        importlib.import_module(f"wesep_py.integrations.{framework}")
    assert "\n" not in str(caught.value)
