"""Metric GAN: a discriminator learns PESQ, which has no gradient, and the network learns from the discriminator.

The data flow of one training step:

    estimate ─► MetricGAN.forward ─► discriminator ─► (quality - 1)², the loss
        └─► MetricAdversary.observe                    (pairs of the step)
    after the network's update:
        MetricAdversary.learn: collect the PESQ of the previous step's pairs ─► update the discriminator
                               submit this step's pairs to QualityScorer     ─► PESQ in background processes
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from wesep_py.common.processes import worker_pool
from wesep_py.features.stft import STFT
from wesep_py.metrics.perception import PESQ_MODES, pesq
from wesep_py.metrics.separation import MetricError
from wesep_py.training.losses.loss import Adversary, Loss, has_target, losses

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import NetworkOutput

SignalPair = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Reference and estimate, `[samples]` each."""
ScoredPair = tuple[SignalPair, float]
"""Reference and estimate, and the quality of the estimate, 0 to 1."""

BEST_PESQ = {16000: 4.6439, 8000: 4.5486}
"""PESQ of a signal against itself: raw 4.5 mapped by P.862.2, equation 1, and by P.862.1, equation 1."""
_SILENCE_POWER = 1e-10
"""Added to the mean square of a signal: one below -100 dB of full scale is not amplified to a level of 1."""
_MAGNITUDE_OFFSET = 1e-3
"""Added to magnitudes, at a level of 1, before they are compressed: the gradient of |z|^p at 0 is infinite."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a `MetricDiscriminator`.

    Args:
        channels: of the first layer; each further layer doubles them, up to eight times the first.
        num_layers: number of convolutions, each halving frames and bins.
        window_length, hop_length: of the STFT, in samples; the window is even, the hop at most half of it.
        power: exponent that compresses magnitudes, above 0 and at most 1.
    """

    channels: int = 16
    num_layers: int = 4
    window_length: int = 512
    hop_length: int = 256
    power: float = 0.3

    def __post_init__(self) -> None:
        for name in ("channels", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: is {getattr(self, name)}; 1 or more is allowed")
        if not 0 < self.power <= 1:
            raise ValueError(f"power: is {self.power}; above 0 and at most 1 is allowed")


class MetricDiscriminator(nn.Module):
    """Predicts the quality of an estimate, `[batch]` between 0 and 1, from reference and estimate `[batch, samples]`.

    Compressed magnitudes of both are the two channels of an image, followed by convolutions with spectral normalisation
    and leaky ReLU, the mean over frames and bins, two linear layers and a sigmoid. Both signals are first scaled to a
    level of 1, as PESQ does, so that a gain does not change the quality. Any length from one sample is accepted.

    Sources: Fu et al., "MetricGAN: generative adversarial networks based black-box metric scores optimization for
    speech enhancement", ICML 2019 (layers, spectral normalisation); Cao, Abdulatif and Yang, "CMGAN:
    conformer-based metric GAN for speech enhancement", Interspeech 2022 (compressed magnitudes, strides).

    >>> quality = MetricDiscriminator(DiscriminatorConfig(channels=4, num_layers=2))
    >>> quality(torch.randn(3, 4000), torch.randn(3, 4000)).shape
    torch.Size([3])
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.stft = STFT(config.window_length, config.hop_length)
        self.power = config.power
        # The energy of a periodic Hann window of N samples is 3 N / 8.
        self.scale = (3 * config.window_length / 8) ** -0.5
        widths = [2, *(config.channels * 2 ** min(layer, 3) for layer in range(config.num_layers))]
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise(widths):
            convolution = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=2)
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.3)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            spectral_norm(nn.Linear(widths[-1], widths[-1])), nn.LeakyReLU(0.3), nn.Linear(widths[-1], 1)
        )

    def forward(self, reference: Tensor, estimate: Tensor) -> Tensor:
        """Return the quality of estimates, `[batch]`, above 0 and below 1."""
        image = torch.stack([self._magnitude(reference), self._magnitude(estimate)], dim=1)
        return self.head(self.layers(image).mean(dim=(2, 3))).squeeze(1).sigmoid()

    def _magnitude(self, waveform: Tensor) -> Tensor:
        level = (waveform.square().mean(-1, keepdim=True) + _SILENCE_POWER).sqrt()
        spectrum = self.stft(waveform / level) * self.scale
        return (spectrum.real.square() + spectrum.imag.square() + _MAGNITUDE_OFFSET**2) ** (self.power / 2)


def normalised_pesq(reference: NDArray[np.float32], estimate: NDArray[np.float32], sample_rate: int) -> float:
    """Return PESQ on a scale from 0 (MOS-LQO 1) to 1 (`BEST_PESQ`); NaN where it cannot be computed.

    MetricGAN and CMGAN also divide by the length of the scale ((PESQ + 0.5) / 5 and (PESQ - 1) / 3.5). With the true
    best value, a reference against itself has exactly the quality 1 that the discriminator is taught for it.
    """
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        return math.nan
    try:
        value = pesq(estimate, reference, sample_rate)
    except MetricError:
        return math.nan
    return min(1.0, max(0.0, (value - 1.0) / (BEST_PESQ[sample_rate] - 1.0)))


class QualityScorer:
    """Computes `normalised_pesq` in background processes: `submit` pairs, later `collect` all scores.

    The scores depend on the pairs alone, not on the speed of the processes, because `collect` waits.

    Args:
        sample_rate: 16000 or 8000 Hz.
        workers: number of processes; 0: `collect` computes in the calling process.

    Raises:
        ValueError: another sample rate, or fewer than 0 workers.

    >>> scorer = QualityScorer(16000, workers=0)
    >>> noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * np.hanning(16000).astype("f")
    >>> scorer.submit([(noise, noise)])
    >>> round(scorer.collect()[0], 3)
    1.0
    """

    def __init__(self, sample_rate: int, workers: int = 2) -> None:
        if sample_rate not in PESQ_MODES:
            raise ValueError(f"sample_rate: is {sample_rate}; PESQ is defined at 16000 and 8000 Hz")
        if workers < 0:
            raise ValueError(f"workers: is {workers}; 0 or more is allowed")
        self.sample_rate, self.workers = sample_rate, workers
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: list[tuple[SignalPair, Future[float] | None]] = []

    @property
    def waiting(self) -> list[SignalPair]:
        """Pairs that were submitted and not collected yet."""
        return [pair for pair, _ in self._waiting]

    def submit(self, pairs: Sequence[SignalPair]) -> None:
        """Submit pairs. They must not change until they are collected."""
        self._waiting += [(pair, self._start(pair) if self.workers else None) for pair in pairs]

    def collect(self) -> list[float]:
        """Return the scores of all waiting pairs, in the order of submission; NaN where there is none.

        If a process died, its pairs are computed once more; a pair that kills a second process has no score.
        """
        waiting, self._waiting = self._waiting, []
        if not self.workers:
            return [normalised_pesq(*pair, self.sample_rate) for pair, _ in waiting]
        scores = [_result_or_none(future) for _, future in waiting]
        if None in scores:
            self.close()
        for position, score in enumerate(scores):
            if score is None:  # in a process of its own, so that a pair that kills it does not affect other pairs
                with worker_pool(1) as pool:
                    future = pool.submit(normalised_pesq, *waiting[position][0], self.sample_rate)
                    scores[position] = _result_or_none(future)
        return [math.nan if score is None else score for score in scores]

    def close(self) -> None:
        """Stop the processes and drop the waiting pairs."""
        self._waiting = []
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _start(self, pair: SignalPair) -> Future[float] | None:
        if self._pool is None:
            self._pool = worker_pool(self.workers)
        try:
            return self._pool.submit(normalised_pesq, *pair, self.sample_rate)
        except BrokenExecutor:
            return None


def _result_or_none(future: Future[float] | None) -> float | None:
    """Return the result of a future, or `None` if its process died."""
    try:
        return None if future is None else future.result()
    except BrokenExecutor:
        return None


class MetricAdversary(Adversary):
    """The learning side of a metric GAN: discriminator, its optimiser, and the pairs that it learns from.

    The discriminator learns the score of each pair one step after the pair was observed.

    Args:
        network: the discriminator; its gradients are off except while it learns.
        scorer: computes the scores.
        lr: learning rate of Adam, above 0.
        replay: number of scored pairs of earlier steps that are stored, 0 or more.
        items_per_step: maximum number of items of a step that are scored; `None`: all.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(
        self,
        network: MetricDiscriminator,
        scorer: QualityScorer,
        lr: float,
        replay: int = 0,
        items_per_step: int | None = None,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr: is {lr}; a number above 0 is allowed")
        if replay < 0:
            raise ValueError(f"replay: is {replay}; 0 or more is allowed")
        if items_per_step is not None and items_per_step < 1:
            raise ValueError(f"items_per_step: is {items_per_step}; 1 or more, or null, is allowed")
        self.network = network.requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        self.is_learning = True
        self._scorer, self._replay_size, self._items_per_step = scorer, replay, items_per_step
        self._observed: list[tuple[Tensor, Tensor, Tensor]] = []
        self._replay: list[ScoredPair] = []

    def predict_quality(self, reference: Tensor, estimate: Tensor) -> Tensor:
        """Return the quality `[batch]` of waveforms `[batch, samples]`; gradients reach the waveforms only."""
        return self.network(reference, estimate)

    def observe(self, reference: Tensor, estimates: Iterable[Tensor], counts: Tensor) -> None:
        """Store the pairs of a step, for `learn`.

        Args:
            reference: `[batch, samples]`.
            estimates: each `[batch, samples]`; no gradient goes through them.
            counts: `[batch]`, not 0 for items to learn from.
        """
        if self.is_learning:
            self._observed += [(reference.detach(), estimate.detach(), counts.detach()) for estimate in estimates]

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def learn(self, step: int, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Learn from the pairs of the step before, see `Adversary.learn`.

        Returns:
            `discriminator`: mean squared error; `pesq_quality`: mean score of the new pairs, 0 to 1; `pesq_missing`:
            share of the new pairs without a score. Empty if there was nothing to learn from.
        """
        pairs, scores = self._scorer.waiting, self._scorer.collect()
        self._scorer.submit(self._take_observed())
        if not self.is_learning:
            return {}
        new = [(pair, score) for pair, score in zip(pairs, scores, strict=True) if not math.isnan(score)]
        examples = [*new, *self._draw_replay(step, len(new)), *(((pair[0], pair[0]), 1.0) for pair, _ in new)]
        self._replay = [*self._replay, *new][-self._replay_size :] if self._replay_size else []
        error, gradient = self._gradient(examples)
        # Sums over all ranks, divided by the number of examples of all ranks below: each example counts the same, even
        # if ranks have different numbers of them, and every rank makes the same update.
        counts = torch.tensor([len(examples), sum(score for _, score in new), len(new), len(pairs)])
        gradient, sums = total(gradient), total(torch.cat([error[None], counts.to(error)]).double())
        checked = torch.cat([sums, gradient.isfinite().all().to(sums)[None]])
        squared_error, num_examples, quality, num_new, num_pairs, is_finite = checked.tolist()
        numbers = {"pesq_missing": 1 - num_new / num_pairs} if num_pairs else {}
        if num_examples:
            if is_finite:
                self._update(gradient / num_examples)
            numbers |= {"discriminator": squared_error / num_examples, "pesq_quality": quality / num_new}
        return numbers

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def memory(self) -> dict[str, Any]:
        waiting = [_as_tensor(pair) for pair in self._scorer.waiting]
        return {"waiting": waiting, "kept": [(_as_tensor(pair), score) for pair, score in self._replay]}

    def load_memory(self, memory: dict[str, Any]) -> None:
        self._scorer.submit([_as_pair(tensor) for tensor in memory["waiting"]])
        self._replay = [(_as_pair(tensor), float(score)) for tensor, score in memory["kept"]]

    def close(self) -> None:
        self._scorer.close()

    def _take_observed(self) -> list[SignalPair]:
        """Return the pairs observed since the last step, on the CPU."""
        observed, self._observed = self._observed, []
        pairs: list[SignalPair] = []
        for reference, estimate, counts in observed:
            items = counts.nonzero().squeeze(1)
            both = torch.stack([reference[items], estimate[items]], dim=1).float().cpu().numpy()
            pairs += [(both[item, 0], both[item, 1]) for item in range(len(both))]
        return pairs[: self._items_per_step]

    def _draw_replay(self, step: int, count: int) -> list[ScoredPair]:
        """Return at most `count` random stored pairs; the draw is a function of the step."""
        count = min(count, len(self._replay))
        indices = np.random.default_rng(step).choice(len(self._replay), count, replace=False) if count else []
        return [self._replay[index] for index in indices]

    def _gradient(self, examples: list[ScoredPair]) -> tuple[Tensor, Tensor]:
        """Return the sum of squared errors and its gradient as one vector. Examples of one length form a batch."""
        parameters = list(self.network.parameters())
        by_length: dict[int, list[ScoredPair]] = defaultdict(list)
        for example in examples:
            by_length[len(example[0][0])].append(example)
        device = parameters[0].device
        error = torch.zeros((), device=device)
        self.network.requires_grad_(True).train()
        self.optimizer.zero_grad(set_to_none=True)
        for group in by_length.values():
            both = torch.from_numpy(np.stack([np.stack(pair) for pair, _ in group])).to(device)
            scores = torch.tensor([score for _, score in group], device=device)
            squares = (self.network(both[:, 0], both[:, 1]) - scores).square().sum()
            squares.backward()
            error += squares.detach()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.network.requires_grad_(False).eval()
        return error, torch.cat([gradient.flatten() for gradient in gradients])

    def _update(self, gradient: Tensor) -> None:
        """Take one optimiser step with a gradient of all parameters as one vector."""
        parameters = list(self.network.parameters())
        for parameter, values in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = values.view_as(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _as_tensor(pair: SignalPair) -> Tensor:
    return torch.from_numpy(np.stack(pair))


def _as_pair(both: Tensor) -> SignalPair:
    return both[0].numpy(), both[1].numpy()


@losses.register("metric_gan")
class MetricGAN(Loss):
    """(D(s, ŝ) - 1)², mean over items with a target; D is a discriminator that learns PESQ on a scale from 0 to 1.

    D learns after each step of the network, with its own optimiser (Adam), by the mean squared error, from

    - (s, s), whose quality is 1,
    - (s, ŝ), whose quality is the PESQ of ŝ,
    - (s, x), likewise, with the mixture x, if `mixture` is set,
    - pairs of earlier steps, if `replay` is set.

    PESQ is computed in background processes during the next step, so D learns from a step's estimates one step later.
    Items whose PESQ cannot be computed are left out, and counted in the log (`pesq_missing`). D is in the training
    state, and in no checkpoint.

    Of several waveforms only the first counts, which is the result. Use it beside a waveform loss, with a weight of
    about 1 beside a loss in dB.

    Args:
        sample_rate: of the model, passed by the training task; 16000 or 8000 Hz.
        start_step: first step with this loss, 0 or more; before it, the loss is 0.
        head_start_steps: D begins to learn this number of steps before `start_step`, 0 to `start_step`.
        discriminator: sizes of D.
        lr: learning rate of D, above 0.
        items_per_step: maximum number of estimates (and mixtures) of a step that are scored, per device; `None`: all.
        mixture: whether D learns from the mixtures too, which takes twice as many scores.
        replay: number of scored pairs of earlier steps that are stored, 0 or more; a step learns from as many of them
            as of new ones.
        workers: number of processes per device that compute PESQ; 0: the training process computes it and waits.

    Raises:
        ValueError: a value out of its range.

    Sources: Fu et al., "MetricGAN", ICML 2019, eqs. 2 and 3; Fu et al., "MetricGAN+: an improved version of
        MetricGAN for speech enhancement", Interspeech 2021 (mixtures, replay); Cao, Abdulatif and Yang, "CMGAN",
        Interspeech 2022, eqs. 6 and 7 (beside other losses).

    >>> from types import SimpleNamespace
    >>> loss = MetricGAN(16000, workers=0)
    >>> target = torch.randn(2, 4000)
    >>> 0 < loss(SimpleNamespace(waveforms=(target,)), target, {}).item() < 1
    True
    """

    def __init__(
        self,
        sample_rate: int,
        start_step: int = 0,
        head_start_steps: int = 0,
        discriminator: DiscriminatorConfig | None = None,
        lr: float = 1e-3,
        items_per_step: int | None = None,
        mixture: bool = False,
        replay: int = 0,
        workers: int = 2,
    ) -> None:
        super().__init__()
        if start_step < 0:
            raise ValueError(f"start_step: is {start_step}; 0 or more is allowed")
        if not 0 <= head_start_steps <= start_step:
            raise ValueError(f"head_start_steps: is {head_start_steps}; 0 to start_step ({start_step}) is allowed")
        self.start_step, self.learn_from_step = start_step, start_step - head_start_steps
        self.mixture = mixture
        network = MetricDiscriminator(discriminator or DiscriminatorConfig())
        scorer = QualityScorer(sample_rate, workers)
        self.adversary: MetricAdversary = MetricAdversary(network, scorer, lr, replay, items_per_step)
        self._step = 0

    def update(self, step: int) -> None:
        """Set the number of steps done, see `Loss.update`."""
        self._step = step
        self.adversary.is_learning = step >= self.learn_from_step

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`; `batch` holds `mixture` if D learns from mixtures."""
        estimate, target = output.waveforms[0].float(), target.float()
        counts = has_target(target, batch)
        if self.training and torch.is_grad_enabled():
            self.adversary.observe(target, [estimate, *([batch["mixture"]] if self.mixture else [])], counts)
        if self._step < self.start_step:
            return (estimate * 0).sum()  # 0, but connected to the output's graph
        quality = self.adversary.predict_quality(target, estimate)
        return ((quality - 1).square() * counts).sum() / counts.sum().clamp(min=1)
