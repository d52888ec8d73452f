"""The processor in LiveKit: its frames, and an audio stream of a local track, which needs no server."""

from __future__ import annotations

import asyncio

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
from wesep_py.common.errors import InputError

pytest.importorskip("livekit.rtc")

from livekit import rtc

from wesep_py.integrations.livekit import TargetSpeakerProcessor


def _frames(samples: np.ndarray, rate: int = RATE, size: int = 160) -> list[rtc.AudioFrame]:
    """Return samples [samples] or [channels, samples] as frames."""
    rows = np.atleast_2d(samples)
    pieces = [rows[:, at : at + size] for at in range(0, rows.shape[1], size)]
    return [
        rtc.AudioFrame(np.ascontiguousarray(piece.T).tobytes(), rate, len(rows), piece.shape[1]) for piece in pieces
    ]


def _run(processor: TargetSpeakerProcessor, frames: list[rtc.AudioFrame]) -> np.ndarray:
    """Return the samples [channels, samples] of the frames that a processor returns."""
    outputs = [processor._process(frame) for frame in frames]
    for before, after in zip(frames, outputs, strict=True):
        assert (after.sample_rate, after.num_channels) == (before.sample_rate, before.num_channels)
        assert after.samples_per_channel == before.samples_per_channel
        assert len(after.data) == after.num_channels * after.samples_per_channel
    return np.concatenate([np.asarray(out.data).reshape(-1, out.num_channels).T for out in outputs], axis=1)


def test_it_is_a_processor_and_returns_what_the_stream_does():
    extractor = live_extractor()
    processor = TargetSpeakerProcessor((speech(), RATE), model=extractor)
    assert isinstance(processor, rtc.FrameProcessor)
    samples = mixture(1.0)
    result = _run(processor, _frames(samples))
    expected = extractor.stream(processor.frames.voice, RATE, constant_delay=True).process(samples)
    np.testing.assert_allclose(result[0], expected, atol=1)
    assert processor.presence is not None


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (24000, 2)])
def test_other_rates_and_channels(rate: int, channels: int):
    processor = TargetSpeakerProcessor((speech(), RATE), model=live_extractor())
    samples = np.stack([mixture(1.0)] * channels)
    assert _run(processor, _frames(samples, rate, rate // 100)).shape == samples.shape


def test_another_rate_starts_anew_with_a_line(caplog: pytest.LogCaptureFixture):
    processor = TargetSpeakerProcessor((speech(), RATE), model=live_extractor())
    _run(processor, _frames(mixture(0.5)))
    samples = np.stack([mixture(0.5)] * 2)
    result = _run(processor, _frames(samples, 48000, 480))
    assert [record.getMessage() for record in caplog.records] == [
        "frames are now of 48000 Hz, 2 channel(s): extraction starts anew"
    ]
    expected = live_extractor().stream(processor.frames.voice, 48000, 2, constant_delay=True).process(samples)
    np.testing.assert_allclose(result, expected, atol=1)


def test_a_format_that_no_stream_takes_is_one_line():
    processor = TargetSpeakerProcessor((speech(), RATE), model=live_extractor())
    with pytest.raises(InputError, match="num_channels: is 65; 1 to 64 is allowed"):
        processor._process(rtc.AudioFrame.create(RATE, 65, 160))
    assert _run(processor, _frames(mixture(0.5))).any()


def test_switching_keeps_the_delay_and_makes_no_click():
    processor = TargetSpeakerProcessor(voice_of_gain(0.5), model=EchoModel())
    samples = np.full(RATE, 10000, np.int16)
    parts = []
    for is_on in (True, False, True):
        processor.enabled = is_on
        assert processor.extraction_enabled is is_on
        assert processor.enabled  # LiveKit hands the frames on to it
        parts.append(_run(processor, _frames(samples))[0])
    assert [int(part[-1]) for part in parts] == [5000, 10000, 5000]
    assert np.abs(np.diff(np.concatenate(parts)[300:].astype(int))).max() <= 33


def test_empty_frames_user_data_and_longer_buffers():
    processor = TargetSpeakerProcessor(voice_of_gain(1.0), model=EchoModel(gain=1.0))
    empty = processor._process(rtc.AudioFrame(b"", RATE, 1, 0, userdata={"a": 1}))
    assert empty.samples_per_channel == 0 and len(empty.data) == 0
    assert empty.userdata == {"a": 1}
    longer = rtc.AudioFrame(np.arange(1, 501, dtype=np.int16).tobytes(), RATE, 1, 310)
    assert np.asarray(processor._process(longer).data)[300:].tolist() == list(range(1, 11))


def test_the_first_turn_and_that_of_another_participant():
    model = EchoModel()
    processor = TargetSpeakerProcessor(first_turn_s=1.0, model=model)
    names = {"room_name": "call", "publication_sid": "one"}
    processor._on_stream_info_updated(participant_identity="anna", **names)
    turn = as_int16(speech("anna", 3.0))
    _run(processor, _frames(turn))
    assert processor.frames.wait_for_enrollment(20)
    processor._on_stream_info_updated(participant_identity="anna", **names)  # the track is announced again
    result = _run(processor, _frames(turn))[0]
    assert processor.frames.is_extracting
    np.testing.assert_allclose(result[1000:], late(turn, 300)[1000:] / 2, atol=1)
    processor._on_stream_info_updated(participant_identity="bert", **names)
    assert processor.frames.voice is None
    _run(processor, _frames(turn[:1600]))
    assert not processor.frames.is_extracting


def test_a_closed_processor_lets_frames_pass():
    processor = TargetSpeakerProcessor(voice_of_gain(0.5), model=EchoModel())
    _run(processor, _frames(mixture(0.1)))
    processor._close()
    processor._close()
    assert not processor.enabled
    frame = _frames(mixture(0.1))[0]
    assert processor._process(frame) is frame


def test_in_an_audio_stream_of_a_track():
    """Frames travel through LiveKit's own machinery: source, track, AudioStream with the processor."""

    async def run() -> None:
        values: list[float] = []
        processor = TargetSpeakerProcessor(voice_of_gain(0.5), model=EchoModel(), on_presence=values.append)
        source = rtc.AudioSource(RATE, 1, queue_size_ms=1000)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, noise_cancellation=processor)
        received: list[np.ndarray] = []

        async def listen() -> None:
            async for event in stream:
                received.append(np.asarray(event.frame.data).copy())
                if len(received) == 50:
                    switched_at.append(sum(map(len, received)))
                    processor.enabled = False

        switched_at: list[int] = []
        listener = asyncio.create_task(listen())
        tone = as_int16(0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE))
        for frame in _frames(tone):
            await source.capture_frame(frame)
        await source.wait_for_playout()
        await asyncio.sleep(0.2)
        await stream.aclose()
        await asyncio.wait_for(listener, 10)
        await source.aclose()
        assert not processor.enabled  # the stream has closed it
        assert len(values) >= 50
        # Half as loud, then as loud as it was, without a click. The source may begin with silence.
        heard = np.concatenate(received).astype(float)
        (at,) = switched_at
        assert np.abs(heard[at - 1600 : at]).max() == pytest.approx(8192, rel=0.05)
        assert np.abs(heard[at + 1600 : at + 3200]).max() == pytest.approx(16384, rel=0.05)
        assert np.abs(np.diff(heard[at - 1600 : at + 3200])).max() < 1.1 * 16384 * 2 * np.pi * 200 / RATE

    asyncio.run(run())


def test_agents_take_it_as_an_option_of_the_room():
    room_io = pytest.importorskip("livekit.agents").room_io
    processor = TargetSpeakerProcessor(voice_of_gain(0.5), model=EchoModel())
    options = room_io.AudioInputOptions(noise_cancellation=processor)
    assert options.noise_cancellation is processor
    assert not callable(processor)  # a callable would be asked for a processor
