"""Definitions of the metrics: arrays in, numbers out. `docs/metrics.md` says where packages differ."""

from __future__ import annotations

from wesep_py.metrics.bss_eval import sdr
from wesep_py.metrics.errors import MetricError
from wesep_py.metrics.intelligibility import estoi, stoi
from wesep_py.metrics.perceptual import pesq
from wesep_py.metrics.scale_invariant import si_sdr, si_sdr_improvement
from wesep_py.metrics.scores import DEFINITIONS, METRICS, Scores, check_metrics, score
from wesep_py.metrics.signals import attenuation_db, is_silent

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "MetricError",
    "Scores",
    "attenuation_db",
    "check_metrics",
    "estoi",
    "is_silent",
    "pesq",
    "score",
    "sdr",
    "si_sdr",
    "si_sdr_improvement",
    "stoi",
]
