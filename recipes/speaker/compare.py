"""Train and verify speaker encoders and losses (`experiments.yaml`), and print the results as tables.

    python recipes/speaker/compare.py --data DATA -o exp/speaker                     # every experiment
    python recipes/speaker/compare.py --data DATA -o exp/speaker 'networks/*'        # those whose names match
    python recipes/speaker/compare.py -o exp/speaker --table                         # print the results so far

Each experiment has a folder GROUP/NAME with its configuration, training and results. Those that have results are
skipped, interrupted ones are resumed. Two runs with different patterns may run at the same time once the first has
packed the data. Experiments that match `--overlap-of` are also verified on overlapping speech (`wesep verify
--overlap`).
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
REMEDY = "verify again"
SPEECH_LISTS = ("dev", "dev_ls")


def experiment_names() -> list[str]:
    """Return the names `GROUP/NAME` of all experiments."""
    groups = load_yaml(HERE / "experiments.yaml")
    return [f"{group}/{name}" for group, experiments in groups.items() for name in experiments]


def configuration(experiment: str, data: Path, out: Path, steps: int | None = None) -> dict[str, Any]:
    """Return the training configuration of an experiment; `steps` replaces the number of steps of the recipe."""
    group, name = experiment.split("/")
    config: dict[str, Any] = load_yaml(HERE / "experiments.yaml", [f"{group}.{name}.data.root={data}"])[group][name]
    config["experiment"] = str(out / experiment)
    config["data"]["packed"] = str(out / "packed")
    if steps is not None:
        config["train"]["steps"] = steps
    return config


def run(experiment: str, data: Path, out: Path, steps: int | None, overlap: int) -> None:
    """Train an experiment, or resume its training, then verify it on each list.

    Args:
        experiment: `GROUP/NAME`.
        data: folder of the data.
        out: folder of all experiments.
        steps: number of training steps; `None`: that of the recipe.
        overlap: number of recordings of one voice, and of two, that are verified too; 0: none.
    """
    folder = out / experiment
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.yaml"
    config.write_text(dump_yaml(configuration(experiment, data, out, steps)), encoding="utf-8")
    wesep = [sys.executable, "-m", "wesep_py.cli.main"]
    subprocess.run([*wesep, "train", str(config)], check=True)
    for speech in SPEECH_LISTS:
        command = [*wesep, "verify", str(data / "speech" / f"{speech}.csv"), "--root", str(data), "--overwrite"]
        command += ["--model", str(folder), "--overlap", str(overlap), "-o", str(folder / "results" / speech)]
        subprocess.run(command, check=True)


def is_done(experiment: str, out: Path) -> bool:
    """Return whether an experiment has its results on the last list."""
    return (out / experiment / "results" / SPEECH_LISTS[-1] / "summary.json").is_file()


def summaries(experiment: str, out: Path) -> dict[str, dict[str, Any]]:
    """Return the summary of `wesep verify` on each list."""
    paths = {speech: out / experiment / "results" / speech / "summary.json" for speech in SPEECH_LISTS}
    contents = {speech: read_json(path, "a summary of `wesep verify`", REMEDY).values for speech, path in paths.items()}
    for speech, summary in contents.items():
        check_schema(summary, {"eer": {"mean": float}, "min_dcf": {"mean": float}}, str(paths[speech]), REMEDY)
    return contents


def table(group: str, out: Path) -> str:
    """Return the results of a group as a Markdown table, one row per experiment."""
    header = ["experiment", "parameters (M)", "training (min)"]
    header += [f"{metric} {speech}" for speech in SPEECH_LISTS for metric in ("EER (%)", "minDCF")]
    rows = [_row(header), _row(["---"] * len(header))]
    for experiment in experiment_names():
        if not experiment.startswith(f"{group}/"):
            continue
        name = experiment.split("/")[1]
        if not is_done(experiment, out):
            rows.append(_row([name, "not run", *[""] * (len(header) - 2)]))
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
    """Return the minutes of a training, from its log."""
    lines = read_jsonl(folder / "log.jsonl", "the log of a run", may_end_early=True)
    return max((line.optional_number("elapsed_s") or 0.0 for line in lines), default=0.0) / 60


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run the experiments whose names match, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=["*"], help="patterns of GROUP/NAME; by default all")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of the data; recipes/speechocean762/README.md describes it")
    parser.add_argument("--steps", type=int, help="number of training steps; by default that of each recipe")
    parser.add_argument(
        "--overlap", type=int, default=400, help="number of recordings of each kind for --overlap-of; 400"
    )
    parser.add_argument(
        "--overlap-of",
        nargs="+",
        default=["networks/recursive", "networks/attentive"],
        help="patterns of the experiments that are verified on overlapping speech too",
    )
    parser.add_argument("--table", action="store_true", help="print the results so far, and stop")
    arguments = parser.parse_args()
    if arguments.table:
        for group in load_yaml(HERE / "experiments.yaml"):
            print(f"{group}\n\n{table(group, arguments.out)}\n")
        return
    if arguments.data is None:
        parser.error("--data is missing; name the folder of the data")
    names = experiment_names()
    for pattern in arguments.experiments:
        if not fnmatch.filter(names, pattern):
            parser.error(f"no experiment matches {pattern!r}; {nearest(pattern, names)}")
    for pattern in arguments.experiments:
        for experiment in fnmatch.filter(names, pattern):
            if not is_done(experiment, arguments.out):
                verifies_overlap = any(fnmatch.fnmatch(experiment, pattern) for pattern in arguments.overlap_of)
                overlap = arguments.overlap if verifies_overlap else 0
                run(experiment, arguments.data, arguments.out, arguments.steps, overlap)


if __name__ == "__main__":
    main()
