"""Why a metric has no value for a pair of signals."""

from __future__ import annotations

from wesep_py.errors import WesepError


class MetricError(WesepError):
    """A metric that cannot be computed for these signals; the message is the reason that results report."""
