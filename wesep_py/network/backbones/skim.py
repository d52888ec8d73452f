"""SkiM: recurrent layers within segments, and small memory layers that carry their states from segment to segment.

Li et al., "SkiM: skipping memory LSTM for low-latency real-time continuous speech separation" (ICASSP 2022, arXiv
2201.10800). Where a dual-path network runs a second recurrent layer over all frames, SkiM runs one over the segments:

    segments of block l      |  K frames  |  K frames  |  K frames  |
    segment LSTM                  │h, c        │h, c        │h, c       its last states
    memory LSTMs                  └──► LSTM_h, LSTM_c over the segments
    segments of block l+1    |  K frames  |  K frames  |  K frames  |   begin with these states

In the causal form a segment begins with the memory of the segments before it, so a stream needs no frame to come.
Extraction with FiLM before each block is that of PureSound (https://github.com/mcw519/PureSound).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.network.backbones.backbone import Condition, backbones
from wesep_py.network.backbones.conv_tasnet import ChannelNorm
from wesep_py.network.backbones.masked_basis import MaskedBasis

States = tuple[Tensor, Tensor]
"""Hidden and cell state of an LSTM, `[batch, size]` each, all of its directions together."""


class BlockState(NamedTuple):
    """Streaming state of a block.

    Attributes:
        segment: of its segment LSTM within the segment that is not complete; `None` between two segments.
        initial: with which the next segment begins, made by the memory of the block before; `None`: zeros.
        memory: states of the memory LSTMs of h and c after the last complete segment; `None` at the start.
    """

    segment: States | None = None
    initial: States | None = None
    memory: tuple[Any, Any] | None = None


@backbones.register("skim")
class SkiM(MaskedBasis):
    """SkiM on a learned basis, with a mask on it.

    The latent is `[batch, dim, frames]`; an embedding is fused along its second axis, before each block.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        kernel_ms, hop_ms: window of the learned encoder and its shift, in milliseconds.
        num_filters: filters of the encoder.
        dim: size of the latent.
        hidden: units of the segment LSTMs, for each direction.
        num_blocks: number of segment LSTMs; between two of them is a memory.
        segment: K, frames of a segment.
        causal: one direction, within segments and over them, and a memory of the segments before. The look-ahead that
            remains is the window's: `latency`.

    Raises:
        ValueError: sizes below 1, or a hop longer than the window.

    >>> network = SkiM(num_filters=8, dim=4, hidden=4, num_blocks=2, segment=20)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 1,
        kernel_ms: float = 2.0,
        hop_ms: float = 1.0,
        num_filters: int = 128,
        dim: int = 128,
        hidden: int = 256,
        num_blocks: int = 4,
        segment: int = 150,
        causal: bool = False,
    ) -> None:
        if min(num_filters, dim, hidden, num_blocks, segment) < 1:
            raise ValueError("num_filters, dim, hidden, num_blocks, segment: must be 1 or more")
        super().__init__(sample_rate, kernel_ms, hop_ms, num_filters, causal)
        self.causal, self.segment, self.latent_dim, self.num_fusion_points = causal, segment, dim, num_blocks
        self.input = nn.Sequential(
            ChannelNorm(input_channels * num_filters, "frame"), nn.Conv1d(input_channels * num_filters, dim, 1)
        )
        self.blocks = nn.ModuleList(SegmentLSTM(dim, hidden, causal) for _ in range(num_blocks))
        self.memories = nn.ModuleList(MemoryLSTM(self.blocks[0].state_size, causal) for _ in range(num_blocks - 1))
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(dim, num_filters, 1), nn.ReLU())

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        latent = self.input(features.flatten(1, 2))
        position, blocks = (0, [BlockState()] * len(self.blocks)) if state is None else state
        if self.causal:
            return self._encode_causal(latent, condition, position, blocks)
        num_frames, initial = latent.shape[2], None
        for point, block in enumerate(self.blocks):
            x = condition(point, latent).transpose(1, 2)
            # Whole segments, the last of them filled with zeros: [batch, segments, K, dim].
            padded = nn.functional.pad(x, (0, 0, 0, -num_frames % self.segment)).unflatten(1, (-1, self.segment))
            out, last = block(padded.flatten(0, 1), None if initial is None else _flat(initial))
            latent = out.view_as(padded).flatten(1, 2)[:, :num_frames].transpose(1, 2)
            if point < len(self.memories):
                initial, _ = self.memories[point](_by_segment(last, len(x)))
        return latent, None

    def _encode_causal(
        self, latent: Tensor, condition: Condition, position: int, states: list[BlockState]
    ) -> tuple[Tensor, Any]:
        """Encode the next frames; `position` of the frames before belong to a segment that is not complete.

        The frames are those of a started segment, of whole segments, and of a segment that is left incomplete:

            | K − position, if position > 0 | K | K | … | K | fewer than K |
        """
        batch, num_frames = latent.shape[0], latent.shape[2]
        started = min(num_frames, self.segment - position) if position else 0
        num_whole = (num_frames - started) // self.segment
        completes = bool(position) and started == self.segment - position
        memory: States | None = None  # of the block before, after each segment that is complete now
        new_states = []
        for point, (block, state) in enumerate(zip(self.blocks, states, strict=True)):
            x = condition(point, latent).transpose(1, 2)
            if point == 0 and completes + num_whole:  # the first block has no memory before it
                zeros = x.new_zeros(batch, completes + num_whole, block.state_size)
                memory = (zeros, zeros)
            # States with which the segments begin: `initial` for the next, then the memory after each complete one.
            initials = _joined(state.initial, memory, batch, block.state_size, x)
            first = 1 if completes else 0
            parts, finals, segment = [], [], state.segment
            if started:
                out, segment = block(x[:, :started], segment)
                parts.append(out)
                if completes:
                    finals, segment = [segment], None
            if num_whole:
                whole = x[:, started : started + num_whole * self.segment].unflatten(1, (num_whole, self.segment))
                begin = tuple(part[:, first : first + num_whole] for part in initials)
                out, last = block(whole.flatten(0, 1), _flat(begin))
                parts.append(out.view_as(whole).flatten(1, 2))
                by_segment = _by_segment(last, batch)
                finals += [tuple(part[:, i] for part in by_segment) for i in range(num_whole)]
            if (done := started + num_whole * self.segment) < num_frames:
                begin = tuple(part[:, first + num_whole] for part in initials)
                out, segment = block(x[:, done:], begin)
                parts.append(out)
            latent = torch.cat(parts, dim=1).transpose(1, 2)
            of_memory = state.memory
            memory = None
            if point < len(self.memories) and finals:
                stacked = tuple(torch.stack([final[i] for final in finals], dim=1) for i in (0, 1))
                memory, of_memory = self.memories[point](stacked, of_memory)
            new_states.append(BlockState(segment, tuple(part[:, -1] for part in initials), of_memory))
        return latent, ((position + num_frames) % self.segment, new_states)


class SegmentLSTM(nn.Module):
    """Residual LSTM within a segment: `x + norm(linear(LSTM(x)))`; its states can be given, and are returned.

    Attributes:
        state_size: size of a state, all directions together.
    """

    def __init__(self, dim: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.directions = 1 if causal else 2
        self.state_size = hidden * self.directions
        self.rnn = nn.LSTM(dim, hidden, batch_first=True, bidirectional=not causal)
        self.linear, self.norm = nn.Linear(self.state_size, dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, states: States | None) -> tuple[Tensor, States]:
        """`[batch, frames, dim]` and states `[batch, state_size]`, or `None` for zeros → the same."""
        initial = None
        if states is not None:
            unfolded = (state.unflatten(1, (self.directions, -1)).transpose(0, 1) for state in states)
            initial = tuple(state.to(x.dtype).contiguous() for state in unfolded)
        out, last = self.rnn(x, initial)
        hidden, cell = (state.transpose(0, 1).flatten(1) for state in last)
        return x + self.norm(self.linear(out)), (hidden, cell)


class MemoryLSTM(nn.Module):
    """The memory between two blocks: an LSTM over the hidden states of the segments, and one over their cell states.

    Each is residual, as the segment LSTM: `h + norm(linear(LSTM(h)))`.
    """

    def __init__(self, size: int, causal: bool) -> None:
        super().__init__()
        directions = 1 if causal else 2
        self.rnns = nn.ModuleList(
            nn.LSTM(size, size // directions, batch_first=True, bidirectional=not causal) for _ in range(2)
        )
        self.linears = nn.ModuleList(nn.Linear(size // directions * directions, size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))

    def forward(self, states: States, memory: tuple[Any, Any] | None = None) -> tuple[States, tuple[Any, Any]]:
        """States of the segments, `[batch, segments, size]` each → with which those of the next block begin.

        Args:
            states: hidden and cell states after each segment.
            memory: states of the two LSTMs after the segment before; `None` at the start.
        """
        outputs, new_memory = [], []
        for i, x in enumerate(states):
            out, last = self.rnns[i](x, None if memory is None else memory[i])
            outputs.append(x + self.norms[i](self.linears[i](out)))
            new_memory.append(last)
        return (outputs[0], outputs[1]), (new_memory[0], new_memory[1])


def _flat(states: States) -> States:
    """`[batch, segments, size]` each → `[batch · segments, size]`."""
    return states[0].flatten(0, 1), states[1].flatten(0, 1)


def _by_segment(states: States, batch: int) -> States:
    """`[batch · segments, size]` each → `[batch, segments, size]`."""
    return states[0].unflatten(0, (batch, -1)), states[1].unflatten(0, (batch, -1))


def _joined(initial: States | None, memory: States | None, batch: int, size: int, like: Tensor) -> States:
    """Return the states with which segments begin, `[batch, 1 + segments, size]` each."""
    if initial is None:
        zeros = like.new_zeros(batch, size)
        initial = (zeros, zeros)
    first = (initial[0][:, None], initial[1][:, None])
    if memory is None:
        return first
    return torch.cat([first[0], memory[0]], dim=1), torch.cat([first[1], memory[1]], dim=1)
