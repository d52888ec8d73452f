"""Repair of an extraction that holds the wrong voice: is the residual nearer to the enrollment than the estimate?

```
estimate ──────────────────┐
residual = mixture less it ─┼─► speaker encoder ─► cosine to the enrollment ─► residual nearer: repair
enrollment ────────────────┘
                                         swap:     the residual takes the place of the estimate
                                         requery:  the voice is extracted again, from the residual
```

Zhao et al., "Target confusion in end-to-end speaker extraction: analysis and approaches" (Interspeech 2022, arXiv
2204.01355): a post-filter that swaps the two of recordings with two speakers. Extracting again is for any number of
speakers, and is ours, like the margin. The encoder is the verifier's (`presence_verifier`) if there is one and the
voice was enrolled with it, else the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.common.errors import InputError, shorten
from wesep_py.inference.presence_decision.presence_verifier import SILENT_RMS, active_parts

if TYPE_CHECKING:
    from wesep_py.inference.enrolling.voice_print import Voice
    from wesep_py.inference.extractor import Extractor
    from wesep_py.inference.inputs_outputs.inputs import Recording
    from wesep_py.inference.long_recordings.blocks import Blocks
    from wesep_py.inference.presence_decision.presence_verifier import PresenceVerifier
    from wesep_py.inference.result import Result
    from wesep_py.network.extraction_network import TargetSpeakerExtractor

Repair = Literal["none", "requery", "swap"]
REPAIRS: tuple[Repair, ...] = ("none", "requery", "swap")
MARGIN = 0.05
"""The residual counts as the voice if its cosine to the enrollment exceeds that of the estimate by more than this.

One of 300 trials of the bundled model is then repaired needlessly, with the d-vector (docs/extract.md)."""
Compare = Callable[[Sequence[NDArray[np.float32]]], list[float]]
"""Returns the cosine to the enrollment of each of several signals `[samples]` at the model's rate."""


def check_repair(
    repair: bool | str, network: TargetSpeakerExtractor, verifier: PresenceVerifier | None, name: str = "the model"
) -> Repair:
    """Return a kind of repair that a model can do; true is `requery`, false `none`.

    Args:
        repair: as given.
        network, verifier: of the model.
        name: of the model, for messages.

    Raises:
        InputError: an unknown kind, or a model without a speaker encoder to compare voices with.
    """
    kind = ("requery" if repair else "none") if isinstance(repair, bool) else repair
    if kind not in REPAIRS:
        raise InputError(f"repair: is {shorten(kind, 40)!r}; {', '.join(REPAIRS)} are allowed")
    if kind != "none" and verifier is None and _embedding_name(network) is None:
        raise InputError(
            f"{name} has no embedding of its own to repair by; install an encoder with `wesep models pull dvector`, "
            "give --verify dvector, and enroll the voice again"
        )
    return kind  # type: ignore[return-value]


def repaired(
    extractor: Extractor,
    recording: Recording,
    voice: Voice,
    result: Result,
    kind: Repair,
    blocks: Blocks | None = None,
    shifts: int | None = None,
) -> Result:
    """Return the result of an extraction, repaired if it holds the wrong voice; one decision for the recording.

    Of several channels, the one with the most energy decides.

    Args:
        extractor: the model.
        recording: the mixture.
        voice: that was extracted.
        result: of the extraction.
        kind: `requery` or `swap`.
        blocks, shifts: of the extraction, for the second one.

    Returns:
        The result, or another with `repaired` true. That of `requery` is returned only if it is nearer to the
        enrollment than the first.

    Raises:
        InputError: the voice was enrolled without the encoder that compares.
    """
    rate, compare = extractor.sample_rate, comparison(extractor, voice)
    samples, waveform = recording.at_rate(rate), np.atleast_2d(result.waveform)
    channel = int(np.square(samples, dtype=np.float64).sum(axis=1).argmax())
    mixture = samples[channel]
    estimate = _at_length(waveform[channel], recording.sample_rate, rate, len(mixture))
    of_estimate, of_residual = compare([estimate, mixture - estimate])
    if not of_residual > of_estimate + MARGIN:
        return result
    residual = (recording.waveform - waveform).astype(np.float32)
    if kind == "requery":
        source = replace(recording, waveform=residual, _at_rates={})
        second = extractor.extract(source, voice, blocks, shifts, repair=False)
        found = _at_length(np.atleast_2d(second.waveform)[channel], recording.sample_rate, rate, len(mixture))
        return replace(second, repaired=True) if compare([found])[0] > of_estimate else result
    detection, verify = result.detection, extractor.verification(voice)
    if detection is not None and verify is not None:
        detection = verify(
            replace(detection, verification=None), audio.resample(residual, recording.sample_rate, rate), samples
        )
    return replace(
        result,
        waveform=residual[0] if recording.mono_array else residual,
        presence=None if detection is None else detection.probability,
        detection=detection,
        repaired=True,
    )


def comparison(extractor: Extractor, voice: Voice) -> Compare:
    """Return the function that compares signals with a voice.

    Raises:
        InputError: the voice was enrolled without the encoder that compares.
    """
    enrolled = extractor.verifier_embedding(voice)
    if enrolled is not None and extractor.verifier is not None:
        embed = extractor.verifier.embed
    elif (name := _embedding_name(extractor.network)) is not None:
        embed, enrolled = _own_embed(extractor), voice.tensors[name][0].numpy()
        enrolled = enrolled / max(1e-12, float(np.linalg.norm(enrolled)))
    else:
        raise InputError(
            f"{voice.source or 'the voice'}: was enrolled without the encoder that repairing needs; enroll it again"
        )

    def compare(signals: Sequence[NDArray[np.float32]]) -> list[float]:
        sounding = [i for i, signal in enumerate(signals) if len(signal) and _rms(signal) > SILENT_RMS]
        cosines = [0.0] * len(signals)
        if sounding:
            parts = [active_parts(signals[i].astype(np.float32), extractor.sample_rate) for i in sounding]
            for i, embedding in zip(sounding, embed(parts), strict=True):
                cosines[i] = float(embedding @ enrolled)
        return cosines

    return compare


def _embedding_name(network: TargetSpeakerExtractor) -> str | None:
    """Return the name, in a voice print, of the embedding by the model's own encoder; `None` without one."""
    from wesep_py.network.cues import EmbeddingCue

    if getattr(network, "encoder", None) is None:
        return None
    indices = [i for i, cue in enumerate(network.cues) if isinstance(cue, EmbeddingCue)]
    return f"{indices[0]}.embedding" if indices else None


def _own_embed(extractor: Extractor) -> Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]:
    """Return the function that embeds signals, one by one, with the model's own encoder, at unit length."""
    import torch

    def embed(signals: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            waveforms = [torch.from_numpy(signal)[None].to(extractor.device) for signal in signals]
            rows = torch.cat([extractor.network.embed(waveform) for waveform in waveforms])
            return torch.nn.functional.normalize(rows.float(), dim=1).cpu().numpy()

    return embed


def _at_length(signal: NDArray[np.float32], from_rate: int, to_rate: int, length: int) -> NDArray[np.float32]:
    """Return a signal `[samples]` at another rate and of a length: resampling may differ by a sample."""
    resampled = audio.resample(signal[None], from_rate, to_rate)[0][:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32)


def _rms(signal: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(signal, dtype=np.float64).mean()))
