"""How the numbers were measured: stands beside them in every summary (law 7)."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from wesep_py import __version__
from wesep_py.evaluation.bootstrap import DEFINITION as INTERVAL
from wesep_py.evaluation.conditions import DEFINITIONS as BREAKDOWNS
from wesep_py.evaluation.measures import LABELLED, MEASURE_DEFINITIONS, MEASURES
from wesep_py.evaluation.summary import DECISION
from wesep_py.names import printable
from wesep_py.simulation.trials import CONDITIONS

if TYPE_CHECKING:
    from wesep_py.corpus.trials import Trial
    from wesep_py.evaluation.labels import Labels
    from wesep_py.evaluation.listeners import Listener
    from wesep_py.inference import Extractor

PACKAGES = ("torch", "numpy", "scipy", "soundfile", "soxr", "fast_bss_eval", "pesq", "pystoi", "speechmos")


def describe(
    extractor: Extractor,
    trials: Sequence[Trial],
    condition: str,
    metrics: Iterable[str],
    command: str | None = None,
    listeners: Iterable[Listener] = (),
    labels: Labels | None = None,
) -> dict[str, Any]:
    """Everything that is needed to measure the same numbers again.

    Args:
        extractor: the model.
        trials: all trials, in order.
        condition: "clean" or "noisy".
        metrics: names out of `measures.MEASURES`.
        command: the command line; None: that of this process.
        listeners: what else measures.
        labels: what says when the targets speak, where it is not their references.

    Returns:
        A dictionary for JSON: definition of every metric, condition, trials, model, software, command, date.
    """
    return {
        **definitions(metrics, listeners, labels),
        "condition": f"{condition}: {CONDITIONS[condition]}",
        "sample_rate": extractor.sample_rate,
        "trials": {"count": len(trials), "sha256": fingerprint(trials)},
        "model": {"name": extractor.name, "hash": extractor.model_hash},
        "presence_calibration": asdict(extractor.calibration),
        "max_enrollment_s": getattr(extractor, "max_enrollment_s", None),
        "device": str(extractor.device),
        **circumstances(command),
    }


def definitions(
    metrics: Iterable[str], listeners: Iterable[Listener] = (), labels: Labels | None = None
) -> dict[str, Any]:
    """What every number means: of each metric, of intervals, breakdowns and decisions, and what listens."""
    names = [name for metric in metrics for name in MEASURES[metric]]
    meaning = MEASURE_DEFINITIONS if labels is None else {**MEASURE_DEFINITIONS, **LABELLED}
    return {
        "metrics": {name: meaning[name] for name in (*names, "attenuation_db")},
        "interval": INTERVAL,
        **BREAKDOWNS,
        "decision": dict(DECISION),
        **{listener.name: listener.describe() for listener in listeners},
        **({} if labels is None else {"labels": labels.describe()}),
    }


def circumstances(command: str | None = None) -> dict[str, Any]:
    """By what software, which command (by default that of this process) and when something was measured."""
    return {
        "threads": _num_threads(),
        "versions": _versions(),
        "command": printable(command if command is not None else shlex.join(sys.argv)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def fingerprint(trials: Iterable[Trial]) -> str:
    """SHA-256 over mixture, target, sources with gains, noise and enrollment of all trials, without folders.

    Two results with the same fingerprint and condition were measured on the same list.
    """
    digest = hashlib.sha256()
    for trial in trials:
        noise = trial.noise and (trial.noise.path.name, trial.noise.gain, trial.noise.offset_s)
        sources = [(source.utterance_id, source.path.name, source.gain) for source in trial.sources]
        mates = [source.utterance_id for source in trial.enrollment_mates]
        line = (trial.mixture_id, trial.target_utterance_id, trial.enrollment.name, sources, noise, mates)
        digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"wesep-py": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _num_threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else None
