"""Definitions of the metrics: arrays in, numbers out. `docs/metrics.md` says where packages differ."""

from __future__ import annotations

from wesep_py.metrics.perception import estoi, pesq, stoi
from wesep_py.metrics.scores import DEFINITIONS, METRICS, Scores, check_metrics, score
from wesep_py.metrics.separation import MetricError, attenuation_db, is_silent, sdr, si_sdr, si_sdr_improvement

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
