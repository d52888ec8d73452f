"""Speaker verification: recordings as embeddings, pairs of them as trials, and how often they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.corpus import Reader, Utterance
from wesep_py.errors import InputError
from wesep_py.evaluation.bootstrap import CONFIDENCE, Interval
from wesep_py.evaluation.modes import in_evaluation
from wesep_py.metrics.verification import as_norm, cosine_scores, equal_error_rate, min_dcf
from wesep_py.speaker import SpeakerEncoder

BATCH_SAMPLES = 60 * 16000
"""Samples, padding included, that are embedded at a time."""
RESAMPLES = 200


@dataclass(frozen=True)
class Trials:
    """Pairs of utterances, by their positions in a list.

    Attributes:
        enrollment, test: `[trials]`.
        is_target: `[trials]`, whether both are of one speaker.
    """

    enrollment: NDArray[np.int64]
    test: NDArray[np.int64]
    is_target: NDArray[np.bool_]

    @classmethod
    def all_pairs(cls, speaker_ids: Sequence[str]) -> Trials:
        """Every utterance against every later one.

        >>> Trials.all_pairs(["a", "a", "b"]).is_target.tolist()
        [True, False, False]

        Raises:
            InputError: no two are of one speaker, or all are.
        """
        names = np.array(speaker_ids)
        enrollment, test = np.triu_indices(len(names), 1)
        is_target = names[enrollment] == names[test]
        if is_target.all() or not is_target.any():
            raise InputError(
                f"{len(names)} utterances of {len(set(speaker_ids))} speakers make no trials of both kinds; two "
                "speakers or more, and one with two utterances, are needed"
            )
        return cls(enrollment, test, is_target)


def embed(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    reader: Reader,
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:
    """The embedding of each utterance, of its whole length.

    Args:
        encoder: on `device`; in any mode, and it comes back in it.
        utterances: in any order; the result is in theirs.
        reader: at the rate of the encoder's waveforms.
        device: on which to compute.
        on_progress: called with the number done and of all.

    Returns:
        `[utterances, embedding_dim]`.
    """
    lengths = [reader.length(utterance) for utterance in utterances]
    result = np.zeros((len(utterances), encoder.embedding_dim))
    done = 0
    with in_evaluation(encoder):
        for batch in batches_by_length(lengths, BATCH_SAMPLES):
            waveforms = torch.zeros(len(batch), max(lengths[i] for i in batch))
            for row, i in zip(waveforms, batch, strict=True):
                row[: lengths[i]] = torch.from_numpy(reader.read(utterances[i]))
            with torch.inference_mode():
                out = encoder(waveforms.to(device), torch.tensor([lengths[i] for i in batch], device=device))
            result[batch] = out.embedding.double().cpu().numpy()
            done += len(batch)
            on_progress(done, len(utterances))
    return result


def batches_by_length(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Positions in batches of neighbours in length, each of at most `most` samples once padded (or of one).

    >>> batches_by_length([5, 1, 4, 2], 8)
    [[1, 3], [2], [0]]
    """
    batches: list[list[int]] = []
    for i in np.argsort(lengths, kind="stable").tolist():
        if batches and lengths[i] * (len(batches[-1]) + 1) <= most:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def score_trials(
    embeddings: NDArray[np.float64], trials: Trials, cohort: NDArray[np.float64] | None = None, top_n: int = 300
) -> NDArray[np.float64]:
    """The score of each trial: the cosine, normalised by a cohort where there is one (`metrics.verification.as_norm`).

    Args:
        embeddings: `[utterances, embedding_dim]`.
        trials: by positions in it.
        cohort: one embedding a speaker, `[speakers, embedding_dim]`, none of them in the trials.
        top_n: of the cohort that are nearest; all, where there are fewer.
    """
    scores = cosine_scores(embeddings, embeddings)
    if cohort is not None:
        of_cohort = cosine_scores(embeddings, cohort)
        scores = as_norm(scores, of_cohort, of_cohort, min(top_n, len(cohort)))
    return scores[trials.enrollment, trials.test]


def mean_by_speaker(embeddings: NDArray[np.float64], speaker_ids: Sequence[str]) -> NDArray[np.float64]:
    """One embedding a speaker, in the order of their ids: the mean of its utterances' at unit length."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = np.array(speaker_ids)
    return np.stack([units[names == name].mean(0) for name in sorted(set(speaker_ids))])


def figures(
    scores: NDArray[np.float64], trials: Trials, speaker_ids: Sequence[str], resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """EER and minDCF (p_target 0.01), with 95 % intervals over speakers.

    A speaker's trials go up and down together, so the bootstrap draws speakers: a trial counts as often as the product
    of how often its two speakers were drawn.

    Args:
        scores: `[trials]`.
        trials: what they are scores of.
        speaker_ids: of the utterances that the trials name.
        resamples: number of bootstrap samples; 0 for no interval.
    """
    eer = equal_error_rate(scores, trials.is_target).value
    cost = min_dcf(scores, trials.is_target).value
    names, speaker = np.unique(np.array(speaker_ids), return_inverse=True)
    order = np.argsort(-scores, kind="stable")
    first, second, targets = (a[order] for a in (speaker[trials.enrollment], speaker[trials.test], trials.is_target))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(resamples if len(names) > 2 else 0):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)).astype(np.float64)
        weights = np.where(targets, times[first], times[first] * times[second])
        if weights[targets].sum() > 0 and weights[~targets].sum() > 0:
            drawn.append(_weighted_figures(weights, targets))
    low, high = (
        np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0) if drawn else ((None,) * 2,) * 2
    )
    count = len(scores)
    return {
        "eer": Interval(eer, _plain(low[0]), _plain(high[0]), count),
        "min_dcf": Interval(cost, _plain(low[1]), _plain(high[1]), count),
    }


def _weighted_figures(weights: NDArray[np.float64], targets: NDArray[np.bool_]) -> tuple[float, float]:
    """EER and minDCF of weighted trials that are sorted by falling score."""
    accepted, false = np.cumsum(weights * targets), np.cumsum(weights * ~targets)
    miss = np.concatenate([[1.0], 1 - accepted / accepted[-1]])
    alarm = np.concatenate([[0.0], false / false[-1]])
    after = int(np.argmax(miss <= alarm))
    excess = miss - alarm
    share = excess[after - 1] / (excess[after - 1] - excess[after])
    eer = miss[after - 1] + share * (miss[after] - miss[after - 1])
    return float(eer), float((miss + 99 * alarm).min())


def _plain(value: float | None) -> float | None:
    return None if value is None else float(value)
