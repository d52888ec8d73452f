"""Two results on the same trials: which is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from wesep_py.common.errors import InputError, nearest
from wesep_py.evaluation.results import EvaluationResults, TrialRecord, trial_key
from wesep_py.evaluation.summary import INTERVAL_DEFINITION, bootstrap_mean

PERMUTATIONS = 10_000
MAX_EXACT = 13
"""Up to so many mixtures, all 2^n changes of sign are tried."""
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
    """Pair the trials of two results.

    Args:
        first: the earlier, or the base line.
        second: what is compared with it; differences are `second` less `first`.
        common: take the trials that both have, where their lists or conditions differ.
        metric: by which moved trials are listed; by default SI-SDRi, else the first that both have.
        num_moved: how many whose metric fell most, and how many whose rose most, are listed.

    Returns:
        A dictionary for JSON: `metrics` (for each: both means over the pairs, `difference` with its bootstrap interval,
        `p_value`, `pairs`), `moved` (`lowest` and `highest` differences), `counts`, `protocol`.

    Raises:
        InputError: the results are of different lists of trials or conditions and `common` is false; they have no trial
            or no metric in common; an unknown metric.
    """
    _check_lists(first, second, common)
    named = all(record.enrollment for results in (first, second) for record in results.records)
    by_key = {trial_key(record, named): record for record in first.records}
    if len(by_key) < len(first.records):
        raise InputError(f"{first.folder}: has a trial twice; trials cannot be paired")
    pairs = [(by_key[key], record) for record in second.records if (key := trial_key(record, named)) in by_key]
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
        "moved": _moved(pairs, listed_by, num_moved),
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
    """How likely so great a mean difference is where there is none, by changing signs at random.

    If neither result is better, a mixture's differences would be as likely with the other sign. Differences of a
    mixture's trials change theirs together, because they are not independent.

    Args:
        differences: one a trial.
        groups: the mixture of each.
        seed: of the random changes.

    Returns:
        Two-sided p value, never 0; `None` for no differences.

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
    observed = abs(sums.sum()) * (1 - 1e-12)
    if count <= MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= observed))
    random = np.random.default_rng(seed)
    as_great = 0
    for _ in range(10):
        signs = 1.0 - 2.0 * random.integers(0, 2, size=(PERMUTATIONS // 10, count), dtype=np.int8)
        as_great += int((np.abs(signs @ sums) >= observed).sum())
    return (1 + as_great) / (1 + PERMUTATIONS)


def _check_lists(first: EvaluationResults, second: EvaluationResults, common: bool) -> None:
    if common:
        return
    protocols = [results.summary["protocol"] for results in (first, second)]
    if protocols[0]["condition"] != protocols[1]["condition"]:
        conditions = " and ".join(repr(protocol["condition"]) for protocol in protocols)
        raise InputError(f"the results are of different conditions ({conditions}); pass --common to pair them still")
    hashes = [protocol["trials"]["sha256"] for protocol in protocols]
    if hashes[0] != hashes[1]:
        counts = " and ".join(str(len(results.records)) for results in (first, second))
        raise InputError(
            f"the results are of different lists of trials ({counts} trials); pass --common to pair those in both"
        )


def _difference(pairs: Sequence[tuple[TrialRecord, TrialRecord]], name: str) -> dict[str, Any]:
    having = [(a, b) for a, b in pairs if name in _scored(a) and name in _scored(b)]
    mixtures = [record.mixture_id for record, _ in having]
    # Weighted metrics (errors over words) have the reference's words as weight, the same for both.
    weights = [a.weights.get(name, 1.0) for a, _ in having]
    means = [bootstrap_mean([pair[i].values[name] for pair in having], mixtures, weights=weights).mean for i in (0, 1)]
    differences = [b.values[name] - a.values[name] for a, b in having]
    weighted = [weight * difference for weight, difference in zip(weights, differences, strict=True)]
    return {
        "first": means[0],
        "second": means[1],
        "difference": bootstrap_mean(differences, mixtures, weights=weights).to_dict(),
        "p_value": sign_flip_p_value(weighted, mixtures),
        "pairs": len(having),
    }


def _moved(pairs: Sequence[tuple[TrialRecord, TrialRecord]], name: str, count: int) -> dict[str, Any]:
    having = [(a, b) for a, b in pairs if name in _scored(a) and name in _scored(b)]
    moves = sorted(
        (
            {
                "mixture_id": b.mixture_id,
                "target_utterance_id": b.target_utterance_id,
                "enrollment": b.enrollment,
                "first": a.values[name],
                "second": b.values[name],
                "difference": b.values[name] - a.values[name],
            }
            for a, b in having
        ),
        key=lambda move: move["difference"],
    )
    return {
        "metric": name,
        "lowest": [move for move in moves if move["difference"] < 0][:count],
        "highest": [move for move in reversed(moves) if move["difference"] > 0][:count],
    }


def _scored(record: TrialRecord) -> dict[str, float]:
    return record.values if record.outcome == "scored" else {}


def _origin(results: EvaluationResults) -> dict[str, Any]:
    protocol = results.summary["protocol"]
    return {
        "folder": results.folder.name,
        **{key: protocol.get(key) for key in ("model", "condition", "trials", "date", "command")},
    }
