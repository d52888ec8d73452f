"""A network in torch on long recordings, in overlapping blocks (`wesep_py.inference.long_recordings.blocks`).

- `run_network`: the network on every channel of one block, for every voice.
- `extract_averaged`: the network on shifted copies of a mixture, whose estimates are averaged.
- `OverlapAddRunner`: `BlockRunner` for such a network.

A causal network needs no overlap: see `wesep_py.inference.long_recordings.streaming`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.inference.long_recordings.blocks import BlockGrid, BlockRunner, extract_channels

if TYPE_CHECKING:
    from wesep_py.inference.enrolling.voice_print import Voice
    from wesep_py.inference.long_recordings.blocks import Estimates
    from wesep_py.network.extraction_network import TargetSpeakerExtractor


class OverlapAddRunner(BlockRunner):
    """Run a network on overlapping blocks of a recording and cross-fade them.

    Args:
        network: in evaluation mode.
        device: device of the network.
        voices: one or more, enrolled by this network.
        grid: lengths in samples.
        num_channels: of the mixture.
        shifts: number of shifted copies of each block that are averaged (`extract_averaged`).

    >>> OverlapAddRunner(network, "cpu", [voice], Blocks().grid(16000, 128), num_channels=1)     # doctest: +SKIP
    """

    def __init__(
        self,
        network: TargetSpeakerExtractor,
        device: str | torch.device,
        voices: Sequence[Voice],
        grid: BlockGrid,
        num_channels: int,
        shifts: int = 1,
    ) -> None:
        prepared = [{key: tensor.to(device) for key, tensor in voice.tensors.items()} for voice in voices]
        run = partial(run_network, network, device, prepared=prepared, shifts=shifts)
        super().__init__(run, grid, len(voices), num_channels, match_levels=network.level == "fitted")


def run_network(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    mixture: NDArray[np.float32],
    prepared: Sequence[dict[str, torch.Tensor]],
    shifts: int = 1,
) -> Estimates:
    """Run the network on each channel, for each voice; a channel that is silent or constant gives silence.

    Args:
        network: in evaluation mode.
        device: device of the network and of `prepared`.
        mixture: `[channels, samples]` at the network's rate.
        prepared: tensors of each voice.
        shifts: number of shifted copies of the mixture that are averaged (`extract_averaged`).

    Returns:
        Estimates `[voices, channels, samples]` at any level; presence logits `[voices, channels, frames]` or `None`.
    """

    def extract(samples: NDArray[np.float32], voice: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        batch = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None].to(device)
        waveforms, track = extract_averaged(network, batch, prepared[voice], shifts)
        return waveforms[0], None if track is None else track[0]

    has_presence = getattr(network, "presence", None) is not None
    frames = num_frames(network, mixture.shape[1]) if has_presence else None
    return extract_channels(mixture, len(prepared), extract, frames)


def extract_averaged(
    network: TargetSpeakerExtractor, mixture: torch.Tensor, prepared: dict[str, torch.Tensor], shifts: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Run the network on shifted copies of a mixture and average their estimates and presence logits.

    The copies are shifted by k · stride / shifts samples, k = 0 … shifts − 1, so that the network sees each sample at
    several positions in its frames. The errors of the copies differ, and their average is smaller.

    Args:
        network: in evaluation mode.
        mixture: `[batch, samples]` at the network's rate, on the network's device.
        prepared: tensors of each voice of the batch, on the same device.
        shifts: number of copies, 1 to the network's stride; 1 runs the network once on the mixture as it is.

    Returns:
        Estimates `[batch, samples]`; presence logits `[batch, frames]`, with as many frames as without a shift, or
        `None`.

    Source: the "shift trick" of Défossez et al., "Music Source Separation in the Waveform Domain", 2019; here with
    shifts that divide a stride evenly, not random ones.
    """
    # The frames of three copies, with a stride of three samples; the zeros `.` in front are cut from the estimate:
    #
    #   frames     |     |     |     |
    #   shift 0    0 1 2 3 4 5 6 7 8
    #   shift 1    . 0 1 2 3 4 5 6 7 8
    #   shift 2    . . 0 1 2 3 4 5 6 7 8
    #
    # Frame t of all copies is averaged: they are centred up to a stride apart. One more frame at the end is cut.
    with torch.inference_mode():
        output = network.extract(mixture, prepared)
        waveforms, logits = output.waveforms[0].float(), output.presence_logits
        logits = None if logits is None else logits.float()
        for copy in range(1, shifts):
            output = network.extract(mixture, prepared, shift=copy * network.backbone.stride // shifts)
            waveforms = waveforms + output.waveforms[0].float()
            if logits is not None and output.presence_logits is not None:
                logits = logits + output.presence_logits.float()
        if shifts > 1:
            waveforms, logits = waveforms / shifts, None if logits is None else logits / shifts
    return waveforms.cpu().numpy(), None if logits is None else logits.cpu().numpy()


def num_frames(network: TargetSpeakerExtractor, num_samples: int) -> int:
    """Return the number of frames that the network makes of a number of samples."""
    return int(network.backbone.num_frames(torch.tensor(num_samples)))
