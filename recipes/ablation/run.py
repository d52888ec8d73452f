"""Train and evaluate a grid of small models, each backbone with each set of cues, and print the results as a table.

    python recipes/ablation/run.py --data DATA -o exp/ablation                    # every cell
    python recipes/ablation/run.py --data DATA -o exp/ablation 'bsrnn/*'          # cells whose names match
    python recipes/ablation/run.py -o exp/ablation --table                        # print the results so far
    python recipes/ablation/run.py --grid recipes/ablation/encoders.yaml --data DATA -o exp/encoders

Each cell has a folder BACKBONE/CELL with its configuration, training and results. Cells that have results are skipped,
interrupted ones are resumed. Two runs with different patterns may run at the same time once the first has packed the
data.
"""

from __future__ import annotations

import argparse
import fnmatch
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from wesep_py.common.config import dump_yaml, load_yaml
from wesep_py.common.errors import nearest
from wesep_py.common.textfiles import check_schema, read_json
from wesep_py.network.extraction_network import build_network

HERE = Path(__file__).resolve().parent


def cell_names(grid: Path) -> list[str]:
    """Return the names `BACKBONE/CELL` of all cells."""
    entries = load_yaml(grid)
    return [f"{backbone}/{cell}" for backbone in entries["backbones"] for cell in entries["cells"]]


def configuration(grid: Path, name: str, data: Path, out: Path, steps: int | None) -> dict[str, Any]:
    """Return the training configuration of a cell.

    Args:
        grid: the YAML file with `backbones`, `speaker` and `cells`.
        name: `BACKBONE/CELL`; the cell's keys override those of the backbone's model. `loss` and `simulation` are of
            the training instead.
        data: root of the recordings.
        out: folder of all cells; the packed data, which they share, lies there too.
        steps: number of training steps; `None`: that of `train.yaml`.
    """
    backbone, cell = name.split("/")
    entries = load_yaml(grid)
    cell_keys = dict(entries["cells"][cell])
    loss, simulation = cell_keys.pop("loss", None), cell_keys.pop("simulation", {})
    cell_keys.pop("variants", None)
    model = entries["backbones"][backbone]["model"] | {"speaker": entries["speaker"]} | cell_keys
    config = load_yaml(HERE / "train.yaml")
    config["model"], config["experiment"] = model, str(out / name)
    config["data"]["root"] = str(data)
    config["data"]["packed"] = str(out / "packed")
    config["simulation"] |= simulation
    if loss is not None:
        config["loss"] = loss
    if steps is not None:
        config["train"]["steps"] = steps
    return config


def variants(grid: Path, cell: str) -> dict[str, list[str]]:
    """Return the evaluations of a cell: the plain one under the name `""`, and those of its key `variants`.

    Args:
        grid: as for `configuration`.
        cell: `BACKBONE/CELL`.

    Returns:
        For each name the further options of `wesep evaluate`.
    """
    return {"": [], **load_yaml(grid)["cells"][cell.split("/")[1]].get("variants", {})}


def results_folder(out: Path, cell: str, trials: str, variant: str) -> Path:
    """Return the folder of the results of a cell on a list of trials."""
    return out / cell / "results" / (f"{trials}_{variant}" if variant else trials)


def run_cell(cell: str, arguments: argparse.Namespace) -> None:
    """Train a cell, or resume its training, then evaluate it on each list of trials."""
    folder, data = arguments.out / cell, arguments.data
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.yaml"
    config.write_text(
        dump_yaml(configuration(arguments.grid, cell, data, arguments.out, arguments.steps)), encoding="utf-8"
    )
    wesep = [sys.executable, "-m", "wesep_py.cli.main"]
    subprocess.run([*wesep, "train", str(config)], check=True)
    for trials in arguments.trials:
        trial_list = data / "trials" / trials
        command = [*wesep, "evaluate", "--model", str(folder), "--root", str(data), "--condition", "clean"]
        command += [
            "--overwrite",
            "--trials",
            f"{trial_list}.csv",
            "--enrollment",
            f"{trial_list}.map_mixture2enrollment",
        ]
        for variant, options in variants(arguments.grid, cell).items():
            results = results_folder(arguments.out, cell, trials, variant)
            subprocess.run([*command, *options, "-o", str(results)], check=True)


def table(grid: Path, out: Path, trials: str) -> str:
    """Return the results so far as a Markdown table, one row per cell."""
    header = "| backbone | cues | parameters (M) | SI-SDRi (dB) | accuracy | confusion |"
    rows = [header, "| --- | --- | --- | --- | --- | --- |"]
    for cell in cell_names(grid):
        backbone, cue = cell.split("/")
        for variant in variants(grid, cell):
            name = f"{cue}, {variant}" if variant else cue
            path = results_folder(out, cell, trials, variant) / "summary.json"
            if not path.is_file():
                rows.append(f"| {backbone} | {name} | | not run | | |")
                continue
            size = size_of(out / cell / "train.yaml")
            summary = read_json(path, "a summary of results", "evaluate again").values
            digits = {"si_sdri": 2, "accuracy": 3, "confusion": 3}
            schema = {metric: dict.fromkeys(("mean", "low", "high"), float) for metric in digits}
            check_schema(summary, schema, str(path), "evaluate again")
            metrics = " | ".join(interval(summary[metric], places) for metric, places in digits.items())
            rows.append(f"| {backbone} | {name} | {size:.2f} | {metrics} |")
    return "\n".join(rows)


@lru_cache
def size_of(config: Path) -> float:
    """Return the millions of parameters of the model of a configuration."""
    network = build_network(load_yaml(config)["model"], initialise=False)
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def interval(metric: dict[str, float], digits: int) -> str:
    """Return `mean (low to high)` of a metric, with a number of digits after the point."""
    mean, low, high = (f"{metric[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def main() -> None:
    """Run the cells whose names match, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", default=["*"], help="patterns of BACKBONE/CELL; by default all")
    parser.add_argument(
        "--grid", type=Path, default=HERE / "grid.yaml", help="YAML file of the grid; by default grid.yaml"
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of the data; recipes/speechocean762/README.md describes it")
    parser.add_argument("--steps", type=int, help="number of training steps; by default that of train.yaml")
    parser.add_argument("--trials", nargs="+", default=["dev_2mix"], help="lists in DATA/trials; by default dev_2mix")
    parser.add_argument("--table", action="store_true", help="print the results so far, and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.grid, arguments.out, arguments.trials[0]))
        return
    if arguments.data is None:
        parser.error("--data is missing; name the folder of the data")
    names = cell_names(arguments.grid)
    for pattern in arguments.cells:
        if not fnmatch.filter(names, pattern):
            parser.error(f"no cell of {arguments.grid.name} matches {pattern!r}; {nearest(pattern, names)}")
    for pattern in arguments.cells:
        for cell in fnmatch.filter(names, pattern):
            last = results_folder(arguments.out, cell, arguments.trials[-1], list(variants(arguments.grid, cell))[-1])
            if not (last / "summary.json").is_file():
                run_cell(cell, arguments)


if __name__ == "__main__":
    main()
