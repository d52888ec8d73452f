"""LibriMix rendered from its metadata, as its own scripts do (Cosentino et al., arXiv 2005.11262)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.reading import read
from wesep_py.audio.resample import resample
from wesep_py.common.errors import AudioError, InputError, OutputExistsError, WesepError, nearest
from wesep_py.common.files import atomic_path, write_text
from wesep_py.common.folders import one_run_in, remove_temporary_files
from wesep_py.common.names import file_name
from wesep_py.common.processes import Executor, map_processes
from wesep_py.data.mixture_lists import Mixture, find_noise_file, read_mixtures
from wesep_py.simulation.rendering import mix
from wesep_py.simulation.simulated_corpus import Failure

LIBRISPEECH_RATE = 16000
FADE_SAMPLES = LIBRISPEECH_RATE // 2 + 1
MIXTURE_TYPES = ("mix_clean", "mix_both", "mix_single")
METADATA_FOLDER = "metadata"

Mode = Literal["min", "max"]
Waveform = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LibriMixTree:
    """Subset of LibriMix to render, and its folder.

    Args:
        folder: of the subset, for example `Libri2Mix/wav16k/min/train-100`; its lists go to `metadata/` beside it.
        sample_rate: in Hz; that of LibriSpeech is 16,000.
        mode: `min`: a mixture ends with its shortest source; `max`: with its longest.
        types: any of `mix_clean` (all speakers), `mix_both` (all speakers and noise), `mix_single` (the first speaker
            and noise).
    """

    folder: Path
    sample_rate: int = LIBRISPEECH_RATE
    mode: Mode = "min"
    types: tuple[str, ...] = MIXTURE_TYPES

    @property
    def has_noise(self) -> bool:
        """True if any type has noise; otherwise WHAM! is not needed."""
        return self.types != ("mix_clean",)

    def parts(self, num_sources: int) -> list[str]:
        """Return the folders of a mixture's files."""
        sources = [f"s{k}" for k in range(1, num_sources + 1)]
        return [*sources, *self.types, *(["noise"] if self.has_noise else [])]

    def files(self, mixture: Mixture) -> dict[str, Path]:
        """Return the files of a mixture by their folders."""
        parts = self.parts(len(mixture.sources))
        return {part: self.folder / part / f"{file_name(mixture.mixture_id)}.wav" for part in parts}


def render_librimix(
    metadata: str | os.PathLike[str],
    tree: LibriMixTree,
    root: str | os.PathLike[str] | None = None,
    noise_root: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    executor: Executor = "local",
) -> tuple[int, list[Failure]]:
    """Render the mixtures of a metadata CSV as LibriMix's scripts do.

    Sources and noise are multiplied by their gains, resampled with `scipy.signal.resample_poly`, cut or padded, added
    and written with 16 bits. A noise that is too short is repeated, cross-faded over half a second. A training noise at
    another speed is computed from its original if LibriMix's scripts have not written it
    (`data.mixture_lists.find_noise_file`).

    Existing files are kept, so that the same call completes an interrupted run.

    Args:
        metadata: LibriMix's CSV: `mixture_ID, source_1_path, source_1_gain, …, noise_path, noise_gain`.
        tree: what is rendered, and its folder.
        root: the folder LibriSpeech; by default that of the CSV.
        noise_root: the folder wham_noise; by default `root`.
        jobs: processes, at least 1; the files do not depend on it.
        overwrite: replace existing files.
        on_progress: called with the number of mixtures done and the total.
        executor: where the processes run, as for `map_processes`.

    Returns:
        The number of mixtures, and the failures; failed mixtures are in none of the lists.

    Raises:
        InputError: the CSV is missing or malformed, or lists mixtures that are rendered already.
        OutputExistsError: there are other lists of this subset, and `overwrite` is false.
    """
    if unknown := set(tree.types) - set(MIXTURE_TYPES):
        raise InputError(f"types: {nearest(sorted(unknown)[0], MIXTURE_TYPES)}")
    mixtures = list(read_mixtures(metadata, root, noise_root).values())
    for mixture in mixtures:
        if mixture.rendered:
            raise InputError(f"{mixture.place}: was rendered already; give the metadata with gains")
        if tree.has_noise and mixture.noise is None:
            raise InputError(f"{mixture.place}: noise_path is missing; render it with --types mix_clean")
    failures = []
    if tree.folder.is_file():
        raise InputError(f"{tree.folder}: is a file; name a folder to write")
    try:
        tree.folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WesepError(f"{tree.folder}: cannot be made ({error.strerror or error}); name another folder") from error
    with one_run_in(tree.folder, "writing mixtures"):
        names = {f"{file_name(mixture.mixture_id)}.wav" for mixture in mixtures}
        for part in tree.parts(max(len(mixture.sources) for mixture in mixtures)):
            remove_temporary_files(tree.folder / part, names)
        rendered = map_processes(partial(_render_one, tree, overwrite), mixtures, jobs, executor)
        for done, (_, failure) in enumerate(rendered, start=1):
            failures += [] if failure is None else [failure]
            if on_progress is not None:
                on_progress(done, len(mixtures))
        failed = {failure.mixture for failure in failures}
        _write_lists([mixture for mixture in mixtures if mixture.mixture_id not in failed], tree, overwrite)
    return len(mixtures), failures


def _render_one(tree: LibriMixTree, overwrite: bool, mixture: Mixture) -> Failure | None:
    files = tree.files(mixture)
    if not overwrite and all(file.is_file() for file in files.values()):
        return None
    try:
        waveforms = render_mixture(mixture, tree)
    except AudioError as error:
        return Failure(mixture.mixture_id, str(error))
    import soundfile

    for part, file in files.items():
        if file.exists() and not overwrite:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        # libsndfile converts to 16 bits, as in LibriMix's scripts: so the files are bit-exact.
        with atomic_path(file) as temporary:
            soundfile.write(temporary, waveforms[part], tree.sample_rate, "PCM_16", format="WAV")
    return None


def render_mixture(mixture: Mixture, tree: LibriMixTree) -> dict[str, Waveform]:
    """Render the waveforms of a mixture, by their folders: `s1`, …, the types, `noise`.

    Raises:
        AudioError: a recording is missing, damaged, at another rate than LibriSpeech's, or a noise too short to extend.
    """
    recorded = [(_read(source.path), source.gain) for source in mixture.sources]
    longest = max(len(waveform) for waveform, _ in recorded)
    if tree.has_noise and mixture.noise is not None:
        path, speed = find_noise_file(mixture.noise.path)
        recorded.append((extend_noise(_read(path, speed)[:longest], longest, path), mixture.noise.gain))
    parts = [_resample(waveform * gain, tree.sample_rate) for waveform, gain in recorded]
    if tree.mode == "min":
        parts = [part[: min(map(len, parts))] for part in parts]
    else:
        parts = [np.pad(part, (0, max(map(len, parts)) - len(part))) for part in parts]
    sources = np.stack(parts[: len(mixture.sources)])
    noise = parts[len(mixture.sources) :]
    waveforms: dict[str, Waveform] = {f"s{k}": source for k, source in enumerate(sources, start=1)}
    mixtures = {"mix_clean": (sources,), "mix_both": (sources, *noise), "mix_single": (sources[:1], *noise)}
    for kind in tree.types:
        # An extended noise is float64. LibriMix adds it in the sources' precision: rounded after the addition.
        waveforms[kind] = mix(*mixtures[kind]).astype(sources.dtype)
    if tree.has_noise:
        waveforms["noise"] = parts[-1]
    return waveforms


def extend_noise(noise: Waveform, num_samples: int, path: Path) -> Waveform:
    """Cut a noise to a length, or repeat it with cross-fades of half a Hann window.

        |---------- noise -------\\
                           /------ noise ---------|      each fade: half a second

    Args:
        noise: at 16 kHz.
        num_samples: desired length.
        path: for messages.

    Raises:
        AudioError: the noise is too short, and not longer than the half second of the fade.
    """
    if len(noise) >= num_samples:
        return noise[:num_samples]
    if len(noise) <= FADE_SAMPLES:
        raise AudioError(
            f"{path}: lasts {len(noise) / LIBRISPEECH_RATE:.2f} s; more than 0.5 s of noise are needed to extend it"
        )
    fade = np.hanning(LIBRISPEECH_RATE + 1)
    rising, falling = fade[:FADE_SAMPLES], fade[LIBRISPEECH_RATE // 2 :]
    extended = noise.astype(np.float64)
    while len(extended) < num_samples:
        joint = extended[-FADE_SAMPLES:] * falling + noise[:FADE_SAMPLES] * rising
        extended = np.concatenate([extended[:-FADE_SAMPLES], joint, noise[FADE_SAMPLES:]])
    return extended[:num_samples]


def _read(path: Path, speed: float = 1.0) -> Waveform:
    waveform, rate = read(path)
    if rate != LIBRISPEECH_RATE:
        raise AudioError(f"{path}: has {rate} Hz; LibriSpeech and WHAM! have {LIBRISPEECH_RATE}")
    return waveform[0] if speed == 1.0 else resample(waveform[0], round(LIBRISPEECH_RATE * speed), LIBRISPEECH_RATE)


def _resample(waveform: Waveform, sample_rate: int) -> Waveform:
    if sample_rate == LIBRISPEECH_RATE:
        return waveform
    from scipy.signal import resample_poly

    resampled: Waveform = resample_poly(waveform, sample_rate, LIBRISPEECH_RATE)
    return resampled


def _write_lists(mixtures: Sequence[Mixture], tree: LibriMixTree, overwrite: bool) -> None:
    """Write `metadata/mixture_<subset>_<type>.csv` beside the subset: LibriMix's columns, absolute paths, speakers."""
    folder = tree.folder.parent / METADATA_FOLDER
    texts = {folder / f"mixture_{tree.folder.name}_{kind}.csv": _list(mixtures, tree, kind) for kind in tree.types}
    for path, text in texts.items():
        if path.is_file() and not overwrite and path.read_bytes() != text.encode():
            raise OutputExistsError(f"{path}: lists other mixtures; name another folder, or pass --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)


def _list(mixtures: Sequence[Mixture], tree: LibriMixTree, kind: str) -> str:
    import soundfile

    most = 1 if kind == "mix_single" else max((len(mixture.sources) for mixture in mixtures), default=1)
    columns = ["mixture_ID", "mixture_path", *(f"source_{k}_path" for k in range(1, most + 1))]
    columns += [] if kind == "mix_clean" else ["noise_path"]
    columns.append("length")
    # Columns of this project. LibriMix's own metadata has no speaker ids: the names of its files contain them.
    if any(source.speaker_id for mixture in mixtures for source in mixture.sources):
        columns += [f"source_{k}_{field}" for field in ("utterance_id", "speaker_id") for k in range(1, most + 1)]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    for mixture in mixtures:
        files: Mapping[str, Path] = {part: file.absolute() for part, file in tree.files(mixture).items()}
        row = {f"source_{k}_path": files.get(f"s{k}", "") for k in range(1, most + 1)}
        for k, source in enumerate(mixture.sources, start=1):
            row |= {f"source_{k}_utterance_id": source.utterance_id, f"source_{k}_speaker_id": source.speaker_id or ""}
        row |= {"mixture_ID": mixture.mixture_id, "mixture_path": files[kind], "noise_path": files.get("noise", "")}
        table.writerow({**row, "length": soundfile.info(files[kind]).frames})
    return text.getvalue()
