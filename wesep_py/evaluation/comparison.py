"""Compare two results on the same trials: mean differences with intervals and a permutation test."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from wesep_py.common.errors import InputError, nearest
from wesep_py.evaluation.results import EvaluationResults, TrialRecord, trial_key
from wesep_py.evaluation.summary import INTERVAL_DEFINITION, bootstrap_mean

PERMUTATIONS = 10_000
MAX_EXACT = 13
"""Largest number of mixtures n for which all 2^n changes of sign are tried."""
TEST = (
    "two-sided sign-flip permutation test of the mean difference: all trials of a mixture change sign together; "
    f"all changes of sign up to {MAX_EXACT} mixtures, else {PERMUTATIONS} random ones, seed 0 (p at least "
    f"1 / {PERMUTATIONS + 1})"
)


def compare(
    first: EvaluationResults,
    second: EvaluationResults,
    common: bool = False,
    metric: str | None = None,
    num_moved: int = 10,
) -> dict[str, Any]:
    """Pair the trials of two results and return their differences.

    Args:
        first: the baseline.
        second: the result that is compared with it; differences are `second` − `first`.
        common: where the lists or conditions differ, use the trials that are in both.
        metric: by which changed trials are listed; by default SI-SDRi, else the first metric that both have.
        num_moved: number of trials with the greatest fall, and with the greatest rise, that are listed.

    Returns:
        A dictionary for JSON: `metrics` (for each: both means over the pairs, `difference` with its bootstrap interval,
        `p_value`, `pairs`), `moved` (`lowest` and `highest` differences), `counts`, `protocol`.

    Raises:
        InputError: the results have different lists of trials or conditions and `common` is false; they have no trial
            or no metric in common; an unknown metric.
    """
    _check_same_lists(first, second, common)
    with_enrollment = all(record.enrollment for results in (first, second) for record in results.records)
    by_key = {trial_key(record, with_enrollment): record for record in first.records}
    if len(by_key) < len(first.records):
        raise InputError(f"{first.folder}: lists a trial twice; trials cannot be paired")
    pairs = [
        (by_key[key], record) for record in second.records if (key := trial_key(record, with_enrollment)) in by_key
    ]
    if not pairs:
        raise InputError(f"{first.folder} and {second.folder} have no trial in common")
    names = [name for name in first.metrics if name in second.metrics]
    if not names:
        raise InputError(f"{first.folder} and {second.folder} have no metric in common; evaluate with the same")
    for name in names:
        definitions = [results.summary["protocol"]["metrics"][name] for results in (first, second)]
        if definitions[0] != definitions[1]:
            raise InputError(
                f"{name}: is defined differently in {first.folder} and {second.folder}; evaluate both anew"
            )
    listed_by = metric or ("si_sdri" if "si_sdri" in names else names[0])
    if listed_by not in names:
        raise InputError(f"metric {listed_by!r} is not in both results; {nearest(listed_by, names)}")
    return {
        "metrics": {name: _difference(pairs, name) for name in names},
        "moved": _changed_trials(pairs, listed_by, num_moved),
        "counts": {
            "pairs": len(pairs),
            "only_first": len(first.records) - len(pairs),
            "only_second": len(second.records) - len(pairs),
        },
        "protocol": {
            "first": _origin(first),
            "second": _origin(second),
            "interval": INTERVAL_DEFINITION,
            "test": TEST,
            "metrics": {name: first.summary["protocol"]["metrics"][name] for name in names},
        },
    }


def sign_flip_p_value(differences: Sequence[float], groups: Sequence[Hashable], seed: int = 0) -> float | None:
    """Return the probability of so great a mean difference by chance, from a sign-flip permutation test.

    If neither result were better, the differences of a mixture would be equally likely with the other sign. All trials
    of a mixture change sign together, because they are not independent.

    Args:
        differences: one per trial.
        groups: the mixture of each trial.
        seed: of the random signs.

    Returns:
        Two-sided p value, never 0; `None` without differences.

    Source: Good, "Permutation, Parametric, and Bootstrap Tests of Hypotheses", 2005, section 3.2; the count of the
    observed arrangement, Phipson and Smyth, 2010.

    >>> sign_flip_p_value([1.0, 1.0, 1.0], ["a", "b", "c"])
    0.25
    """
    if not len(differences):
        return None
    index: dict[Hashable, int] = {}
    membership = [index.setdefault(group, len(index)) for group in groups]
    sums = np.bincount(membership, weights=np.asarray(differences, dtype=np.float64))
    count = len(sums)
    observed = abs(sums.sum()) * (1 - 1e-12)  # an equal sum in another order of addition counts too
    if count <= MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= observed))
    random = np.random.default_rng(seed)
    as_great = 0
    for _ in range(10):  # in parts, for the memory
        signs = 1.0 - 2.0 * random.integers(0, 2, size=(PERMUTATIONS // 10, count), dtype=np.int8)
        as_great += int((np.abs(signs @ sums) >= observed).sum())
    return (1 + as_great) / (1 + PERMUTATIONS)


def _check_same_lists(first: EvaluationResults, second: EvaluationResults, common: bool) -> None:
    if common:
        return
    protocols = [results.summary["protocol"] for results in (first, second)]
    if protocols[0]["condition"] != protocols[1]["condition"]:
        conditions = " and ".join(repr(protocol["condition"]) for protocol in protocols)
        raise InputError(f"the results have different conditions ({conditions}); pass --common to pair them anyway")
    hashes = [protocol["trials"]["sha256"] for protocol in protocols]
    if hashes[0] != hashes[1]:
        counts = " and ".join(str(len(results.records)) for results in (first, second))
        raise InputError(
            f"the results have different lists of trials ({counts} trials); pass --common to pair those in both"
        )


def _difference(pairs: Sequence[tuple[TrialRecord, TrialRecord]], name: str) -> dict[str, Any]:
    measured = _measured(pairs, name)
    mixtures = [record.mixture_id for record, _ in measured]
    # The weight of a word error rate is the number of words of the reference, which is the same for both.
    weights = [a.weights.get(name, 1.0) for a, _ in measured]
    means = [
        bootstrap_mean([pair[i].values[name] for pair in measured], mixtures, weights=weights).mean for i in (0, 1)
    ]
    differences = [b.values[name] - a.values[name] for a, b in measured]
    weighted = [weight * difference for weight, difference in zip(weights, differences, strict=True)]
    return {
        "first": means[0],
        "second": means[1],
        "difference": bootstrap_mean(differences, mixtures, weights=weights).to_dict(),
        "p_value": sign_flip_p_value(weighted, mixtures),
        "pairs": len(measured),
    }


def _changed_trials(pairs: Sequence[tuple[TrialRecord, TrialRecord]], name: str, count: int) -> dict[str, Any]:
    changes = sorted(
        (
            {
                "mixture_id": b.mixture_id,
                "target_utterance_id": b.target_utterance_id,
                "enrollment": b.enrollment,
                "first": a.values[name],
                "second": b.values[name],
                "difference": b.values[name] - a.values[name],
            }
            for a, b in _measured(pairs, name)
        ),
        key=lambda change: change["difference"],
    )
    return {
        "metric": name,
        "lowest": [change for change in changes if change["difference"] < 0][:count],
        "highest": [change for change in reversed(changes) if change["difference"] > 0][:count],
    }


def _measured(pairs: Sequence[tuple[TrialRecord, TrialRecord]], name: str) -> Sequence[tuple[TrialRecord, TrialRecord]]:
    """Return the pairs in which both trials are scored and have the metric."""
    return [(a, b) for a, b in pairs if all(record.outcome == "scored" and name in record.values for record in (a, b))]


def _origin(results: EvaluationResults) -> dict[str, Any]:
    protocol = results.summary["protocol"]
    return {
        "folder": results.folder.name,
        **{key: protocol.get(key) for key in ("model", "condition", "trials", "date", "command")},
    }
