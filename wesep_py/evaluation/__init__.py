"""Evaluate a model: extract a list of trials, score it, and summarise, compare and show the results.

A list of trials becomes a report in this order:

| step | module | what it does |
| --- | --- | --- |
| trial list | `data.trials` | reads mixtures, targets and enrollments |
| the run | `evaluator` | `evaluate` with `EvaluationOptions`: renders, extracts and scores every trial |
| extraction | `trial_extraction` | enrolls and extracts trials, one by one or in batches |
| conditions | `trial_conditions` | SIR, overlap, level and speakers of each trial, for breakdowns |
| scoring | `scoring` | names, definitions and computation of all metrics; worker processes |
| | `metric_backends` | metrics that need a model: speaker similarity, word error rate |
| | `activity_labels` | RTTM labels, for timing without references |
| | `speech_detectors` | speech in the estimates, for timing: by energy, a package or the user's function |
| | `protocols`, `real_tse_measures` | definitions of other toolkits, and of the REAL-TSE challenge |
| | `score_files` | `score_files`: the same for audio that was made elsewhere |
| results | `results` | records of trials, saved audio, resuming a run, reading results |
| summary | `summary` | means with bootstrap intervals, breakdowns, the protocol |
| comparison | `comparison` | paired differences of two results, with a permutation test |
| report | `report_page`, `report_pictures` | one self-contained HTML page |
| calibration | `calibration`, `frame_calibration` | probability of presence, of a recording and of each frame |
| verifier | `verifier_calibration` | fit of the presence verifier, and its table beside the presence head |
| verification | `verification`, `verifier` | speaker verification: error rates of an encoder, and the run of a list |

Single metrics of arrays are in `wesep_py.metrics`.
"""

from __future__ import annotations

from wesep_py.evaluation.evaluator import EvaluationOptions, ScoringOptions, evaluate
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.summary import Interval, bootstrap_mean, summarise

__all__ = [
    "EvaluationOptions",
    "Interval",
    "ScoringOptions",
    "TrialRecord",
    "bootstrap_mean",
    "evaluate",
    "summarise",
]
