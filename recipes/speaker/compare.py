"""Train and verify speaker encoders and losses (`experiments.yaml`), and print them as tables.

    python recipes/speaker/compare.py --data DATA -o exp/speaker                     # every experiment
    python recipes/speaker/compare.py --data DATA -o exp/speaker 'networks/*'        # those whose names match
    python recipes/speaker/compare.py -o exp/speaker --table                         # what is there so far

An experiment is a folder GROUP/NAME with its configuration, training and results. Those that have results are passed
over, and interrupted ones go on. Two runs with different patterns may work side by side once the first has packed the
data. What matches `--overlap-of` is also verified where people talk over each other (`wesep verify --overlap`).
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
from wesep_py.common.textfiles import check_schema, read_json, read_jsonl
from wesep_py.network.speaker import SpeakerEncoder
from wesep_py.training import load_config

HERE = Path(__file__).resolve().parent
AGAIN = "verify again"
LISTS = ("dev", "dev_ls")


def experiment_names() -> list[str]:
    """`group/name` of every experiment."""
    groups = load_yaml(HERE / "experiments.yaml")
    return [f"{group}/{name}" for group, experiments in groups.items() for name in experiments]


def configuration(experiment: str, data: Path, out: Path, steps: int | None = None) -> dict[str, Any]:
    """The training configuration of an experiment."""
    group, name = experiment.split("/")
    config: dict[str, Any] = load_yaml(HERE / "experiments.yaml", [f"{group}.{name}.data.root={data}"])[group][name]
    config["experiment"] = str(out / experiment)
    config["data"]["packed"] = str(out / "packed")
    if steps is not None:
        config["train"]["steps"] = steps
    return config


def run(experiment: str, data: Path, out: Path, steps: int | None, overlap: int) -> None:
    """Train as far as it is not, then verify on every list."""
    folder = out / experiment
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.yaml"
    config.write_text(dump_yaml(configuration(experiment, data, out, steps)), encoding="utf-8")
    wesep = [sys.executable, "-m", "wesep_py.cli.main"]
    subprocess.run([*wesep, "train", str(config)], check=True)
    for speech in LISTS:
        command = [*wesep, "verify", str(data / "speech" / f"{speech}.csv"), "--root", str(data), "--overwrite"]
        command += ["--model", str(folder), "--overlap", str(overlap), "-o", str(folder / "results" / speech)]
        subprocess.run(command, check=True)


def is_done(experiment: str, out: Path) -> bool:
    return (out / experiment / "results" / LISTS[-1] / "summary.json").is_file()


def summaries(experiment: str, out: Path) -> dict[str, dict[str, Any]]:
    """What `wesep verify` says, for every list."""
    paths = {speech: out / experiment / "results" / speech / "summary.json" for speech in LISTS}
    found = {speech: read_json(path, "what `wesep verify` wrote", AGAIN).values for speech, path in paths.items()}
    for speech, summary in found.items():
        check_schema(summary, {"eer": {"mean": float}, "min_dcf": {"mean": float}}, str(paths[speech]), AGAIN)
    return found


def table(group: str, out: Path) -> str:
    """The results of a group's experiments, as Markdown."""
    names = ["experiment", "parameters (M)", "training (min)"]
    names += [f"{figure} {speech}" for speech in LISTS for figure in ("EER (%)", "minDCF")]
    rows = [_row(names), _row(["---"] * len(names))]
    for experiment in experiment_names():
        if not experiment.startswith(f"{group}/"):
            continue
        name = experiment.split("/")[1]
        if not is_done(experiment, out):
            rows.append(_row([name, "not run", *[""] * (len(names) - 2)]))
            continue
        config = load_config(load_yaml(out / experiment / "train.yaml"))
        encoder = SpeakerEncoder(config.speaker, config.sample_rate)
        size = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
        cells = [name, f"{size:.2f}", f"{_minutes(out / experiment):.1f}"]
        for summary in summaries(experiment, out).values():
            cells += [f"{100 * summary['eer']['mean']:.1f}", f"{summary['min_dcf']['mean']:.2f}"]
        rows.append(_row(cells))
    return "\n".join(rows)


def _minutes(folder: Path) -> float:
    """How long the training took, by its log."""
    lines = read_jsonl(folder / "log.jsonl", "the log of a run", may_end_early=True)
    return max((line.optional_number("elapsed_s") or 0.0 for line in lines), default=0.0) / 60


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=["*"], help="patterns of GROUP/NAME")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the folder that recipes/speechocean762/README.md describes")
    parser.add_argument("--steps", type=int, help="instead of those in the recipes")
    parser.add_argument("--overlap", type=int, default=400, help="recordings of each kind for --overlap-of; 400")
    parser.add_argument("--overlap-of", nargs="+", default=["networks/recursive", "networks/attentive"])
    parser.add_argument("--table", action="store_true", help="print the results there are, and stop")
    arguments = parser.parse_args()
    if arguments.table:
        for group in load_yaml(HERE / "experiments.yaml"):
            print(f"{group}\n\n{table(group, arguments.out)}\n")
        return
    if arguments.data is None:
        parser.error("--data: where are the recordings?")
    names = experiment_names()
    for pattern in arguments.experiments:
        if not fnmatch.filter(names, pattern):
            parser.error(f"no experiment fits {pattern!r}; {nearest(pattern, names)}")
    for pattern in arguments.experiments:
        for experiment in fnmatch.filter(names, pattern):
            if not is_done(experiment, arguments.out):
                overlapped = any(fnmatch.fnmatch(experiment, other) for other in arguments.overlap_of)
                overlap = arguments.overlap if overlapped else 0
                run(experiment, arguments.data, arguments.out, arguments.steps, overlap)


if __name__ == "__main__":
    main()
