"""Learning curves of one run, or of several of which each went on from the one before.

    python recipes/default/curves.py EXP… -o PNG

Reads EXP/log.jsonl. Above the loss of training, smoothed; below what validation said: SI-SDRi and accuracy. On the left
over minutes of training, on the right over steps. Needs matplotlib (extra `demo`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError, WesepError
from wesep_py.common.files import atomic_path
from wesep_py.common.textfiles import COUNT, check_schema, read_jsonl

LOG = "log.jsonl"
LOSS, MEASURES = "loss", {"si_sdri": "SI-SDRi (dB)", "accuracy": "accuracy (%)"}
COLOURS = {LOSS: "#555555", "si_sdri": "#1f5fa8", "accuracy": "#d9822b"}


@dataclass
class Curve:
    """A quantity over a training.

    Attributes:
        steps, minutes: at which it was measured, over all runs together.
        values: measured there.
    """

    steps: list[float] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_curves(experiments: Sequence[Path]) -> tuple[dict[str, Curve], list[tuple[float, float]]]:
    """The loss and what validation said, and where each run but the first begins, in steps and minutes.

    A validation's time is that of the training line at its step, or between the two around it.

    Args:
        experiments: folders, in the order in which they were trained.

    Raises:
        InputError: a folder without a log, or whose log holds no training.
    """
    curves = {name: Curve() for name in (LOSS, *MEASURES)}
    begins: list[tuple[float, float]] = []
    after = (0.0, 0.0)
    for number, experiment in enumerate(experiments):
        lines = _lines(experiment / LOG)
        trained = [line for line in lines if line["kind"] == "train" and line.get(LOSS) is not None]
        if not trained:
            raise InputError(f"{experiment / LOG}: holds no line of training; name a run that was begun")
        steps, minutes = [one["step"] for one in trained], [one["elapsed_s"] / 60 for one in trained]
        if number:
            begins.append(after)
        kept = [(LOSS, one["step"], one[LOSS]) for one in trained]
        kept += [
            (name, one["step"], 100 * one[name] if name == "accuracy" else one[name])
            for one in lines
            if one["kind"] == "validation"
            for name in MEASURES
            if one.get(name) is not None
        ]
        for name, step, value in kept:
            curves[name].steps.append(after[0] + step)
            curves[name].minutes.append(after[1] + float(np.interp(step, [0, *steps], [0.0, *minutes])))
            curves[name].values.append(value)
        after = (after[0] + steps[-1], after[1] + minutes[-1])
    return curves, begins


def smooth(values: ArrayLike, share: float = 0.03) -> NDArray[np.float64]:
    """The mean of each value with those around it: so large a share of all, and five at least where there are eight.

    >>> smooth([0.0, 3.0, 0.0, 0.0], share=0.75).tolist()
    [1.5, 1.0, 1.0, 0.0]
    """
    x = np.asarray(values, dtype=np.float64)
    half = max(int(share * len(x)) // 2, min(2, len(x) // 4))
    sums = np.concatenate([[0.0], np.cumsum(x)])
    first, last = (np.arange(len(x)) + offset for offset in (-half, half + 1))
    first, last = first.clip(min=0), last.clip(max=len(x))
    return (sums[last] - sums[first]) / (last - first)


def draw(path: Path, curves: dict[str, Curve], begins: Sequence[tuple[float, float]], overwrite: bool = False) -> None:
    """Draw the curves as a PNG.

    Raises:
        WesepError: matplotlib is not installed, or the disk is full.
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise WesepError("pictures need matplotlib; pip install 'wesep-py[demo]'") from error
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes: Any = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, (unit, place) in enumerate((("minutes", 1), ("steps", 0))):
        above, below = axes[:, column]
        loss = curves[LOSS]
        above.plot(getattr(loss, unit), loss.values, color=COLOURS[LOSS], alpha=0.25, linewidth=0.5)
        starts = np.searchsorted(loss.steps, [step for step, _ in begins], side="right")
        for part in np.split(np.arange(len(loss.values)), starts):  # two runs may not have the same loss
            at = np.array(getattr(loss, unit))[part]
            above.plot(at, smooth(np.array(loss.values)[part]), color=COLOURS[LOSS])
        above.set_ylim(*_range(loss.values))
        shares = below.twinx()
        for axis, name in ((below, "si_sdri"), (shares, "accuracy")):
            axis.plot(getattr(curves[name], unit), curves[name].values, color=COLOURS[name], marker=".", markersize=3)
            axis.tick_params(axis="y", colors=COLOURS[name])
        reached = [0.0, 1.0, *curves["si_sdri"].values]
        below.set_ylim(1.05 * min(reached), 1.05 * max(reached))
        shares.set_ylim(0, 100)
        for axis in (above, below):
            axis.grid(alpha=0.3)
            for begin in begins:
                axis.axvline(begin[place], color="black", linewidth=0.8, linestyle=":")
        below.set_xlabel(unit)
        if column == 0:
            above.set_ylabel("training loss")
            below.set_ylabel(MEASURES["si_sdri"], color=COLOURS["si_sdri"])
        else:
            shares.set_ylabel(MEASURES["accuracy"], color=COLOURS["accuracy"])
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=100)


def _lines(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a folder that `wesep train` wrote")
    numbers = (LOSS, *MEASURES)
    shape = {"kind": str, "step": COUNT, "elapsed_s?": float, **{f"{name}?": (float, None) for name in numbers}}
    rows = read_jsonl(path, "the log of a run", may_end_early=True)
    for row in rows:
        check_schema(row.values, shape, row.place, "remove the line")
        if row.values["kind"] == "train":
            row.number("elapsed_s")
    return [row.values for row in rows]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What holds all but the first outliers."""
    low, high = np.percentile(values, [0, 98])
    margin = 0.05 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", type=Path, metavar="EXP")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PNG")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    try:
        draw(arguments.out, *read_curves(arguments.experiments), arguments.overwrite)
    except WesepError as error:
        parser.error(str(error))
    print(arguments.out)


if __name__ == "__main__":
    main()
