"""Blocks of samples `[samples, channels]`: cut, regroup, mix channels, resample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.resample import StreamResampler

Samples = NDArray[np.float32]
"""Block of a recording, `[samples, channels]`."""


def cut_out(blocks: Iterator[Samples], start: int, stop: int) -> Iterator[Samples]:
    """Yield the samples from `start` to `stop` of concatenated blocks."""
    position = 0
    for block in blocks:
        piece = block[max(0, start - position) : max(0, stop - position)]
        position += len(block)
        if len(piece):
            yield piece
        if position >= stop:
            return


def regrouped(blocks: Iterator[Samples], length: int) -> Iterator[Samples]:
    """Yield the same samples in blocks of equal length, except the last."""
    pieces: list[Samples] = []
    size = 0
    for block in blocks:
        while len(block):
            piece, block = block[: length - size], block[length - size :]
            pieces.append(piece)
            size += len(piece)
            if size == length:
                yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                pieces, size = [], 0
    if pieces:
        yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def with_channels(block: Samples, count: int) -> Samples:
    """Return the mean of the channels of a block, `count` times."""
    mono = block if block.shape[1] == 1 else block.mean(axis=1, keepdims=True)
    return np.repeat(mono, count, axis=1)


def resampled(blocks: Iterator[Samples], from_rate: int, to_rate: int, channels: int) -> Iterator[Samples]:
    """Resample blocks; none of the resulting blocks is empty."""
    stream = StreamResampler(from_rate, to_rate, channels)
    for block in blocks:
        if len(out := stream.push(np.ascontiguousarray(block.T)).T):
            yield out
    if len(out := stream.finish().T):
        yield out
