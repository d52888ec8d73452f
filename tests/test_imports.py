"""Who may import whom: every folder imports only folders below it (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wesep_py"

# From the lowest level to the highest: a folder may import the folders of the levels before its own. Sub-folders have
# the level of their folder; within a folder, imports must be free of cycles.
LAYERS = [
    ["common"],
    ["audio", "features", "metrics", "checkpoint"],
    ["network", "data", "models"],
    ["interop", "simulation", "inference"],
    ["evaluation", "runtime", "integrations"],
    ["training", "export"],
    ["ui"],
    ["cli"],
]


def _type_only(tree: ast.AST) -> set[int]:
    """Return the ids of the nodes below `if TYPE_CHECKING:`."""
    nodes: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    return nodes


def _imports(path: Path) -> dict[str, int]:
    """Return the dotted names below `wesep_py` that a file imports, anywhere in it, and the line of each."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_only = _type_only(tree)
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        if id(node) in type_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("wesep_py.") and not name.startswith("wesep_py._"):
                lines.setdefault(name.removeprefix("wesep_py."), node.lineno)
    return lines


def _folder_of(name: str, package: Path) -> str:
    """Return the folder that holds the module or package a dotted name stands for; a module at the top is its own."""
    parts = name.split(".")
    depth = 0
    while depth < len(parts) and (package / Path(*parts[: depth + 1])).is_dir():
        depth += 1
    return "/".join(parts[:depth]) or parts[0]


def _edges(paths: Iterable[Path], package: Path) -> dict[tuple[str, str], list[str]]:
    """Return the imports from folder to folder, each with the places where it is made."""
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        here = "/".join(path.relative_to(package).parts[:-1]) or path.stem
        for name, line in _imports(path).items():
            there = _folder_of(name, package)
            if there != here and here != "__init__":
                edges[here, there].append(f"{path.relative_to(package)}:{line}")
    return edges


def _cycle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """Return the folders of a circle of imports, or nothing."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for here, there in edges:
        sorter.add(here, there)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_folders_import_only_folders_below_them():
    edges = _edges(PACKAGE.rglob("*.py"), PACKAGE)
    level = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}
    folders = {edge for pair in edges for edge in pair}
    assert {folder.split("/")[0] for folder in folders} == set(level), "a folder is missing in LAYERS"
    upward = {
        (here, there): places
        for (here, there), places in edges.items()
        if here.split("/")[0] != there.split("/")[0]
        and level[there.split("/")[0]] >= level[here.split("/")[0]]
    }  # fmt: skip
    assert not upward
    assert not _cycle(edges)


@pytest.mark.parametrize(
    ("files", "cycle"),
    [
        ({"a/x.py": "from other.b import y"}, False),
        ({"a/x.py": "import wesep_py.b.y", "b/y.py": "def f():\n    from wesep_py.a.x import g"}, True),
        ({"a/x.py": "from wesep_py.a.b import y", "a/b/y.py": "from wesep_py.a.x import g"}, True),
        (
            {
                "a/x.py": "import wesep_py.b.y",
                "b/y.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wesep_py.a.x import g",
            },
            False,
        ),
    ],
)
def test_circles_are_seen_in_functions_and_subfolders_but_not_in_types(tmp_path: Path, files: dict, cycle: bool):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert bool(_cycle(_edges(tmp_path.rglob("*.py"), tmp_path))) is cycle


def test_names_of_modules_and_classes_are_unique():
    """A name in a traceback or an import says which module or class is meant."""
    modules, classes = defaultdict(list), defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        modules[name].append(str(path.relative_to(PACKAGE)))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(str(path.relative_to(PACKAGE)))
    assert not {name: places for name, places in modules.items() if len(places) > 1}
    assert not {name: places for name, places in classes.items() if len(places) > 1}
