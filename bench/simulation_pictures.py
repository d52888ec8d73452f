"""Pictures of docs/simulation.md: decay curves of rooms, and mixtures of each kind with their activity.

    python bench/simulation_pictures.py --data ../shared/data -o docs/images
    python bench/simulation_pictures.py -o /tmp/pictures              # synthetic voices; needs the extra demo

Writes `simulation_rooms.png` and `simulation_KIND.png` for each kind of overlap.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.simulation_corpus import SAMPLE_RATE, add_arguments, make_corpus
from wesep_py.data import FileReader
from wesep_py.simulation import ConversationConfig, NoiseConfig, RoomConfig, Sample, SimulationConfig, Simulator
from wesep_py.simulation.rendering import ACTIVITY_RATE_HZ
from wesep_py.simulation.rooms.acoustics import energy_decay_db, rt60_s
from wesep_py.simulation.rooms.fra import draw_room
from wesep_py.simulation.rooms.reverberation import room_responses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f5fa8", "#d9822b", "#2e8b57", "#8e4b9e")
NUM = 10
LINE_FROM_DB = -10.0
TWO_OR_THREE = {2: 1.0, 3: 1.0}
LONG_S = 12.0
KINDS: dict[str, tuple[str, SimulationConfig]] = {
    "full": ("full: everybody speaks from start to end", SimulationConfig(num_speakers=TWO_OR_THREE)),
    "longest": (
        "longest: one speaks all along, the others part of it",
        SimulationConfig(overlap="longest", duration_s=6.0, num_speakers=TWO_OR_THREE),
    ),
    "partial": (
        "partial: one after the other, overlapping by a drawn ratio of their activity; silence at the edges",
        SimulationConfig(
            overlap="partial", overlap_measure="activity", duration_s=6.0, overlap_ratio=(0.1, 0.6), edge_s=(0.0, 0.5)
        ),
    ),
    "conversation": (
        "conversation: people take turns, and overlap for 5 to 30 % of the time in which anybody speaks",
        SimulationConfig(
            overlap="conversation",
            duration_s=LONG_S,
            num_speakers=TWO_OR_THREE,
            overlap_ratio=(0.05, 0.3),
            conversation=ConversationConfig(turn_s=(1.0, 3.0), pause_s=(0.1, 0.8)),
        ),
    ),
    "sparse": (
        "sparse: a conversation with long pauses and no overlap, as in a meeting",
        SimulationConfig(
            overlap="conversation",
            duration_s=LONG_S,
            num_speakers=TWO_OR_THREE,
            overlap_ratio=(0.0, 0.0),
            conversation=ConversationConfig(turn_s=(0.8, 2.0), pause_s=(0.5, 2.0)),
        ),
    ),
    "single": (
        "single: one speaker, in recorded or coloured noise of 0 to 10 dB SNR",
        SimulationConfig(
            num_speakers=1, noise=NoiseConfig(1.0, snr_db=(0.0, 10.0), kinds={"recording": 1.0, "coloured": 1.0})
        ),
    ),
    "absent": (
        "absent: the enrolled voice is in none of these mixtures",
        SimulationConfig(
            absent_probability=1.0,
            duration_s=6.0,
            overlap="partial",
            overlap_measure="activity",
            overlap_ratio=(0.1, 0.6),
        ),
    ),
}
"""Title and configuration of each picture."""


def draw_rooms(path: Path) -> None:
    """Plot the decay curves of ten rooms, with the slope of the desired RT60 and the measured RT60."""
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 5, figsize=(11, 4.6), sharey=True, layout="constrained")
    rng = np.random.default_rng(0)
    for asked_s, axes in zip(np.linspace(0.15, 1.05, NUM), grid.flat, strict=True):
        room = draw_room(rng, RoomConfig(rt60_s=(asked_s, asked_s)), 1)
        responses = room_responses(room, SAMPLE_RATE)
        response = responses.full[0, responses.direct_tap :]
        decay_db = energy_decay_db(response, SAMPLE_RATE)
        time_s = np.arange(decay_db.size) / SAMPLE_RATE
        start_s = time_s[np.argmax(decay_db <= LINE_FROM_DB)]  # behind the direct path and the first reflections
        line_db = LINE_FROM_DB - 60 * (np.array([0, 1.1 * asked_s]) - start_s) / asked_s
        axes.plot([0, 1.1 * asked_s], line_db, color=COLOURS[1], linestyle="--", linewidth=1.2, label="asked")
        axes.plot(time_s, decay_db, color=COLOURS[0], linewidth=1.4, label="measured", zorder=1)
        size = " × ".join(f"{side:.1f}" for side in room.size_m)
        axes.set_title(f"{size} m, {room.distances_m[0]:.1f} m away", fontsize=8)
        text = f"asked {asked_s:.2f} s\nmeasured {rt60_s(response, SAMPLE_RATE):.2f} s"
        axes.text(0.96, 0.94, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
        axes.set(ylim=(-70, 3), xlim=(0, 1.1 * asked_s))
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].legend(fontsize=7, loc="lower left", frameon=False)
    figure.supxlabel("time after the direct path (s)", fontsize=9)
    figure.supylabel("energy still to come (dB)", fontsize=9)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def draw_mixtures(samples: list[Sample], title: str, path: Path) -> None:
    """Plot ten mixtures, with the activity of each speaker below the waveform; the target has the first colour."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, grid = pyplot.subplots(5, 2, figsize=(11, 7.4), sharex=True, layout="constrained")
    num_rows = max(len(sample.recipe.sources) for sample in samples) + (samples[0].recipe.target is None)
    for sample, axes in zip(samples, grid.T.flat, strict=True):
        _draw_mixture(sample, num_rows, axes)
    for axes in grid[-1]:
        axes.set_xlabel("time (s)", fontsize=8)
    names = ["target", "second speaker", "third speaker"][: max(len(s.recipe.sources) for s in samples)]
    if samples[0].recipe.target is None:
        names = ["the voice that is asked for: absent", "first speaker", "second speaker"]
    handles = [Line2D([], [], color=c, linewidth=5, label=name) for c, name in zip(COLOURS, names, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _draw_mixture(sample: Sample, num_rows: int, axes: Axes) -> None:
    recipe = sample.recipe
    block = max(1, sample.mixture.size // 1200)
    blocks = sample.mixture[: sample.mixture.size // block * block].reshape(-1, block)
    peak = np.abs(sample.mixture).max()
    time_s = (np.arange(len(blocks)) + 0.5) * block / SAMPLE_RATE
    axes.fill_between(time_s, blocks.min(axis=1) / peak, blocks.max(axis=1) / peak, color="0.55", linewidth=0)
    others = [source for source in range(len(recipe.sources)) if source != recipe.target]
    rows = [(0, recipe.target)] if recipe.target is not None else []
    rows += list(enumerate(others, start=1))
    for colour, source in rows:
        active = sample.activity[source].astype(int)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]]))) / ACTIVITY_RATE_HZ
        spans = [(begin, end - begin) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
        axes.broken_barh(spans, (-1.25 - 0.32 * colour, 0.24), facecolors=COLOURS[colour], linewidth=0)
    axes.set_title(_facts(sample), fontsize=8, loc="right", pad=2)
    axes.set(ylim=(-1.3 - 0.32 * num_rows, 1.05), yticks=[], xlim=(0, sample.mixture.size / SAMPLE_RATE))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _facts(sample: Sample) -> str:
    """Return the desired and reached overlap by the definition of its kind, the SIR of two speakers, and the SNR."""
    recipe = sample.recipe
    speaking = sample.activity.sum(axis=0)
    facts = []
    if recipe.overlap_ratio is not None:
        whole = sample.activity.sum(axis=1).min() if recipe.overlap == "partial" else (speaking > 0).sum()
        facts.append(f"overlap asked {recipe.overlap_ratio:.2f}, reached {(speaking > 1).sum() / whole:.2f}")
    if len(recipe.sir_db) == 2:
        facts.append(f"SIR {recipe.sir_db[1 - recipe.reference]:+.1f} dB")
    if recipe.snr_db is not None:
        facts.append(f"SNR {recipe.snr_db:.0f} dB, {'recorded' if recipe.noises[0].stretches else 'coloured'} noise")
    return "; ".join(facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the PNGs")
    parser.add_argument("--kinds", nargs="+", choices=["rooms", *KINDS], default=["rooms", *KINDS])
    arguments = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    arguments.output.mkdir(parents=True, exist_ok=True)
    if "rooms" in arguments.kinds:
        draw_rooms(arguments.output / "simulation_rooms.png")
    with tempfile.TemporaryDirectory() as temporary:
        corpus = make_corpus(arguments, arguments.folder or Path(temporary))
        reader = FileReader(SAMPLE_RATE)
        for kind in (kind for kind in arguments.kinds if kind in KINDS):
            title, config = KINDS[kind]
            simulator = Simulator(config, corpus.speech, corpus.noises, reader, seed=4)
            samples = [simulator.sample(0, index) for index in range(NUM)]
            draw_mixtures(samples, title, arguments.output / f"simulation_{kind}.png")
            print(arguments.output / f"simulation_{kind}.png", flush=True)


if __name__ == "__main__":
    main()
