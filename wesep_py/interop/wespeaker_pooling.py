"""WeSpeaker's poolings: their names, and those of their weights, as ours."""

from __future__ import annotations

from typing import Any

from wesep_py.common.errors import ConfigError, nearest

POOLINGS = {
    "TAP": "tap",
    "TSDP": "tsdp",
    "TSTP": "tstp",
    "ASTP": "astp",
    "MHASTP": "mhastp",
    "MQMHASTP": "mqmhastp",
}
"""`pooling_func` and our name; their networks leave all arguments but ASTP's context at their defaults, as ours."""

POOLING_RULES = (
    (r"^pool\.n_query\.", "pool.queries."),
    (r"^(pool\..*)\bheads_att_trans\.(\d+)\.att_0\.", r"\1heads.\2.0."),
    (r"^(pool\..*)\bheads_att_trans\.(\d+)\.att_1\.", r"\1heads.\2.2."),
)
"""Regular expressions of weights' names and what they become; those of ASTP are the same here and there."""


def translate_pooling(name: str) -> Any:
    """The pooling of ours that `pooling_func` names.

    >>> translate_pooling("TSTP")
    'tstp'

    Raises:
        ConfigError: there is none.
    """
    if name not in POOLINGS:
        raise ConfigError(f"encoder: pooling_func {name!r} cannot be translated; {nearest(str(name), POOLINGS)}")
    return POOLINGS[name]
