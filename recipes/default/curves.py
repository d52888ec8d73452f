"""Draw the learning curves of one run, or of several runs that continue each other.

    python recipes/default/curves.py EXP… -o PNG

Reads EXP/log.jsonl. The upper row shows the training loss, smoothed; the lower row SI-SDRi and accuracy of the
validation. The left column is over minutes of training, the right one over steps.
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
    """Measured values of one quantity during a training.

    Attributes:
        steps, minutes: when each value was measured, counted over all runs together.
        values: the values.
    """

    steps: list[float] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_curves(experiments: Sequence[Path]) -> tuple[dict[str, Curve], list[tuple[float, float]]]:
    """Read the training loss and the validation measures of the logs.

    The log has no time for a validation: it is interpolated from the training lines around its step.

    Args:
        experiments: folders, in the order in which they were trained.

    Returns:
        The curves by name, and (steps, minutes) at which each run but the first begins.

    Raises:
        InputError: a folder without a log, or whose log holds no training.
    """
    curves = {name: Curve() for name in (LOSS, *MEASURES)}
    begins: list[tuple[float, float]] = []
    end = (0.0, 0.0)  # steps and minutes of all runs before this one
    for number, experiment in enumerate(experiments):
        lines = _lines(experiment / LOG)
        trained = [line for line in lines if line["kind"] == "train" and line.get(LOSS) is not None]
        if not trained:
            raise InputError(f"{experiment / LOG}: holds no line of training; name a run that has started")
        steps, minutes = [line["step"] for line in trained], [line["elapsed_s"] / 60 for line in trained]
        if number:
            begins.append(end)
        points = [(LOSS, line["step"], line[LOSS]) for line in trained]
        points += [
            (name, line["step"], 100 * line[name] if name == "accuracy" else line[name])
            for line in lines
            if line["kind"] == "validation"
            for name in MEASURES
            if line.get(name) is not None
        ]
        for name, step, value in points:
            curves[name].steps.append(end[0] + step)
            curves[name].minutes.append(end[1] + float(np.interp(step, [0, *steps], [0.0, *minutes])))
            curves[name].values.append(value)
        end = (end[0] + steps[-1], end[1] + minutes[-1])
    return curves, begins


def smooth(values: ArrayLike, share: float = 0.03) -> NDArray[np.float64]:
    """Return the moving average of the values.

    Args:
        values: `[n]`.
        share: length of the window as a share of n; with 8 values or more it is at least 5. At the ends, the window is
            shorter.

    >>> smooth([0.0, 3.0, 0.0, 0.0], share=0.75).tolist()
    [1.5, 1.0, 1.0, 0.0]
    """
    x = np.asarray(values, dtype=np.float64)
    half = max(int(share * len(x)) // 2, min(2, len(x) // 4))
    sums = np.concatenate([[0.0], np.cumsum(x)])  # the sum of x[a:b] is sums[b] - sums[a]
    first, last = (np.arange(len(x)) + offset for offset in (-half, half + 1))
    first, last = first.clip(min=0), last.clip(max=len(x))
    return (sums[last] - sums[first]) / (last - first)


def draw(path: Path, curves: dict[str, Curve], begins: Sequence[tuple[float, float]], overwrite: bool = False) -> None:
    """Draw the curves as a PNG; a dotted line marks where a run begins.

    Raises:
        WesepError: the disk is full.
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes: Any = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, (unit, place) in enumerate((("minutes", 1), ("steps", 0))):
        above, below = axes[:, column]
        loss = curves[LOSS]
        above.plot(getattr(loss, unit), loss.values, color=COLOURS[LOSS], alpha=0.25, linewidth=0.5)
        starts = np.searchsorted(loss.steps, [step for step, _ in begins], side="right")
        for part in np.split(np.arange(len(loss.values)), starts):  # runs may differ in their loss: smooth each alone
            times = np.array(getattr(loss, unit))[part]
            above.plot(times, smooth(np.array(loss.values)[part]), color=COLOURS[LOSS])
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
    """Return the checked lines of a log; a last line that was cut short is left out."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a folder that `wesep train` wrote")
    numbers = (LOSS, *MEASURES)
    schema = {"kind": str, "step": COUNT, "elapsed_s?": float, **{f"{name}?": (float, None) for name in numbers}}
    rows = read_jsonl(path, "the log of a run", may_end_early=True)
    for row in rows:
        check_schema(row.values, schema, row.place, "remove the line")
        if row.values["kind"] == "train":
            row.number("elapsed_s")
    return [row.values for row in rows]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return axis limits for the values, without the 2 % largest: a loss is very large at first."""
    low, high = np.percentile(values, [0, 98])
    margin = 0.05 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def main() -> None:
    """Read the logs and write the picture."""
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
