"""Metrics of one estimate: arrays in, a number out, or a `MetricError` with the reason why there is none.

| module | metrics |
| --- | --- |
| `separation` | SI-SDR, SI-SDR improvement, SDR (BSS-Eval), attenuation |
| `perception` | STOI, ESTOI, PESQ, DNSMOS, word error rate |
| `timing` | precision, recall, F1 and frame error of speech activity |
| `detection` | embedding similarity, DET curve, EER, minDCF, score normalisation |
| `scores` | `score`: several metrics of one estimate at once, with their definitions |

`wesep_py.evaluation` computes them over lists of trials. `docs/metrics.md` says where other packages differ.
"""

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
