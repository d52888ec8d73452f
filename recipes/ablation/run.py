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
        name: `BACKBONE/CELL`; the cell's keys override those of the backbone's model.
        data: root of the recordings.
        out: folder of all cells; the packed data, which they share, lies there too.
        steps: number of training steps; `None`: that of `train.yaml`.
    """
    backbone, cell = name.split("/")
    entries = load_yaml(grid)
    cell_keys = dict(entries["cells"][cell])
    loss = cell_keys.pop("loss", None)
    model = entries["backbones"][backbone]["model"] | {"speaker": entries["speaker"]} | cell_keys
    config = load_yaml(HERE / "train.yaml")
    config["model"], config["experiment"] = model, str(out / name)
    config["data"]["root"] = str(data)
    config["data"]["packed"] = str(out / "packed")
    if loss is not None:
        config["loss"] = loss
    if steps is not None:
        config["train"]["steps"] = steps
    return config


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
        subprocess.run([*command, "-o", str(folder / "results" / trials)], check=True)


def table(grid: Path, out: Path, trials: str) -> str:
    """Return the results so far as a Markdown table, one row per cell."""
    header = "| backbone | cues | parameters (M) | SI-SDRi (dB) | accuracy | confusion |"
    rows = [header, "| --- | --- | --- | --- | --- | --- |"]
    for cell in cell_names(grid):
        path = out / cell / "results" / trials / "summary.json"
        backbone, cue = cell.split("/")
        if not path.is_file():
            rows.append(f"| {backbone} | {cue} | | not run | | |")
            continue
        network = build_network(load_yaml(out / cell / "train.yaml")["model"], initialise=False)
        size = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        summary = read_json(path, "a summary of results", "evaluate again").values
        digits = {"si_sdri": 2, "accuracy": 3, "confusion": 3}
        schema = {name: dict.fromkeys(("mean", "low", "high"), float) for name in digits}
        check_schema(summary, schema, str(path), "evaluate again")
        metrics = " | ".join(interval(summary[name], places) for name, places in digits.items())
        rows.append(f"| {backbone} | {cue} | {size:.2f} | {metrics} |")
    return "\n".join(rows)


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
            if not (arguments.out / cell / "results" / arguments.trials[-1] / "summary.json").is_file():
                run_cell(cell, arguments)


if __name__ == "__main__":
    main()
