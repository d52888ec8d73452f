"""An audio filter for Pipecat: the input transport hands on the enrolled voice instead of what the microphone hears.

    transport = SmallWebRTCTransport(connection, TransportParams(
        audio_in_enabled=True,
        audio_in_filter=TargetSpeakerFilter(voice="alice.wav"),
    ))

`pip install 'wesep-py[pipecat]'`; see `docs/integrations.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from os import PathLike
from typing import Any

from wesep_py.common.errors import InputError, WesepError, quoted, reason
from wesep_py.integrations.frame_filter import FrameFilter, LiveModel, log

try:
    from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
    from pipecat.frames.frames import FilterControlFrame, FilterEnableFrame, FilterUpdateSettingsFrame
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the module {error.name} is missing; wesep_py.integrations.pipecat needs pip install 'wesep-py[pipecat]'",
        name=error.name,
    ) from error


class TargetSpeakerFilter(BaseAudioFilter):
    """Keep one person's voice, and remove everybody else's, before turn detection and recognition.

    The network runs in a worker thread, so the event loop is free; frames keep their order and length, and come out
    `delay` samples later. Frames may have any size, also an odd number of bytes.

    While it runs, `FilterEnableFrame` switches extraction off and on, without a click or a shift, and
    `FilterUpdateSettingsFrame(settings={"voice": "bob.wav"})` changes the voice.

    Args:
        voice: a recording (a path, or a pair `(waveform, sample_rate)`), the path of a voice print (`alice.voice`), or
            what `model.enroll` returned.
        first_turn_s: instead of `voice`: enroll the first that many seconds of speech; until then the mixture passes.
        model: a name or path as for `wesep_py.load`, or a loaded model; several filters may share one.
        device: for a name or path: `"auto"`, `"cpu"`, `"cuda"`, … .
        on_presence: called in the event loop after each frame with the probability that the voice speaks now.
        num_channels: as `audio_in_channels` of the transport.

    Raises:
        InputError: neither or both of `voice` and `first_turn_s`, a voice of another model, a model that cannot stream.
        WesepError: a model or a recording that cannot be read.
    """

    def __init__(
        self,
        voice: Any = None,
        *,
        first_turn_s: float | None = None,
        model: str | PathLike[str] | LiveModel | None = None,
        device: str = "auto",
        on_presence: Callable[[float], object] | None = None,
        num_channels: int = 1,
    ) -> None:
        self.frames = FrameFilter(model, voice, first_turn_s, device, on_presence)
        self._num_channels = num_channels
        self._order = asyncio.Lock()

    @property
    def presence(self) -> float | None:
        """Probability that the voice speaks now; `None` while it is not extracted, or without a presence head."""
        return self.frames.presence

    @property
    def enabled(self) -> bool:
        """True if extraction is switched on."""
        return self.frames.enabled

    @property
    def delay(self) -> int:
        """Number of samples between input and output; 0 before `start`."""
        return self.frames.delay

    async def start(self, sample_rate: int) -> None:
        """Begin a session; the transport calls it.

        Raises:
            InputError: a sample rate that a stream does not take.
        """
        await asyncio.to_thread(self.frames.open, sample_rate, self._num_channels)

    async def stop(self) -> None:
        """End the session; a voice that was enrolled from a first turn is forgotten."""
        await asyncio.to_thread(self.frames.close)

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Switch extraction on or off, or change the voice. A setting that cannot be used is logged."""
        if isinstance(frame, FilterEnableFrame):
            self.frames.enabled = frame.enable
        elif isinstance(frame, FilterUpdateSettingsFrame):
            for name, value in frame.settings.items():
                try:
                    if name != "voice":
                        raise InputError(f"setting {quoted(name)}: is unknown; the setting there is: voice")
                    await asyncio.to_thread(self.frames.change_voice, value)
                except WesepError as error:
                    log.error("the settings of the filter stay as they are: %s", reason(error))

    async def filter(self, audio: bytes) -> bytes:
        """Return as many bytes as came in; outside of a session, those that came in."""
        async with self._order:
            if not self.frames.is_open:
                return audio
            filtered = await asyncio.to_thread(self._process, audio)
        self.frames.report_presence()
        return filtered

    def _process(self, audio: bytes) -> bytes:
        try:
            return self.frames.process_bytes(audio)
        except InputError:
            if self.frames.is_open:
                raise
            return audio  # the session ended in the meantime
