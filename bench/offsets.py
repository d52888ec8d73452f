"""Measure how a constant, a rumble or another level in mixture or enrollment changes SI-SDRi and presence.

    python bench/offsets.py --model base --trials DATA/trials/dev_2mix --root DATA

Prints Markdown: a row for each disturbance and size, with the mean over --limit trials spread over the list, and the
largest change of a single one. A mixture's SI-SDRi counts from the undisturbed mixture. `--bits 16` rounds mixture and
enrollment to 16 bits, as a file would, after they are disturbed. Processor time: two extractions a trial and row, for
16 trials about three minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import wesep_py
from wesep_py.data import read_trials
from wesep_py.inference import Extractor
from wesep_py.metrics import si_sdr
from wesep_py.simulation import TrialAudio, render_trial

Waveform = NDArray[np.float32]
Change = Callable[[Waveform, int], Waveform]


def constant(size: float) -> Change:
    """Add a constant."""
    return lambda waveform, rate: waveform + np.float32(size)


def rumble(size: float, frequency_hz: float) -> Change:
    """Add a sine of that amplitude."""

    def add(waveform: Waveform, rate: int) -> Waveform:
        time_s = np.arange(len(waveform)) / rate
        return (waveform + size * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)

    return add


def level(rms_db: float) -> Change:
    """Bring the RMS to a level in dB of full scale."""
    return lambda waveform, rate: waveform * np.float32(10 ** (rms_db / 20) / np.sqrt(np.mean(waveform**2)))


def same(waveform: Waveform, rate: int) -> Waveform:
    """Change nothing."""
    return waveform


def changes(sizes: list[float], rumbles_hz: list[float], levels_db: list[float]) -> dict[str, Change]:
    """Return the changes that are tried, by their names in the table."""
    table: dict[str, Change] = {f"constant of {size:g}": constant(size) for size in sizes}
    table |= {f"{hz:g} Hz of {size:g}": rumble(size, hz) for hz in rumbles_hz for size in sizes}
    return table | {f"{db:g} dB of full scale": level(db) for db in levels_db}


def measure(
    extractor: Extractor, audio: TrialAudio, in_mixture: Change, in_enrollment: Change, bits: int | None
) -> tuple[float, float]:
    """Return SI-SDRi in dB and the probability of presence (nan without a head) of a trial with these changes."""
    rate = extractor.sample_rate

    def stored(waveform: Waveform) -> Waveform:
        if bits is None:
            return waveform
        steps = 2.0 ** (bits - 1)
        return (np.clip(np.rint(waveform * steps), -steps, steps - 1) / steps).astype(np.float32)

    voice = extractor.enroll((stored(in_enrollment(audio.enrollment, rate)), rate))
    result = extractor.extract((stored(in_mixture(audio.mixture, rate)), rate), voice)
    assert audio.reference is not None
    sdri = si_sdr(result.waveform, audio.reference) - si_sdr(audio.mixture, audio.reference)
    return float(sdri), float("nan") if result.presence is None else result.presence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--trials", type=Path, required=True, metavar="LIST", help="without .csv")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--condition", choices=("clean", "noisy"), default="clean")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--sizes", type=float, nargs="*", default=[0.01, 0.1])
    parser.add_argument("--rumbles-hz", type=float, nargs="*", default=[20.0, 38.0])
    parser.add_argument("--levels-db", type=float, nargs="*", default=[-60.0, -30.0, 0.0])
    parser.add_argument("--without-high-pass", action="store_true", help="the network as it would be without it")
    parser.add_argument("--live", action="store_true", help="the model's live mode")
    parser.add_argument("--bits", type=int, help="round the audio to this number of bits; floats by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    extractor = wesep_py.load(arguments.model, "cpu", live=arguments.live)
    if arguments.without_high_pass:
        preprocess = extractor.network.preprocess
        preprocess.high_pass = preprocess.causal_high_pass = None
    path = arguments.trials
    trials = list(read_trials(path.with_suffix(".csv"), path.with_suffix(".map_mixture2enrollment"), arguments.root))
    step = max(1, len(trials) // arguments.limit)
    rendered = [render_trial(trial, arguments.condition, extractor.sample_rate) for trial in trials[::step]]
    rendered = [audio for audio in rendered if audio.reference is not None][: arguments.limit]

    def row(in_mixture: Change, in_enrollment: Change, bits: int | None) -> NDArray[np.float64]:
        return np.array([measure(extractor, audio, in_mixture, in_enrollment, bits) for audio in rendered])

    before = row(same, same, None)
    print(f"{len(rendered)} trials of {path.name}, {arguments.condition}, {extractor.mode}\n")
    print("| what | in | SI-SDRi (dB) | change of one trial, at most (dB) | presence |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| nothing | | {before[:, 0].mean():.2f} | | {before[:, 1].mean():.2f} |", flush=True)
    for name, change in changes(arguments.sizes, arguments.rumbles_hz, arguments.levels_db).items():
        for where, pair in (("mixture", (change, same)), ("enrollment", (same, change))):
            after = row(*pair, arguments.bits)
            most, (sdri, presence) = np.abs(after[:, 0] - before[:, 0]).max(), after.mean(axis=0)
            print(f"| {name} | {where} | {sdri:.2f} | {most:.2f} | {presence:.2f} |", flush=True)


if __name__ == "__main__":
    main()
