"""Scoring by the definitions of WeSep, SpeakerBeam, ESPnet and the REAL-TSE challenge, where these differ from ours.

| protocol | SI-SDR | a silent estimate has | STOI and ESTOI | over |
| --- | --- | --- | --- | --- |
| ours | eps in both energies | 0 dB | 0 to 1 | the trials of the map |
| `wesep` | eps beside both amplitudes | -160 dB | percent | both speakers of each mixture |
| `speakerbeam` | eps in reference and error, and beside the ratio | -80 dB | 0 to 1 | the trials of the map |
| `espnet` | without eps | no value | percent | all speakers of each mixture |

All remove the mean. SDR, PESQ and SI-SDRi > 1 dB mean the same in all of them. So the numbers of ordinary trials agree
within rounding; what differs between publications is the list of trials more than the formula.

`real_tse` is of recordings without references: timing and token error rate (`real_tse_measures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wesep_py.common.errors import InputError, nearest
from wesep_py.evaluation.real_tse_measures import (
    DETECTOR_PEAK,
    LABEL_COLLAR_S,
    TIMING_FRAME_S,
    challenge_timing,
    challenge_tokens,
)
from wesep_py.metrics import DEFINITIONS, MetricError, Scores
from wesep_py.metrics.scores import ACCURACY_THRESHOLD_DB
from wesep_py.metrics.separation import checked_pair

if TYPE_CHECKING:
    from wesep_py.data.trials import Trial
    from wesep_py.evaluation.activity_labels import SpeechSegments

EPS = 1e-8
"""That of WeSep and of pb_bss_eval."""
NORM_FLOOR = 1e-6
"""Least norm by which fast_bss_eval divides a signal."""
PERCENT = ("stoi", "estoi")


def wesep_si_snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return WeSep's SI-SNR in dB: 20 log10(eps + |t| / (|e| + eps)), t = <x, s> s / (|s|² + eps), e = x - t.

    x is the estimate and s the reference, both `[samples]` with their means removed; eps = 1e-8
    (`wesep/utils/score.py`, `cal_SISNR`).
    """
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    target = (estimate @ reference) * reference / (reference @ reference + EPS)
    ratio = np.linalg.norm(target) / (np.linalg.norm(estimate - target) + EPS)
    return float(20 * np.log10(EPS + ratio))


def speakerbeam_si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return the SI-SDR of `asteroid.metrics` in dB: 10 log10(|t|² / (|e|² + eps) + eps), t and e as in WeSep's.

    It is computed by pb_bss_eval 0.0.2 (`module_si_sdr.py`), which SpeakerBeam's `eval.py` calls through asteroid.
    """
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    target = (estimate @ reference) / (reference @ reference + EPS) * reference
    error = estimate - target
    return float(10 * np.log10((target @ target) / (error @ error + EPS) + EPS))


def espnet_si_snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return ESPnet's SI-SNR in dB: 10 log10(c / (1 - c)), c the squared cosine of the signals, means removed.

    ESPnet calls `fast_bss_eval.si_sdr_loss` with `zero_mean=True, clamp_db=None` in float32 (`SISNRLoss`,
    `espnet2/bin/enh_scoring.py`); float64 here.

    Raises:
        MetricError: c is 0 or 1, so that the ratio is not finite.
    """
    unit = [signal - signal.mean() for signal in (estimate, reference)]
    unit = [signal / max(float(np.linalg.norm(signal)), NORM_FLOOR) for signal in unit]
    coherence = min(float(unit[0] @ unit[1]) ** 2, 1.0)
    if coherence in (0.0, 1.0):
        raise MetricError(f"ESPnet's SI-SNR is not finite ({'+' if coherence else '-'}inf dB); it would spoil the mean")
    return float(10 * np.log10(coherence / (1 - coherence)))


@dataclass(frozen=True)
class ScoringProtocol:
    """The definitions of others.

    Args:
        name: of the protocol.
        source: where they are.
        all_speakers: whether every speaker of every mixture is a target.
        remark: what else its source does.

    Attributes:
        timing: detected and labelled segments, and the length in seconds → precision, recall, F1, error; `None`: ours.
        tokens: text and language → tokens, for an error rate per trial; `None`: ours.
    """

    name: str
    source: str
    all_speakers: bool
    remark: str
    timing: ClassVar[Callable[[SpeechSegments, SpeechSegments, float], Sequence[float]] | None] = None
    tokens: ClassVar[Callable[[str, str | None], list[str]] | None] = None

    @property
    def definitions(self) -> dict[str, str]:
        """Definitions of the values that differ from ours."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return what a summary says about the protocol."""
        targets = "every speaker of every mixture" if self.all_speakers else "the targets of the enrollment map"
        return {"name": self.name, "source": self.source, "targets": targets, "remark": self.remark}

    def apply(
        self,
        scores: Scores,
        metrics: Sequence[str],
        estimate: np.ndarray,
        reference: np.ndarray,
        mixture: np.ndarray | None,
    ) -> None:
        """Replace the values of separation that this protocol defines in another way; here, none.

        Args:
            scores: of our definitions; changed.
            metrics: names of the metrics.
            estimate, reference, mixture: as for `wesep_py.metrics.score`.
        """


@dataclass(frozen=True)
class SeparationProtocol(ScoringProtocol):
    """The definitions of another toolkit, of mixtures with references.

    Args:
        si_sdr: estimate and reference, `[samples]` → dB.
        formula: of the SI-SDR, in words.
        percent: whether STOI and ESTOI are in percent.
    """

    si_sdr: Callable[[np.ndarray, np.ndarray], float]
    formula: str
    percent: bool

    @property
    def definitions(self) -> dict[str, str]:
        """Definitions of the values that differ from ours."""
        changed = {
            "si_sdr": f"SI-SDR in dB by {self.source}: {self.formula}",
            "si_sdri": "that SI-SDR of the estimate less that of the unprocessed mixture, in dB",
            "accuracy": f"share of trials whose si_sdri is above {ACCURACY_THRESHOLD_DB:g} dB, 0 to 1",
        }
        if self.percent:
            changed |= {name: DEFINITIONS[name].replace("0 to 1", "in percent") for name in PERCENT}
        return changed

    def apply(
        self,
        scores: Scores,
        metrics: Sequence[str],
        estimate: np.ndarray,
        reference: np.ndarray,
        mixture: np.ndarray | None,
    ) -> None:
        """Replace SI-SDR and what follows from it, and put STOI and ESTOI in percent if the toolkit does."""
        if self.percent:
            scores.values.update({name: 100 * scores.values[name] for name in PERCENT if name in scores.values})
        if "si_sdr" not in metrics:
            return
        for name in ("si_sdr", "si_sdri", "accuracy"):
            scores.values.pop(name, None)
        try:
            scores.values["si_sdr"] = self.si_sdr(*checked_pair(estimate, reference))
            if mixture is not None:
                improvement = scores.values["si_sdr"] - self.si_sdr(*checked_pair(mixture, reference))
                scores.values["si_sdri"] = improvement
                scores.values["accuracy"] = float(improvement > ACCURACY_THRESHOLD_DB)
        except MetricError as error:
            for name in ("si_sdr", "si_sdri", "accuracy"):
                if name not in scores.values:
                    scores.missing[name] = str(error)


class RecordingProtocol(ScoringProtocol):
    """The definitions of the REAL-TSE challenge, of recordings without references."""

    timing = staticmethod(challenge_timing)
    tokens = staticmethod(challenge_tokens)

    @property
    def definitions(self) -> dict[str, str]:
        """Definitions of the values that differ from ours."""
        frames = (
            f"frames of {TIMING_FRAME_S * 1000:g} ms that a segment touches; the estimate, scaled to a peak of "
            f"{DETECTOR_PEAK:g}, has speech where the detector says so; labels widened by {LABEL_COLLAR_S:g} s"
        )
        return {
            "timing_precision": f"share of the detected frames in which the target speaks, 0 to 1; {frames}",
            "timing_recall": f"share of the target's frames that are detected, 0 to 1; {frames}",
            "timing_f1": f"2 TP / (2 TP + FP + FN) of each trial, 0 where the target does not speak; {frames}",
            "timing_error": f"share of all frames that are missed or false, 0 to 1 (not of the challenge); {frames}",
            "wer": "token error rate (TER): words of English (Whisper's normaliser), simplified characters of "
            "Mandarin to insert, delete or replace over those of the reference; mean over the trials",
        }


PROTOCOLS: Mapping[str, ScoringProtocol] = {
    protocol.name: protocol
    for protocol in (
        SeparationProtocol(
            "wesep",
            "WeSep (wesep/bin/infer.py, wesep/bin/score.py)",
            si_sdr=wesep_si_snr,
            formula=f"means removed, 20 log10(eps + |t| / (|e| + eps)), eps = {EPS:g}",
            percent=True,
            all_speakers=True,
            remark="mean over all trials; WeSep's acceptance rate is accuracy in percent, and its scoring of saved "
            "files has no SI-SDRi",
        ),
        SeparationProtocol(
            "speakerbeam",
            "SpeakerBeam (egs/libri2mix/eval.py, asteroid.metrics, pb_bss_eval 0.0.2)",
            si_sdr=speakerbeam_si_sdr,
            formula=f"means removed, 10 log10(|t|² / (|e|² + eps) + eps), eps = {EPS:g}",
            percent=False,
            all_speakers=False,
            remark="mean over all trials; its si_sdr_imp and sdr_imp are si_sdri and sdri",
        ),
        SeparationProtocol(
            "espnet",
            "ESPnet (espnet2/bin/enh_scoring.py with is_tse)",
            si_sdr=espnet_si_snr,
            formula="means removed, 10 log10(c / (1 - c)), c the squared cosine of estimate and reference",
            percent=True,
            all_speakers=True,
            remark="mean over the speakers of a mixture, then over mixtures; ESPnet reports no improvement: it scores "
            "the unprocessed mixtures as a data set of their own",
        ),
        RecordingProtocol(
            "real_tse",
            "the REAL-TSE challenge (utils/tse_timing_evaluation.py, utils/calculate_TER.py)",
            all_speakers=False,
            remark="mean over all trials, by corpus and by language; the challenge detects speech by FireRedVAD with a "
            "threshold of 0.5, recognises by Zipformers of GigaSpeech and of several Mandarin corpora, and takes "
            "similarities from WeSpeaker's ResNet34-LM of VoxCeleb (English) and of CN-Celeb (Mandarin); give "
            "these by --vad, --recogniser and --speaker-model",
        ),
    )
}
"""The protocols by name."""


def find_protocol(name: str | None) -> ScoringProtocol | None:
    """Return the protocol of a name; `None` for `None`, which is ours.

    Raises:
        InputError: there is no such protocol.
    """
    if name is None:
        return None
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is not known; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def missing_targets(protocol: ScoringProtocol | None, trials: Sequence[Trial]) -> int:
    """Return the number of speakers that the protocol wants as targets, and that no trial has as its target."""
    if protocol is None or not protocol.all_speakers:
        return 0
    wanted = {(trial.mixture_id, index) for trial in trials for index in range(len(trial.sources))}
    return len(wanted - {(trial.mixture_id, trial.target_index) for trial in trials})
