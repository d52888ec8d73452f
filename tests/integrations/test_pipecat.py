"""The filter in Pipecat: its frames, its input transport, a pipeline that runs."""

from __future__ import annotations

import asyncio
import time

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

pytest.importorskip("pipecat")

from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import (
    EndFrame,
    FilterEnableFrame,
    FilterUpdateSettingsFrame,
    Frame,
    InputAudioRawFrame,
    StartFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from wesep_py.integrations.pipecat import TargetSpeakerFilter


async def _filter_all(speaker: TargetSpeakerFilter, samples: np.ndarray, size: int = 320) -> np.ndarray:
    """Return what a filter makes of the audio of frames of `size` samples."""
    parts = []
    for at in range(0, len(samples), size):
        frame = InputAudioRawFrame(samples[at : at + size].tobytes(), RATE, 1)
        filtered = await speaker.filter(frame.audio)
        assert len(filtered) == len(frame.audio)
        parts.append(filtered)
    return np.frombuffer(b"".join(parts), np.int16)


def test_it_is_a_filter_and_returns_what_the_stream_does():
    async def run() -> None:
        extractor = live_extractor()
        speaker = TargetSpeakerFilter((speech(), RATE), model=extractor)
        assert isinstance(speaker, BaseAudioFilter)
        await speaker.start(RATE)
        samples = mixture(1.0)
        result = await _filter_all(speaker, samples)
        stream = extractor.stream(speaker.frames.voice, RATE, constant_delay=True)
        np.testing.assert_allclose(result, stream.process(samples), atol=1)
        assert speaker.delay == stream.delay
        assert speaker.presence is not None
        await speaker.stop()

    asyncio.run(run())


def test_control_frames_switch_and_change_the_voice(caplog: pytest.LogCaptureFixture):
    async def run() -> None:
        speaker = TargetSpeakerFilter(voice_of_gain(0.5), model=EchoModel())
        await speaker.start(RATE)
        samples = np.full(RATE, 10000, np.int16)
        assert (await _filter_all(speaker, samples))[-1] == 5000
        await speaker.process_frame(FilterEnableFrame(enable=False))
        assert not speaker.enabled
        switched = await _filter_all(speaker, samples)
        assert switched[0] < 5100 and switched[-1] == 10000
        await speaker.process_frame(FilterEnableFrame(enable=True))
        assert (await _filter_all(speaker, samples))[-1] == 5000
        await speaker.process_frame(FilterUpdateSettingsFrame(settings={"voice": voice_of_gain(0.25)}))
        assert (await _filter_all(speaker, samples))[-1] == 2500
        await speaker.process_frame(FilterUpdateSettingsFrame(settings={"loudness": 3}))
        await speaker.stop()

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "the settings of the filter stay as they are: setting 'loudness': is unknown; the setting there is: voice"
    ]


def test_the_event_loop_is_free_and_frames_keep_their_order():
    class SlowModel(EchoModel):
        def stream(self, *arguments: object, **options: object) -> object:
            stream = super().stream(*arguments, **options)
            process = stream.process

            def slow(samples: np.ndarray) -> np.ndarray:
                time.sleep(0.02)
                return process(samples)

            stream.process = slow
            return stream

    async def run() -> None:
        speaker = TargetSpeakerFilter(voice_of_gain(1.0), model=SlowModel(gain=1.0))
        await speaker.start(RATE)
        samples = mixture(1.0)[: 20 * 320]
        num_turns = 0

        async def other_work() -> None:
            nonlocal num_turns
            while True:
                await asyncio.sleep(0.001)
                num_turns += 1

        work = asyncio.create_task(other_work())
        pieces = [samples[at : at + 320].tobytes() for at in range(0, len(samples), 320)]
        results = await asyncio.gather(*(speaker.filter(piece) for piece in pieces))
        work.cancel()
        np.testing.assert_array_equal(np.frombuffer(b"".join(results), np.int16), late(samples, speaker.delay))
        assert num_turns > 40

    asyncio.run(run())


def test_odd_and_empty_frames_and_frames_outside_a_session():
    async def run() -> None:
        speaker = TargetSpeakerFilter(voice_of_gain(1.0), model=EchoModel(gain=1.0))
        assert await speaker.filter(b"abc") == b"abc"
        await speaker.start(RATE)
        for size in (0, 1, 2, 639, 641, 7, 7):
            assert len(await speaker.filter(bytes(size))) == size
        await speaker.stop()
        assert await speaker.filter(b"abc") == b"abc"
        await speaker.start(48000)  # another session, another rate
        assert len(await speaker.filter(bytes(1920))) == 1920
        with pytest.raises(InputError, match="first_turn_s"):
            TargetSpeakerFilter(model=EchoModel())

    asyncio.run(run())


class Microphone(BaseInputTransport):
    """An input transport that plays samples, with control frames before some of them."""

    def __init__(self, samples: np.ndarray, params: TransportParams, controls: dict[int, Frame]) -> None:
        super().__init__(params)
        self.samples, self.controls = samples, controls

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)


class Listener(FrameProcessor):
    """The processor after the transport."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[InputAudioRawFrame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.frames.append(frame)
        await self.push_frame(frame, direction)


async def _converse(
    speaker: TargetSpeakerFilter, samples: np.ndarray, controls: dict[int, Frame] | None = None, size: int = 320
) -> np.ndarray:
    """Return the audio that a pipeline gets behind its input transport."""
    params = TransportParams(audio_in_enabled=True, audio_in_filter=speaker)
    microphone, listener = Microphone(samples, params, controls or {}), Listener()
    pipeline = Pipeline([microphone, listener])
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=RATE), enable_rtvi=False)

    async def play() -> None:
        while microphone._audio_task is None:
            await asyncio.sleep(0.01)
        for number, at in enumerate(range(0, len(samples), size)):
            if number in microphone.controls:
                await worker.queue_frame(microphone.controls[number])
                while speaker.enabled != microphone.controls[number].enable:
                    await asyncio.sleep(0.001)
            piece = samples[at : at + size]
            await microphone.push_audio_frame(InputAudioRawFrame(piece.tobytes(), RATE, 1))
            while len(listener.frames) <= number:
                await asyncio.sleep(0.001)
            job = speaker.frames._job
            if job is not None:
                await asyncio.to_thread(speaker.frames.wait_for_enrollment, 60)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    player = asyncio.create_task(play())
    await asyncio.wait_for(runner.run(), 120)
    await player
    assert [len(frame.audio) for frame in listener.frames] == [
        2 * len(samples[at : at + size]) for at in range(0, len(samples), size)
    ]
    return np.frombuffer(b"".join(frame.audio for frame in listener.frames), np.int16)


def test_in_a_pipeline_the_voice_comes_out_of_the_transport():
    extractor = live_extractor()
    voice = extractor.enroll((speech(), RATE))
    values: list[float] = []
    speaker = TargetSpeakerFilter(voice, model=extractor, on_presence=values.append)
    samples = mixture(1.0)
    result = asyncio.run(_converse(speaker, samples))
    np.testing.assert_allclose(result, extractor.stream(voice, RATE, constant_delay=True).process(samples), atol=1)
    assert len(values) > 40 and all(0 <= value <= 1 for value in values)
    assert not speaker.frames.is_open  # the transport has stopped it


def test_in_a_pipeline_a_control_frame_switches():
    speaker = TargetSpeakerFilter(voice_of_gain(0.5), model=EchoModel())
    samples = np.full(RATE, 10000, np.int16)
    controls = {20: FilterEnableFrame(enable=False), 35: FilterEnableFrame(enable=True)}
    result = asyncio.run(_converse(speaker, samples, controls))
    assert (result[300 : 20 * 320] == 5000).all()
    assert (result[20 * 320 + 160 : 35 * 320 + 300] == 10000).all()
    assert (result[35 * 320 + 460 :] == 5000).all()
    assert np.abs(np.diff(result[300:].astype(int))).max() <= 33


def test_in_a_pipeline_the_first_turn_is_enrolled():
    extractor = live_extractor()
    values: list[float] = []
    speaker = TargetSpeakerFilter(first_turn_s=1.0, model=extractor, on_presence=values.append)
    samples = as_int16(np.concatenate([speech("anna", 2.5), speech("bert", 1.5)]))
    result = asyncio.run(_converse(speaker, samples))
    delay = extractor.stream(extractor.enroll((speech(), RATE)), RATE, constant_delay=True).delay
    passed = late(samples, delay)
    np.testing.assert_array_equal(result[:RATE], passed[:RATE])
    assert values  # extraction has begun
    assert not np.array_equal(result[-RATE:], passed[-RATE:])
