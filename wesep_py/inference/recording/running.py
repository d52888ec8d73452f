"""The network on waveforms at its own rate: channel by channel, or several recordings together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wesep_py.errors import InputError
from wesep_py.extractor import TargetSpeakerExtractor
from wesep_py.inference.presence import UNCALIBRATED, Calibration, Presence, presence_in
from wesep_py.inference.recording.blocks import Blocks
from wesep_py.inference.recording.blockwise import SILENT, is_constant, run_voices
from wesep_py.inference.recording.carried import block_runner
from wesep_py.inference.voice import Voice


def run_channels(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    mixture: np.ndarray,
    voice: Voice,
    blocks: Blocks,
    calibration: Calibration = UNCALIBRATED,
) -> tuple[np.ndarray, Presence | None]:
    """The network on each channel: whole, or block by block where the mixture is longer than one block.

    Args:
        network: in evaluation mode.
        device: on which it is.
        mixture: `[channels, samples]` at the network's rate.
        voice: of this network.
        blocks: how long they are.
        calibration: of the presence head.

    Returns:
        Estimate of the same shape at any level, and the presence in the channel where it is surest.
    """
    grid = blocks.grid(network.sample_rate, network.backbone.stride)
    if mixture.shape[1] <= grid.block:
        prepared = {name: tensor.to(device) for name, tensor in voice.tensors.items()}
        estimates, logits = run_voices(network, device, mixture, [prepared])
    else:
        runner = block_runner(network, device, [voice], grid, len(mixture))
        pieces = [*runner.push(mixture), *runner.finish()]
        estimates = np.concatenate([piece.estimates for piece in pieces], axis=-1)
        tracks = [piece.logits for piece in pieces if piece.logits is not None]
        logits = np.concatenate(tracks, axis=-1) if tracks else None
    frame_s = network.backbone.stride / network.sample_rate
    if logits is None:
        return estimates[0], None
    sounding = [one for one, channel in zip(logits[0], mixture, strict=True) if not is_constant(channel)]
    return estimates[0], presence_in(sounding or list(logits[0]), frame_s, calibration)


def run_together(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    mixtures: np.ndarray,
    voices: Sequence[Voice],
    calibration: Calibration = UNCALIBRATED,
) -> tuple[np.ndarray, list[Presence | None]]:
    """The network on several recordings at a time.

    Args:
        network, device, calibration: as `run_channels`.
        mixtures: `[recordings, samples]`.
        voices: one a recording.

    Returns:
        Estimates of the same shape at any level, zero where the mixture is silent or constant, and the presence in
        each: nobody speaks in silence.

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
    sounding = np.array([not is_constant(mixture) for mixture in mixtures])
    estimates[~sounding] = 0.0
    if logits is None:
        return estimates, [None] * len(mixtures)
    frame_s, tracks = network.backbone.stride / network.sample_rate, logits.float().cpu().numpy()
    tracks[~sounding] = SILENT
    return estimates, [presence_in([track], frame_s, calibration) for track in tracks]
