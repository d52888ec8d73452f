"""Measure how easy it is to find one's way in the package: modules, lines, folders, files on the path of one item.

    python bench/structure.py                       # the checkout that this script lies in
    python bench/structure.py --root OTHER          # another checkout

`files` and `moves` count Python functions of the package that are called while one training item is made (from the
dataset to the batch) and while one trial is extracted and scored: their files, and the calls from one file into another
(`sys.setprofile`). The signals are synthetic.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Tracer:
    """Count files and moves among the functions of a package while a block runs."""

    def __init__(self, package: Path) -> None:
        self._package = str(package)
        self._stack: list[str | None] = []
        self.files: Counter[str] = Counter()
        self.moves = 0

    def __enter__(self) -> Tracer:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: Any, event: str, argument: object) -> None:
        if event == "call":
            file = frame.f_code.co_filename
            file = file if file.startswith(self._package) and frame.f_code.co_name != "<module>" else None
            if file is not None:
                self.files[file] += 1
                caller = next((name for name in reversed(self._stack) if name is not None), None)
                self.moves += caller is not None and caller != file
            self._stack.append(file)
        elif event == "return" and self._stack:
            self._stack.pop()


def modules_of(package: Path) -> dict[str, Path]:
    """Return the modules of a package by dotted name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if "conf" not in parts[:1]:
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def folders_that_import_each_other(package: Path) -> list[tuple[str, str]]:
    """Return the pairs of folders that import each other, without imports that are for types only."""
    modules = modules_of(package)

    def folder(name: str) -> str:
        return "/".join(modules[name].relative_to(package).parts[:-1]) or modules[name].stem

    edges: set[tuple[str, str]] = set()
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        type_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if id(node) in type_only or not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            for alias in node.names:
                for candidate in (f"{node.module}.{alias.name}", node.module):
                    if (there := candidate.removeprefix("wesep_py.")) in modules and candidate.startswith("wesep_py."):
                        if name and folder(name) != folder(there):
                            edges.add((folder(name), folder(there)))
                        break
    return sorted((a, b) for a, b in edges if a < b and (b, a) in edges)


def home_of(name: str, *places: str) -> Any:
    """Return a name of the first module that exists: older checkouts have other modules."""
    for place in places:
        try:
            return getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"{name} is in none of {', '.join(places)}")


def trace_item(package: Path, speech: Path) -> Tracer:
    """Trace one training item: drawn, rendered, checked and collated."""
    data = "wesep_py.data", "wesep_py.corpus"
    utterances = home_of("read_speaker_folders", *data)(speech)
    reader = home_of("FileReader", *data)(16000)
    simulation = importlib.import_module("wesep_py.simulation")
    config = simulation.SimulationConfig(duration_s=1.0, enrollment=simulation.EnrollmentConfig(duration_s=(0.5, 1.0)))
    simulator = simulation.Simulator(config, utterances, [], reader)
    dataset_class = home_of("SimulatedMixtures", "wesep_py.training.batches", "wesep_py.training.data")
    task = "wesep_py.training.extraction_task"
    items, collate = home_of("target_items", task), home_of("collate_targets", task)
    labels = {name: number for number, name in enumerate(sorted({one.speaker_id for one in utterances}))}
    dataset = dataset_class(simulator, labels, items)
    collate([dataset[0, 0]])  # once before, for what is set up at the first use
    with Tracer(package) as tracer:
        collate([dataset[0, 1]])
    return tracer


def trace_trial(package: Path, speech: Path, folder: Path) -> tuple[int, int]:
    """Return files and moves of one trial: what `wesep evaluate` of three trials does more than of two."""
    from wesep_py.cli.main import main

    mixtures = folder / "mixtures"
    config = folder / "mixtures.yaml"
    config.write_text(f"speech: [{speech}/manifest.jsonl]\nsimulation: {{duration_s: 2.0, num_speakers: 2}}\n", "utf-8")
    run(main, "simulate", str(config), "-o", str(mixtures), "--count", "2")
    arguments = ["evaluate", "--trials", str(mixtures / "mixture_mix_clean.csv"), "--root", str(mixtures)]
    arguments += ["--enrollment", str(mixtures / "map_mixture2enrollment"), "--jobs", "0"]
    traces = []
    for limit in (1, 2, 3):  # the first for what is set up at the first use
        with Tracer(package) as tracer:
            run(main, *arguments, "--limit", str(limit), "-o", str(folder / f"results_{limit}"))
        traces.append(tracer)
    _, two, three = traces
    return len(three.files - two.files), three.moves - two.moves


def run(main: Callable[[list[str]], int], *arguments: str) -> None:
    """Run a command, and end if it fails."""
    if main(list(arguments)) != 0:
        raise SystemExit(f"wesep {' '.join(arguments)} failed")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="a checkout")
    root = parser.parse_args().root.resolve()
    package = root / "wesep_py"
    sys.path.insert(0, str(root))
    modules = modules_of(package)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules.items()}
    flat: dict[str, int] = defaultdict(int)
    for path in modules.values():
        flat["/".join(path.relative_to(package).parts[:-1]) or "wesep_py"] += path.name != "__init__.py"
    fullest = sorted(flat.items(), key=lambda entry: -entry[1])[:3]
    api = [name for name in importlib.import_module("wesep_py").__all__ if not name.startswith("_")]
    with tempfile.TemporaryDirectory() as folder:
        toy = home_of("make_toy_corpus", "wesep_py.data", "wesep_py.corpus")
        speech = Path(folder) / "speech"
        toy(speech)
        item, trial = trace_item(package, speech), trace_trial(package, speech, Path(folder))
    rows = [
        ("modules", str(len(modules))),
        ("lines", str(sum(lines.values()))),
        ("lines per module", f"{sum(lines.values()) / len(modules):.0f}"),
        ("modules over 600 lines", str(sum(count > 600 for count in lines.values()))),
        ("most modules flat in a folder", ", ".join(f"{name} {count}" for name, count in fullest)),
        ("pairs of folders that import each other", str(len(folders_that_import_each_other(package)))),
        ("one training item: files, moves", f"{len(item.files)}, {item.moves}"),
        ("one scored trial: files, moves", "{}, {}".format(*trial)),
        ("names at the top level", f"{len(api)}: {', '.join(api)}"),
    ]
    print("| | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
