"""Speaker verification where people overlap: voices of mixtures against voices, and how many are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.data import Reader, Utterance
from wesep_py.evaluation.summary import CONFIDENCE, Interval
from wesep_py.metrics.detection import as_norm, cosine_scores, equal_error_rate, min_dcf
from wesep_py.network.extraction_network import eval_mode
from wesep_py.network.speaker import SpeakerEncoder
from wesep_py.simulation import EnrollmentConfig, SimulationConfig, Simulator

# ----------------------------------------
# Speaker verification: recordings as embeddings, pairs of them as trials, and how often they are told apart.

BATCH_SAMPLES = 60 * 16000
"""Samples, padding included, that are embedded at a time."""
RESAMPLES = 200


@dataclass(frozen=True)
class VerificationTrials:
    """Pairs of utterances, by their positions in a list.

    Attributes:
        enrollment, test: `[trials]`.
        is_target: `[trials]`, whether both are of one speaker.
    """

    enrollment: NDArray[np.int64]
    test: NDArray[np.int64]
    is_target: NDArray[np.bool_]

    @classmethod
    def all_pairs(cls, speaker_ids: Sequence[str]) -> VerificationTrials:
        """Every utterance against every later one.

        >>> VerificationTrials.all_pairs(["a", "a", "b"]).is_target.tolist()
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
    with eval_mode(encoder):
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
    embeddings: NDArray[np.float64],
    trials: VerificationTrials,
    cohort: NDArray[np.float64] | None = None,
    top_n: int = 300,
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


def verification_metrics(
    scores: NDArray[np.float64], trials: VerificationTrials, speaker_ids: Sequence[str], resamples: int = RESAMPLES
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


MIN_OVERLAP_SPEAKERS = 3
"""Of two, all mixtures hold both: no pair of them would be of strangers."""
SIR_BINS_DB = ((0.0, 5.0), (5.0, 10.0))


@dataclass(frozen=True)
class OverlapRecording:
    """A recording of known voices.

    Attributes:
        waveform: `[samples]`.
        speaker_ids: who speaks.
        utterance_ids: what it was cut from.
        sir_db: level of one of two speakers to the other, without its sign; `None` for another number of them.
    """

    waveform: NDArray[np.float32]
    speaker_ids: frozenset[str]
    utterance_ids: frozenset[str]
    sir_db: float | None = None


@dataclass(frozen=True)
class OverlapResult:
    """How well an encoder knows voices that overlap.

    Attributes:
        eer: of `single_single`, `single_mixture` and `mixture_mixture`, 0 to 1.
        trials: how many of each.
        count_accuracy: number of speakers → share of the recordings in which so many were counted; empty for an
            encoder that hears one voice.
        count_accuracy_by_sir: the same of mixtures of two by their |SIR| in dB (`0-5`, `5-10`), where there are any.
    """

    eer: dict[str, float]
    trials: dict[str, int]
    count_accuracy: dict[int, float] = field(default_factory=dict)
    count_accuracy_by_sir: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """One figure a line."""
        told = [
            f"{_shown(kind)} EER {100 * value:.2f} % ({self.trials[kind]} trials)" for kind, value in self.eer.items()
        ]
        told += [f"{n} counted right where {n} speak: {100 * v:.1f} %" for n, v in sorted(self.count_accuracy.items())]
        told += [f"counted right at |SIR| {bin} dB: {100 * v:.1f} %" for bin, v in self.count_accuracy_by_sir.items()]
        return told


def draw_overlap_recordings(
    utterances: Sequence[Utterance],
    reader: Reader,
    num_speakers: int,
    count: int,
    simulation: SimulationConfig | None = None,
    seed: int = 0,
) -> list[OverlapRecording]:
    """Clean recordings of so many speakers each, the same at every call.

    Args:
        utterances: of which they are made.
        reader: reads them.
        num_speakers: in each recording, 1 to 4.
        count: how many recordings.
        simulation: length, overlap and levels; noise, rooms, enrollments and its own numbers of speakers are left out.
            `None`: 3 s, fully overlapped, SIR from −5 to 5 dB.
        seed: another seed, other recordings.

    Raises:
        InputError: too few speakers with enough audio.
    """
    config = replace(
        simulation or SimulationConfig(),
        num_speakers=num_speakers,
        noise=None,
        room=None,
        absent_probability=0.0,
        source_effects=None,
        mixture_effects=None,
        enrollment=EnrollmentConfig(count=0),
    )
    simulator = Simulator(config, utterances, [], reader, seed)
    recordings = []
    for index in range(count):
        sample = simulator.sample(epoch=num_speakers, index=index)
        sources = sample.recipe.sources
        sir_db = max(abs(sir) for sir in sample.recipe.sir_db) if num_speakers == 2 else None
        recordings.append(
            OverlapRecording(
                sample.mixture,
                frozenset(source.speaker_id for source in sources),
                frozenset(source.excerpt.utterance.utterance_id for source in sources),
                sir_db,
            )
        )
    return recordings


def embed_voices(
    encoder: SpeakerEncoder, recordings: Sequence[OverlapRecording], device: str | torch.device = "cpu"
) -> list[NDArray[np.float64]]:
    """The embeddings of the voices that the encoder counts in each recording, `[voices, embedding_dim]`.

    Args:
        encoder: on `device`; in any mode, and it comes back in it. One that hears one voice gives one.
        recordings: in any order; the result is in theirs.
        device: on which to compute.
    """
    lengths = [len(recording.waveform) for recording in recordings]
    found: list[NDArray[np.float64]] = [np.zeros((0, 0))] * len(recordings)
    with eval_mode(encoder):
        for batch in batches_by_length(lengths, BATCH_SAMPLES):
            waveforms = torch.zeros(len(batch), max(lengths[i] for i in batch))
            for row, i in zip(waveforms, batch, strict=True):
                row[: lengths[i]] = torch.from_numpy(recordings[i].waveform)
            given = waveforms.to(device), torch.tensor([lengths[i] for i in batch], device=device)
            with torch.inference_mode():
                if encoder.max_voices == 1:
                    embeddings, counts = encoder(*given).embedding[:, None], [1] * len(batch)
                else:
                    voices = encoder.voices(*given)
                    embeddings, counts = voices.embeddings, voices.count.tolist()
            for i, own, number in zip(batch, embeddings.double().cpu().numpy(), counts, strict=True):
                found[i] = own[:number]
    return found


def measure_overlap(
    encoder: SpeakerEncoder,
    singles: Sequence[OverlapRecording],
    mixtures: Sequence[OverlapRecording],
    device: str | torch.device = "cpu",
) -> OverlapResult:
    """EER among and between recordings of one voice and of several, and counting accuracy.

    Every pair is a trial, but those that hold a piece of the same utterance; a target trial where they share a
    speaker. Its score is the highest cosine of any voice of the one to any of the other, the voices being those that
    the encoder counts, as Horiguchi et al. (SLT 2024) score mixtures. An encoder that hears one voice gives one.

    Args:
        encoder: see `embed_voices`.
        singles: recordings of one speaker, some of them of the same.
        mixtures: recordings of several.
        device: on which to compute.

    Raises:
        InputError: trials of one kind only: too few recordings or speakers.
    """
    recordings = [*singles, *mixtures]
    is_target = np.array([[bool(a.speaker_ids & b.speaker_ids) for b in recordings] for a in recordings])
    counts = np.triu(np.ones(is_target.shape, dtype=bool), 1)
    counts &= ~np.array([[bool(a.utterance_ids & b.utterance_ids) for b in recordings] for a in recordings])
    one, several = slice(None, len(singles)), slice(len(singles), None)
    pairs = {"single_single": (one, one), "single_mixture": (one, several), "mixture_mixture": (several, several)}
    for kind, part in pairs.items():
        _check_both_kinds(kind, is_target[part][counts[part]], len(singles), len(mixtures))
    voices = embed_voices(encoder, recordings, device)
    scores = best_scores(voices)
    eer, trials = {}, {}
    for kind, part in pairs.items():
        chosen = counts[part]
        eer[kind] = equal_error_rate(scores[part][chosen], is_target[part][chosen]).value
        trials[kind] = int(chosen.sum())
    if encoder.max_voices == 1:
        return OverlapResult(eer, trials)
    right = np.array([len(own) == len(r.speaker_ids) for own, r in zip(voices, recordings, strict=True)])
    return OverlapResult(eer, trials, count_accuracy(recordings, voices), _by_sir(recordings, right))


def best_scores(voices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The highest cosine of any voice of one recording to any of another, `[recordings, recordings]`.

    >>> best_scores([np.eye(2), np.array([[0.0, 2.0]])]).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    stacked = np.concatenate(voices)
    starts = np.cumsum([0, *(len(own) for own in voices[:-1])])
    cosines = cosine_scores(stacked, stacked)
    return np.maximum.reduceat(np.maximum.reduceat(cosines, starts, axis=0), starts, axis=1)


def count_accuracy(recordings: Sequence[OverlapRecording], voices: Sequence[NDArray[np.float64]]) -> dict[int, float]:
    """Number of speakers → share of the recordings with so many in which that is how many voices were found."""
    spoken = np.array([len(recording.speaker_ids) for recording in recordings])
    heard = np.array([len(own) for own in voices])
    return {int(n): float((heard[spoken == n] == n).mean()) for n in np.unique(spoken)}


def verify_overlap(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    reader: Reader,
    device: str | torch.device = "cpu",
    count: int = 400,
    simulation: SimulationConfig | None = None,
    seed: int = 0,
) -> OverlapResult:
    """`measure_overlap` on so many drawn recordings of one speaker, and as many of two.

    Args:
        encoder: see `embed_voices`.
        utterances: of other speakers than those it was trained on.
        reader: at the rate of the encoder's waveforms.
        device: on which to compute.
        count: of each kind.
        simulation, seed: see `draw_overlap_recordings`.

    Raises:
        InputError: too few speakers with enough audio, or too few recordings for trials of both kinds.
    """
    singles, mixtures = (draw_overlap_recordings(utterances, reader, n, count, simulation, seed) for n in (1, 2))
    return measure_overlap(encoder, singles, mixtures, device)


def _check_both_kinds(kind: str, is_target: NDArray[np.bool_], num_singles: int, num_mixtures: int) -> None:
    if is_target.all() or not is_target.any():
        raise InputError(
            f"--overlap: {num_singles} recordings of one voice and {num_mixtures} of several make no {_shown(kind)} "
            f"trials of both kinds ({is_target.sum()} of {len(is_target)} share a speaker); draw more, 100 say, of "
            f"{MIN_OVERLAP_SPEAKERS} speakers or more"
        )


def _shown(kind: str) -> str:
    return kind.replace("_", "–")


def _by_sir(recordings: Sequence[OverlapRecording], right: NDArray[np.bool_]) -> dict[str, float]:
    sir_db = np.array([np.nan if recording.sir_db is None else recording.sir_db for recording in recordings])
    within = {f"{low:g}-{high:g}": (sir_db >= low) & (sir_db < high) for low, high in SIR_BINS_DB}
    return {name: float(right[chosen].mean()) for name, chosen in within.items() if chosen.any()}
