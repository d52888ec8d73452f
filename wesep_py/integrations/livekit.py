"""A frame processor for LiveKit: an `AudioStream` returns the enrolled voice instead of what the microphone hears.

    stream = rtc.AudioStream(track, noise_cancellation=TargetSpeakerProcessor(voice="alice.wav"))

`pip install 'wesep-py[livekit]'`; see `docs/integrations.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np

from wesep_py.integrations.frame_filter import FrameFilter, LiveModel, log

try:
    from livekit.rtc import AudioFrame, FrameProcessor
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the module {error.name} is missing; wesep_py.integrations.livekit needs pip install 'wesep-py[livekit]'",
        name=error.name,
    ) from error


class TargetSpeakerProcessor(FrameProcessor[AudioFrame]):
    """Keep one person's voice, and remove everybody else's.

    Frames keep their rate, channels and length, and come out `delay` samples later. If the rate or the number of
    channels changes, extraction starts anew with the same voice. LiveKit calls the processor in the event loop, for
    each frame: use a model that is faster than real time by a wide margin. A first turn is enrolled in a thread.

    `processor.enabled = False` switches extraction off, without a click or a shift: the mixture passes, as late as the
    voice. LiveKit reads `enabled` before each frame, and a processor that says False gets no more frames, which would
    jump ahead by the delay. So it reads True until the processor is closed; what was set is `extraction_enabled`.

    Args:
        voice: a recording (a path, or a pair `(waveform, sample_rate)`), the path of a voice print (`alice.voice`), or
            what `model.enroll` returned.
        first_turn_s: instead of `voice`: enroll the first that many seconds of speech; until then the mixture passes.
            The first turn of another participant is waited for if the processor is moved to that one's track.
        model: a name or path as for `wesep_py.load`, or a loaded model; several processors may share one.
        device: for a name or path: `"auto"`, `"cpu"`, `"cuda"`, … .
        on_presence: called after each frame with the probability that the voice speaks now.

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
    ) -> None:
        self.frames = FrameFilter(model, voice, first_turn_s, device, on_presence)
        self._is_closed = False
        self._participant: str | None = None

    @property
    def enabled(self) -> bool:
        """True until the processor is closed; set it to switch extraction on and off."""
        return not self._is_closed

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.frames.enabled = value

    @property
    def extraction_enabled(self) -> bool:
        """True if extraction is switched on."""
        return self.frames.enabled

    @property
    def presence(self) -> float | None:
        """Probability that the voice speaks now; `None` while it is not extracted, or without a presence head."""
        return self.frames.presence

    @property
    def delay(self) -> int:
        """Number of samples between input and output; 0 before the first frame."""
        return self.frames.delay

    def change_voice(self, voice: Any) -> None:
        """Extract another voice from now on.

        Args:
            voice: as in the constructor.

        Raises:
            WesepError: it cannot be enrolled; the voice is the one before.
        """
        self.frames.change_voice(voice)

    def _on_stream_info_updated(self, *, room_name: str, participant_identity: str, publication_sid: str) -> None:
        """Learn whose track it is: another participant has another first turn."""
        if participant_identity and self._participant not in (None, participant_identity):
            self.frames.forget_first_turn()
        self._participant = participant_identity or self._participant

    def _process(self, frame: AudioFrame) -> AudioFrame:
        """Return a frame of the same format and length."""
        if self._is_closed:
            return frame
        rate, num_channels, length = frame.sample_rate, frame.num_channels, frame.samples_per_channel
        if self.frames.format != (rate, num_channels):
            if self.frames.is_open:
                log.warning("frames are now of %d Hz, %d channel(s): extraction starts anew", rate, num_channels)
            self.frames.open(rate, num_channels)
        samples = np.frombuffer(frame.data, np.int16)[: length * num_channels].reshape(length, num_channels)
        filtered = np.ascontiguousarray(self.frames.process(samples.T).T)
        self.frames.report_presence()
        return AudioFrame(filtered.tobytes(), rate, num_channels, length, userdata=frame.userdata)

    def _close(self) -> None:
        """Release the stream; frames pass from now on."""
        self._is_closed = True
        self.frames.close()
