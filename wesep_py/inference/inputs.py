"""What users hand in: a file or an array, read and checked into one form."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.reading import LOUDEST, Stretch, read_stretch
from wesep_py.common.errors import AudioError, InputError, shorten

if TYPE_CHECKING:
    import torch

    Source: TypeAlias = "str | PathLike[str] | tuple[np.ndarray | torch.Tensor, int] | Recording"
    EnrollmentSource: TypeAlias = "Source | np.ndarray | torch.Tensor"
else:
    Source: TypeAlias = Any
    EnrollmentSource: TypeAlias = Any

# Suffixes under which a folder is searched for recordings.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".rf64", ".caf")
EMBEDDING_SUFFIX = ".npy"
_MOST_EMBEDDING_VALUES = 1 << 20
RATES = 100, 10_000_000
"""Hz that an array may have: at other rates it would become far larger, or nothing, at the model's."""


@dataclass(frozen=True)
class Recording:
    """A recording in memory, and how it was stored.

    Attributes:
        waveform: float32 [channels, samples].
        sample_rate: in Hz.
        name: the path, or "array", for messages.
        mono_array: the user gave an array [samples], and gets one back.
        file_format: container ("WAV", "FLAC", …) of a file; None for an array.
        subtype: sample format ("PCM_16", …) of a file; None for an array.
    """

    waveform: np.ndarray
    sample_rate: int
    name: str
    mono_array: bool = False
    file_format: str | None = None
    subtype: str | None = None
    _at_rates: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def at_rate(self, sample_rate: int) -> np.ndarray:
        """The waveform resampled to another rate in Hz; computed once."""
        if sample_rate not in self._at_rates:
            self._at_rates[sample_rate] = audio.resample(self.waveform, self.sample_rate, sample_rate)
        return self._at_rates[sample_rate]

    @property
    def num_samples(self) -> int:
        """Samples in each channel."""
        return int(self.waveform.shape[1])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


def read_source(source: Source) -> Recording:
    """Read a file, or check an array.

    Args:
        source: a path; or `(waveform, sample_rate)` with floating-point samples, [samples] or
            [channels, samples], a NumPy array or a torch tensor.

    Raises:
        AudioError: the file is missing, damaged or no audio; the waveform is empty or holds NaN or infinity.
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
    raise InputError(f"a source is {_kind(source)}; a path or a pair (waveform, sample_rate) is needed")


def read_enrollment(source: Source) -> Recording:
    """As `read_source`, of which a path may also name a stretch: `meeting.wav@12.3-17.8`.

    Raises:
        AudioError, InputError: as `read_source`; also a stretch that is not in the recording.
    """
    if isinstance(source, (str, PathLike)) and (stretch := segment_of(source)) is not None:
        about = audio.info(stretch.path)
        waveform, sample_rate = read_stretch(stretch)
        return Recording(waveform, sample_rate, fspath(source), file_format=about.format, subtype=about.subtype)
    return read_source(source)


def read_embedding(source: Any) -> NDArray[np.float32] | None:
    """The embedding `[dim]` that a source is: a path `NAME.npy`, or one axis of numbers without a sample rate.

    Returns:
        `None` for any other source.

    Raises:
        InputError: a `.npy` that cannot be read; no vector of finite numbers, or all of them zero.
    """
    name = "the embedding"
    if isinstance(source, (str, PathLike)):
        if Path(source).suffix != EMBEDDING_SUFFIX:
            return None
        name = fspath(source)
        try:
            # Mapped, so that an array which its header calls large and the file does not hold takes no memory.
            source = np.load(name, mmap_mode="r", allow_pickle=False)
            if not isinstance(source, np.ndarray):
                raise ValueError("several arrays")
            if source.size > _MOST_EMBEDDING_VALUES:
                raise ValueError(f"{source.size} numbers")
            source = np.array(source)
        except Exception as error:  # numpy raises many kinds, EOFError for an empty file among them
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


def segment_of(path: str | PathLike[str]) -> Stretch | None:
    """The stretch that a path names; `None` for a file, also one whose own name looks like a stretch's.

    Raises:
        InputError: a stretch that ends before it begins.
    """
    return None if Path(path).exists() else Stretch.parse(path)


def audio_files(folder: str | PathLike[str]) -> list[Path]:
    """The recordings directly in a folder, by suffix and sorted by name (hidden files are passed over).

    Raises:
        AudioError: the folder holds none.
    """
    folder = Path(folder)
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise AudioError(f"{folder}: holds no recordings ({', '.join(AUDIO_SUFFIXES)}); name another folder")
    return found


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _read_file(path: Path) -> Recording:
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; name one recording")
    about = audio.info(path)
    waveform, sample_rate = audio.read(path)
    return Recording(waveform, sample_rate, str(path), file_format=about.format, subtype=about.subtype)


def _check_array(waveform: Any, sample_rate: Any) -> Recording:
    whole = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool) and sample_rate % 1 == 0
    if not whole or not RATES[0] <= sample_rate <= RATES[1]:
        given = (
            shorten(repr(sample_rate), 40) if isinstance(sample_rate, Real) else f"of type {type(sample_rate).__name__}"
        )
        raise InputError(
            f"the sample rate is {given}; a whole number of Hz above 0 is needed ({RATES[0]} to {RATES[1]}), second in "
            "(waveform, sample_rate)"
        )
    try:
        if hasattr(waveform, "detach"):
            waveform = waveform.detach().cpu()
            waveform = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
        samples = np.asarray(waveform)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal lengths, tensors without numbers
        raise InputError(f"the waveform is {_kind(waveform)}, and no array ({shorten(error, 100)})") from error
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"the waveform's samples are {shorten(samples.dtype, 40)}; floats are needed (divide 16-bit ones by 32768)"
        )
    if samples.ndim not in (1, 2):
        raise InputError(f"the waveform has shape {samples.shape}; [samples] or [channels, samples] is needed")
    mono_array = samples.ndim == 1
    with np.errstate(over="ignore"):  # what is too large is infinite, and said below
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
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        raise AudioError(
            f"the waveform has samples up to {peak:.3g}, where full scale is 1; up to {LOUDEST:g} can be computed with"
        )
    return Recording(samples, int(sample_rate), "array", mono_array=mono_array)
