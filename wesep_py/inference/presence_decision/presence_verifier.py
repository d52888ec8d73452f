"""The presence verifier: a trained speaker encoder decides, with the presence head, whether a voice is in a recording.

```
estimate, mixture, residual ─► active parts ─► speaker encoder ─► cosine of each to the enrollment ─┐
presence head ─► score of the recording ────────────────────────────────────────────────────────────┼─► logistic
level of the estimate below the mixture ────────────────────────────────────────────────────────────┘       │
                                                                                                       probability
```

The encoder is a model of its own, such as the d-vector that `wesep models pull dvector` installs. The weights of the
logistic are fitted to one model and one encoder, by `wesep calibrate --verify`, and are stored in the model's
`provenance.json`; with other weights of either they are not used. Without them the presence head decides alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.config import construct
from wesep_py.common.errors import CheckpointError, ConfigError, InputError, quoted, shorten
from wesep_py.common.files import write_json
from wesep_py.common.textfiles import read_json
from wesep_py.inference.enrolling.enrollment_quality import OUTLIER_SIMILARITY, SECOND_VOICE_SIMILARITY
from wesep_py.inference.presence_decision.presence import REFERENCE_S, Presence, Verification, sigmoid

if TYPE_CHECKING:
    from wesep_py.network.speaker import SpeakerEncoder

log = logging.getLogger(__name__)

NO_VERIFIER, AUTO_VERIFIER = "none", "auto"
"""Names in place of an encoder's: no verifier; the one that the model is calibrated for, if it is installed."""
DEFAULT_ENCODER = "dvector"
"""Name of the installed encoder that is looked for if no other is named."""
VERIFIERS_KEY = "presence_verifiers"
"""Key of the calibrations in a checkpoint's provenance, one for each encoder, by its name."""
EVIDENCE = ("head", "estimate", "mixture", "residual", "level")
"""Names of the measurements that are weighted, in the order of the weights (`PresenceVerifier.verify`)."""
LEVEL_RANGE_DB = (-40.0, 6.0)
"""Range to which the level of the estimate against the mixture is limited."""
WINDOW_S, MAX_WINDOWS_S = 2.0, 16.0
"""Of a longer recording than the second, windows of the first length are verified: those where the voice is most
likely, by the presence head, together of the second length, in seconds."""
PART_S, MIN_PAUSE_PARTS = 0.4, 3
"""Length of the parts of a signal whose levels are compared, in seconds, and least number of them in a pause that is
left out: a cut in speech changes an embedding more than a short pause does."""
PAUSE_DB = 30.0
"""Parts are pauses if they are further below the loudest fifth of the parts."""
MIN_EMBEDDED_S = 1.6
"""At least this many seconds are embedded, if the signal is that long: a window of the d-vector."""
POSITIVE_THRESHOLDS = (0.75, 0.85)
"""`voice_thresholds` of an encoder whose embeddings have no negative values: those of two people have a cosine of 0.5
and more, where those of other encoders are orthogonal. By `bench/voice_thresholds.py`, with the d-vector."""
SILENT_RMS = 1e-5
"""RMS below which a signal holds no voice; its cosine is 0."""


@dataclass(frozen=True)
class VerifierCalibration:
    """Weights of the decision, fitted to a model and an encoder.

    Attributes:
        encoder: name of the encoder.
        encoder_hash, model_hash: of the checkpoints that it was fitted to.
        weights: one for each of `EVIDENCE`.
        offset: probability = sigmoid(weights · evidence + offset).
        threshold: lowest probability at which the voice counts as present, 0 to 1.
        growth: length correction of the head's score (`presence.Calibration.growth`).

    Raises:
        ValueError: a value is missing, not finite or out of range.
    """

    encoder: str
    encoder_hash: str
    model_hash: str
    weights: dict[str, float]
    offset: float
    threshold: float
    growth: float = 0.0

    def __post_init__(self) -> None:
        if set(self.weights) != set(EVIDENCE):
            raise ValueError(
                f"weights: has {quoted(sorted(self.weights))}; one each of {', '.join(EVIDENCE)} is needed"
            )
        for name, value in {**self.weights, "offset": self.offset, "growth": self.growth}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                raise ValueError(f"{name}: is {quoted(value)}; a finite number is needed")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: is {self.threshold}; 0 to 1 is allowed")

    def probability(self, evidence: Mapping[str, float], duration_s: float = REFERENCE_S) -> float:
        """Return the probability that the voice is in a recording of that evidence and duration in seconds."""
        score = sum(self.weights[name] * evidence[name] for name in EVIDENCE) + self.offset
        return float(sigmoid(score - self.weights["head"] * self.growth * np.log2(duration_s / REFERENCE_S)))


class PresenceVerifier:
    """A speaker encoder and the calibration of a model for it.

    Args:
        encoder: takes waveforms at the model's rate.
        name: of the encoder.
        encoder_hash: of its checkpoint.
        calibration: `None`: evidence is measured, but the presence head decides.
        device: on which the encoder computes.

    Raises:
        InputError: the calibration is of another encoder.
    """

    def __init__(
        self,
        encoder: SpeakerEncoder,
        name: str,
        encoder_hash: str,
        calibration: VerifierCalibration | None = None,
        device: str = "cpu",
    ) -> None:
        if calibration is not None and calibration.encoder_hash != encoder_hash:
            raise InputError(f"the calibration is of another encoder than {name}; calibrate again")
        self.name, self.encoder_hash, self.calibration = name, encoder_hash, calibration
        self.sample_rate, self._device = encoder.sample_rate, device
        self._encoder = encoder.to(device).eval()

    @property
    def voice_thresholds(self) -> tuple[float, float]:
        """Similarities below which an enrollment is suspected to hold two voices, or to be of another voice.

        They are the arguments `second_voice` and `unlike` of `enrollment.assess_recordings`.
        """
        activation = self._encoder.config.network.get("activation")
        return POSITIVE_THRESHOLDS if activation == "relu" else (SECOND_VOICE_SIMILARITY, OUTLIER_SIMILARITY)

    def embed(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return embeddings of unit length `[waveforms, dim]` of waveforms `[samples]` of at least one sample."""
        import torch

        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        tensors = [torch.from_numpy(np.array(waveform, dtype=np.float32)) for waveform in waveforms]
        batch = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        with torch.inference_mode():
            embeddings = self._encoder(batch.to(self._device), lengths.to(self._device)).embedding
            return torch.nn.functional.normalize(embeddings, dim=1).cpu().numpy()

    def embed_voice(self, recordings: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float32]:
        """Return the embedding `[dim]` of a voice, of the active parts of its recordings.

        Args:
            recordings: `[samples]` each, at the model's rate.
            weights: of each in the mean, above 0.
        """
        embeddings = self.embed([active_parts(recording, self.sample_rate) for recording in recordings])
        mean = np.average(embeddings, axis=0, weights=np.asarray(weights, dtype=np.float64))
        return np.asarray(mean / max(1e-12, float(np.linalg.norm(mean))), dtype=np.float32)

    def verify(self, presence: Presence, voice: NDArray[np.float32], signals: VerifiedSignals) -> Verification:
        """Return the decision about a voice.

        Args:
            presence: output of the presence head for the recording.
            voice: the embedding of the enrollment, `[dim]`.
            signals: of the windows that `active_windows` names.
        """
        evidence = {"head": float(presence.score), **self._cosines(voice, signals), "level": signals.level_db}
        if self.calibration is None:
            return Verification(self.name, evidence)
        probability = self.calibration.probability(evidence, presence.duration_s)
        return Verification(self.name, evidence, probability, self.calibration.threshold)

    def verified(
        self, voice: NDArray[np.float32], presence: Presence, estimate: np.ndarray, mixture: np.ndarray
    ) -> Presence:
        """Return the output of the presence head, completed by the decision about a recording held in memory.

        Args:
            voice: the embedding of the enrollment, `[dim]`.
            presence: output of the presence head.
            estimate: `[channels, samples]`, at the level of the voice in the mixture.
            mixture: `[channels, samples]`.
        """
        windows = active_windows(presence, self.sample_rate)
        signals = VerifiedSignals(*(cut_windows(part[presence.channel], windows) for part in (estimate, mixture)))
        return replace(presence, verification=self.verify(presence, voice, signals))

    def _cosines(self, voice: NDArray[np.float32], signals: VerifiedSignals) -> dict[str, float]:
        by_name = {"estimate": signals.estimate, "mixture": signals.mixture, "residual": signals.residual}
        sounding = {name: signal for name, signal in by_name.items() if _rms(signal) > SILENT_RMS}
        cosines = dict.fromkeys(by_name, 0.0)
        if sounding:
            embeddings = self.embed([active_parts(signal, self.sample_rate) for signal in sounding.values()])
            cosines |= {name: float(row @ voice) for name, row in zip(sounding, embeddings, strict=True)}
        return cosines


@dataclass(frozen=True)
class VerifiedSignals:
    """Estimate and mixture in the windows that are verified, one after the other.

    Attributes:
        estimate: `[samples]`, at the level of the voice in the mixture.
        mixture: `[samples]`.
    """

    estimate: NDArray[np.float32]
    mixture: NDArray[np.float32]

    @property
    def residual(self) -> NDArray[np.float32]:
        """The mixture without the estimate."""
        return self.mixture - self.estimate

    @property
    def level_db(self) -> float:
        """Level of the estimate against the mixture in dB, within `LEVEL_RANGE_DB`."""
        energies = [float(np.square(signal, dtype=np.float64).sum()) for signal in (self.estimate, self.mixture)]
        if min(energies) <= 0:
            return LEVEL_RANGE_DB[0]
        return float(np.clip(10 * np.log10(energies[0] / energies[1]), *LEVEL_RANGE_DB))


def active_windows(presence: Presence, sample_rate: int) -> list[tuple[int, int]]:
    """Return the windows of a recording that are verified, as first and last sample (excluded), in order of time.

    A recording of at most 16 s is verified whole; of a longer one, the windows of 2 s with the highest mean
    probability of the frames by the presence head.

    Args:
        presence: of the recording.
        sample_rate: in Hz.

    >>> import numpy as np
    >>> logits = np.full(30, -4.0, np.float32)
    >>> logits[20:22] = 4.0
    >>> active_windows(Presence(0.0, logits, 1.0), 1000)[-1]
    (20000, 22000)
    """
    if presence.duration_s <= MAX_WINDOWS_S:
        return [(0, round(presence.duration_s * sample_rate))]
    frames = round(WINDOW_S / presence.frame_s)
    count = len(presence.logits) // frames
    means = sigmoid(presence.logits[: count * frames]).reshape(count, frames).mean(axis=1)
    chosen = np.sort(np.argsort(-means, kind="stable")[: round(MAX_WINDOWS_S / WINDOW_S)])
    edges = [round(int(i) * frames * presence.frame_s * sample_rate) for i in (*chosen, *(chosen + 1))]
    return list(zip(edges[: len(chosen)], edges[len(chosen) :], strict=True))


class WindowCutter:
    """Collects the samples of windows from blocks of a signal that come one after the other.

    Args:
        windows: first and last sample (excluded) of each, in order of time, not overlapping.

    >>> cutter = WindowCutter([(1, 3), (4, 9)])
    >>> for start in (0, 4):
    ...     cutter.push(np.arange(start, start + 4, dtype=np.float32))
    >>> cutter.samples().tolist()
    [1.0, 2.0, 4.0, 5.0, 6.0, 7.0]
    """

    def __init__(self, windows: Sequence[tuple[int, int]]) -> None:
        self._windows, self._position = windows, 0
        self._parts: list[NDArray[np.float32]] = []

    def push(self, block: NDArray[np.float32]) -> None:
        """Take the next samples `[samples]`."""
        start, stop = self._position, self._position + len(block)
        for first, last in self._windows:
            if first < stop and last > start:
                self._parts.append(block[max(0, first - start) : last - start].copy())
        self._position = stop

    def samples(self) -> NDArray[np.float32]:
        """Return the samples of all windows, `[samples]`, as far as they have come."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=np.float32)


def cut_windows(waveform: NDArray[np.float32], windows: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Return the samples of a waveform `[samples]` in windows, one after the other."""
    cutter = WindowCutter(windows)
    cutter.push(waveform)
    return cutter.samples()


def active_parts(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Return a waveform `[samples]` without its long pauses.

    >>> noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    >>> len(active_parts(np.concatenate([noise, 0.01 * noise]), 16000))
    32000
    """
    size = round(PART_S * sample_rate)
    count = len(waveform) // size
    if count <= MIN_PAUSE_PARTS:
        return waveform
    parts = waveform[: count * size].reshape(count, size)
    level_db = 10 * np.log10(np.square(parts, dtype=np.float64).mean(axis=1) + 1e-12)
    order = np.argsort(-level_db, kind="stable")
    active = level_db >= level_db[order[: max(1, count // 5)]].mean() - PAUSE_DB
    active[order[: round(MIN_EMBEDDED_S / PART_S)]] = True
    # Pauses: runs of inactive parts. A short one stays.
    edges = np.flatnonzero(np.diff(active, prepend=True, append=True))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if last - first < MIN_PAUSE_PARTS:
            active[first:last] = True
    return waveform if active.all() else parts[active].reshape(-1)


def _rms(signal: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(signal, dtype=np.float64).mean())) if len(signal) else 0.0


# Which verifier a model has.


def read_verifiers(provenance: Mapping[str, Any], where: str = "provenance") -> dict[str, VerifierCalibration]:
    """Return the calibrations in a checkpoint's provenance, by the name of the encoder.

    Args:
        provenance: content of `provenance.json`.
        where: for messages.

    Raises:
        CheckpointError: one is damaged.
    """
    stored = provenance.get(VERIFIERS_KEY) or {}
    names = {field.name for field in fields(VerifierCalibration)}
    try:
        return {
            str(name): construct(VerifierCalibration, {key: value for key, value in item.items() if key in names}, name)
            for name, item in stored.items()
        }
    except (ConfigError, AttributeError, TypeError) as error:
        reason = shorten(error)
        raise CheckpointError(
            f"{where}: the calibration of a verifier is damaged ({reason}); calibrate again"
        ) from error


def save_verifier(folder: str | Path, calibration: VerifierCalibration, about: Mapping[str, Any]) -> Path:
    """Write the calibration of a verifier into a checkpoint, whose hash does not change.

    Args:
        folder: a checkpoint folder, or an experiment folder (see `checkpoint.resolve`).
        calibration: replaces an existing one of the same encoder.
        about: how it was fitted; plain values under other keys than those of the calibration.

    Returns:
        The file written.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    from wesep_py import checkpoint

    path = checkpoint.resolve(folder) / checkpoint.PROVENANCE
    provenance = read_json(path, "a checkpoint's provenance", "get a whole copy of it", CheckpointError).values
    verifiers = {**(provenance.get(VERIFIERS_KEY) or {}), calibration.encoder: {**asdict(calibration), **about}}
    write_json(path, {**provenance, VERIFIERS_KEY: verifiers})
    return path


def load_verifier(
    name: str,
    model_name: str,
    model_hash: str,
    calibrations: Mapping[str, VerifierCalibration],
    sample_rate: int,
    device: str = "cpu",
) -> PresenceVerifier | None:
    """Return the verifier of a model.

    Args:
        name: of the encoder: an installed one, or a checkpoint folder. `none` for no verifier; `auto` for the encoder
            that the model is calibrated for, if one is installed.
        model_name, model_hash: of the model.
        calibrations: of the model, by the name of the encoder.
        sample_rate: of the model, in Hz.
        device: on which to compute.

    Returns:
        `None` for `none`; for `auto` where no calibrated encoder is installed, or where model or encoder have other
        weights than when they were calibrated (a warning says so). For another name, a verifier without a calibration
        where there is none for these weights: it only measures, and a warning says so.

    Raises:
        InputError: the encoder is not installed.
        CheckpointError: it is damaged, or no speaker encoder.
    """
    if name == NO_VERIFIER:
        return None
    if name == AUTO_VERIFIER:
        return _installed_verifier(model_name, model_hash, calibrations, sample_rate, device)
    encoder, encoder_hash = _load(name, sample_rate)
    key = Path(name).name
    calibration = calibrations.get(key)
    problem = f"is not calibrated for the verifier {key}" if calibration is None else None
    if calibration is not None:
        problem = _mismatch(calibration, model_hash, encoder_hash)
    if problem is not None:
        log.warning(
            "%s: %s; its presence head decides alone (`wesep calibrate --verify %s` fits it)", model_name, problem, name
        )
        calibration = None
    return PresenceVerifier(encoder, key, encoder_hash, calibration, device)


def load_comparer(name: str, sample_rate: int, device: str = "cpu") -> PresenceVerifier | None:
    """Return a verifier without a calibration, which compares voices for `repair`; `None` for the name `none`.

    Args:
        name: of the encoder, as for `load_verifier`; `auto` is `DEFAULT_ENCODER` if it is installed, else none.
        sample_rate: of the model, in Hz.
        device: on which to compute.

    Raises:
        InputError, CheckpointError: as `load_verifier`.
    """
    from wesep_py.models import installed_model

    if name == AUTO_VERIFIER:
        name = DEFAULT_ENCODER if installed_model(DEFAULT_ENCODER) is not None else NO_VERIFIER
    if name == NO_VERIFIER:
        return None
    encoder, encoder_hash = _load(name, sample_rate)
    return PresenceVerifier(encoder, Path(name).name, encoder_hash, None, device)


def _installed_verifier(
    model_name: str,
    model_hash: str,
    calibrations: Mapping[str, VerifierCalibration],
    sample_rate: int,
    device: str,
) -> PresenceVerifier | None:
    from wesep_py.models import installed_model

    for name, calibration in calibrations.items():
        if installed_model(name) is None:
            log.info(
                "%s: the encoder %s of its verifier is not installed (`wesep models pull %s`)", model_name, name, name
            )
            continue
        encoder, encoder_hash = _load(name, sample_rate)
        if (problem := _mismatch(calibration, model_hash, encoder_hash)) is None:
            return PresenceVerifier(encoder, name, encoder_hash, calibration, device)
        log.warning("%s: %s; its presence head decides alone", model_name, problem)
    return None


def _load(name: str, sample_rate: int) -> tuple[SpeakerEncoder, str]:
    """Return an encoder that takes waveforms of a rate, and the hash of its checkpoint."""
    from wesep_py import checkpoint
    from wesep_py.network.speaker import load_encoder

    try:
        folder = checkpoint.resolve(name)
    except CheckpointError as error:
        raise InputError(
            f"--verify {shorten(name, 80)}: no such speaker encoder ({shorten(error)}); install one with "
            f"`wesep models pull {DEFAULT_ENCODER}`, or give --verify {NO_VERIFIER}"
        ) from error
    return load_encoder(folder, sample_rate), str(checkpoint.read_provenance(folder).get("hash"))


def _mismatch(calibration: VerifierCalibration, model_hash: str, encoder_hash: str) -> str | None:
    """Return why a calibration does not hold for these weights; `None` if it does."""
    if calibration.model_hash != model_hash:
        return f"its verifier {calibration.encoder} was calibrated with other weights of the model"
    if calibration.encoder_hash != encoder_hash:
        return f"its verifier was calibrated with another {calibration.encoder} than the installed one"
    return None
