"""Recordings of an enrollment: heard and examined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference.enrollment_quality import (
    NO_ENCODER,
    SECOND_VOICE_SIMILARITY,
    OUTLIER_SIMILARITY,
    RecordingQuality,
    VoiceQuality,
    agreement,
    clipped_share,
    coherence,
    estimate_snr_db,
    segment_similarity,
    recording_weights,
)
from wesep_py.inference.inputs import EnrollmentSource, Source, read_embedding, read_enrollment
from wesep_py.inference.mixed_enrollment import (
    VoiceMatch,
    encoder_input,
    encode_voices,
    counts_voices,
    add_voice_counts,
)
from wesep_py.inference.speech_activity import (
    MAX_ENROLLMENT_S,
    VAD,
    SpeechScan,
    share_limit,
    audible,
    cut_segments,
    open_enrollment,
    scan_speech,
    select_segments,
    speech_mask,
)

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import TargetSpeakerExtractor

    Embed = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32] | None]

WINDOW_S = 1.0
"""Windows whose embeddings are compared: short enough for several in an enrollment, long enough to know a voice by."""
MAX_WINDOWS = 64
# Up to this share of the energy, what lies below speech is left where it is when figures are taken.
HARDLY_ANY = 1e-4
# Shorter enrollments say too little of a voice to be meant.
MIN_ENROLLMENT_S = 0.1


@dataclass(frozen=True)
class EnrollmentAudio:
    """A recording, as it was enrolled.

    Attributes:
        name: for messages.
        waveform: `[samples]` at the model's rate: what enters the network.
        sample_rate: the model's, in Hz.
        recorded: `[samples]`, the same channel as it was recorded.
        duration_s: seconds.
        vad: what tells speech from pauses.
        whole_s: seconds of the recording, of which this is the part with the most speech; `None`: this is all of it.
    """

    name: str
    waveform: NDArray[np.float32]
    sample_rate: int
    recorded: NDArray[np.float32]
    duration_s: float
    vad: VAD = "energy"
    whole_s: float | None = None

    @cached_property
    def audible(self) -> NDArray[np.float32]:
        """`[samples]`, without what lies below speech, where that is more than next to nothing."""
        heard = audible(self.waveform, self.sample_rate)
        low = float(np.square(self.waveform - heard, dtype=np.float64).sum())
        return heard if low > HARDLY_ANY * float(np.square(heard, dtype=np.float64).sum()) else self.waveform

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """`[samples]`, true where somebody speaks."""
        return speech_mask(self.audible, self.sample_rate, self.vad)

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return float(self.mask.sum()) / self.sample_rate

    def windows(self, most: int) -> list[NDArray[np.float32]]:
        """Windows of 1 s beside one another, at least half of each speech; else the one with the most.

        Args:
            most: where there are more, this many, evenly spread.
        """
        size = round(WINDOW_S * self.sample_rate)
        starts = range(0, max(1, len(self.waveform) - size + 1), size)
        shares = [float(self.mask[at : at + size].mean()) for at in starts]
        least = min(0.5, max(shares))
        spoken = [at for at, share in zip(starts, shares, strict=True) if share >= least]
        if least < 0.5:
            spoken = spoken[:1]
        chosen = sorted({round(at) for at in np.linspace(0, len(spoken) - 1, min(most, len(spoken)))})
        return [self.waveform[spoken[i] : spoken[i] + size] for i in chosen]


def load_enrollment(source: Source, number: int, sample_rate: int, vad: VAD) -> EnrollmentAudio:
    """The loudest channel of a recording, as it was recorded and at the model's rate.

    Args:
        source: a path, or a pair `(waveform, sample_rate)`.
        number: which one of the enrollment it is, from 1 on; names what has no file.
        sample_rate: the model's, in Hz.
        vad: what tells speech from pauses.

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
        raise _silent(recording.name)
    loudest = 0
    if len(recording.waveform) > 1:
        energies = (audible(recording.waveform, recording.sample_rate).astype(np.float64) ** 2).sum(axis=1)
        loudest = int(energies.argmax())
    channel = recording.waveform[loudest]
    waveform = np.asarray(audio.resample(channel, recording.sample_rate, sample_rate), dtype=np.float32)
    name = f"recording {number}" if recording.file_format is None else recording.name
    return EnrollmentAudio(name, waveform, sample_rate, channel, recording.duration_s, vad)


def load_enrollments(
    sources: Sequence[Source], sample_rate: int, vad: VAD = "energy", max_s: float = MAX_ENROLLMENT_S
) -> list[EnrollmentAudio]:
    """Hear the recordings of a voice: of all of them together at most `max_s` seconds, those with the most speech.

    Recordings that are no longer than that are read whole. Of others the best segments are taken, in their order; how
    the recordings share the limit says `best_speech.allot`. A recording is read in blocks, so its length does not
    matter to memory.

    Args:
        sources: as `hear` takes them.
        sample_rate: the model's, in Hz.
        vad: what tells speech from pauses.
        max_s: the limit in seconds.

    Returns:
        One for each recording that enters the network.

    Raises:
        AudioError, InputError: as `hear`.
    """
    _check_vad(vad)
    recordings = [open_enrollment(source, number) for number, source in enumerate(sources, start=1)]
    if sum(one.duration_s for one in recordings) <= max_s:
        whole = [
            load_enrollment(one.source, number, sample_rate, vad) for number, one in enumerate(recordings, start=1)
        ]
        if sum(one.duration_s for one in whole) <= max_s:  # a header may say less than there is
            return whole
    scans = [scan_speech(one, vad) for one in recordings]
    heard = []
    for number, (one, share_s) in enumerate(zip(scans, share_limit(scans, max_s), strict=True), start=1):
        if share_s >= one.duration_s:
            heard.append(load_enrollment(one.listed.source, number, sample_rate, vad))
        elif share_s > 0:
            heard.append(_best_of(one, share_s, sample_rate, vad))
    return heard


def _best_of(one: SpeechScan, share_s: float, sample_rate: int, vad: VAD) -> EnrollmentAudio:
    rate = one.listed.sample_rate
    parts = cut_segments(one, select_segments(one, share_s))
    if all(part.min() == part.max() for part in parts):
        raise _silent(one.listed.name)
    waveform = np.concatenate([np.asarray(audio.resample(part, rate, sample_rate), np.float32) for part in parts])
    recorded = np.concatenate(parts)
    return EnrollmentAudio(one.listed.name, waveform, sample_rate, recorded, len(recorded) / rate, vad, one.duration_s)


def _check_vad(vad: str) -> None:
    if vad not in get_args(VAD):
        raise InputError(f"vad: is {vad!r}; {' or '.join(get_args(VAD))} is allowed")


def _silent(name: str) -> AudioError:
    return AudioError(f"{name}: is silent; an enrollment needs a recording of the voice")


def split_sources(
    sources: Sequence[EnrollmentSource], network: TargetSpeakerExtractor, name: str
) -> tuple[list[Source], list[NDArray[np.float32]]]:
    """The recordings among the sources, and the embeddings that were computed elsewhere.

    Raises:
        InputError: they are not what the cues take: recordings, one embedding beside them, or embeddings alone.
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
                raise InputError(f"{name}: its cue {config['name']!r} hears the voice; give a recording of it as well")
    if recordings and len(embeddings) > 1:
        raise InputError(f"{name}: was given {len(embeddings)} embeddings beside recordings; one is allowed")
    return recordings, embeddings


def require_speech(recordings: Sequence[EnrollmentAudio], min_speech_s: float) -> None:
    """Refuse an enrollment with less speech than that, in seconds over all recordings.

    Raises:
        InputError: there is less.
    """
    speech_s = sum(one.speech_s for one in recordings)
    if speech_s < min_speech_s:
        names = recordings[0].name if len(recordings) == 1 else f"the {len(recordings)} recordings"
        raise InputError(
            f"{names}: {speech_s:.2f} s of speech; an enrollment needs at least {min_speech_s:g} s, "
            "and is better with 5 to 10 s: give a longer recording, or several"
        )


def assess_recordings(
    recordings: Sequence[EnrollmentAudio],
    embed: Embed,
    second_voice: float = SECOND_VOICE_SIMILARITY,
    unlike: float = OUTLIER_SIMILARITY,
) -> VoiceQuality:
    """Examine the recordings of a voice; all windows of all of them go through the encoder together, once.

    Args:
        recordings: one or more.
        embed: windows → embeddings `[windows, dim]`, or `None` where the model has no speaker encoder.
        second_voice: threshold of `likeness.suspect_second_voice`.
        unlike: threshold of `likeness.agreement`; two recordings alone are unlike each other where their cosine is
            below this part of the coherence within them.
    """
    plain = [
        RecordingQuality(
            one.name,
            one.duration_s,
            one.speech_s,
            estimate_snr_db(one.audible, one.mask, one.sample_rate),
            clipped_share(one.recorded),
        )
        for one in recordings
    ]
    vad, durations_s = recordings[0].vad, [one.speech_s for one in recordings]
    windows = [one.windows(max(4, MAX_WINDOWS // len(recordings))) for one in recordings]
    embeddings = embed([window for own in windows for window in own])
    if embeddings is None:
        shares = recording_weights(durations_s, [])
        told = tuple(replace(one, weight=share) for one, share in zip(plain, shares, strict=True))
        return VoiceQuality(told, vad, untold=NO_ENCODER)
    groups = np.split(embeddings, np.cumsum([len(own) for own in windows])[:-1])
    told = [_of_windows(one, group, second_voice) for one, group in zip(plain, groups, strict=True)]
    overall = coherence(embeddings) if len(embeddings) > 1 else None
    if len(told) == 1:
        return VoiceQuality(tuple(told), vad, overall)
    means = [(group / np.linalg.norm(group, axis=1, keepdims=True).clip(1e-12)).mean(axis=0) for group in groups]
    found = agreement(means, durations_s, unlike)
    shares = recording_weights(durations_s, found.outliers)
    told = [
        replace(one, cosine=found.cosines[i], others=found.others[i], outlier=i in found.outliers, weight=shares[i])
        for i, one in enumerate(told)
    ]
    within = [one.coherence for one in told if one.coherence is not None]
    apart = len(told) == 2 and bool(within) and found.cosines[0] < unlike * float(np.mean(within))
    return VoiceQuality(tuple(told), vad, overall, apart)


def assess_enrollment(
    network: TargetSpeakerExtractor,
    recordings: Sequence[EnrollmentAudio],
    chosen: Sequence[VoiceMatch | None],
    device: str,
) -> VoiceQuality:
    """`assess`; where the speaker encoder can tell, with the number of voices that it hears in each recording.

    Args:
        network: on `device`.
        recordings: one or more.
        chosen: which voice of each was taken; `None` where it is not known yet how many there are.
        device: on which to compute.
    """
    quality = assess_recordings(recordings, lambda windows: embed_windows(network, windows, device))
    if not counts_voices(network):
        return quality
    counts = [
        len(encode_voices(network, one.waveform, device)) if taken is None else taken.count
        for one, taken in zip(recordings, chosen, strict=True)
    ]
    return add_voice_counts(quality, counts, chosen)


def embed_windows(
    network: TargetSpeakerExtractor, windows: Sequence[NDArray[np.float32]], device: str
) -> NDArray[np.float32] | None:
    """The speaker encoder's embeddings `[windows, dim]` in one pass; `None` where the network has no encoder.

    Each window is brought to the level that the network brings enrollments to.
    """
    import torch

    encoder = getattr(network, "encoder", None)
    if encoder is None:
        return None
    with torch.inference_mode():
        given = encoder_input(network, windows, device)
        out = encoder.of_features(*given) if encoder.front_end == "backbone" else encoder(*given)
        return out.embedding.cpu().numpy()


def _of_windows(one: RecordingQuality, embeddings: NDArray[np.float32], threshold: float) -> RecordingQuality:
    likeness = segment_similarity(embeddings)
    return replace(
        one,
        coherence=coherence(embeddings) if len(embeddings) > 1 else None,
        likeness=likeness,
        second_voice=None if likeness is None else likeness < threshold,
    )
