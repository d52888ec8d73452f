"""Filter frames of 16-bit samples, for the adapters of all frameworks: as many samples out, `delay` later.

    frame ─┬─► delay ────────────────► mixture ──┐
           ├─► FirstTurn ─► enroll (in a thread) │ cross-fade ─► frame
           └─► Stream (constant delay) ─► voice ─┘

The mixture is delayed as much as the voice, so that both are aligned: whether extraction is switched on, switched off
or waits for the first turn, no sample is lost or repeated, and the cross-fade of 10 ms makes no click.

The stream starts with zeros. After it was switched on, its output counts from `delay` samples later on:

    input     ──────────┤ on
    stream              0 0 0 0 0 v v v v v v v v
    output    m m m m m m m m m m / / / v v v v v        m mixture, v voice, / cross-fade
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from os import PathLike, fspath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, quoted, reason
from wesep_py.integrations.first_turn import FirstTurn

log = logging.getLogger(__name__)

FADE_S = 0.01
"""Duration of the cross-fade between mixture and voice."""
MIN_FIRST_TURN_S, MAX_FIRST_TURN_S = 0.5, 30.0
"""Seconds of speech of a first turn that are allowed; 3 are usual."""
Frame = NDArray[np.int16]


class LiveStream(Protocol):
    """Define the part of a stream that a `FrameFilter` needs (`wesep_py.inference.Stream`)."""

    @property
    def delay(self) -> int:
        """Number of samples between input and output."""

    @property
    def presence(self) -> Any:
        """Probability that the voice speaks now, or `None`."""

    def process(self, samples: Any) -> NDArray[Any]:
        """Take int16 samples `[channels, samples]`, and return as many."""

    def reset(self) -> None:
        """Begin a new recording."""

    def change_voice(self, voice: Any) -> None:
        """Extract another voice from now on."""


class LiveModel(Protocol):
    """Define the part of a model that a `FrameFilter` needs (`wesep_py.inference.Extractor`)."""

    @property
    def sample_rate(self) -> int:
        """Of the model in Hz."""

    def enroll(self, source: Any) -> Any:
        """Return the voice of a path, or of a pair `(waveform, sample_rate)`."""

    def stream(
        self, voices: Any, sample_rate: int | None = None, num_channels: int = 1, constant_delay: bool = False
    ) -> Any:
        """Return a `LiveStream`."""


class FrameFilter:
    """Extraction of a voice from frames of any size, with a constant delay, which can be switched on and off.

    The model is loaded, and the voice enrolled, when the object is made; `open` then says the format. All methods may
    be called from any thread.

    Args:
        model: a name or path as for `wesep_py.inference.load`, `None` for the bundled default, or a loaded model: an
            `Extractor`, or any object with its methods `enroll` and `stream`. Several filters may share one.
        voice: a recording (a path, or a pair `(waveform, sample_rate)`), the path of a voice print (`alice.voice`), or
            what `model.enroll` returned.
        first_turn_s: instead of `voice`: enroll the first that many seconds of speech, 0.5 to 30. Until then the
            mixture passes.
        device: for `load`; not used with a loaded model.
        on_presence: called by `report_presence` with the probability that the voice speaks now.

    Raises:
        InputError: neither or both of `voice` and `first_turn_s`, a voice of another model, a model that cannot stream.
        WesepError: as `load` and `enroll`.

    >>> frames = FrameFilter("my-live-model", voice="alice.wav")                            # doctest: +SKIP
    >>> frames.open(sample_rate=16000)                                                      # doctest: +SKIP
    >>> loudspeaker.write(frames.process_bytes(microphone.read(640)))                       # doctest: +SKIP
    """

    _sample_rate: int | None
    _stream: Any
    _turn: FirstTurn | None  # until its speech is enough
    _job: Future[tuple[Any, Any]] | None  # that enrolls it: the voice, and a stream of it
    _past: Frame  # samples that the delayed mixture still has to return
    _is_running: bool  # whether the stream gets the samples
    _gain: float  # of the voice in the output; the mixture has the rest
    _num_invalid: int  # samples that the stream returns before its first
    _bytes_in: bytes  # of a sample that is not complete
    _bytes_out: bytes  # that were processed and not returned

    def __init__(
        self,
        model: str | PathLike[str] | LiveModel | None = None,
        voice: Any = None,
        first_turn_s: float | None = None,
        device: str = "auto",
        on_presence: Callable[[float], object] | None = None,
    ) -> None:
        if voice is None and first_turn_s is None:
            raise InputError("voice: is missing; give a recording, a voice print, or first_turn_s=3 to wait for speech")
        if voice is not None and first_turn_s is not None:
            raise InputError("first_turn_s: is given beside a voice; give one of the two")
        if first_turn_s is not None:
            _check_first_turn(first_turn_s)
        if on_presence is not None and not callable(on_presence):
            raise InputError(f"on_presence: is {quoted(on_presence)}; a function of a number is needed")
        self._first_turn_s = first_turn_s
        self._on_presence = on_presence
        self._enabled = True
        self._lock = threading.RLock()
        self._model = _load_model(model, device)
        self._voice = None if voice is None else self._enroll(voice)
        # A voice of noise tells the delay before the first turn. One block of silence: errors, and slow first calls of
        # a library, come now and not in the conversation.
        self._placeholder = self._noise_voice() if voice is None else self._voice
        self._model.stream(self._placeholder, constant_delay=True).process(np.zeros(self._model.sample_rate, np.int16))
        self._close()

    def open(self, sample_rate: int, num_channels: int = 1) -> None:
        """Begin a signal: the delayed signal starts with zeros.

        A voice stays enrolled; a first turn that is not complete begins anew.

        Args:
            sample_rate: in Hz.
            num_channels: interleaved in bytes.

        Raises:
            InputError: a rate or number of channels that a stream does not take. The filter is as it was before.
        """
        with self._lock:
            voice = self._placeholder if self._voice is None else self._voice
            stream = self._model.stream(voice, sample_rate, num_channels, constant_delay=True)
            self._close()
            self._sample_rate, self._num_channels = int(sample_rate), int(num_channels)
            self._delay = stream.delay
            self._past = np.zeros((num_channels, self._delay), np.int16)
            self._last_sample = bytes(2 * num_channels)
            if self._voice is not None:
                self._stream = stream
                # Both start with zeros: no cross-fade is needed.
                self._is_running, self._gain = self._enabled, float(self._enabled)
            else:
                self._begin_first_turn()

    def close(self) -> None:
        """End the signal, and forget a voice that was enrolled from a first turn."""
        with self._lock:
            self._close()
            self.forget_first_turn()

    def forget_first_turn(self) -> None:
        """Wait for the first turn of another person; with a voice that was given, do nothing."""
        with self._lock:
            if self._first_turn_s is None:
                return
            self._voice, self._stream = None, None
            self._is_running, self._gain, self._job = False, 0.0, None
            if self.is_open:
                self._begin_first_turn()

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._sample_rate is not None

    @property
    def format(self) -> tuple[int, int] | None:
        """Sample rate in Hz and number of channels; `None` if the filter is not open."""
        return None if self._sample_rate is None else (self._sample_rate, self._num_channels)

    @property
    def delay(self) -> int:
        """Number of samples between input and output, whether the voice is extracted or not; 0 before `open`."""
        return self._delay

    @property
    def voice(self) -> Any:
        """The voice that is extracted; `None` until the first turn is enrolled."""
        return self._voice

    @property
    def presence(self) -> float | None:
        """Probability that the voice speaks now; `None` while it is not extracted, or without a presence head."""
        with self._lock:
            return self._stream.presence if self._stream is not None and self._is_running else None

    @property
    def is_extracting(self) -> bool:
        """True if what is returned now is the voice alone."""
        return self._is_running and self._gain == 1.0

    @property
    def enabled(self) -> bool:
        """True if extraction is switched on; set it to switch. While it is off, nothing is computed or collected."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        with self._lock:
            self._enabled, self._has_failed = bool(value), False

    def change_voice(self, source: Any) -> None:
        """Extract another voice from now on.

        Args:
            source: as `voice`.

        Raises:
            WesepError: as `enroll`; the voice is the one before.
        """
        voice = self._enroll(source)
        with self._lock:
            if self._stream is not None:
                self._stream.change_voice(voice)
            else:  # refuses what is no voice of the model, also before `open`
                stream = self._model.stream(voice, self._sample_rate, self._num_channels, constant_delay=True)
                self._stream = stream if self.is_open else None
            self._voice, self._job, self._turn, self._first_turn_s = voice, None, None, None

    def report_presence(self) -> None:
        """Call `on_presence`, if the presence is known."""
        presence = self.presence if self._on_presence is not None else None
        if self._on_presence is not None and presence is not None:
            self._on_presence(presence)

    def process(self, samples: Frame) -> Frame:
        """Take the next samples, and return as many, `delay` later.

        An error of the model is logged, and from then on the mixture passes, until extraction is switched on again.

        Args:
            samples: int16 `[channels, samples]`, any number of samples.

        Raises:
            InputError: the filter is not open, or another type or number of channels.
        """
        with self._lock:
            if not self.is_open:
                raise InputError("the filter is not open; call open(sample_rate) first")
            block = np.asarray(samples)
            if block.dtype != np.int16 or block.ndim != 2 or len(block) != self._num_channels:
                raise InputError(
                    f"samples: are {block.dtype} of shape {list(block.shape)}; int16 [{self._num_channels}, samples] "
                    "is needed"
                )
            mixture = self._delayed(block)
            if block.shape[1] == 0:
                return mixture
            self._follow_first_turn(block)
            return self._mixed(mixture, block)

    def process_bytes(self, audio: bytes) -> bytes:
        """Take the bytes of interleaved 16-bit samples, and return as many.

        A frame may end within a sample: the other bytes are then the first of the next frame. From the first such frame
        on, the output is one sample later.
        """
        with self._lock:
            if not self.is_open:
                raise InputError("the filter is not open; call open(sample_rate) first")
            width = 2 * self._num_channels
            data = self._bytes_in + bytes(audio)
            whole = len(data) // width * width
            self._bytes_in = data[whole:]
            samples = np.frombuffer(data[:whole], np.int16).reshape(-1, self._num_channels).T
            processed = np.ascontiguousarray(self.process(samples).T).tobytes()
            queue = self._bytes_out + processed
            if len(queue) < len(audio):
                # Once: the sample that is not complete yet takes the place of the last one before it.
                queue = self._bytes_out + self._last_sample + processed
            self._last_sample = (self._last_sample + processed)[-width:]
            self._bytes_out = queue[len(audio) :]
            return queue[: len(audio)]

    def wait_for_enrollment(self, timeout_s: float | None = None) -> bool:
        """Wait until an enrollment that is computed now is done; return whether there is a voice.

        Extraction starts with the next frame. For tests, and for recordings that are fed faster than they last.
        """
        job = self._job
        if job is not None:
            wait([job], timeout_s)
            with self._lock:
                self._take_enrollment()
        return self._voice is not None

    def _close(self) -> None:
        self._sample_rate = None
        self._num_channels, self._delay = 1, 0
        self._stream = self._turn = self._job = None
        self._is_running, self._gain, self._num_invalid = False, 0.0, 0
        self._has_failed = False
        self._past = np.zeros((1, 0), np.int16)
        self._bytes_in = self._bytes_out = self._last_sample = b""

    # The voice.

    def _enroll(self, source: Any) -> Any:
        if isinstance(source, (str, PathLike)):
            if fspath(source).endswith(".voice"):
                from wesep_py.inference.enrolling.voice_print import Voice

                return Voice.load(source)
            return self._model.enroll(source)
        return self._model.enroll(source) if isinstance(source, tuple) else source

    def _noise_voice(self) -> Any:
        noise = np.random.default_rng(0).standard_normal(2 * self._model.sample_rate)
        return self._model.enroll(((0.1 * noise).astype(np.float32), self._model.sample_rate))

    def _begin_first_turn(self) -> None:
        assert self._sample_rate is not None and self._first_turn_s is not None
        self._turn = FirstTurn(self._sample_rate, self._first_turn_s)

    def _follow_first_turn(self, block: Frame) -> None:
        """Collect speech; if there is enough, enroll it in a thread, since that may take longer than a frame."""
        if self._turn is not None and self._enabled:
            self._turn.push(block.astype(np.float32) / 32768)
            if self._turn.is_complete:
                recording, rate, channels = self._turn.recording(), self._sample_rate, self._num_channels
                self._turn = None

                def enroll() -> tuple[Any, Any]:
                    voice = self._model.enroll((recording, rate))
                    return voice, self._model.stream(voice, rate, channels, constant_delay=True)

                executor = ThreadPoolExecutor(1, thread_name_prefix="enroll")
                self._job = executor.submit(enroll)
                executor.shutdown(wait=False)
        self._take_enrollment()

    def _take_enrollment(self) -> None:
        """If the first turn is enrolled, use the voice; if that failed, wait for more speech."""
        if self._job is None or not self._job.done():
            return
        job, self._job = self._job, None
        if error := job.exception():
            log.warning("the first turn cannot be enrolled, waiting for another: %s", reason(error))
            self._begin_first_turn()
            return
        self._voice, self._stream = job.result()
        log.info("the first turn is enrolled: %g s of speech", self._first_turn_s)

    # The audio.

    def _delayed(self, block: Frame) -> Frame:
        queue = np.concatenate([self._past, block], axis=1)
        self._past = queue[:, block.shape[1] :]
        return queue[:, : block.shape[1]]

    def _mixed(self, mixture: Frame, block: Frame) -> Frame:
        """Return the delayed mixture, the voice, or the cross-fade between them."""
        is_wanted = self._enabled and self._stream is not None and not self._has_failed
        if is_wanted and not self._is_running:
            self._stream.reset()
            self._is_running, self._num_invalid = True, self._delay
        if not self._is_running:
            return mixture
        try:
            voice = self._stream.process(block)
        except Exception as error:  # a conversation must go on, whatever a model or a driver raises
            log.error("extraction failed, the mixture passes: %s", reason(error))
            self._is_running, self._gain, self._has_failed = False, 0.0, True
            return mixture
        count = mixture.shape[1]
        num_invalid = min(self._num_invalid, count)
        self._num_invalid -= num_invalid
        if self._gain == float(is_wanted) and not num_invalid:
            gains = np.full(count, self._gain)
        else:
            step = (1 if is_wanted else -1) / max(1, round(FADE_S * (self._sample_rate or 0)))
            ramp = np.clip(self._gain + step * np.arange(1, count - num_invalid + 1), 0.0, 1.0)
            gains = np.concatenate([np.zeros(num_invalid), ramp])
        self._gain = float(gains[-1])
        self._is_running = is_wanted or self._gain > 0
        if (gains == 1.0).all():
            return voice
        return np.rint(mixture * (1 - gains) + voice * gains).astype(np.int16)


def _check_first_turn(first_turn_s: Any) -> None:
    if (
        isinstance(first_turn_s, bool)
        or not isinstance(first_turn_s, (int, float))
        or not MIN_FIRST_TURN_S <= first_turn_s <= MAX_FIRST_TURN_S
    ):
        raise InputError(
            f"first_turn_s: is {quoted(first_turn_s)}; {MIN_FIRST_TURN_S:g} to {MAX_FIRST_TURN_S:g} s of speech is "
            "allowed, 3 is usual"
        )


def _load_model(model: Any, device: str) -> Any:
    """Return a model that streams: load it by its name, and use the live mode of one that has two."""
    if model is None or isinstance(model, (str, PathLike)):
        from wesep_py.inference import load

        return load(model, device=device, live=True)
    if not callable(getattr(model, "enroll", None)) or not callable(getattr(model, "stream", None)):
        raise InputError(
            f"model: is {quoted(model)}; a name, a path, or an object with the methods enroll and stream is needed"
        )
    return model.live() if callable(getattr(model, "live", None)) else model
