"""Input of the extractor: files, arrays and embeddings, read and checked.

| input | function | result |
| --- | --- | --- |
| recording: a path, or `(waveform, sample_rate)` | `read_source` | `Recording` |
| enrollment recording: also `meeting.wav@12.3-17.8` | `read_enrollment` | `Recording` |
| embedding: `alice.npy`, or an array | `read_embedding` | `[dim]` |
| folder | `audio_files` | paths |
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.media import AUDIO_SUFFIXES, INSTALL, MEDIA_SUFFIXES, is_installed, is_recording_name
from wesep_py.audio.reading import MAX_SAMPLE_VALUE, read_file_segment, segment_of
from wesep_py.common.errors import AudioError, InputError, shorten

if TYPE_CHECKING:
    import torch

    Source: TypeAlias = "str | PathLike[str] | tuple[np.ndarray | torch.Tensor, int] | Recording"
    EnrollmentSource: TypeAlias = "Source | np.ndarray | torch.Tensor"
else:
    Source: TypeAlias = Any
    EnrollmentSource: TypeAlias = Any

log = logging.getLogger(__name__)
EMBEDDING_SUFFIX = ".npy"
MAX_EMBEDDING_SIZE = 1 << 20
ARRAY_RATES = 100, 10_000_000
"""Allowed sample rates of an array, in Hz. At others its resampled copy would be far larger, or have no samples."""


@dataclass(frozen=True)
class Recording:
    """A recording in memory, and the format in which it was stored.

    Attributes:
        waveform: float32 [channels, samples].
        sample_rate: in Hz.
        name: the path, or `array`; for messages.
        mono_array: true if the input was an array [samples]; the result then has this shape too.
        file_format: container ("WAV", "FLAC", …) of a file; None for an array.
        subtype: sample format ("PCM_16", …) of a file; None for an array.
        pictures_of: the file, if it is a video; a video that a result is saved to gets its pictures.
    """

    waveform: np.ndarray
    sample_rate: int
    name: str
    mono_array: bool = False
    file_format: str | None = None
    subtype: str | None = None
    pictures_of: str | None = None
    _at_rates: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def at_rate(self, sample_rate: int) -> np.ndarray:
        """Return the waveform resampled to a rate in Hz; computed once per rate."""
        if sample_rate not in self._at_rates:
            self._at_rates[sample_rate] = audio.resample(self.waveform, self.sample_rate, sample_rate)
        return self._at_rates[sample_rate]

    @property
    def num_samples(self) -> int:
        """Number of samples in each channel."""
        return int(self.waveform.shape[1])

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.num_samples / self.sample_rate


def read_source(source: Source) -> Recording:
    """Read a file, or check an array.

    Args:
        source: a path; or `(waveform, sample_rate)` with floating-point samples, [samples] or
            [channels, samples], a NumPy array or a torch tensor.

    Raises:
        AudioError: the file is missing, damaged or not audio; the waveform is empty or holds NaN or infinity.
        InputError: `source` is neither a path nor such a pair.

    >>> read_source((np.zeros(8, dtype=np.float32), 16000)).waveform.shape
    (1, 8)
    """
    if isinstance(source, Recording):
        return source
    if isinstance(source, (str, PathLike)):
        return _read_file(Path(fspath(source)))
    if isinstance(source, (tuple, list)) and len(source) == 2:
        return _check_array(*source)
    raise InputError(f"a source is {_type_name(source)}; a path or a pair (waveform, sample_rate) is needed")


def read_enrollment(source: Source) -> Recording:
    """Read an enrollment recording: as `read_source`, and a path may name a segment, `meeting.wav@12.3-17.8`.

    Raises:
        AudioError, InputError: as `read_source`; also a segment that is not in the recording.
    """
    if isinstance(source, (str, PathLike)) and (segment := segment_of(source)) is not None:
        about = audio.info(segment.path)
        waveform, sample_rate = read_file_segment(segment)
        return Recording(waveform, sample_rate, fspath(source), file_format=about.format, subtype=about.subtype)
    return read_source(source)


def read_embedding(source: Any) -> NDArray[np.float32] | None:
    """Read an embedding: a path `NAME.npy`, or an array `[dim]` without a sample rate.

    Returns:
        float32 `[dim]`; `None` if the source is something else.

    Raises:
        InputError: a `.npy` that cannot be read; not a vector of finite numbers, or all of them zero.
    """
    name = "the embedding"
    if isinstance(source, (str, PathLike)):
        if Path(source).suffix != EMBEDDING_SUFFIX:
            return None
        name = fspath(source)
        try:
            # Memory-mapped: a header may announce a huge array that the file does not hold.
            source = np.load(name, mmap_mode="r", allow_pickle=False)
            if not isinstance(source, np.ndarray):
                raise ValueError("several arrays")
            if source.size > MAX_EMBEDDING_SIZE:
                raise ValueError(f"{source.size} numbers")
            source = np.array(source)
        except Exception as error:  # numpy raises many kinds, for example EOFError for an empty file
            problem = shorten(error) if str(error) else type(error).__name__
            raise InputError(f"{name}: is no array of numbers ({problem}); save it with numpy.save") from error
    elif hasattr(source, "detach"):
        try:
            source = source.detach().cpu().numpy()
        except (TypeError, RuntimeError) as error:
            raise InputError(f"{name}: is no array of numbers ({shorten(error)})") from error
    elif not isinstance(source, np.ndarray) or source.ndim != 1:
        return None
    if source.ndim != 1 or source.dtype.kind not in "fiu" or not np.isfinite(source).all() or not np.any(source):
        shape = list(source.shape)
        raise InputError(f"{name}: has shape {shape} of {source.dtype}; finite numbers [dim], not all 0, are needed")
    return source.astype(np.float32)


def audio_files(folder: str | PathLike[str]) -> list[Path]:
    """List the recordings directly in a folder, by their suffixes, sorted by name; hidden files are left out.

    Those that need PyAV are left out, with a warning, if it is not installed.

    Raises:
        AudioError: the folder holds none.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    paths = [path for path in files if is_recording_name(path)]
    media = [path for path in files if path.suffix.lower() in MEDIA_SUFFIXES]
    if not paths and media:
        raise AudioError(f"{folder}: its recordings need the package av (such as {media[0].name}): {INSTALL}")
    if not paths:
        raise AudioError(f"{folder}: holds no recordings ({', '.join(AUDIO_SUFFIXES)}); name another folder")
    if media and not is_installed():
        log.warning(
            "%s: %d recordings (such as %s) need the package av: %s", folder, len(media), media[0].name, INSTALL
        )
    return paths


def _type_name(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _read_file(path: Path) -> Recording:
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; name one recording")
    about = audio.info(path)
    waveform, sample_rate = audio.read(path)
    pictures_of = str(path) if about.has_pictures else None
    return Recording(
        waveform, sample_rate, str(path), file_format=about.format, subtype=about.subtype, pictures_of=pictures_of
    )


def _check_array(waveform: Any, sample_rate: Any) -> Recording:
    is_number = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    lowest, highest = ARRAY_RATES
    if not is_number or sample_rate % 1 != 0 or not lowest <= sample_rate <= highest:
        is_real = isinstance(sample_rate, Real)
        described = shorten(repr(sample_rate), 40) if is_real else f"of type {type(sample_rate).__name__}"
        raise InputError(
            f"the sample rate is {described}; a whole number of Hz above 0 is needed ({lowest} to {highest}), second "
            "in (waveform, sample_rate)"
        )
    try:
        if hasattr(waveform, "detach"):
            waveform = waveform.detach().cpu()
            waveform = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
        samples = np.asarray(waveform)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal lengths, tensors without data
        raise InputError(f"the waveform is {_type_name(waveform)}, not an array ({shorten(error, 100)})") from error
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"the waveform's samples are {shorten(samples.dtype, 40)}; floats are needed (divide 16-bit ones by 32768)"
        )
    if samples.ndim not in (1, 2):
        raise InputError(f"the waveform has shape {samples.shape}; [samples] or [channels, samples] is needed")
    mono_array = samples.ndim == 1
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        samples = np.atleast_2d(samples).astype(np.float32)
    if samples.size == 0:
        raise AudioError("the waveform has no samples")
    if samples.shape[0] > samples.shape[1]:
        raise InputError(
            f"the waveform has {samples.shape[0]} channels of {samples.shape[1]} samples; "
            "[channels, samples] is needed: transpose it"
        )
    if not np.isfinite(samples).all():
        raise AudioError("the waveform holds samples that are not finite (NaN or infinity)")
    if (peak := float(np.abs(samples).max())) > MAX_SAMPLE_VALUE:
        raise AudioError(
            f"the waveform has samples up to {peak:.3g}, where full scale is 1; at most {MAX_SAMPLE_VALUE:g} is allowed"
        )
    return Recording(samples, int(sample_rate), "array", mono_array=mono_array)
