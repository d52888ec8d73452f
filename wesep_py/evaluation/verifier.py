"""Verify a list of speaker verification trials: from a model and a manifest to figures and the files that hold them.

`verify_manifest` embeds the recordings and scores the trials; `write_verification` writes `summary.json`, `scores.txt`
and `det.png`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py import checkpoint
from wesep_py.common.errors import InputError, quoted
from wesep_py.common.files import atomic_path, refuse_inputs, write_json, write_together
from wesep_py.common.folders import check_results_folder, created_folder
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import open_lines
from wesep_py.data import FileReader, Utterance, read_manifest
from wesep_py.evaluation.summary import describe_environment
from wesep_py.evaluation.verification import (
    MIN_OVERLAP_SPEAKERS,
    OverlapResult,
    VerificationTrials,
    embed,
    mean_by_speaker,
    score_trials,
    verification_metrics,
    verify_overlap,
)
from wesep_py.metrics.detection import det_curve
from wesep_py.network.speaker import load_encoder
from wesep_py.simulation import SimulationConfig

log = logging.getLogger(__name__)

VERIFICATION_SUMMARY, SCORES, DET_PICTURE = "summary.json", "scores.txt", "det.png"
SPEAKER_INTERVAL_DEFINITION = "95 % percentile bootstrap over speakers, 200 resamples, seed 0"
TARGET_LABELS, NONTARGET_LABELS = {"1", "target"}, {"0", "nontarget"}


@dataclass(frozen=True)
class VerificationResult:
    """Scores and figures of a list of verification trials.

    Attributes:
        utterances: the recordings.
        trials: pairs of recordings.
        scores: `[trials]`.
        protocol: how they were measured.
        overlap: figures of overlapping voices, if they were measured.
    """

    utterances: list[Utterance]
    trials: VerificationTrials
    scores: NDArray[np.float64]
    protocol: dict[str, Any]
    overlap: OverlapResult | None = None

    def summary(self) -> dict[str, Any]:
        """Return the content of `summary.json`: `eer` and `min_dcf` with intervals, `counts`, `protocol`."""
        return self._summary

    @cached_property
    def _summary(self) -> dict[str, Any]:
        speaker_ids = [utterance.speaker_id for utterance in self.utterances]
        figures = verification_metrics(self.scores, self.trials, speaker_ids)
        targets = int(self.trials.is_target.sum())
        return {
            **{name: figure.to_dict() for name, figure in figures.items()},
            **({} if self.overlap is None else {"overlap": self.overlap.as_dict()}),
            "counts": {
                "trials": len(self.scores),
                "target": targets,
                "nontarget": len(self.scores) - targets,
                "utterances": len(self.utterances),
                "speakers": len(set(speaker_ids)),
            },
            "protocol": self.protocol,
        }


def verify_manifest(
    model: str | Path,
    manifest: Path,
    root: Path | None = None,
    trials: Path | None = None,
    cohort: Path | None = None,
    top_n: int = 300,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    overlap: int = 0,
) -> VerificationResult:
    """Score trials of speaker verification.

    Args:
        model: a checkpoint or experiment folder of a speaker encoder, or of an extractor that has one.
        manifest: of the recordings.
        root: folder that paths in manifests are relative to; by default that of each manifest.
        trials: a list of trials (see `read_trial_list`); by default all pairs of recordings.
        cohort: a manifest of other speakers, whose mean embeddings normalise the scores (AS-norm).
        top_n: number of nearest cohort speakers that normalise a score.
        device: on which to compute.
        on_progress: called with the number of embedded recordings and the number of all.
        overlap: draw this many recordings of one voice, and of two overlapping voices, and verify these too.

    Raises:
        CheckpointError: the model has no encoder.
        InputError: a list is missing or malformed; the cohort and the trials share a speaker, or it has fewer than
            two; too few speakers or recordings for `overlap`.
        AudioError: a recording is missing or damaged.
    """
    encoder = load_encoder(model).to(device)
    utterances = read_manifest(manifest, root)
    speaker_ids = [utterance.speaker_id for utterance in utterances]
    cohort_utterances = [] if cohort is None else _read_cohort(cohort, root, set(speaker_ids))
    if overlap and len(set(speaker_ids)) < MIN_OVERLAP_SPEAKERS:
        raise InputError(
            f"--overlap: overlapping voices need recordings of {MIN_OVERLAP_SPEAKERS} speakers or more; {manifest} has "
            f"{len(set(speaker_ids))}, so leave it out"
        )
    listed = VerificationTrials.all_pairs(speaker_ids) if trials is None else read_trial_list(trials, utterances)
    reader, total = FileReader(encoder.sample_rate), len(utterances) + len(cohort_utterances)
    overlap_result = None
    if overlap:
        simulation = SimulationConfig(duration_s=3.0, sir_db=(-10, 10))
        overlap_result = verify_overlap(encoder, utterances, reader, device, overlap, simulation)
    embeddings = embed(encoder, utterances, reader, device, lambda done, _: on_progress(done, total))
    means = None
    if cohort_utterances:
        cohort_embeddings = embed(
            encoder, cohort_utterances, reader, device, lambda done, _: on_progress(len(utterances) + done, total)
        )
        means = mean_by_speaker(cohort_embeddings, [utterance.speaker_id for utterance in cohort_utterances])
    scores = score_trials(embeddings, listed, means, top_n)
    nearest = 0 if means is None else min(top_n, len(means))
    saved = checkpoint.load(model)
    protocol = {
        "score": "cosine" if means is None else f"cosine, AS-norm by the {nearest} nearest of {len(means)} speakers",
        "min_dcf": "p_target 0.01, C_miss = C_fa = 1, normalised",
        "interval": SPEAKER_INTERVAL_DEFINITION,
        "trials": {
            "manifest": str(manifest),
            "list": "all pairs" if trials is None else str(trials),
            "sha256": _fingerprint(utterances, listed),
        },
        "model": {"name": str(model), "hash": saved.hash},
        "device": device,
        **describe_environment(),
    }
    if overlap:
        protocol["overlap"] = (
            f"{overlap} clean recordings each of one and of two voices, 3 s, |SIR| up to 10 dB, seed 0"
        )
    return VerificationResult(utterances, listed, scores, protocol, overlap_result)


def _read_cohort(path: Path, root: Path | None, trial_speakers: Set[str]) -> list[Utterance]:
    """Return the recordings of a cohort.

    Raises:
        InputError: the cohort shares a speaker with the trials, or has fewer than two.
    """
    cohort = read_manifest(path, root)
    speaker_ids = {utterance.speaker_id for utterance in cohort}
    if shared := speaker_ids & trial_speakers:
        raise InputError(f"{path}: speaker {min(shared)!r} is in the trials too; use a cohort of other speakers")
    if len(speaker_ids) < 2:
        raise InputError(
            f"{path}: the cohort has {len(speaker_ids)} speaker; AS-norm needs 2 or more, and hundreds to be useful"
        )
    return cohort


def read_trial_list(path: Path, utterances: Sequence[Utterance]) -> VerificationTrials:
    """Read a list of trials.

    Args:
        path: a text file, one trial per line: `1 ENROLLMENT TEST` (VoxCeleb; 0 for two speakers) or
            `ENROLLMENT TEST target` (Kaldi; `nontarget`). A recording is named by its utterance id, its path or the end
            of its path. Of a path of another machine, the longest end that is the end of a recording's path counts.
        utterances: the recordings.

    Returns:
        The trials, each once; trials that are listed twice are logged as a warning.

    Raises:
        InputError: the list is missing; a line is malformed, names no recording or several, or contradicts a line
            above.
    """
    lines = open_lines(path, "a list of trials")
    places = _named_recordings(utterances)
    rows: dict[tuple[int, int], tuple[bool, str]] = {}
    repeated: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where, fields = f"{path}:{number}", line.split()
        if len(fields) != 3:
            raise InputError(f"{where}: is {quoted(line)}; '1 ENROLLMENT TEST' or 'ENROLLMENT TEST target' is needed")
        label, *names = fields if fields[0] in TARGET_LABELS | NONTARGET_LABELS else (fields[2], *fields[:2])
        if label not in TARGET_LABELS | NONTARGET_LABELS:
            raise InputError(f"{where}: the label is {quoted(label)}; 1 or 0, or target or nontarget, is needed")
        pair = (_position_of(names[0], places, where), _position_of(names[1], places, where))
        is_target_here = label in TARGET_LABELS
        is_target_above, above = rows.setdefault(pair, (is_target_here, where))
        if is_target_above != is_target_here:
            raise InputError(
                f"{where}: labels {names[0]} and {names[1]} as {quoted(label)}, and {above} says the opposite; "
                "correct one of them"
            )
        if above != where:
            repeated.append((where, above))
    if not rows:
        raise InputError(f"{path}: holds no trial")
    if repeated:
        log.warning(
            "%s: %d lines repeat a trial, such as %s (that of %s); each trial is counted once",
            path, len(repeated), *repeated[0],
        )  # fmt: skip
    columns = zip(*((enrollment, test, label) for (enrollment, test), (label, _) in rows.items()), strict=True)
    enrollment, test, is_target = (np.array(column) for column in columns)
    return VerificationTrials(enrollment, test, is_target)


def _named_recordings(utterances: Sequence[Utterance]) -> dict[str, set[int]]:
    """Return the positions of the recordings that each name may mean: an utterance id, else an end of a path."""
    places: dict[str, set[int]] = {}
    for position, utterance in enumerate(utterances):
        parts = utterance.path.parts
        for end in (utterance.path, *(Path(*parts[start:]) for start in range(1, len(parts)))):
            places.setdefault(canonical(end.as_posix()), set()).add(position)
    return places | {utterance.utterance_id: {position} for position, utterance in enumerate(utterances)}


def _position_of(name: str, places: Mapping[str, Set[int]], where: str) -> int:
    """Return the position of the recording with this name.

    Raises:
        InputError: there is no such recording, or there are several.
    """
    name = canonical(name)
    parts = name.replace("\\", "/").split("/")
    # A path of another machine may match by its end, but not by its file name alone, which may be that of another file.
    is_moved = name.startswith("/") or "\\" in name
    ends = [name, *("/".join(parts[first:]) for first in range(len(parts) - 1 if is_moved else 0))]
    positions = next((places[end] for end in ends if end in places), None)
    if positions is None:
        raise InputError(f"{where}: {name!r} is no recording of the manifest; give its utterance id or path")
    if len(positions) > 1:
        raise InputError(
            f"{where}: {name!r} is the end of the paths of {len(positions)} recordings; give more of the path, or the "
            "utterance id"
        )
    return next(iter(positions))


def check_verification_output(folder: Path, overwrite: bool, inputs: Sequence[tuple[Path | None, str]] = ()) -> None:
    """Refuse a folder that cannot take the results, before anything is computed.

    Args:
        folder: may be new.
        overwrite: whether earlier results may be replaced.
        inputs: files that are read, each with a description.

    Raises:
        OutputExistsError: it holds results, and `overwrite` is false.
        InputError: it is a file, or is read.
    """
    refuse_inputs([folder, *(folder / name for name in (VERIFICATION_SUMMARY, SCORES, DET_PICTURE))], inputs)
    check_results_folder(folder, (VERIFICATION_SUMMARY, SCORES, DET_PICTURE), overwrite)


def write_verification(result: VerificationResult, folder: Path, overwrite: bool = False) -> None:
    """Write `summary.json`, `scores.txt` (`ENROLLMENT TEST score target`) and `det.png`: all or none of them.

    Raises:
        OutputExistsError, InputError: as `check_verification_output`.
        WesepError: writing failed.
    """
    check_verification_output(folder, overwrite)
    ids = [utterance.utterance_id for utterance in result.utterances]
    trials = result.trials
    with created_folder(folder), write_together():
        with atomic_path(folder / SCORES, overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
            for first, second, same, score in zip(
                trials.enrollment, trials.test, trials.is_target, result.scores, strict=True
            ):
                file.write(f"{ids[first]} {ids[second]} {score:.6f} {'target' if same else 'nontarget'}\n")
        draw_det(folder / DET_PICTURE, {"": result}, overwrite)
        write_json(folder / VERIFICATION_SUMMARY, result.summary(), overwrite)


def draw_det(path: Path, results: dict[str, VerificationResult], overwrite: bool = True) -> None:
    """Draw DET curves: misses over false alarms, both as deviates of a normal distribution (Martin et al., 1997).

    Args:
        path: the PNG to write.
        results: by the name of each curve.
        overwrite: replace an existing file.
    """
    from matplotlib.figure import Figure
    from scipy.special import ndtri

    ticks = np.array([0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        curve = det_curve(result.scores, result.trials.is_target)
        # Rates of 0 and 1 are at infinity on these axes.
        finite = (curve.false_alarm > 0) & (curve.miss > 0) & (curve.false_alarm < 1) & (curve.miss < 1)
        axes.plot(ndtri(curve.false_alarm[finite]), ndtri(curve.miss[finite]), label=name)
    axes.plot(ndtri(ticks), ndtri(ticks), color="0.7", linewidth=0.8)
    for set_ticks, set_limits in ((axes.set_xticks, axes.set_xlim), (axes.set_yticks, axes.set_ylim)):
        set_ticks(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
        set_limits(ndtri(0.0005), ndtri(0.5))
    axes.set_xlabel("false alarms (%)")
    axes.set_ylabel("misses (%)")
    axes.grid(alpha=0.3)
    if any(results):
        axes.legend()
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _fingerprint(utterances: Sequence[Utterance], trials: VerificationTrials) -> str:
    digest = hashlib.sha256()
    for first, second, same in zip(trials.enrollment, trials.test, trials.is_target, strict=True):
        line = (utterances[first].utterance_id, utterances[second].utterance_id, bool(same))
        digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()
