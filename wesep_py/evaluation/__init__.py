"""Lists of trials, extracted and scored, with how it was measured beside every number."""

from __future__ import annotations

from wesep_py.evaluation.bootstrap import Interval, bootstrap_mean
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.run import evaluate
from wesep_py.evaluation.summary import summarise

__all__ = ["Interval", "TrialRecord", "bootstrap_mean", "evaluate", "summarise"]
