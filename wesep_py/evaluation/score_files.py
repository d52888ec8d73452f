"""Score audio that was made elsewhere: match estimates with references by file name, and score them as `evaluate` does.

`find_pairs` finds what belongs together; `score_files` reads and scores it. Estimates without references can be
scored too, with the metrics that need none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wesep_py.audio.media import is_recording_name
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import canonical, is_hidden, printable
from wesep_py.data.mixture_lists import MIXTURE_FOLDERS, source_ids
from wesep_py.evaluation.evaluator import ScoringOptions, ScoringSession, map_ahead
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.summary import describe_environment, describe_metrics
from wesep_py.evaluation.trial_conditions import describe_audio
from wesep_py.evaluation.trial_extraction import ExtractedTrial, describe_estimate, failed_trial

MAX_LENGTH_DIFFERENCE_S = 0.1
"""Signals of one trial whose lengths differ by at most this are cut to the shortest."""
LENGTHS = f"lengths may differ by {MAX_LENGTH_DIFFERENCE_S:g} s at most; all signals of a trial are cut to the shortest"


@dataclass(frozen=True)
class ScoringPair:
    """An estimate, and the files that it is scored with.

    Attributes:
        name: of the mixture: the path of the reference below its folder, without suffix; in a tree, of the mixture.
        target: the target's utterance id; outside of a tree, the name again.
        reference: the target alone; `None` if it is not known.
        estimate: the file to score; `None` if it is missing.
        mixture: the mixture that it was made from; `None` if it is not known.
        interferers: the other speakers alone; `None` if they are not known.
        enrollment: the recording of the target's voice; `None` if it is not known.
    """

    name: str
    target: str
    reference: Path | None
    estimate: Path | None
    mixture: Path | None = None
    interferers: tuple[Path, ...] | None = None
    enrollment: Path | None = None


@dataclass(frozen=True)
class PartialTrialAudio:
    """Audio of a trial of which any part may be unknown; `simulation.trial_audio.TrialAudio` has all parts.

    Attributes:
        reference: `[samples]`, the target alone; `None` if it is not known.
        mixture: `[samples]`; `None` if it is not known.
        interferers: `[sources, samples]`; `None` if they are not known.
        enrollment: `[enrollment_samples]`; `None` if it is not known.
        sample_rate: in Hz.
    """

    reference: np.ndarray | None
    mixture: np.ndarray | None
    interferers: np.ndarray | None
    enrollment: np.ndarray | None
    sample_rate: int


def find_pairs(
    reference: Path | None,
    estimate: Path,
    mixture: Path | None = None,
    interferers: Sequence[Path] = (),
    enrollment: Path | None = None,
    condition: Literal["clean", "noisy"] = "clean",
) -> list[ScoringPair]:
    """Return all references with their estimates, in the order of their names.

    A folder with `s1`, `s2`, … is a LibriMix tree: each source is a reference, the other sources of its mixture are the
    interferers, and `mix_clean` or `mix_both` holds the mixtures. Estimates are expected in folders of the same names,
    `s1/MIXTURE.wav`, `s2/MIXTURE.wav`. In any other folder, files of one name (and sub-folder) belong together;
    suffixes may differ.

    Without references every estimate is a trial. One in a sub-folder, `MEETING/ALICE.wav`, is of the recording
    `MEETING` and the speaker `ALICE`; its mixture may be named `MEETING`, its enrollment `ALICE`.

    Args:
        reference: folder of the targets alone, or a tree; `None` if there is none.
        estimate: folder of the estimates.
        mixture: folder of the mixtures; by default that of the tree.
        interferers: folders of the other speakers, one per speaker; a tree has its own.
        enrollment: folder of the enrollments, named like the estimates.
        condition: which mixtures of a tree: `clean` or `noisy`.

    Raises:
        InputError: a folder is missing; no estimate matches; interferers are named for a tree, or without references.
    """
    folders = [folder for folder in (reference, estimate, mixture, *interferers, enrollment) if folder is not None]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; name one with audio files")
    if reference is None:
        if interferers:
            raise InputError("interferers are compared with references, and there are none; leave out --interferers")
        pairs = _pairs_without_references(estimate, mixture, enrollment)
        if not pairs:
            raise InputError(f"{estimate}: holds no audio files")
        return pairs
    sources = _source_folders(reference)
    if sources:
        if interferers:
            raise InputError(
                f"{reference}: is a tree with {', '.join(sources)} and has its own interferers; leave out --interferers"
            )
        pairs = _pairs_in_tree(reference, sources, estimate, mixture, enrollment, condition)
    else:
        pairs = _pairs_in_folder(reference, estimate, mixture, interferers, enrollment)
    if not pairs:
        raise InputError(f"{reference}: holds no audio files")
    if all(pair.estimate is None for pair in pairs):
        example = Path(f"s1/{pairs[0].name}.*" if sources else f"{pairs[0].name}.*")
        raise InputError(f"{estimate}: no file has the name of a reference; {example} is expected, for example")
    return pairs


def unmatched_estimates(pairs: Sequence[ScoringPair], estimate: Path) -> list[str]:
    """Return the names of the estimates that have no reference, sorted."""
    used = {pair.estimate for pair in pairs}
    return sorted(name for name, path in _audio_files(estimate).items() if path not in used)


def _pairs_without_references(estimate: Path, mixture: Path | None, enrollment: Path | None) -> list[ScoringPair]:
    mixtures, enrollments = _audio_files(mixture), _audio_files(enrollment)
    pairs = []
    for name, path in _audio_files(estimate).items():
        recording, _, target = name.rpartition("/")
        recording, target = recording or name, target or name
        pairs.append(
            ScoringPair(
                recording,
                target,
                None,
                path,
                mixtures.get(name, mixtures.get(recording)),
                None,
                enrollments.get(name, enrollments.get(target)),
            )
        )
    return pairs


def _pairs_in_folder(
    reference: Path, estimate: Path, mixture: Path | None, interferers: Sequence[Path], enrollment: Path | None
) -> list[ScoringPair]:
    estimates, mixtures, enrollments = (_audio_files(folder) for folder in (estimate, mixture, enrollment))
    interferer_files = [_audio_files(folder) for folder in interferers]
    return [
        ScoringPair(
            name,
            name,
            path,
            estimates.get(name),
            mixtures.get(name),
            tuple(files[name] for files in interferer_files if name in files) if interferers else None,
            enrollments.get(name),
        )
        for name, path in _audio_files(reference).items()
    ]


def _pairs_in_tree(
    tree: Path, sources: list[str], estimate: Path, mixture: Path | None, enrollment: Path | None, condition: str
) -> list[ScoringPair]:
    images = {source: _audio_files(tree / source) for source in sources}
    mixtures = _audio_files(mixture or tree / MIXTURE_FOLDERS[condition])
    estimates, enrollments = _audio_files(estimate), _audio_files(enrollment)
    pairs = []
    for name in images[sources[0]]:
        # Mixtures of two speakers may lie beside mixtures of three.
        present = [source for source in sources if name in images[source]]
        ids = source_ids(name, [Path(name)] * len(present))
        for source, target in zip(present, ids, strict=True):
            pairs.append(
                ScoringPair(
                    name,
                    target if len(set(ids)) == len(ids) else source,  # a name that does not split into ids
                    images[source][name],
                    estimates.get(f"{source}/{name}"),
                    mixtures.get(name),
                    tuple(images[other][name] for other in present if other != source),
                    enrollments.get(f"{source}/{name}"),
                )
            )
    return pairs


def _source_folders(folder: Path) -> list[str]:
    """Return the names of the folders `s1`, `s2`, …, by their number."""
    numbered = [(int(m[1]), e.name) for e in folder.iterdir() if e.is_dir() and (m := re.fullmatch(r"s(\d+)", e.name))]
    return [name for _, name in sorted(numbered)]


def _audio_files(folder: Path | None) -> dict[str, Path]:
    """Return the audio files below a folder, by their path in it without suffix; hidden ones are skipped.

    Raises:
        InputError: two files have one name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else []:
        within = path.relative_to(folder)
        if is_recording_name(path) and path.is_file() and not any(map(is_hidden, within.parts)):
            name = printable(canonical(within.with_suffix("").as_posix()))
            if name in files:
                raise InputError(f"{path}: has the name of {files[name].name}; keep one of them")
            files[name] = path
    return files


def score_files(
    pairs: Sequence[ScoringPair],
    output: str | Path | None = None,
    options: ScoringOptions | None = None,
    sample_rate: int | None = None,
) -> dict[str, Any]:
    """Score estimates in files; a reference without an estimate, or a damaged file, is a failed trial.

    Args:
        pairs: from `find_pairs`.
        output: folder for `summary.json` and `per_trial.jsonl`; an interrupted run in it resumes. `None`: nothing is
            written.
        options: by default SI-SDR.
        sample_rate: in Hz, at which everything is scored; `None`: `common_sample_rate`.

    Returns:
        The content of `summary.json`, as that of `evaluate`; trials with a silent reference (an absent target) are
        counted separately.

    Raises:
        InputError: no pairs; a metric that no pair can have; as `evaluate`.
        OutputExistsError: `output` holds results, and `options.overwrite` is false.
    """
    options = options or ScoringOptions()
    if not pairs:
        raise InputError("there is nothing to score; name a folder of references and one of estimates")
    folder = None if output is None else Path(output)
    options.check(folder, has_references=any(pair.reference is not None for pair in pairs))
    rate = sample_rate or common_sample_rate(pairs)
    protocol = {
        **describe_metrics(options),
        "condition": "audio made elsewhere, matched by name",
        "lengths": LENGTHS,
        "sample_rate": rate,
        "trials": {"count": len(pairs), "sha256": _trials_fingerprint(pairs)},
        "files": {"sha256": _files_fingerprint(pairs)},
        "model": {"name": "audio made elsewhere", "hash": None},
        "device": None,
        **describe_environment(options.command),
    }
    with ScoringSession(protocol, len(pairs), folder, options) as session:
        remaining = [(number, pair) for number, pair in enumerate(pairs) if number not in session.done]
        for extracted in map_ahead(partial(_read_trial, sample_rate=rate), remaining):
            session.add(extracted)
        return session.finish()


def common_sample_rate(pairs: Sequence[ScoringPair]) -> int:
    """Return the sample rate of the first readable reference, in Hz; without references, of the first estimate.

    Raises:
        InputError: no file can be read.
    """
    from wesep_py.audio import info

    paths = [path for pair in pairs if (path := pair.reference or pair.estimate) is not None]
    for path in paths:
        try:
            return info(path).sample_rate
        except AudioError:
            continue
    raise InputError(f"{paths[0].parent}: none of its files can be read")


def _read_trial(numbered: tuple[int, ScoringPair], sample_rate: int) -> ExtractedTrial:
    number, pair = numbered
    enrollment = pair.enrollment.name if pair.enrollment is not None else ""
    record = TrialRecord(pair.name, pair.target, enrollment, number=number)
    if pair.interferers is not None:
        record.num_speakers = 1 + len(pair.interferers)
    try:
        estimate, audio = _read_audio(pair, sample_rate)
        record.duration_s = len(estimate) / sample_rate
        describe_estimate(record, estimate, audio.reference, audio.mixture)
        describe_audio(record, audio.reference, audio.interferers, audio.enrollment, sample_rate)
    except Exception as error:  # one file's failure, of whatever kind, must not lose the others
        return failed_trial(record, error)
    return ExtractedTrial(record, audio, estimate)


def _read_audio(pair: ScoringPair, sample_rate: int) -> tuple[np.ndarray, PartialTrialAudio]:
    """Return the first channels of the files, at one sample rate and cut to one length.

    Raises:
        AudioError: a file is missing or damaged, or the lengths differ too much.
    """
    from wesep_py.audio import read_mono

    if pair.estimate is None:
        raise AudioError("there is no estimate of this reference")
    paths = [pair.estimate, *(pair.interferers or ())]
    paths += [path for path in (pair.reference, pair.mixture) if path is not None]
    signals = [read_mono(path, sample_rate) for path in paths]
    shortest = min(len(signal) for signal in signals)
    for path, signal in zip(paths, signals, strict=True):
        if len(signal) - shortest > MAX_LENGTH_DIFFERENCE_S * sample_rate:
            raise AudioError(
                f"{path}: has {len(signal) / sample_rate:.2f} s, where another signal of the trial has "
                f"{shortest / sample_rate:.2f} s; {LENGTHS}"
            )
    # The order is that of `paths`: estimate, interferers, then reference and mixture where they are known.
    signals = [signal[:shortest] for signal in signals]
    mixture = signals.pop() if pair.mixture is not None else None
    reference = signals.pop() if pair.reference is not None else None
    estimate, *interferer_signals = signals
    interferers = None
    if pair.interferers is not None:
        interferers = np.array(interferer_signals).reshape(len(interferer_signals), shortest)
    enrollment = None if pair.enrollment is None else read_mono(pair.enrollment, sample_rate)
    return estimate, PartialTrialAudio(reference, mixture, interferers, enrollment, sample_rate)


def _trials_fingerprint(pairs: Iterable[ScoringPair]) -> str:
    """Return the SHA-256 of the names of all trials, and of which files each has besides its estimate."""
    digest = hashlib.sha256()
    for pair in pairs:
        num_interferers = None if pair.interferers is None else len(pair.interferers)
        line = (pair.name, pair.target, pair.mixture is not None, num_interferers)
        digest.update(repr(line if pair.reference is not None else (*line, "no reference")).encode() + b"\n")
    return digest.hexdigest()


def _files_fingerprint(pairs: Iterable[ScoringPair]) -> str:
    """Return the SHA-256 of path, size and time of every file; a run resumes only with the files it began with."""
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.reference, pair.estimate, pair.mixture, pair.enrollment, *(pair.interferers or ())):
            state = None if path is None else path.stat()
            line = None if state is None or path is None else (str(path.resolve()), state.st_size, state.st_mtime_ns)
            digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()
