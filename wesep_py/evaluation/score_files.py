"""Audio made elsewhere, scored as what `evaluate` extracts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import canonical, is_hidden, printable
from wesep_py.data.mixture_lists import MIXTURE_FOLDERS, source_ids
from wesep_py.evaluation import summary as protocol
from wesep_py.evaluation.activity_labels import ActivityLabels
from wesep_py.evaluation.evaluator import ScoringSession, map_ahead, num_scoring_processes, with_timing, with_backends
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.scoring import MetricBackend, check_metric_names, check_computable
from wesep_py.evaluation.trial_conditions import describe_audio
from wesep_py.evaluation.trial_extraction import ExtractedTrial, describe_estimate, failed_trial

# ----------------------------------------
# The waveforms of a trial whose audio was made elsewhere: some of them may not be known.


@dataclass(frozen=True)
class PartialTrialAudio:
    """As `simulation.TrialAudio`, but none of it has to be there.

    Attributes:
        reference: `[samples]`, the target alone; `None` if it is not known.
        mixture: `[samples]`; `None` if it is not known.
        interferers: `[sources, samples]`; `None` if they are not known.
        enrollment: `[samples of its own]`; `None` if it is not known.
        sample_rate: in Hz.
    """

    reference: np.ndarray | None
    mixture: np.ndarray | None
    interferers: np.ndarray | None
    enrollment: np.ndarray | None
    sample_rate: int


# ----------------------------------------
# Audio made elsewhere, matched by name: which estimate belongs to which reference.

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


@dataclass(frozen=True)
class ScoringPair:
    """One estimate and what it is scored against.

    Attributes:
        name: the mixture's: path of the reference under its folder, without suffix; in a tree, of the mixture.
        target: the target's utterance; in a folder that is no tree, the name again.
        reference: the target alone; `None` if it is not known.
        estimate: what was made; `None` if there is none.
        mixture: what it was made from, where that is known.
        interferers: the other speakers; `None` if they are not known.
        enrollment: the recording that shows the voice, where that is known.
    """

    name: str
    target: str
    reference: Path | None
    estimate: Path | None
    mixture: Path | None = None
    interferers: tuple[Path, ...] | None = None
    enrollment: Path | None = None


def find_pairs(
    reference: Path | None,
    estimate: Path,
    mixture: Path | None = None,
    interferers: Sequence[Path] = (),
    enrollment: Path | None = None,
    condition: Literal["clean", "noisy"] = "clean",
) -> list[ScoringPair]:
    """All references with their estimates, in the order of their names.

    A folder with `s1`, `s2`, … is a LibriMix tree: each of its sources is a reference, the others of the mixture are
    the interferers, and `mix_clean` or `mix_both` holds the mixtures. Estimates then lie in folders of the same names,
    `s1/MIXTURE.wav`, `s2/MIXTURE.wav`. In any other folder, files of one name (and sub-folder) belong together;
    suffixes may differ.

    Without references every estimate is a trial. One in a sub-folder, `MEETING/ALICE.wav`, is of the recording
    `MEETING` and the speaker `ALICE`, whose mixture and enrollment may bear these names alone.

    Args:
        reference: folder of the targets alone, or a tree; `None` if there is none.
        estimate: folder of what was made.
        mixture: folder of the mixtures; in a tree by default its own.
        interferers: folders of the other speakers, one a speaker; in a tree its own.
        enrollment: folder of the enrollments, named like the estimates.
        condition: which of a tree's mixtures: `clean` or `noisy`.

    Raises:
        InputError: a folder is missing; no estimate matches; interferers are named for a tree, or without references.
    """
    for folder in (
        *([reference] if reference else []),
        estimate,
        *([mixture] if mixture else []),
        *interferers,
        *([enrollment] if enrollment else []),
    ):
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder; name one with audio files")
    if reference is None:
        if interferers:
            raise InputError("interferers are compared with references, and there are none; leave out --interferers")
        pairs = _by_estimate(estimate, mixture, enrollment)
        if not pairs:
            raise InputError(f"{estimate}: holds no audio files")
        return pairs
    sources = _sources_of(reference)
    if sources:
        if interferers:
            raise InputError(f"{reference}: is a tree with {', '.join(sources)}; its interferers are known, name none")
        pairs = _in_tree(reference, sources, estimate, mixture, enrollment, condition)
    else:
        pairs = _in_folder(reference, estimate, mixture, interferers, enrollment)
    if not pairs:
        raise InputError(f"{reference}: holds no audio files")
    if all(pair.estimate is None for pair in pairs):
        wanted = Path(f"s1/{pairs[0].name}.*" if sources else f"{pairs[0].name}.*")
        raise InputError(f"{estimate}: no file has the name of a reference; {wanted} is looked for, for example")
    return pairs


def unmatched_estimates(pairs: Sequence[ScoringPair], estimate: Path) -> list[str]:
    """The names of the estimates that no reference belongs to."""
    used = {pair.estimate for pair in pairs}
    return sorted(name for name, path in _files(estimate).items() if path not in used)


def _by_estimate(estimate: Path, mixture: Path | None, enrollment: Path | None) -> list[ScoringPair]:
    mixtures, enrollments = _files(mixture), _files(enrollment)
    pairs = []
    for name, path in _files(estimate).items():
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


def _in_folder(
    reference: Path, estimate: Path, mixture: Path | None, interferers: Sequence[Path], enrollment: Path | None
) -> list[ScoringPair]:
    estimates, mixtures, enrollments = (_files(folder) for folder in (estimate, mixture, enrollment))
    others = [_files(folder) for folder in interferers]
    return [
        ScoringPair(
            name,
            name,
            path,
            estimates.get(name),
            mixtures.get(name),
            tuple(files[name] for files in others if name in files) if interferers else None,
            enrollments.get(name),
        )
        for name, path in _files(reference).items()
    ]


def _in_tree(
    tree: Path, sources: list[str], estimate: Path, mixture: Path | None, enrollment: Path | None, condition: str
) -> list[ScoringPair]:
    images = {source: _files(tree / source) for source in sources}
    mixtures = _files(mixture or tree / MIXTURE_FOLDERS[condition])
    estimates, enrollments = _files(estimate), _files(enrollment)
    pairs = []
    for name in images[sources[0]]:
        own = [source for source in sources if name in images[source]]
        ids = source_ids(name, [Path(name)] * len(own))
        for source, target in zip(own, ids, strict=True):
            pairs.append(
                ScoringPair(
                    name,
                    target if len(set(ids)) == len(ids) else source,
                    images[source][name],
                    estimates.get(f"{source}/{name}"),
                    mixtures.get(name),
                    tuple(images[other][name] for other in own if other != source),
                    enrollments.get(f"{source}/{name}"),
                )
            )
    return pairs


def _sources_of(folder: Path) -> list[str]:
    numbered = [(int(m[1]), e.name) for e in folder.iterdir() if e.is_dir() and (m := re.fullmatch(r"s(\d+)", e.name))]
    return [name for _, name in sorted(numbered)]


def _files(folder: Path | None) -> dict[str, Path]:
    """Audio files below a folder, by their path in it without suffix; hidden ones are passed over.

    Raises:
        InputError: two files have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else []:
        within = path.relative_to(folder)
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not any(map(is_hidden, within.parts)):
            name = printable(canonical(within.with_suffix("").as_posix()))
            if name in found:
                raise InputError(f"{path}: has the name of {found[name].name}; which of them is meant?")
            found[name] = path
    return found


SLACK_S = 0.1
"""Signals of one trial whose lengths differ by at most this are cut to the shortest."""
LENGTHS = f"lengths may differ by {SLACK_S:g} s at most; all signals of a trial are cut to the shortest"


def score_files(
    pairs: Sequence[ScoringPair],
    out: str | Path | None = None,
    metrics: Iterable[str] = ("si_sdr",),
    jobs: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    command: str | None = None,
    listeners: Sequence[MetricBackend] = (),
    save_extremes: int = 0,
    sample_rate: int | None = None,
    labels: ActivityLabels | None = None,
) -> dict[str, Any]:
    """Score estimates that lie in files; a reference without estimate, or a damaged file, is a trial that failed_trial.

    Args:
        pairs: from `pairs.find_pairs`.
        out: folder for `summary.json` and `per_trial.jsonl`, which goes on if it was killed. None: nothing is written.
        metrics: names out of `measures.ALL_METRICS`.
        jobs: processes that score; as `evaluate`.
        overwrite: replace earlier results in `out`.
        on_progress: called with the number of trials scored so far, and of all.
        command: how this was started; None: the command line of this process.
        listeners: what measures `similarity` or `wer`; made for `sample_rate`.
        save_extremes: of so many of the worst and of the best trials, audio is saved in `out`.
        sample_rate: Hz at which all is scored; `None`: that of the first reference, or estimate.
        labels: when the targets speak, for timing, which need not stand in `metrics` then; `None`: when their
            references do.

    Returns:
        The content of `summary.json`, as that of `evaluate`; a silent reference (an absent target) is counted apart.

    Raises:
        InputError: no pairs; an unknown metric, or one that none of them can have; as `evaluate`.
        OutputExistsError: `out` holds results, and `overwrite` is false.
    """
    if not pairs:
        raise InputError("there is nothing to score; name a folder of references and one of estimates")
    if save_extremes and out is None:
        raise InputError("audio cannot be saved without an output folder; name one")
    chosen = with_timing(with_backends(check_metric_names(metrics), [listener.name for listener in listeners]), labels)
    check_computable(chosen, any(pair.reference is not None for pair in pairs), labels is not None)
    rate = sample_rate or common_sample_rate(pairs)
    jobs = num_scoring_processes(jobs, chosen, len(pairs))
    measured = {
        **protocol.describe_metrics(chosen, listeners, labels),
        "condition": "audio made elsewhere, matched by name",
        "lengths": LENGTHS,
        "sample_rate": rate,
        "trials": {"count": len(pairs), "sha256": _fingerprint(pairs)},
        "files": {"sha256": _state_of(pairs)},
        "model": {"name": "audio made elsewhere", "hash": None},
        "device": None,
        **protocol.describe_environment(command),
    }
    folder = None if out is None else Path(out)
    with ScoringSession(
        measured, len(pairs), chosen, jobs, folder, overwrite, listeners, 0, save_extremes, on_progress, labels
    ) as session:
        left = [(number, pair) for number, pair in enumerate(pairs) if number not in session.done]
        for extracted in map_ahead(partial(_read, sample_rate=rate), left):
            session.add(extracted)
        return session.finish()


def common_sample_rate(pairs: Sequence[ScoringPair]) -> int:
    """The sample rate of the first reference that can be read, in Hz; of the first estimate, where there is none."""
    from wesep_py.audio import info

    paths = [path for pair in pairs if (path := pair.reference or pair.estimate) is not None]
    for path in paths:
        try:
            return info(path).sample_rate
        except AudioError:
            continue
    raise InputError(f"{paths[0].parent}: none of its files can be read")


def _read(numbered: tuple[int, ScoringPair], sample_rate: int) -> ExtractedTrial:
    number, pair = numbered
    enrollment = pair.enrollment.name if pair.enrollment is not None else ""
    record = TrialRecord(pair.name, pair.target, enrollment, number=number)
    if pair.interferers is not None:
        record.num_speakers = 1 + len(pair.interferers)
    try:
        estimate, audio = _load(pair, sample_rate)
        record.duration_s = len(estimate) / sample_rate
        describe_estimate(record, estimate, audio.reference, audio.mixture)
        describe_audio(record, audio.reference, audio.interferers, audio.enrollment, sample_rate)
    except Exception as error:  # one file's failure, of whatever kind, must not lose the others
        return failed_trial(record, error)
    return ExtractedTrial(record, audio, estimate)


def _load(pair: ScoringPair, sample_rate: int) -> tuple[np.ndarray, PartialTrialAudio]:
    """First channels, at one rate and of one length.

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
        if len(signal) - shortest > SLACK_S * sample_rate:
            raise AudioError(
                f"{path}: has {len(signal) / sample_rate:.2f} s, where another signal of the trial has "
                f"{shortest / sample_rate:.2f} s; {LENGTHS}"
            )
    signals = [signal[:shortest] for signal in signals]
    mixture = signals.pop() if pair.mixture is not None else None
    reference = signals.pop() if pair.reference is not None else None
    estimate, *others = signals
    interferers = None if pair.interferers is None else np.array(others).reshape(len(others), shortest)
    enrollment = None if pair.enrollment is None else read_mono(pair.enrollment, sample_rate)
    return estimate, PartialTrialAudio(reference, mixture, interferers, enrollment, sample_rate)


def _fingerprint(pairs: Iterable[ScoringPair]) -> str:
    """SHA-256 over the names of all trials, and which files each has but for its estimate."""
    digest = hashlib.sha256()
    for pair in pairs:
        others = None if pair.interferers is None else len(pair.interferers)
        known = (pair.name, pair.target, pair.mixture is not None, others)
        digest.update(repr(known if pair.reference is not None else (*known, "no reference")).encode() + b"\n")
    return digest.hexdigest()


def _state_of(pairs: Iterable[ScoringPair]) -> str:
    """SHA-256 over path, size and time of every file: a run goes on only with those that it was begun with."""
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.reference, pair.estimate, pair.mixture, pair.enrollment, *(pair.interferers or ())):
            state = None if path is None else path.stat()
            line = None if state is None or path is None else (str(path.resolve()), state.st_size, state.st_mtime_ns)
            digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()
