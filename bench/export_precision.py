"""Score exported folders on a list of trials: what do 8 and 16 bits cost in SI-SDR?

    python bench/export_precision.py base_onnx base_int8 --model base --data ../shared/data --limit 40

One line per folder and graph: mean SI-SDR improvement, and the mean and largest absolute difference from the first
folder's, in dB. With `--model` also the largest difference from the samples that the model gives in PyTorch, relative
to the largest sample of each estimate. The graph `extract` sees whole mixtures, `stream` one hop a call.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.data import read_trials
from wesep_py.export.graph_runner import GraphRunner
from wesep_py.inference import load
from wesep_py.metrics.separation import si_sdr_improvement
from wesep_py.network.streaming_network import StreamingNetwork
from wesep_py.simulation.trial_audio import render_trial


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="exported folders of one model; the first is compared to")
    parser.add_argument("--data", type=Path, required=True, help="folder with trials/dev_2mix.csv and its recordings")
    parser.add_argument("--list", default="dev_2mix", help="name of the list of trials")
    parser.add_argument("--limit", type=int, default=40, help="number of trials, evenly spread over the list")
    parser.add_argument("--model", help="the model in PyTorch, to compare samples with")
    options = parser.parse_args()
    lists = options.data / "trials"
    trials = read_trials(
        lists / f"{options.list}.csv", lists / f"{options.list}.map_mixture2enrollment", root=options.data
    )
    trials = trials[:: max(1, len(trials) // options.limit)][: options.limit]
    network = None if options.model is None else load(options.model, device="cpu").network
    scores: dict[tuple[Path, str], list[float]] = {}
    differences: dict[tuple[Path, str], float] = {}
    runners = {folder: GraphRunner(folder) for folder in options.folders}
    for trial in trials:
        audio = render_trial(trial, "clean", next(iter(runners.values())).description["sample_rate"])
        for folder, runner in runners.items():
            runner.enroll(audio.enrollment)
            for graph in ("extract", *(("stream",) if runner.streams else ())):
                estimate = runner.extract(audio.mixture) if graph == "extract" else stream(runner, audio.mixture)
                score = float(si_sdr_improvement(estimate, audio.reference, audio.mixture))
                scores.setdefault((folder, graph), []).append(score)
                if network is not None:
                    expected = in_torch(network, graph, audio.mixture, audio.enrollment)
                    largest = np.abs(estimate - expected).max() / np.abs(expected).max()
                    differences[folder, graph] = max(largest, differences.get((folder, graph), 0.0))
    print(f"{len(trials)} trials of {options.list}, clean")
    for (folder, graph), values in scores.items():
        difference = np.abs(np.subtract(values, scores[options.folders[0], graph]))
        samples = f"   samples {differences[folder, graph]:.1e}" if network is not None else ""
        print(
            f"{folder.name:20} {graph:8} SI-SDRi {np.mean(values):6.3f} dB   "
            f"mean difference {difference.mean():.3f} dB, largest {difference.max():.3f} dB{samples}"
        )


def in_torch(network: Any, graph: str, mixture: NDArray[np.float32], enrollment: NDArray[np.float32]) -> Any:
    """Return the estimate of a mixture in PyTorch, `[samples]`."""
    waveform = torch.from_numpy(mixture)[None]
    with torch.inference_mode():
        prepared = network.prepare(torch.from_numpy(enrollment)[None])
        if graph == "extract":
            return network.extract(waveform, prepared).waveforms[0][0].numpy()
        streaming = StreamingNetwork(network).eval()
        leading = streaming.num_leading
        padded = torch.nn.functional.pad(waveform, (0, streaming.first_block + leading + 2 * streaming.stride))
        finished = streaming(padded, streaming.initial_state(1), prepared).waveform[0]
        return finished[leading : leading + len(mixture)].numpy()


def stream(runner: GraphRunner, mixture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the estimate of a mixture that is streamed, one hop a call; zeros after it finish its last samples."""
    about = runner.description
    first, stride, leading = about["first_block"], about["stride"], about["num_leading"]
    padded = np.pad(mixture, (0, first + leading + 2 * stride))
    state = runner.initial_state(float(padded[0]))
    block, state = runner.step(padded[:first], state)
    finished = [block]
    for start in range(first, len(padded) - stride + 1, stride):
        block, state = runner.step(padded[start : start + stride], state)
        finished.append(block)
    return np.concatenate(finished)[leading : leading + len(mixture)]


if __name__ == "__main__":
    main()
