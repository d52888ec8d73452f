"""Resample waveforms, whole or block by block. Everything that reads audio uses these functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError


def resample(waveform: ArrayLike, from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample along the last axis with soxr at its high quality (20 bit, linear phase, no delay).

    Args:
        waveform: `[..., samples]`.
        from_rate: sample rate of the waveform in Hz.
        to_rate: sample rate of the result in Hz.

    Returns:
        float32 `[..., ⌈samples · to_rate / from_rate⌉]`; for equal rates the same samples, not copied if they are
        float32 already.

    Raises:
        InputError: a rate that is not positive.

    >>> resample(np.zeros((2, 44100), np.float32), 44100, 16000).shape
    (2, 16000)
    """
    if from_rate < 1 or to_rate < 1:
        raise InputError(f"a sample rate of {min(from_rate, to_rate)} Hz; it has to be positive")
    array = np.asarray(waveform, dtype=np.float32)
    if from_rate == to_rate or array.shape[-1] == 0:
        return array
    import soxr

    length = resampled_length(array.shape[-1], from_rate, to_rate)
    # soxr rounds the length to the nearest integer. Zeros at the end, which it assumes there anyway, lengthen the
    # result to ⌈·⌉; what is too long is cut off.
    padding = np.zeros(-(-from_rate // to_rate), np.float32)
    # Each channel alone, so that its samples do not depend on the other channels.
    rows = [
        soxr.resample(np.concatenate([row, padding]), from_rate, to_rate, quality="HQ")[:length]
        for row in array.reshape(-1, array.shape[-1])
    ]
    return np.stack(rows).reshape(*array.shape[:-1], length) if rows else array[..., :length]


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Return the number of samples that `resample` returns: ⌈num_samples · to_rate / from_rate⌉.

    >>> resampled_length(44101, 44100, 16000)
    16001
    """
    return -(-num_samples * to_rate // from_rate)


class StreamResampler:
    """Streaming `resample` for a waveform in blocks: concatenated, the results are the same samples.

    Args:
        from_rate: sample rate of the blocks in Hz.
        to_rate: sample rate of the results in Hz.
        num_channels: at least 1; each is resampled alone.

    Raises:
        InputError: a rate or a number of channels that is not positive.

    >>> stream = StreamResampler(44100, 16000, num_channels=1)
    >>> blocks = [stream.push(np.zeros((1, 10000), np.float32)) for _ in range(5)]
    >>> sum(block.shape[1] for block in [*blocks, stream.finish()]) == resampled_length(50000, 44100, 16000)
    True
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int) -> None:
        if min(from_rate, to_rate, num_channels) < 1:
            raise InputError(
                f"{num_channels} channels from {from_rate} Hz to {to_rate} Hz; all of these have to be positive"
            )
        self.from_rate, self.to_rate, self.num_channels = from_rate, to_rate, num_channels
        self._num_in = self._num_out = 0  # samples until now
        self._streams = []
        if from_rate != to_rate:
            import soxr

            self._streams = [soxr.ResampleStream(from_rate, to_rate, 1, quality="HQ") for _ in range(num_channels)]

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples `[channels, samples]`, and return the samples that are complete (maybe none)."""
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 2 or len(block) != self.num_channels:
            raise InputError(f"a block of shape {list(block.shape)}; [{self.num_channels}, samples] is needed")
        self._num_in += block.shape[1]
        if not self._streams:
            return block
        return self._resample(block, last=False)

    def finish(self) -> NDArray[np.float32]:
        """Return the remaining samples `[channels, samples]`; `push` is not allowed afterwards."""
        if not self._streams:
            return np.zeros((self.num_channels, 0), np.float32)
        # The same zeros as in `resample`, for the same reason.
        padding = np.zeros((self.num_channels, -(-self.from_rate // self.to_rate)), np.float32)
        num_remaining = resampled_length(self._num_in, self.from_rate, self.to_rate) - self._num_out
        return self._resample(padding, last=True)[:, :num_remaining]

    def _resample(self, block: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        """Resample each channel of a block with its own stream."""
        rows = [
            stream.resample_chunk(np.ascontiguousarray(row), last)
            for stream, row in zip(self._streams, block, strict=True)
        ]
        self._num_out += len(rows[0])
        return np.stack(rows)
