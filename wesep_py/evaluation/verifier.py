"""A list of speaker verification trials, from a model and a manifest to the verification_metrics and the files that hold them."""

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

SUMMARY, SCORES, PICTURE = "summary.json", "scores.txt", "det.png"
INTERVAL = "95 % percentile bootstrap over speakers, 200 resamples, seed 0"
TRUE_WORDS, FALSE_WORDS = {"1", "target"}, {"0", "nontarget"}


@dataclass(frozen=True)
class VerificationResult:
    """What was found.

    Attributes:
        utterances: the recordings.
        trials: pairs of them.
        scores: `[trials]`.
        protocol: how it was measured.
        overlap: the same where people overlap, if that was asked for.
    """

    utterances: list[Utterance]
    trials: VerificationTrials
    scores: NDArray[np.float64]
    protocol: dict[str, Any]
    overlap: OverlapResult | None = None

    def summary(self) -> dict[str, Any]:
        """`eer` and `min_dcf` as `{mean, low, high, count}`, `counts` and the `protocol`."""
        return self._summary

    @cached_property
    def _summary(self) -> dict[str, Any]:
        speaker_ids = [utterance.speaker_id for utterance in self.utterances]
        found = verification_metrics(self.scores, self.trials, speaker_ids)
        targets = int(self.trials.is_target.sum())
        return {
            **{name: figure.to_dict() for name, figure in found.items()},
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
        manifest: the recordings.
        root: the folder that paths in manifests start from; by default each manifest's own.
        trials: a list of them (see `read_trial_list`); by default every pair of the manifest's recordings.
        cohort: a manifest of other speakers; their mean embeddings normalise the scores (AS-norm).
        top_n: of the cohort's speakers that are nearest.
        device: on which to compute.
        on_progress: called with the number of recordings embedded, and of all.
        overlap: draw so many recordings of one voice, and of two that overlap, and verify these too.

    Raises:
        CheckpointError: no encoder in the model.
        InputError: a list is missing or malformed; the cohort and the trials share a speaker, or it has fewer than
            two; too few speakers or recordings for `overlap`.
        AudioError: a recording is missing or damaged.
    """
    encoder = load_encoder(model).to(device)
    utterances = read_manifest(manifest, root)
    speaker_ids = [utterance.speaker_id for utterance in utterances]
    strangers = [] if cohort is None else _read_cohort(cohort, root, set(speaker_ids))
    if overlap and len(set(speaker_ids)) < MIN_OVERLAP_SPEAKERS:
        raise InputError(
            f"--overlap: two voices at a time need recordings of {MIN_OVERLAP_SPEAKERS} speakers or more to tell apart; "
            f"{manifest} has {len(set(speaker_ids))}, so leave it out"
        )
    listed = VerificationTrials.all_pairs(speaker_ids) if trials is None else read_trial_list(trials, utterances)
    reader, total = FileReader(encoder.sample_rate), len(utterances) + len(strangers)
    overlapped = None
    if overlap:
        simulation = SimulationConfig(duration_s=3.0, sir_db=(-10, 10))
        overlapped = verify_overlap(encoder, utterances, reader, device, overlap, simulation)
    embeddings = embed(encoder, utterances, reader, device, lambda done, _: on_progress(done, total))
    means = None
    if strangers:
        of_strangers = embed(
            encoder, strangers, reader, device, lambda done, _: on_progress(len(utterances) + done, total)
        )
        means = mean_by_speaker(of_strangers, [utterance.speaker_id for utterance in strangers])
    scores = score_trials(embeddings, listed, means, top_n)
    nearest = 0 if means is None else min(top_n, len(means))
    saved = checkpoint.load(model)
    protocol = {
        "score": "cosine" if means is None else f"cosine, AS-norm by the {nearest} nearest of {len(means)} speakers",
        "min_dcf": "p_target 0.01, C_miss = C_fa = 1, normalised",
        "interval": INTERVAL,
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
    return VerificationResult(utterances, listed, scores, protocol, overlapped)


def _read_cohort(path: Path, root: Path | None, known: Set[str]) -> list[Utterance]:
    """The cohort's recordings, none of them of `known` speakers."""
    strangers = read_manifest(path, root)
    speaker_ids = {utterance.speaker_id for utterance in strangers}
    if shared := speaker_ids & known:
        raise InputError(f"{path}: speaker {min(shared)!r} is in the trials too; a cohort is of other speakers")
    if len(speaker_ids) < 2:
        raise InputError(
            f"{path}: a cohort of {len(speaker_ids)} speaker; AS-norm needs 2 or more, and some hundreds to be of use"
        )
    return strangers


def read_trial_list(path: Path, utterances: Sequence[Utterance]) -> VerificationTrials:
    """The trials of a list.

    Args:
        path: a text file, a trial a line: `1 ENROLLMENT TEST` (VoxCeleb; 0 for two speakers) or
            `ENROLLMENT TEST target` (Kaldi; `nontarget`). A recording is named by its utterance id or its path, whole
            or its end; of a path of another machine the longest end counts that is one recording's.
        utterances: the recordings.

    Returns:
        The trials, each once; a warning says if some are listed twice.

    Raises:
        InputError: the list is missing, a line of it is malformed, names no recording or several, or says of a pair the
            opposite of a line before.
    """
    lines = open_lines(path, "a list of trials")
    places = _named_recordings(utterances)
    rows: dict[tuple[int, int], tuple[bool, str]] = {}
    twice: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where, words = f"{path}:{number}", line.split()
        if len(words) != 3:
            raise InputError(f"{where}: is {quoted(line)}; '1 ENROLLMENT TEST' or 'ENROLLMENT TEST target' is needed")
        label, *names = words if words[0] in TRUE_WORDS | FALSE_WORDS else (words[2], *words[:2])
        if label not in TRUE_WORDS | FALSE_WORDS:
            raise InputError(f"{where}: says {quoted(label)}; 1 or 0, or target or nontarget, is needed")
        pair = (_position_of(names[0], places, where), _position_of(names[1], places, where))
        says, first = rows.setdefault(pair, (label in TRUE_WORDS, where))
        if says != (label in TRUE_WORDS):
            raise InputError(f"{where}: says {quoted(label)} of {names[0]} and {names[1]}, and {first} the opposite")
        if first != where:
            twice.append((where, first))
    if not rows:
        raise InputError(f"{path}: holds no trial")
    if twice:
        log.warning(
            "%s: %d lines name a trial that is listed before, such as %s (that of %s); each trial is counted once",
            path, len(twice), *twice[0],
        )  # fmt: skip
    listed = [(enrollment, test, says) for (enrollment, test), (says, _) in rows.items()]
    enrollment, test, is_target = (np.array(column) for column in zip(*listed, strict=True))
    return VerificationTrials(enrollment, test, is_target)


def _named_recordings(utterances: Sequence[Utterance]) -> dict[str, set[int]]:
    """The positions of recordings by what a list may call them: the utterance's id alone, else the ends of its path."""
    places: dict[str, set[int]] = {}
    for position, utterance in enumerate(utterances):
        parts = utterance.path.parts
        for end in (utterance.path, *(Path(*parts[start:]) for start in range(1, len(parts)))):
            places.setdefault(canonical(end.as_posix()), set()).add(position)
    return places | {utterance.utterance_id: {position} for position, utterance in enumerate(utterances)}


def _position_of(name: str, places: Mapping[str, Set[int]], where: str) -> int:
    """The position of the recording that a list calls `name`.

    Raises:
        InputError: there is none, or there are several.
    """
    name = canonical(name)
    parts = name.replace("\\", "/").split("/")
    is_moved = name.startswith("/") or "\\" in name  # the file's own name alone would say too little
    ends = [name, *("/".join(parts[first:]) for first in range(len(parts) - 1 if is_moved else 0))]
    found = next((places[end] for end in ends if end in places), None)
    if found is None:
        raise InputError(f"{where}: {name!r} is no recording of the manifest; name its utterance id or path")
    if len(found) > 1:
        raise InputError(
            f"{where}: {name!r} is the end of the paths of {len(found)} recordings; name more of the path, or the "
            "utterance id"
        )
    return next(iter(found))


def check_verification_output(folder: Path, overwrite: bool, inputs: Sequence[tuple[Path | None, str]] = ()) -> None:
    """Refuse a folder that cannot take the results, before the work; see `files.check_results_folder`.

    Args:
        folder: may be new.
        overwrite: whether results may be there.
        inputs: files that are read, and what they are.
    """
    refuse_inputs([folder, *(folder / name for name in (SUMMARY, SCORES, PICTURE))], inputs)
    check_results_folder(folder, (SUMMARY, SCORES, PICTURE), overwrite)


def write_verification(result: VerificationResult, folder: Path, overwrite: bool = False) -> bool:
    """Write `summary.json`, `scores.txt` (`ENROLLMENT TEST score target`) and, with matplotlib, `det.png`: all or none.

    Returns:
        Whether `det.png` was drawn; if not, one of earlier results is removed.
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
        drawn = draw_det(folder / PICTURE, {"": result}, overwrite)
        write_json(folder / SUMMARY, result.summary(), overwrite)
    if not drawn:
        (folder / PICTURE).unlink(missing_ok=True)
    return drawn


def draw_det(path: Path, results: dict[str, VerificationResult], overwrite: bool = True) -> bool:
    """Draw misses over false alarms, both on the scale of a normal distribution's deviates (Martin et al., 1997).

    Args:
        path: the PNG to write.
        results: under the name of each line.
        overwrite: replace a file that is there.

    Returns:
        Whether it was drawn: false without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    from scipy.special import ndtri

    shares = np.array([0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for name, result in results.items():
        curve = det_curve(result.scores, result.trials.is_target)
        inside = (curve.false_alarm > 0) & (curve.miss > 0) & (curve.false_alarm < 1) & (curve.miss < 1)
        axis.plot(ndtri(curve.false_alarm[inside]), ndtri(curve.miss[inside]), label=name)
    axis.plot(ndtri(shares), ndtri(shares), color="0.7", linewidth=0.8)
    for set_ticks, set_limits in ((axis.set_xticks, axis.set_xlim), (axis.set_yticks, axis.set_ylim)):
        set_ticks(ndtri(shares), [f"{100 * share:g}" for share in shares])
        set_limits(ndtri(0.0005), ndtri(0.5))
    axis.set_xlabel("false alarms (%)")
    axis.set_ylabel("misses (%)")
    axis.grid(alpha=0.3)
    if any(results):
        axis.legend()
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


def _fingerprint(utterances: Sequence[Utterance], trials: VerificationTrials) -> str:
    digest = hashlib.sha256()
    for first, second, same in zip(trials.enrollment, trials.test, trials.is_target, strict=True):
        line = (utterances[first].utterance_id, utterances[second].utterance_id, bool(same))
        digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()
