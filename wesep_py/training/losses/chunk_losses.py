"""Losses on short chunks in which two voices speak, against extracting the wrong voice for a part of a recording.

Liu et al., "X-SepFormer: end-to-end speaker extraction network with explicit optimization on speaker confusion" (ICASSP
2023, arXiv 2303.05023). With ŝ, s, y the estimate, the target and the mixture, the improvement of chunk c is

    i_c = SI-SDR(ŝ_c, s_c) − SI-SDR(y_c, s_c)

and a chunk with i_c < 0 is confused. Two losses weigh confusion; each stands beside a loss on whole recordings:

    chunk_scale          (share of confused chunks) · ℓ of the whole recording
    chunk_distribution   Σ_c w_c ℓ_c / Σ_c w_c,   w_c = 1 + α σ(−i_c / τ)

The roles of the two are the paper's. The exact weights, and that a chunk counts where both speak, are a choice of ours.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from wesep_py.metrics.separation import EPS, si_sdr
from wesep_py.training.losses.loss import Loss, check_weights, has_target, losses, weighted_estimates
from wesep_py.training.losses.separation_losses import check_ceiling

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import NetworkOutput

LEVEL_MEMORY = 0.99
"""Share of the earlier mean in the running mean of the improvement, at each batch."""


class Chunks(NamedTuple):
    """The chunks of a batch.

    Attributes:
        losses: ℓ_c in dB, `[batch, chunks]`.
        improvements: i_c in dB, `[batch, chunks]`, without gradient.
        counts: 1 for chunks in which target and remainder are both active, else 0; `[batch, chunks]`.
    """

    losses: Tensor
    improvements: Tensor
    counts: Tensor


class ChunkLoss(Loss):
    """Base of the losses on chunks.

    The value is 0, with zero gradients, until the network extracts well: a network at the start of its training is
    wrong in chunks at random, and to weigh them would weigh noise. `improvement_db` is the running mean of the SI-SDR
    improvement of training batches. From the first batch on at which it is above `from_db`, the loss counts. Both are
    buffers, so a resumed run continues with them.

    A chunk counts where target and remainder (mixture less target) are both active: each within `active_db` of the
    loudest chunk of the same signal. The value is the mean over the items that have such a chunk.

    Args:
        chunk_s, hop_s: length of a chunk and distance between two, in seconds, above 0.
        ceiling_db: soft ceiling of the SDR of a chunk, > 0, as for `thresholded_sdr`.
        scale_invariant: whether ℓ is −SI-SDR instead of −SNR: for networks that are trained with `si_sdr`, whose
            estimates have any level.
        active_db: range of levels of active chunks, in dB, > 0.
        from_db: mean improvement in dB above which the loss counts; `null`: from the first batch on.
        weights: one per waveform of the output, as for `si_sdr`.
        sample_rate: Hz, passed by the training task.

    Raises:
        ValueError: an argument out of its range.
    """

    name: str

    def __init__(
        self,
        chunk_s: float = 0.25,
        hop_s: float = 0.125,
        ceiling_db: float = 30.0,
        scale_invariant: bool = False,
        active_db: float = 30.0,
        from_db: float | None = 5.0,
        weights: tuple[float, ...] | None = None,
        sample_rate: int = 16000,
    ) -> None:
        super().__init__()
        self.size, self.hop = round(chunk_s * sample_rate), round(hop_s * sample_rate)
        if not 0 < self.hop <= self.size:
            raise ValueError(f"hop_s: is {hop_s}; above 0 and at most chunk_s ({chunk_s}) is allowed")
        if not active_db > 0:
            raise ValueError(f"active_db: is {active_db}; a number of dB > 0 is allowed")
        check_ceiling(ceiling_db)
        self.ceiling_db, self.scale_invariant, self.active_db = ceiling_db, scale_invariant, active_db
        self.from_db, self.weights = from_db, check_weights(weights)
        # `seen` is the sum of the weights in the running mean. All are floating-point: a step that is not finite
        # restores those.
        self.improvement_db: Tensor
        self.seen: Tensor
        self.is_on: Tensor
        self.register_buffer("improvement_db", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("is_on", torch.tensor(float(from_db is None)))

    @abstractmethod
    def of_chunks(self, chunks: Chunks, whole: Tensor) -> Tensor:
        """Return the loss of each item, `[batch]`, finite also for an item without a chunk that counts.

        Args:
            chunks: of the batch.
            whole: ℓ of the whole recording, `[batch]`.
        """

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`; `batch` holds the `mixture` `[batch, samples]`."""
        target, mixture = target.float(), batch["mixture"].float()
        is_present = has_target(target, batch)
        if self.training:
            self._track(output.waveforms[0].detach().float(), target, mixture, is_present)
        total = target.new_zeros(())
        for waveform, weight in weighted_estimates(output.waveforms, target, self.weights, self.name):
            estimate = waveform.float()
            chunks = self._cut(estimate, target, mixture)
            counts = is_present * chunks.counts.any(dim=1)
            of_items = self.of_chunks(chunks, self._loss(estimate, target)) * counts
            total = total + weight * of_items.sum() / counts.sum().clamp(min=1)
        return total * self.is_on

    @torch.no_grad()
    def _track(self, estimate: Tensor, target: Tensor, mixture: Tensor, counts: Tensor) -> None:
        """Update the running mean of the improvement of whole recordings, and whether the loss counts."""
        improvement = si_sdr(estimate, target) - si_sdr(mixture, target)
        mean = (improvement * counts).sum() / counts.sum().clamp(min=1)
        # A batch without a target, or that is not finite, changes nothing.
        share = (1 - LEVEL_MEMORY) * (counts.any() & mean.isfinite()).float()
        mean = torch.nan_to_num(mean)
        seen = (1 - share) * self.seen + share
        self.improvement_db += torch.where(seen > 0, share / seen.clamp(min=1e-9), 0.0) * (mean - self.improvement_db)
        self.seen.copy_(seen)
        if self.from_db is not None:
            self.is_on.copy_(torch.maximum(self.is_on, (self.improvement_db > self.from_db).float()))

    def _loss(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return ℓ along the last axis."""
        if self.scale_invariant:
            return -si_sdr(estimate, target, self.ceiling_db)
        energy, error = target.square().sum(-1), (target - estimate).square().sum(-1)
        return -10 * torch.log10((energy + EPS) / (error + 10 ** (-self.ceiling_db / 10) * energy + EPS))

    def _cut(self, estimate: Tensor, target: Tensor, mixture: Tensor) -> Chunks:
        """Cut signals `[batch, samples]` into chunks; zeros fill the last one up."""
        samples = target.shape[-1]
        num_chunks = 1 + max(0, -(-(samples - self.size) // self.hop))
        padding = (num_chunks - 1) * self.hop + self.size - samples
        pieces = [
            torch.nn.functional.pad(signal, (0, padding)).unfold(-1, self.size, self.hop)
            for signal in (estimate, target, mixture)
        ]
        estimate, target, mixture = pieces
        with torch.no_grad():
            improvements = si_sdr(estimate, target) - si_sdr(mixture, target)
            counts = self._is_active(target) & self._is_active(mixture - target)
        return Chunks(self._loss(estimate, target), improvements, counts.float())

    def _is_active(self, pieces: Tensor) -> Tensor:
        """Return which chunks `[batch, chunks]` of `[batch, chunks, samples]` are active."""
        energy = (pieces - pieces.mean(-1, keepdim=True)).square().sum(-1)
        quietest = energy.amax(1, keepdim=True) * 10 ** (-self.active_db / 10)
        return (energy >= quietest) & (energy > EPS)


@losses.register("chunk_scale")
class ChunkScale(ChunkLoss):
    """The share of confused chunks times the loss of the whole recording; mean over the batch.

    The share has no gradient. With weight a beside `thresholded_sdr` of the same ceiling, the sum is
    `(1 + a · share) ℓ`: a recording counts the more, the more of it is the wrong voice.

    Arguments and errors are those of `ChunkLoss`.

    Source: the scale loss of Liu et al., "X-SepFormer", ICASSP 2023; the form of the weight is ours.

    >>> from types import SimpleNamespace
    >>> target, other = torch.randn(2, 1, 16000)
    >>> loss, batch = ChunkScale(from_db=None), {"mixture": target + other}
    >>> loss(SimpleNamespace(waveforms=(target,)), target, batch).item() == 0  # not confused anywhere
    True
    >>> loss(SimpleNamespace(waveforms=(other,)), target, batch).item() > 2  # everywhere
    True
    """

    name = "chunk_scale"

    def of_chunks(self, chunks: Chunks, whole: Tensor) -> Tensor:
        """Return the loss of each item, see `ChunkLoss.of_chunks`."""
        confused = (chunks.improvements < 0) * chunks.counts
        return confused.sum(1) / chunks.counts.sum(1).clamp(min=1) * whole


@losses.register("chunk_distribution")
class ChunkDistribution(ChunkLoss):
    """Weighted mean of the losses of chunks, in which confused chunks have the largest weights; mean over the batch.

    The weights `1 + α σ(−i_c / τ)` have no gradient.

    Args:
        alpha: α, >= 0: a chunk that is certainly confused weighs 1 + α.
        softness_db: τ in dB, > 0.

    The other arguments are those of `ChunkLoss`.

    Raises:
        ValueError: an argument out of its range.

    Source: the distribution loss of Liu et al., "X-SepFormer", ICASSP 2023; the form of the weight is ours.

    >>> from types import SimpleNamespace
    >>> target, other = torch.randn(2, 1, 16000)
    >>> loss = ChunkDistribution(from_db=None)
    >>> round(loss(SimpleNamespace(waveforms=(target,)), target, {"mixture": target + other}).item(), 2)
    -30.0
    """

    name = "chunk_distribution"

    def __init__(
        self,
        alpha: float = 2.0,
        softness_db: float = 2.0,
        chunk_s: float = 0.25,
        hop_s: float = 0.125,
        ceiling_db: float = 30.0,
        scale_invariant: bool = False,
        active_db: float = 30.0,
        from_db: float | None = 5.0,
        weights: tuple[float, ...] | None = None,
        sample_rate: int = 16000,
    ) -> None:
        super().__init__(chunk_s, hop_s, ceiling_db, scale_invariant, active_db, from_db, weights, sample_rate)
        if alpha < 0 or not softness_db > 0:
            raise ValueError(f"alpha and softness_db: are {alpha} and {softness_db}; alpha >= 0, softness_db > 0")
        self.alpha, self.softness_db = alpha, softness_db

    def of_chunks(self, chunks: Chunks, whole: Tensor) -> Tensor:
        """Return the loss of each item, see `ChunkLoss.of_chunks`."""
        weights = (1 + self.alpha * torch.sigmoid(-chunks.improvements / self.softness_db)) * chunks.counts
        return (weights * chunks.losses).sum(1) / weights.sum(1).clamp(min=1e-9)
