"""Lists of trials, extracted and scored, with how it was measured beside every number."""

from __future__ import annotations

from wesep_py.evaluation.evaluator import evaluate
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.summary import Interval, bootstrap_mean, summarise

__all__ = ["Interval", "TrialRecord", "bootstrap_mean", "evaluate", "summarise"]
