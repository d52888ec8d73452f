"""BSRNN with the bands of one width in one product, against the same network with a loop over the 32 bands.

    python bench/bsrnn_bands.py [--threads 1 2] [--rounds 5] [--profile]

At WeSep's own configuration (`feature_dim` 128, six blocks, an embedding multiplied in once; its plain loop is written
anew here), with the same weights. Forward on 4 s, and a training step (forward, backward, AdamW) on 3 s, one item each.
The two take turns; a ratio is the median, over the rounds, of ours to the loop's within a round: below 1, ours is
faster. First it is checked that both compute the same, to 1e-5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from wesep_py.network.backbones import BSRNN
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

EPS = torch.finfo(torch.float32).eps
EMBEDDING_DIM = 256
FORWARD_S, TRAINING_S = 4, 3


class LoopedBSRNN(nn.Module):
    """The network as its paper draws it: a normalisation and a layer for every band, one after the other.

    Channels stand before frames, as convolutions want them: the latent is `[batch, bands, feature_dim, frames]`.

    Args:
        network: the one whose weights are copied.
    """

    def __init__(self, network: TargetSpeakerExtractor) -> None:
        super().__init__()
        ours = network.backbone
        assert isinstance(ours, BSRNN)
        self.stft, dim = ours.stft, ours.latent_dim
        self.widths = [group.width for group in ours.groups for _ in range(group.count)]
        self.split, self.masks = nn.ModuleList(), nn.ModuleList()
        for group, split, mask in zip(ours.groups, ours.split, ours.masks, strict=True):
            for band in range(group.count):
                self.split.append(nn.Sequential(norm_of(split.norm, band), conv_of(split.linear, band)))
                norm, first, _, second, _, last = mask.layers
                layers = [norm_of(norm, band), conv_of(first, band), nn.Tanh(), conv_of(second, band), nn.Tanh()]
                self.masks.append(nn.Sequential(*layers, conv_of(last, band)))
        self.fusion = nn.Linear(EMBEDDING_DIM, dim)
        self.fusion.load_state_dict(network.cues[0].fusion.layers[0].linear.state_dict())
        self.blocks = nn.ModuleList()
        for block in ours.blocks:
            self.blocks.append(LoopedRNN(block.along_time, dim))
            self.blocks.append(LoopedRNN(block.across_bands, dim))

    def forward(self, mixture: Tensor, embedding: Tensor) -> Tensor:
        """`[batch, samples]` and `[batch, dim]` → `[batch, samples]`."""
        spectrum = self.stft(mixture)
        with record_function("band split"):
            latent = self.split_bands(torch.stack([spectrum.real, spectrum.imag], dim=1))
        latent = latent * self.fusion(embedding)[:, None, :, None]
        batch, bands, dim, frames = latent.shape
        for along_time, across_bands in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            with record_function("along time"):
                latent = along_time(latent.view(batch * bands, dim, frames)).view(batch, bands, dim, frames)
            with record_function("across bands"):
                turned = latent.permute(0, 3, 2, 1).reshape(batch * frames, dim, bands)
                latent = across_bands(turned).view(batch, frames, dim, bands).permute(0, 3, 2, 1).contiguous()
        with record_function("masks"):
            mask = self.make_masks(latent)
        return self.stft.inverse(torch.complex(mask[:, 0], mask[:, 1]) * spectrum, mixture.shape[1])

    def split_bands(self, features: Tensor) -> Tensor:
        """`[batch, 2, bins, frames]` → `[batch, bands, dim, frames]`."""
        bands = features.split(self.widths, dim=2)
        return torch.stack([layer(band.flatten(1, 2)) for layer, band in zip(self.split, bands, strict=True)], dim=1)

    def make_masks(self, latent: Tensor) -> Tensor:
        """`[batch, bands, dim, frames]` → `[batch, 2, bins, frames]`."""
        masks = []
        for band, (layer, width) in enumerate(zip(self.masks, self.widths, strict=True)):
            out = layer(latent[:, band]).view(len(latent), 2, 2, width, -1)
            masks.append(out[:, 0] * torch.sigmoid(out[:, 1]))
        return torch.cat(masks, dim=2)


class LoopedRNN(nn.Module):
    """`u + Linear(LSTM(norm(u)))` of `[batch, dim, length]`."""

    def __init__(self, ours: nn.Module, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, dim, EPS)
        self.norm.load_state_dict(ours.norm.state_dict())
        self.rnn = nn.LSTM(dim, ours.rnn.hidden_size, batch_first=True, bidirectional=True)
        self.rnn.load_state_dict(ours.rnn.state_dict())
        self.linear = nn.Linear(2 * ours.rnn.hidden_size, dim)
        self.linear.load_state_dict(ours.linear.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(self.norm(x).transpose(1, 2).contiguous())
        return x + self.linear(out).transpose(1, 2)


def norm_of(norm: nn.Module, band: int) -> nn.GroupNorm:
    """One band's normalisation, out of a `BandNorm`."""
    copy = nn.GroupNorm(1, norm.weight.shape[-1], EPS)
    copy.load_state_dict({"weight": norm.weight[band, 0], "bias": norm.bias[band, 0]})
    return copy


def conv_of(linear: nn.Module, band: int) -> nn.Conv1d:
    """One band's layer, out of a `BandLinear`."""
    copy = nn.Conv1d(*linear.weight.shape[1:], 1)
    copy.load_state_dict({"weight": linear.weight[band].T[:, :, None], "bias": linear.bias[band, 0]})
    return copy


def networks(feature_dim: int = 128, num_blocks: int = 6) -> tuple[nn.Module, nn.Module]:
    """Ours, and the loop with its weights; both take a mixture and an embedding. The sizes of WeSep by default."""
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": feature_dim, "num_blocks": num_blocks, "pad_mode": "reflect"}
    cue = {"name": "embedding", "fusion": "multiply", "points": "first", "embedding_dim": EMBEDDING_DIM}
    network = build_network({"normalise": "none", "highpass_hz": 0, "backbone": backbone, "cues": [cue]})
    return Ours(network), LoopedBSRNN(network)


class Ours(nn.Module):
    """The package's network, given a mixture and an embedding."""

    def __init__(self, network: TargetSpeakerExtractor) -> None:
        super().__init__()
        self.network = network

    def forward(self, mixture: Tensor, embedding: Tensor) -> Tensor:
        return self.network.extract(mixture, {"0.embedding": embedding}).waveforms[0]


def forward_of(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            network(*inputs)

    return run


def training_step_of(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Callable[[], object]:
    optimiser = torch.optim.AdamW(network.parameters())

    def run() -> None:
        optimiser.zero_grad()
        (network(*inputs) - inputs[0]).square().mean().backward()
        optimiser.step()

    return run


class Comparison(NamedTuple):
    """What the rounds gave.

    Attributes:
        ours_s, loop_s: median seconds.
        ratios: ours to the loop's, round by round.
        computed_ratios: the same of processor seconds, in which waiting for a busy machine does not count.
    """

    ours_s: float
    loop_s: float
    ratios: list[float]
    computed_ratios: list[float]


def compare(ours: Callable[[], object], loop: Callable[[], object], rounds: int) -> Comparison:
    """Run both in each round; they take turns at being first."""
    runs = {"ours": ours, "loop": loop}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    computed: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-1, rounds):  # the first warms up
        for name in list(runs) if number % 2 else list(runs)[::-1]:
            began, began_computing = time.perf_counter(), time.process_time()
            runs[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
                computed[name].append(time.process_time() - began_computing)
    ratios, computed_ratios = (
        [one / other for one, other in zip(times["ours"], times["loop"], strict=True)] for times in (seconds, computed)
    )
    return Comparison(*(statistics.median(seconds[name]) for name in runs), ratios, computed_ratios)


def largest_difference(ours: nn.Module, loop: nn.Module) -> float:
    """Between the two outputs, relative to the largest sample."""
    mixture, embedding = torch.randn(2, 16000), torch.randn(2, EMBEDDING_DIM)
    with torch.inference_mode():
        one, other = ours(mixture, embedding), loop(mixture, embedding)
    return float((one - other).abs().max() / other.abs().max())


def print_profile(name: str, run: Callable[[], object]) -> None:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    print(
        f"\n{name}\n{found.key_averages().table(sort_by='self_cpu_time_total', row_limit=16, max_name_column_width=40)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the time goes, with the first of --threads")
    arguments = parser.parse_args()
    from wesep_py.training.devices import keep_freed_memory

    keep_freed_memory()  # as in training
    ours, loop = networks()
    difference = largest_difference(ours, loop)
    if not difference < 1e-5:
        raise SystemExit(f"the two networks differ by {difference:.1e}; there is nothing to compare")
    print(f"{os.cpu_count()} cores; torch {metadata.version('torch')}; largest difference {difference:.1e}\n")
    print("| threads | what | ours (s) | loop (s) | ours / loop (range) | by processor time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for what, make, length_s in (
            ("forward", forward_of, FORWARD_S),
            ("training step", training_step_of, TRAINING_S),
        ):
            inputs = torch.randn(1, 16000 * length_s), torch.randn(1, EMBEDDING_DIM)
            found = compare(make(ours, inputs), make(loop, inputs), arguments.rounds)
            row = (
                f"{threads} | {what}, {length_s} s | {found.ours_s:.2f} | {found.loop_s:.2f} "
                f"| {statistics.median(found.ratios):.2f} ({min(found.ratios):.2f} to {max(found.ratios):.2f}) "
                f"| {statistics.median(found.computed_ratios):.2f}"
            )
            print(f"| {row} |", flush=True)
    if arguments.profile:
        torch.set_num_threads(arguments.threads[0])
        inputs = torch.randn(1, 16000 * TRAINING_S), torch.randn(1, EMBEDDING_DIM)
        for name, network in (("ours", ours), ("loop", loop)):
            print_profile(f"{name}, forward", forward_of(network, inputs))
            print_profile(f"{name}, training step", training_step_of(network, inputs))


if __name__ == "__main__":
    main()
