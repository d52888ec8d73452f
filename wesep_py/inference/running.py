"""The network on waveforms at its own rate: channel by channel, or several recordings together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wesep_py.errors import InputError
from wesep_py.extractor import TargetSpeakerExtractor
from wesep_py.inference.voice import Voice

PRESENCE_S = 0.5
"""A voice is taken to be present if it speaks for this long anywhere in the recording."""


def run_channels(
    network: TargetSpeakerExtractor, device: str | torch.device, mixture: np.ndarray, voice: Voice
) -> tuple[np.ndarray, float | None]:
    """The network on each channel; a silent channel stays silent, for there is no voice in it.

    Args:
        network: in evaluation mode.
        device: on which it is.
        mixture: `[channels, samples]` at the network's rate.
        voice: of this network.

    Returns:
        Estimate of the same shape at any level, and the presence in the channel where it is surest.
    """
    prepared = {name: tensor.to(device) for name, tensor in voice.tensors.items()}
    estimate = np.zeros_like(mixture, dtype=np.float32)
    presences = []
    for index, channel in enumerate(mixture):
        if not channel.any():
            continue
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32))[None]
            output = network.extract(batch.to(device), prepared)
        estimate[index] = output.waveforms[0][0].float().cpu().numpy()
        if output.presence_logits is not None:
            presences.append(presence_of(network, output.presence_logits[0]))
    return estimate, max(presences) if presences else None


def run_together(
    network: TargetSpeakerExtractor, device: str | torch.device, mixtures: np.ndarray, voices: Sequence[Voice]
) -> tuple[np.ndarray, list[float | None]]:
    """The network on several recordings at a time.

    Args:
        network, device: as `run_channels`.
        mixtures: `[recordings, samples]`.
        voices: one a recording.

    Returns:
        Estimates of the same shape at any level, zero where the mixture is silent, and the presence in each.

    Raises:
        InputError: the voices' tensors are not of one shape, or are not as many as the recordings.
    """
    shapes = [{key: tensor.shape for key, tensor in voice.tensors.items()} for voice in voices]
    if len(voices) != len(mixtures) or any(shape != shapes[0] for shape in shapes):
        raise InputError("a batch needs a voice for each recording, of one shape; extract them one by one")
    prepared = {key: torch.cat([v.tensors[key] for v in voices]).to(device) for key in voices[0].tensors}
    with torch.inference_mode():
        output = network.extract(torch.from_numpy(mixtures).to(device), prepared)
    estimates, logits = output.waveforms[0].float().cpu().numpy(), output.presence_logits
    sounding = mixtures.any(axis=1)
    estimates[~sounding] = 0.0
    return estimates, [
        presence_of(network, logits[i]) if logits is not None and sounding[i] else None for i in range(len(mixtures))
    ]


def presence_of(network: TargetSpeakerExtractor, logits: torch.Tensor) -> float:
    """Mean probability of the `PRESENCE_S` of frames (`[frames]` logits) that are surest of the voice."""
    frames = max(1, round(PRESENCE_S * network.sample_rate / network.backbone.stride))
    surest = logits.float().sigmoid().sort(descending=True).values[:frames]
    return float(surest.mean())
