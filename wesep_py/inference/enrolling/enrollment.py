"""Enrollment recordings: loaded at the model's rate, and assessed.

- `split_sources` separates recordings from embeddings that were computed elsewhere.
- `load_enrollments` returns what enters the network: whole recordings, or the segments with most speech of long ones.
- `assess_enrollment` measures speech, SNR, clipping, and with the model's speaker encoder whether second voices or
  outliers are among the recordings; the figures are those of `wesep_py.inference.enrolling.enrollment_quality`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError, shorten
from wesep_py.inference.enrolling.enrollment_quality import (
    NO_ENCODER,
    OUTLIER_SIMILARITY,
    SECOND_VOICE_SIMILARITY,
    RecordingQuality,
    VoiceQuality,
    clipped_share,
    coherence,
    compare_recordings,
    estimate_snr_db,
    recording_weights,
    segment_similarity,
)
from wesep_py.inference.enrolling.mixed_enrollment import (
    ChosenVoice,
    add_voice_counts,
    counts_voices,
    encode_voices,
    encoder_input,
)
from wesep_py.inference.enrolling.speech_activity import (
    MAX_ENROLLMENT_S,
    VAD,
    SpeechScan,
    cut_segments,
    open_enrollment,
    remove_low_frequencies,
    scan_speech,
    select_segments,
    share_limit,
    speech_mask,
)
from wesep_py.inference.inputs_outputs.inputs import EnrollmentSource, Source, read_embedding, read_enrollment

if TYPE_CHECKING:
    from wesep_py.inference.presence_decision.presence_verifier import PresenceVerifier
    from wesep_py.network.extraction_network import TargetSpeakerExtractor

    Embed = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32] | None]

log = logging.getLogger(__name__)
WINDOW_S = 1.0
"""Windows whose embeddings are compared: short enough for several per enrollment, long enough to identify a voice."""
MAX_WINDOWS = 64
"""Of all recordings together; where there are more recordings, at least 4 of each."""
LOW_FREQUENCY_SHARE = 1e-4
"""Below this share of the energy, low frequencies are left in a recording when its figures are computed."""
MIN_ENROLLMENT_S = 0.1
"""Shorter recordings are refused."""


@dataclass(frozen=True)
class EnrollmentAudio:
    """One enrollment recording, as it enters the network.

    Attributes:
        name: for messages.
        waveform: `[samples]` at the model's rate.
        sample_rate: of the model, in Hz.
        original: `[samples]`, the same channel at its own rate.
        duration_s: seconds.
        vad: voice activity detection, `energy` or `silero`.
        full_duration_s: seconds of the recording, if `waveform` holds only its segments with most speech; else `None`.
    """

    name: str
    waveform: NDArray[np.float32]
    sample_rate: int
    original: NDArray[np.float32]
    duration_s: float
    vad: VAD = "energy"
    full_duration_s: float | None = None

    @cached_property
    def speech_band(self) -> NDArray[np.float32]:
        """`[samples]` without low frequencies; as it is where they hold next to no energy."""
        filtered = remove_low_frequencies(self.waveform, self.sample_rate)
        removed = float(np.square(self.waveform - filtered, dtype=np.float64).sum())
        remaining = float(np.square(filtered, dtype=np.float64).sum())
        return filtered if removed > LOW_FREQUENCY_SHARE * remaining else self.waveform

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """`[samples]`, true where somebody speaks."""
        return speech_mask(self.speech_band, self.sample_rate, self.vad)

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return float(self.mask.sum()) / self.sample_rate

    def windows(self, max_count: int) -> list[NDArray[np.float32]]:
        """Return adjacent windows of 1 s that are at least half speech; if there is none, the one with most speech.

        Args:
            max_count: if there are more, this number of them, evenly spread.
        """
        size = round(WINDOW_S * self.sample_rate)
        starts = range(0, max(1, len(self.waveform) - size + 1), size)
        shares = [float(self.mask[start : start + size].mean()) for start in starts]
        min_share = min(0.5, max(shares))
        spoken = [start for start, share in zip(starts, shares, strict=True) if share >= min_share]
        if min_share < 0.5:
            spoken = spoken[:1]
        indices = sorted({round(i) for i in np.linspace(0, len(spoken) - 1, min(max_count, len(spoken)))})
        return [self.waveform[spoken[i] : spoken[i] + size] for i in indices]


def split_sources(
    sources: Sequence[EnrollmentSource], network: TargetSpeakerExtractor, name: str
) -> tuple[list[Source], list[NDArray[np.float32]]]:
    """Split the sources of an enrollment into recordings and embeddings computed elsewhere.

    Raises:
        InputError: not what the cues take: recordings, recordings and one embedding, or embeddings alone.
    """
    read = [(source, read_embedding(source)) for source in sources]
    recordings = [source for source, embedding in read if embedding is None]
    embeddings = [embedding for _, embedding in read if embedding is not None]
    dim = network.external_embedding_dim
    if dim is None and embeddings:
        raise InputError(f"{name}: takes recordings of a voice, no embedding; give a file, or (waveform, sample_rate)")
    if dim is not None and not embeddings:
        raise InputError(f"{name}: takes an embedding of {dim} numbers that is computed elsewhere; give NAME.npy")
    if not recordings:
        for cue, config in zip(network.cues, network.config["cues"], strict=True):
            if cue.embedding_dim is None:
                raise InputError(f"{name}: its cue {config['name']!r} needs a recording of the voice; give one as well")
    if recordings and len(embeddings) > 1:
        raise InputError(f"{name}: was given {len(embeddings)} embeddings beside recordings; one is allowed")
    return recordings, embeddings


def load_enrollments(
    sources: Sequence[Source], sample_rate: int, vad: VAD = "energy", max_s: float = MAX_ENROLLMENT_S
) -> list[EnrollmentAudio]:
    """Load the recordings of a voice: at most `max_s` seconds of all together, the segments with the most speech.

    If all recordings together are no longer than that, they are loaded whole. Otherwise `speech_activity.share_limit`
    divides the limit, and of each recording that is longer than its share the best segments are taken, in their order.
    Such a recording is read in blocks, so its length does not matter to memory.

    Args:
        sources: paths, also of segments, or pairs `(waveform, sample_rate)`.
        sample_rate: of the model, in Hz.
        vad: voice activity detection.
        max_s: the limit in seconds.

    Returns:
        One for each recording that enters the network.

    Raises:
        AudioError, InputError: as `load_enrollment`.
    """
    _check_vad(vad)
    readers = [open_enrollment(source, number) for number, source in enumerate(sources, start=1)]
    if sum(reader.duration_s for reader in readers) <= max_s:
        whole = [load_enrollment(r.source, number, sample_rate, vad) for number, r in enumerate(readers, start=1)]
        if sum(enrollment.duration_s for enrollment in whole) <= max_s:  # a header may announce less than there is
            return whole
    scans = [scan_speech(reader, vad) for reader in readers]
    enrollments = []
    for number, (scan, share_s) in enumerate(zip(scans, share_limit(scans, max_s), strict=True), start=1):
        if share_s >= scan.duration_s:
            enrollments.append(load_enrollment(scan.reader.source, number, sample_rate, vad))
        elif share_s > 0:
            enrollments.append(_load_best_segments(scan, share_s, sample_rate, vad))
    return enrollments


def load_reported(
    sources: Sequence[Source], sample_rate: int, vad: VAD, max_s: float, warned_of: set[str]
) -> list[EnrollmentAudio]:
    """Load the recordings of a voice as `load_enrollments`, and log how much of them is left out, if anything is.

    Args:
        sources, sample_rate, vad, max_s: as `load_enrollments`.
        warned_of: names that were logged already; a new one is added.
    """
    enrollments = load_enrollments(sources, sample_rate, vad, max_s)
    cut_names = [enrollment.name for enrollment in enrollments if enrollment.full_duration_s is not None]
    if not cut_names and len(enrollments) == len(sources):
        return enrollments
    if len(sources) == 1:
        subject, of_total = cut_names[0], f" of {enrollments[0].full_duration_s:.1f} s"
    else:
        subject, of_total = f"the {len(sources)} recordings of the voice", f", of {len(enrollments)} of them,"
    # A warning once per name, then only information: an evaluation enrolls thousands of arrays.
    log.log(
        logging.INFO if subject in warned_of else logging.WARNING,
        "%s: the %.1f s%s with the most speech are enrolled; --enroll-max (max_enrollment_s) changes how many",
        subject,
        sum(enrollment.duration_s for enrollment in enrollments),
        of_total,
    )
    warned_of.add(subject)
    return enrollments


def load_enrollment(source: Source, number: int, sample_rate: int, vad: VAD) -> EnrollmentAudio:
    """Load the loudest channel of a recording, at its own rate and at the model's.

    Args:
        source: a path, or a pair `(waveform, sample_rate)`.
        number: of the recording in the enrollment, from 1; an array is named `recording NUMBER`.
        sample_rate: of the model, in Hz.
        vad: voice activity detection.

    Raises:
        AudioError: the recording is missing, damaged, silent or shorter than 0.1 s.
        InputError: no such `vad`.
    """
    _check_vad(vad)
    recording = read_enrollment(source)
    if recording.duration_s < MIN_ENROLLMENT_S:
        raise AudioError(
            f"{recording.name}: lasts {recording.duration_s:.3f} s; an enrollment needs at least "
            f"{MIN_ENROLLMENT_S} s, and is better with 5 to 10 s"
        )
    if (recording.waveform.min(axis=1) == recording.waveform.max(axis=1)).all():
        raise _silent_error(recording.name)
    loudest = 0
    if len(recording.waveform) > 1:
        filtered = remove_low_frequencies(recording.waveform, recording.sample_rate)
        loudest = int((filtered.astype(np.float64) ** 2).sum(axis=1).argmax())
    channel = recording.waveform[loudest]
    waveform = np.asarray(audio.resample(channel, recording.sample_rate, sample_rate), dtype=np.float32)
    name = f"recording {number}" if recording.file_format is None else recording.name
    return EnrollmentAudio(name, waveform, sample_rate, channel, recording.duration_s, vad)


def _load_best_segments(scan: SpeechScan, share_s: float, sample_rate: int, vad: VAD) -> EnrollmentAudio:
    reader = scan.reader
    segments = cut_segments(scan, select_segments(scan, share_s))
    if all(segment.min() == segment.max() for segment in segments):
        raise _silent_error(reader.name)
    resampled = [audio.resample(segment, reader.sample_rate, sample_rate) for segment in segments]
    original = np.concatenate(segments)
    return EnrollmentAudio(
        reader.name,
        np.concatenate(resampled).astype(np.float32, copy=False),
        sample_rate,
        original,
        len(original) / reader.sample_rate,
        vad,
        scan.duration_s,
    )


def _check_vad(vad: str) -> None:
    if vad not in get_args(VAD):
        raise InputError(f"vad: is {vad!r}; {' or '.join(get_args(VAD))} is allowed")


def _silent_error(name: str) -> AudioError:
    return AudioError(f"{name}: is silent; an enrollment needs a recording of the voice")


def check_min_speech(value: object) -> None:
    """Refuse what is not a finite number of 0 or more.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise InputError(f"min_speech_s: is {shorten(repr(value), 60)}; a number of 0 or more is needed")


def require_speech(enrollments: Sequence[EnrollmentAudio], min_speech_s: float) -> None:
    """Refuse an enrollment with less speech than that, in seconds over all recordings.

    Raises:
        InputError: there is less.
    """
    speech_s = sum(enrollment.speech_s for enrollment in enrollments)
    if speech_s < min_speech_s:
        names = enrollments[0].name if len(enrollments) == 1 else f"the {len(enrollments)} recordings"
        raise InputError(
            f"{names}: {speech_s:.2f} s of speech; an enrollment needs at least {min_speech_s:g} s, "
            "and is better with 5 to 10 s: give a longer recording, or several"
        )


def assess_enrollment(
    network: TargetSpeakerExtractor,
    enrollments: Sequence[EnrollmentAudio],
    chosen: Sequence[ChosenVoice | None],
    device: str,
    verifier: PresenceVerifier | None = None,
) -> VoiceQuality:
    """Assess the recordings of a voice with the network's speaker encoder, or else with that of the verifier.

    Args:
        network: on `device`.
        enrollments: one or more.
        chosen: for each, which of its voices was enrolled; `None` if the voices were not counted yet.
        device: on which to compute.
        verifier: takes the place of the encoder that the network does not have.
    """
    if verifier is not None and getattr(network, "encoder", None) is None:
        return assess_recordings(enrollments, verifier.embed, *verifier.voice_thresholds)
    quality = assess_recordings(enrollments, lambda windows: embed_windows(network, windows, device))
    if not counts_voices(network):
        return quality
    counts = [
        len(encode_voices(network, enrollment.waveform, device)) if voice is None else voice.count
        for enrollment, voice in zip(enrollments, chosen, strict=True)
    ]
    return add_voice_counts(quality, counts, chosen)


def assess_recordings(
    enrollments: Sequence[EnrollmentAudio],
    embed: Embed,
    second_voice: float = SECOND_VOICE_SIMILARITY,
    unlike: float = OUTLIER_SIMILARITY,
) -> VoiceQuality:
    """Assess the recordings of a voice; the windows of all of them go through the encoder together, once.

    Args:
        enrollments: one or more.
        embed: windows → embeddings `[windows, dim]`, or `None` where the model has no speaker encoder.
        second_voice: threshold of `enrollment_quality.suspect_second_voice`.
        unlike: threshold of `enrollment_quality.compare_recordings`. Two recordings alone differ if their cosine is
            below this share of the mean coherence within them.
    """
    qualities = [
        RecordingQuality(
            enrollment.name,
            enrollment.duration_s,
            enrollment.speech_s,
            estimate_snr_db(enrollment.speech_band, enrollment.mask, enrollment.sample_rate),
            clipped_share(enrollment.original),
        )
        for enrollment in enrollments
    ]
    vad, speech_s = enrollments[0].vad, [enrollment.speech_s for enrollment in enrollments]
    windows = [enrollment.windows(max(4, MAX_WINDOWS // len(enrollments))) for enrollment in enrollments]
    embeddings = embed([window for group in windows for window in group])
    if embeddings is None:
        weights = recording_weights(speech_s, [])
        weighted = tuple(replace(q, weight=weight) for q, weight in zip(qualities, weights, strict=True))
        return VoiceQuality(weighted, vad, untold=NO_ENCODER)

    # Within each recording.
    groups = np.split(embeddings, np.cumsum([len(group) for group in windows])[:-1])
    for i, group in enumerate(groups):
        similarity = segment_similarity(group)
        qualities[i] = replace(
            qualities[i],
            coherence=coherence(group) if len(group) > 1 else None,
            likeness=similarity,
            second_voice=None if similarity is None else similarity < second_voice,
        )
    overall = coherence(embeddings) if len(embeddings) > 1 else None
    if len(qualities) == 1:
        return VoiceQuality(tuple(qualities), vad, overall)

    # Between recordings.
    means = [(group / np.linalg.norm(group, axis=1, keepdims=True).clip(1e-12)).mean(axis=0) for group in groups]
    agreement = compare_recordings(means, speech_s, unlike)
    weights = recording_weights(speech_s, agreement.outliers)
    qualities = [
        replace(
            quality,
            cosine=agreement.cosines[i],
            others=agreement.others[i],
            outlier=i in agreement.outliers,
            weight=weights[i],
        )
        for i, quality in enumerate(qualities)
    ]
    within = [quality.coherence for quality in qualities if quality.coherence is not None]
    differ = len(qualities) == 2 and bool(within) and agreement.cosines[0] < unlike * float(np.mean(within))
    return VoiceQuality(tuple(qualities), vad, overall, differ)


def embed_windows(
    network: TargetSpeakerExtractor, windows: Sequence[NDArray[np.float32]], device: str
) -> NDArray[np.float32] | None:
    """Return the speaker encoder's embeddings `[windows, dim]` in one pass; `None` if the network has no encoder.

    Each window is brought to the level that the network brings enrollments to.
    """
    import torch

    encoder = getattr(network, "encoder", None)
    if encoder is None:
        return None
    with torch.inference_mode():
        inputs = encoder_input(network, windows, device)
        output = encoder.of_features(*inputs) if encoder.front_end == "backbone" else encoder(*inputs)
        return output.embedding.cpu().numpy()
