"""Speaker verification: embeddings, trials, and error rates of one voice per recording and of overlapping voices.

The first part verifies recordings of one speaker: `embed` them, score pairs of them (`score_trials`), and compute EER
and minDCF (`verification_metrics`). The second part (`OverlapRecording` and below) verifies recordings in which
speakers overlap, for encoders that find all voices of a recording and count them. `verifier` runs a list of trials.
"""

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

BATCH_SAMPLES = 60 * 16000
"""Largest number of samples, padding included, that are embedded together."""
SPEAKER_RESAMPLES = 200
"""Number of bootstrap samples over speakers."""
MIN_OVERLAP_SPEAKERS = 3
"""With two speakers, every mixture holds both: no pair of mixtures would be a non-target trial."""
SIR_BINS_DB = ((0.0, 5.0), (5.0, 10.0))


@dataclass(frozen=True)
class VerificationTrials:
    """Pairs of utterances, by their positions in a list.

    Attributes:
        enrollment, test: `[trials]`, positions.
        is_target: `[trials]`, whether both are of one speaker.
    """

    enrollment: NDArray[np.int64]
    test: NDArray[np.int64]
    is_target: NDArray[np.bool_]

    @classmethod
    def all_pairs(cls, speaker_ids: Sequence[str]) -> VerificationTrials:
        """Return the trials of every utterance against every later one.

        >>> VerificationTrials.all_pairs(["a", "a", "b"]).is_target.tolist()
        [True, False, False]

        Raises:
            InputError: no two utterances are of one speaker, or all are.
        """
        names = np.array(speaker_ids)
        enrollment, test = np.triu_indices(len(names), 1)
        is_target = names[enrollment] == names[test]
        if is_target.all() or not is_target.any():
            raise InputError(
                f"{len(names)} utterances of {len(set(speaker_ids))} speakers make no trials of both kinds; two "
                "speakers or more, and one speaker with two utterances, are needed"
            )
        return cls(enrollment, test, is_target)


def embed(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    reader: Reader,
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:
    """Return the embedding of each whole utterance.

    Args:
        encoder: on `device`; its train or eval mode is restored.
        utterances: in any order.
        reader: at the sample rate of the encoder.
        device: on which to compute.
        on_progress: called with the number of embedded utterances and the number of all.

    Returns:
        `[utterances, embedding_dim]`, in the order of `utterances`.
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


def batches_by_length(lengths: Sequence[int], max_samples: int) -> list[list[int]]:
    """Return positions in batches of similar length, each of at most `max_samples` samples after padding.

    A longer recording is a batch of its own.

    >>> batches_by_length([5, 1, 4, 2], 8)
    [[1, 3], [2], [0]]
    """
    batches: list[list[int]] = []
    for i in np.argsort(lengths, kind="stable").tolist():
        if batches and lengths[i] * (len(batches[-1]) + 1) <= max_samples:  # the longest pads all others
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
    """Return the score of each trial, `[trials]`: the cosine, normalised by the cohort (`detection.as_norm`).

    Args:
        embeddings: `[utterances, embedding_dim]`.
        trials: positions in `embeddings`.
        cohort: one embedding per speaker, `[speakers, embedding_dim]`, none of them in the trials; `None`: the cosine
            is not normalised.
        top_n: number of nearest speakers of the cohort that normalise a score; all, if there are fewer.
    """
    scores = cosine_scores(embeddings, embeddings)
    if cohort is not None:
        of_cohort = cosine_scores(embeddings, cohort)
        scores = as_norm(scores, of_cohort, of_cohort, min(top_n, len(cohort)))
    return scores[trials.enrollment, trials.test]


def mean_by_speaker(embeddings: NDArray[np.float64], speaker_ids: Sequence[str]) -> NDArray[np.float64]:
    """Return one embedding per speaker, `[speakers, embedding_dim]`, sorted by id: the mean of its unit embeddings."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = np.array(speaker_ids)
    return np.stack([units[names == name].mean(0) for name in sorted(set(speaker_ids))])


def verification_metrics(
    scores: NDArray[np.float64],
    trials: VerificationTrials,
    speaker_ids: Sequence[str],
    resamples: int = SPEAKER_RESAMPLES,
) -> dict[str, Interval]:
    """Return EER and minDCF (p_target 0.01), with 95 % intervals over speakers.

    Scores of one speaker's trials are correlated, so the bootstrap draws speakers. A target trial counts as often as
    its speaker was drawn, a non-target trial as often as the product of the draws of its two speakers.

    Args:
        scores: `[trials]`.
        trials: the pairs that were scored.
        speaker_ids: of the utterances that the trials refer to.
        resamples: number of bootstrap samples; 0 for no interval.

    Returns:
        `eer` and `min_dcf`.
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
            drawn.append(_weighted_metrics(weights, targets))
    low: Sequence[float | None] = (None, None)
    high: Sequence[float | None] = (None, None)
    if drawn:
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0).tolist()
    return {
        name: Interval(value, low[i], high[i], len(scores))
        for i, (name, value) in enumerate({"eer": eer, "min_dcf": cost}.items())
    }


def _weighted_metrics(weights: NDArray[np.float64], targets: NDArray[np.bool_]) -> tuple[float, float]:
    """Return EER and minDCF of weighted trials that are sorted by falling score, as `metrics.detection` does.

    Trials of equal score are separate points here.
    """
    accepted_targets, accepted_nontargets = np.cumsum(weights * targets), np.cumsum(weights * ~targets)
    miss = np.concatenate([[1.0], 1 - accepted_targets / accepted_targets[-1]])
    alarm = np.concatenate([[0.0], accepted_nontargets / accepted_nontargets[-1]])
    after = int(np.argmax(miss <= alarm))
    excess = miss - alarm
    share = excess[after - 1] / (excess[after - 1] - excess[after])
    eer = miss[after - 1] + share * (miss[after] - miss[after - 1])
    return float(eer), float((miss + 99 * alarm).min())  # 99 = (1 − p_target) / p_target


@dataclass(frozen=True)
class OverlapRecording:
    """A recording of known speakers.

    Attributes:
        waveform: `[samples]`.
        speaker_ids: of the speakers in it.
        utterance_ids: of the utterances that it was cut from.
        sir_db: absolute level difference of two speakers; `None` for another number of speakers.
    """

    waveform: NDArray[np.float32]
    speaker_ids: frozenset[str]
    utterance_ids: frozenset[str]
    sir_db: float | None = None


@dataclass(frozen=True)
class OverlapResult:
    """Error rates of an encoder on recordings of one voice and of overlapping voices.

    Attributes:
        eer: of the trials `single_single`, `single_mixture` and `mixture_mixture`, 0 to 1.
        trials: number of trials of each kind.
        count_accuracy: number of speakers → share of the recordings with this number in which it was counted; empty
            for an encoder of one voice.
        count_accuracy_by_sir: the same for mixtures of two by |SIR| in dB (`0-5`, `5-10`), where there are any.
    """

    eer: dict[str, float]
    trials: dict[str, int]
    count_accuracy: dict[int, float] = field(default_factory=dict)
    count_accuracy_by_sir: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the result as text, one figure per line."""
        lines = [
            f"{_shown(kind)} EER {100 * value:.2f} % ({self.trials[kind]} trials)" for kind, value in self.eer.items()
        ]
        lines += [f"{n} speakers counted correctly: {100 * v:.1f} %" for n, v in sorted(self.count_accuracy.items())]
        lines += [f"counted correctly at |SIR| {b} dB: {100 * v:.1f} %" for b, v in self.count_accuracy_by_sir.items()]
        return lines


def draw_overlap_recordings(
    utterances: Sequence[Utterance],
    reader: Reader,
    num_speakers: int,
    count: int,
    simulation: SimulationConfig | None = None,
    seed: int = 0,
) -> list[OverlapRecording]:
    """Draw clean recordings of a number of speakers; the same arguments always give the same recordings.

    Args:
        utterances: the speech that recordings are made of.
        reader: reads the utterances.
        num_speakers: in each recording, 1 to 4.
        count: number of recordings.
        simulation: length, overlap and levels; its noise, rooms, enrollments and numbers of speakers are ignored.
            `None`: 3 s, fully overlapped, SIR from −5 to 5 dB.
        seed: of the random draws.

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
    """Return the embeddings of the voices that the encoder counts in each recording, `[voices, embedding_dim]`.

    Args:
        encoder: on `device`; its train or eval mode is restored. An encoder of one voice gives one embedding.
        recordings: in any order.
        device: on which to compute.

    Returns:
        One array per recording, in the order of `recordings`.
    """
    lengths = [len(recording.waveform) for recording in recordings]
    voices: list[NDArray[np.float64]] = [np.zeros((0, 0))] * len(recordings)
    with eval_mode(encoder):
        for batch in batches_by_length(lengths, BATCH_SAMPLES):
            waveforms = torch.zeros(len(batch), max(lengths[i] for i in batch))
            for row, i in zip(waveforms, batch, strict=True):
                row[: lengths[i]] = torch.from_numpy(recordings[i].waveform)
            inputs = waveforms.to(device), torch.tensor([lengths[i] for i in batch], device=device)
            with torch.inference_mode():
                if encoder.max_voices == 1:
                    embeddings, counts = encoder(*inputs).embedding[:, None], [1] * len(batch)
                else:
                    output = encoder.voices(*inputs)
                    embeddings, counts = output.embeddings, output.count.tolist()
            for i, candidates, count in zip(batch, embeddings.double().cpu().numpy(), counts, strict=True):
                voices[i] = candidates[:count]
    return voices


def measure_overlap(
    encoder: SpeakerEncoder,
    singles: Sequence[OverlapRecording],
    mixtures: Sequence[OverlapRecording],
    device: str | torch.device = "cpu",
) -> OverlapResult:
    """Return the EER among and between recordings of one voice and of several, and the counting accuracy.

    Every pair of recordings that share no utterance is a trial; it is a target trial if they share a speaker. Its score
    is the highest cosine of any voice of one to any voice of the other, among the voices that the encoder counts, as
    Horiguchi et al. (SLT 2024) score mixtures.

    Args:
        encoder: see `embed_voices`.
        singles: recordings of one speaker each; some share a speaker.
        mixtures: recordings of several speakers.
        device: on which to compute.

    Raises:
        InputError: there are only target or only non-target trials: too few recordings or speakers.
    """
    recordings = [*singles, *mixtures]
    is_target = np.array([[bool(a.speaker_ids & b.speaker_ids) for b in recordings] for a in recordings])
    is_trial = np.triu(np.ones(is_target.shape, dtype=bool), 1)  # each pair once
    is_trial &= ~np.array([[bool(a.utterance_ids & b.utterance_ids) for b in recordings] for a in recordings])
    single, mixture = slice(None, len(singles)), slice(len(singles), None)
    blocks = {
        "single_single": (single, single),
        "single_mixture": (single, mixture),
        "mixture_mixture": (mixture, mixture),
    }
    for kind, block in blocks.items():
        _check_both_kinds(kind, is_target[block][is_trial[block]], len(singles), len(mixtures))
    voices = embed_voices(encoder, recordings, device)
    scores = best_scores(voices)
    eer, trials = {}, {}
    for kind, block in blocks.items():
        mask = is_trial[block]
        eer[kind] = equal_error_rate(scores[block][mask], is_target[block][mask]).value
        trials[kind] = int(mask.sum())
    if encoder.max_voices == 1:
        return OverlapResult(eer, trials)
    correct = np.array([len(v) == len(r.speaker_ids) for v, r in zip(voices, recordings, strict=True)])
    return OverlapResult(eer, trials, count_accuracy(recordings, voices), _accuracy_by_sir(recordings, correct))


def best_scores(voices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the highest cosine of any voice of one recording to any of another, `[recordings, recordings]`.

    >>> best_scores([np.eye(2), np.array([[0.0, 2.0]])]).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    # All voices against all, then the highest of each block of recording against recording:
    #   voices  a0 a1 b0   starts  0 2   ->   [[max(a, a), max(a, b)], [max(b, a), max(b, b)]]
    stacked = np.concatenate(voices)
    starts = np.cumsum([0, *(len(embeddings) for embeddings in voices[:-1])])
    cosines = cosine_scores(stacked, stacked)
    return np.maximum.reduceat(np.maximum.reduceat(cosines, starts, axis=0), starts, axis=1)


def count_accuracy(recordings: Sequence[OverlapRecording], voices: Sequence[NDArray[np.float64]]) -> dict[int, float]:
    """Return number of speakers → share of the recordings with this number in which as many voices were found."""
    num_speakers = np.array([len(recording.speaker_ids) for recording in recordings])
    num_voices = np.array([len(embeddings) for embeddings in voices])
    return {int(n): float((num_voices[num_speakers == n] == n).mean()) for n in np.unique(num_speakers)}


def verify_overlap(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    reader: Reader,
    device: str | torch.device = "cpu",
    count: int = 400,
    simulation: SimulationConfig | None = None,
    seed: int = 0,
) -> OverlapResult:
    """Return `measure_overlap` of drawn recordings of one speaker, and of two speakers.

    Args:
        encoder: see `embed_voices`.
        utterances: of other speakers than the training speakers of the encoder.
        reader: at the sample rate of the encoder.
        device: on which to compute.
        count: number of recordings of each kind.
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
            f"trials of both kinds ({is_target.sum()} of {len(is_target)} share a speaker); draw more, for example "
            f"100, of {MIN_OVERLAP_SPEAKERS} speakers or more"
        )


def _shown(kind: str) -> str:
    return kind.replace("_", "–")


def _accuracy_by_sir(recordings: Sequence[OverlapRecording], correct: NDArray[np.bool_]) -> dict[str, float]:
    sir_db = np.array([np.nan if recording.sir_db is None else recording.sir_db for recording in recordings])
    within = {f"{low:g}-{high:g}": (sir_db >= low) & (sir_db < high) for low, high in SIR_BINS_DB}
    return {name: float(correct[mask].mean()) for name, mask in within.items() if mask.any()}
