"""Write recordings atomically, whole (`write`) or block by block (`AudioWriter`).

Integer and lossy formats hold values from -1 to 1. Louder samples are never clipped silently: they are an error, or the
whole waveform is scaled. Integer samples are rounded to the nearest step (libsndfile's own conversion truncates, and
scales by 2^(n-1) - 1), so that samples read from an integer file are written back exactly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.audio.media import import_av
from wesep_py.audio.media_writing import MEDIA_KINDS, MediaEncoder, check_media_format
from wesep_py.common.errors import AudioError, WesepError, nearest
from wesep_py.common.files import atomic_path

if TYPE_CHECKING:
    import soundfile

# Suffix → libsndfile's container, and its default subtype.
_FORMATS = {
    ".wav": ("WAV", "FLOAT"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".w64": ("W64", "FLOAT"),
    ".rf64": ("RF64", "FLOAT"),
}
_RATES = {
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
_INTEGER_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_UNLIMITED = {"FLOAT", "DOUBLE"}
_LARGEST_WAV_BYTES = 2**32 - 4096
_MOST_FLAC_SAMPLES = 2**36 - 1
# Maximum number of channels of a codec, and highest sample rate in Hz of a container.
_MOST_CHANNELS = {"FLAC": 8, "OPUS": 255, "VORBIS": 255, "MPEG_LAYER_III": 2}
_HIGHEST_RATES = {"FLAC": 655350}


class AudioWriter:
    """Writer of a file, block by block; the file appears as a whole when the `with` block succeeds.

    If the block fails or is interrupted, no file appears, and an existing file stays.

    Args:
        path: the file; its suffix gives the format: `.wav`, `.w64`, `.rf64`, `.flac`, `.ogg`, `.opus`, `.mp3`; with
            PyAV also `.m4a`, `.mp4`, `.mov`, `.mkv`, `.webm` (`media_writing`).
        sample_rate: in Hz.
        num_channels: at least 1.
        subtype: libsndfile's name of the sample format; `None` is `FLOAT` in wav, w64 and rf64, `PCM_24` in flac, and
            the codec's one format in ogg (Vorbis), opus and mp3.
        overwrite: replace an existing file.
        expected_samples: number of samples of each channel, if it is known. A wav that cannot hold them (4 GiB) is
            written as RF64, which is a wav with sizes of 64 bits.
        pictures_of: recording whose pictures and subtitles a video file gets; other formats ignore it.

    Raises:
        AudioError: a suffix, subtype, rate or channel count that cannot be written; in `write`, a block of the wrong
            shape, samples that are not finite, or samples beyond -1 to 1 in a format that would clip them. If the
            format cannot hold the expected samples, the error is raised before anything is written.
        OutputExistsError, InputError: as `files.check_writable`.
        WesepError: the disk is full.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "long.wav"
    >>> with AudioWriter(path, sample_rate=16000, num_channels=1) as writer:
    ...     for _ in range(3):
    ...         writer.write(np.zeros((1, 16000), np.float32))
    >>> writer.num_samples
    48000
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        num_channels: int = 1,
        subtype: str | None = None,
        overwrite: bool = False,
        expected_samples: int | None = None,
        pictures_of: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self.pictures_of = None if pictures_of is None else Path(pictures_of)
        self._kind = None
        if self.path.suffix.lower() in MEDIA_KINDS:
            self._kind = check_media_format(self.path, sample_rate, num_channels, self.pictures_of)
            self.format, self.subtype = self._kind.container.upper(), self._kind.codec.upper()
        else:
            self.format, self.subtype = _resolve_format(self.path, sample_rate, num_channels, subtype, expected_samples)
        self.overwrite = overwrite
        self.num_samples = 0
        self._file: soundfile.SoundFile | MediaEncoder | None = None
        self._context: AbstractContextManager[soundfile.SoundFile | MediaEncoder] | None = None

    def __enter__(self) -> AudioWriter:
        self._context = self._open()
        self._file = self._context.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._context is not None
        self._file = None
        self._context.__exit__(kind, error, traceback)

    @contextmanager
    def _open(self) -> Iterator[soundfile.SoundFile | MediaEncoder]:
        """Yield the encoder of a temporary file, which is renamed when the block succeeds."""
        # `atomic_path` turns an OSError of the block into a message for the user.
        with atomic_path(self.path, self.overwrite) as temporary, temporary.open("wb+", buffering=0) as binary:
            self._sink = _Sink(binary)
            with self._failures("cannot be written as", AudioError):
                file = self._encoder()
            try:
                yield file
            except BaseException:
                if isinstance(file, MediaEncoder):  # completing it would copy all pictures
                    file.discard()
                else:
                    with self._failures("could not be completed as", WesepError):
                        file.close()
                raise
            with self._failures("could not be completed as", WesepError):
                file.close()
            if self.num_samples == 0:
                raise AudioError(f"{self.path}: no samples were given to write")

    def _encoder(self) -> soundfile.SoundFile | MediaEncoder:
        """Return the encoder, which writes to the sink."""
        if self._kind is not None:
            return MediaEncoder(self._sink, self._kind, self.sample_rate, self.num_channels, self.pictures_of)
        import soundfile

        return soundfile.SoundFile(
            self._sink, "w", self.sample_rate, self.num_channels, self.subtype, format=self.format
        )

    @contextmanager
    def _failures(self, what: str, kind: type[WesepError]) -> Iterator[None]:
        """Raise the system's error if there was one (a full disk), else the encoder's as `kind`."""
        import soundfile

        # An AssertionError of soundfile means that not every sample was written.
        errors: tuple[type[Exception], ...] = (soundfile.LibsndfileError, AssertionError)
        if self._kind is not None:
            errors = (import_av().error.FFmpegError, ValueError)
        try:
            yield
        except errors as error:
            if self._sink.error is None:
                problem = getattr(error, "error_string", None) or getattr(error, "strerror", None)
                reason = str(problem or "samples were left out").strip().rstrip(".")
                form = f"{self.format} {self.subtype}, {self.num_channels} channels at {self.sample_rate} Hz"
                raise kind(f"{self.path}: {what} {form} ({reason})") from error
        if self._sink.error is not None:
            raise self._sink.error

    def write(self, waveform: ArrayLike) -> None:
        """Append a block `[channels, samples]`, or `[samples]` of one channel.

        Raises:
            AudioError: see the class.
            WesepError: the disk is full.
        """
        if self._file is None:
            raise ValueError("AudioWriter is written to inside its `with` block only")
        samples = _to_samples(waveform, self.path)
        if samples.shape[1] != self.num_channels:
            raise AudioError(f"{self.path}: a block of {samples.shape[1]} channels; the file has {self.num_channels}")
        if self.subtype not in _UNLIMITED and samples.size and (peak := float(np.abs(samples).max())) > 1.0:
            raise AudioError(
                f"{self.path}: a peak of {peak:.3g} would be clipped by {self.subtype}, which holds -1 to 1; "
                "scale the waveform, or write wav with subtype FLOAT"
            )
        self._append(_quantise(samples, self.subtype))
        self.num_samples += len(samples)

    def _append(self, samples: NDArray[np.generic]) -> None:
        """Write checked samples, unless the file would exceed the limit of its container."""
        assert self._file is not None
        size = (self.num_samples + len(samples)) * self.num_channels * _width(self.subtype)
        if self.format == "WAV" and size > _LARGEST_WAV_BYTES:
            raise AudioError(f"{self.path}: a wav file holds at most 4 GiB; write .rf64, .w64 or .flac, or in parts")
        with self._failures("could not be continued as", WesepError):
            self._file.write(samples)


def write(
    path: str | os.PathLike[str],
    waveform: ArrayLike,
    sample_rate: int,
    subtype: str | None = None,
    overwrite: bool = False,
    clip: Literal["raise", "scale"] = "raise",
    pictures_of: str | os.PathLike[str] | None = None,
) -> None:
    """Write a waveform to a file, atomically.

    Args:
        path: the file; its suffix gives the format, as in `AudioWriter`.
        waveform: `[channels, samples]` or `[samples]`.
        sample_rate: in Hz.
        subtype: as in `AudioWriter`; by default `FLOAT` in wav.
        overwrite: replace an existing file.
        clip: treatment of a waveform that exceeds -1 to 1 in a format that would clip it: `"raise"` an error, or
            `"scale"` all channels by one gain, to a peak of 1.
        pictures_of: as in `AudioWriter`.

    Raises:
        AudioError, OutputExistsError, InputError, WesepError: as `AudioWriter`.

    >>> import tempfile, pathlib
    >>> write(pathlib.Path(tempfile.mkdtemp()) / "tone.flac", np.full(16000, 0.5, np.float32), 16000)
    """
    path = Path(path)
    samples = _to_samples(waveform, path)
    if clip not in ("raise", "scale"):
        raise AudioError(f"clip: {nearest(str(clip), ('raise', 'scale'))}")
    with AudioWriter(path, sample_rate, samples.shape[1], subtype, overwrite, len(samples), pictures_of) as writer:
        if clip == "scale" and writer.subtype not in _UNLIMITED and samples.size:
            samples = samples / max(1.0, float(np.abs(samples).max()))
        writer.write(samples.T)


def can_write(path: str | os.PathLike[str], subtype: str) -> bool:
    """Return whether a sample format can be written to a file with the suffix of `path`.

    >>> can_write("a.flac", "PCM_16"), can_write("a.flac", "FLOAT"), can_write("a.m4a", "FLOAT")
    (True, False, False)
    """
    import soundfile

    suffix = Path(path).suffix.lower()
    return suffix in _FORMATS and bool(soundfile.check_format(_FORMATS[suffix][0], subtype))


class _Sink:
    """Binary file for libsndfile that keeps the system's error of a failed write in `error`.

    libsndfile reports a failed write for some formats only: a FLAC or Ogg file cut by a full disk seems complete to it.
    """

    def __init__(self, binary: BinaryIO) -> None:
        self._binary = binary
        self.error: OSError | None = None
        self.seek, self.tell, self.readinto = binary.seek, binary.tell, binary.readinto  # type: ignore[attr-defined]

    def write(self, data: bytes) -> int:
        """Write all bytes, or as many as possible before an error, and return their number."""
        remaining = memoryview(data)
        try:
            while remaining:
                remaining = remaining[self._binary.write(remaining) :]
        except OSError as error:
            self.error = self.error or error
        return len(data) - len(remaining)


def _width(subtype: str) -> int:
    """Return the number of bytes of a sample."""
    return {"DOUBLE": 8, "ULAW": 1, "ALAW": 1}.get(subtype, _INTEGER_BITS.get(subtype, 32) // 8)


def _resolve_format(
    path: Path, sample_rate: int, num_channels: int, subtype: str | None, expected_samples: int | None
) -> tuple[str, str]:
    """Return container and sample format, checked for rate, channels and samples."""
    import soundfile

    suffix = path.suffix.lower()
    if not suffix:
        raise AudioError(f"{path}: has no suffix; name one of {', '.join(sorted(_FORMATS))}")
    if suffix not in _FORMATS:
        raise AudioError(f"{path}: {suffix} is not a format to write; {nearest(suffix, (*_FORMATS, *MEDIA_KINDS))}")
    container, default = _FORMATS[suffix]
    chosen = (subtype or default).upper()
    if not soundfile.check_format(container, chosen):
        allowed = sorted(soundfile.available_subtypes(container))
        raise AudioError(f"{path}: {container} has no subtype {chosen}; {nearest(chosen, allowed)}")
    rates = _RATES.get(chosen)
    if sample_rate < 1 or (rates is not None and sample_rate not in rates):
        listing = f"{chosen} allows {', '.join(map(str, rates))} Hz" if rates else "it has to be positive"
        raise AudioError(f"{path}: a sample rate of {sample_rate} Hz; {listing}; resample, or write .wav or .flac")
    if num_channels < 1:
        raise AudioError(f"{path}: {num_channels} channels; at least 1 is needed")
    form = f"{container} {chosen}, {num_channels} channels at {sample_rate} Hz"
    codec = chosen if container in ("OGG", "MP3") else container
    if num_channels > (most := _MOST_CHANNELS.get(codec, num_channels)):
        raise AudioError(f"{path}: cannot be written as {form} (at most {most} channels are allowed); write .wav")
    if sample_rate > (highest := _HIGHEST_RATES.get(container, sample_rate)):
        raise AudioError(f"{path}: cannot be written as {form} (at most {highest} Hz is allowed); write .wav")
    if container == "FLAC" and (expected_samples or 0) > _MOST_FLAC_SAMPLES:
        raise AudioError(f"{path}: {expected_samples} samples; a flac file holds {_MOST_FLAC_SAMPLES}; write .w64")
    if container == "WAV" and (expected_samples or 0) * num_channels * _width(chosen) > _LARGEST_WAV_BYTES:
        if not soundfile.check_format("RF64", chosen):
            raise AudioError(
                f"{path}: a wav file of {chosen} holds at most 4 GiB; write .flac, or .rf64 in another sample format"
            )
        container = "RF64"
    return container, chosen


def _to_samples(waveform: ArrayLike, path: Path) -> NDArray[np.floating]:
    """Return a waveform as `[samples, channels]`, after checking that every value is finite."""
    array = np.asarray(waveform)
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (1, 2):
        raise AudioError(
            f"{path}: an array of {array.dtype}, shape {list(array.shape)}; "
            "floating point, [channels, samples] or [samples], is needed"
        )
    if not np.isfinite(array).all():
        raise AudioError(f"{path}: the waveform holds values that are not finite numbers; nothing was written")
    return array[:, None] if array.ndim == 1 else array.T


def _quantise(samples: NDArray[np.floating], subtype: str) -> NDArray[np.generic]:
    """Return samples for libsndfile: for integer formats rounded, in the top bits of int16 or int32."""
    bits = _INTEGER_BITS.get(subtype)
    if bits is None:
        return np.ascontiguousarray(samples, dtype=np.float64 if subtype == "DOUBLE" else np.float32)
    full_scale = 2 ** (bits - 1)
    steps = np.rint(samples.astype(np.float64) * full_scale).clip(-full_scale, full_scale - 1)
    if bits <= 16:
        return np.ascontiguousarray(steps * 2 ** (16 - bits), dtype=np.int16)
    return np.ascontiguousarray(steps * 2.0 ** (32 - bits), dtype=np.int32)
