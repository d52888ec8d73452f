"""Train and evaluate a grid of small models, every backbone with every cell's cues, and print it as a table.

    python recipes/ablation/run.py --data DATA -o exp/ablation                    # every cell
    python recipes/ablation/run.py --data DATA -o exp/ablation 'bsrnn/*'          # cells whose names match
    python recipes/ablation/run.py -o exp/ablation --table                        # what is there so far
    python recipes/ablation/run.py --grid recipes/ablation/encoders.yaml --data DATA -o exp/encoders

A cell is a folder BACKBONE/CELL with its configuration, training and results. Cells that have results are passed over,
and interrupted ones go on. Two runs with different patterns may work side by side once the first has packed the data.
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
    """`backbone/cell` of every cell."""
    table = load_yaml(grid)
    return [f"{backbone}/{cell}" for backbone in table["backbones"] for cell in table["cells"]]


def configuration(grid: Path, name: str, data: Path, out: Path, steps: int | None) -> dict[str, Any]:
    """The training configuration of a cell."""
    backbone, cell = name.split("/")
    table = load_yaml(grid)
    chosen = dict(table["cells"][cell])
    loss = chosen.pop("loss", None)
    model = table["backbones"][backbone]["model"] | {"speaker": table["speaker"]} | chosen
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
    """Train the cell as far as it is not, then evaluate it."""
    folder, data = arguments.out / cell, arguments.data
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.yaml"
    config.write_text(
        dump_yaml(configuration(arguments.grid, cell, data, arguments.out, arguments.steps)), encoding="utf-8"
    )
    wesep = [sys.executable, "-m", "wesep_py.cli.main"]
    subprocess.run([*wesep, "train", str(config)], check=True)
    for trials in arguments.trials:
        listed = data / "trials" / trials
        command = [*wesep, "evaluate", "--model", str(folder), "--root", str(data), "--condition", "clean"]
        command += ["--overwrite", "--trials", f"{listed}.csv", "--enrollment", f"{listed}.map_mixture2enrollment"]
        subprocess.run([*command, "-o", str(folder / "results" / trials)], check=True)


def table(grid: Path, out: Path, trials: str) -> str:
    """The results there are, as Markdown."""
    names = "| backbone | cues | parameters (M) | SI-SDRi (dB) | accuracy | confusion |"
    rows = [names, "| --- | --- | --- | --- | --- | --- |"]
    for cell in cell_names(grid):
        path = out / cell / "results" / trials / "summary.json"
        backbone, cue = cell.split("/")
        if not path.is_file():
            rows.append(f"| {backbone} | {cue} | | not run | | |")
            continue
        network = build_network(load_yaml(out / cell / "train.yaml")["model"], initialise=False)
        size = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        summary = read_json(path, "a summary of results", "evaluate again").values
        shown = (("si_sdri", 2), ("accuracy", 3), ("confusion", 3))
        shape = {name: dict.fromkeys(("mean", "low", "high"), float) for name, _ in shown}
        check_schema(summary, shape, str(path), "evaluate again")
        figures = " | ".join(interval(summary[name], digits) for name, digits in shown)
        rows.append(f"| {backbone} | {cue} | {size:.2f} | {figures} |")
    return "\n".join(rows)


def interval(figure: dict[str, float], digits: int) -> str:
    """`mean (low to high)`."""
    mean, low, high = (f"{figure[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", default=["*"], help="patterns of BACKBONE/CELL")
    parser.add_argument("--grid", type=Path, default=HERE / "grid.yaml", help="the cells; grid.yaml")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the folder that recipes/speechocean762/README.md describes")
    parser.add_argument("--steps", type=int, help="instead of those in train.yaml")
    parser.add_argument("--trials", nargs="+", default=["dev_2mix"], help="lists in DATA/trials")
    parser.add_argument("--table", action="store_true", help="print the results there are, and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.grid, arguments.out, arguments.trials[0]))
        return
    if arguments.data is None:
        parser.error("--data: where are the recordings?")
    names = cell_names(arguments.grid)
    for pattern in arguments.cells:
        if not fnmatch.filter(names, pattern):
            parser.error(f"no cell of {arguments.grid.name} fits {pattern!r}; {nearest(pattern, names)}")
    for pattern in arguments.cells:
        for cell in fnmatch.filter(names, pattern):
            if not (arguments.out / cell / "results" / arguments.trials[-1] / "summary.json").is_file():
                run_cell(cell, arguments)


if __name__ == "__main__":
    main()
