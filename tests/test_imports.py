"""Who may import whom: no arrow goes back (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wesep_py"

# The ground floor is open to all; each room may import the ground floor, itself and the rooms named here.
GROUND_FLOOR = {
    "building",
    "config",
    "errors",
    "files",
    "half_precision",
    "lock",
    "names",
    "registry",
    "search_path",
    "textfiles",
    "torchfiles",
    "worker_processes",
    "yamlfiles",
}
MAY_IMPORT: dict[str, set[str]] = {
    "audio": set(),
    "features": set(),
    "metrics": set(),
    "checkpoint": set(),
    "backbones": {"features", "audio", "metrics", "checkpoint"},
    "speaker": {"features", "audio", "metrics", "checkpoint", "backbones"},
    "cues": {"features", "audio", "metrics", "checkpoint", "backbones", "speaker"},
    "presence_head": {"features", "audio", "metrics", "checkpoint", "backbones", "speaker", "cues"},
    "extractor": {"features", "audio", "metrics", "checkpoint", "backbones", "speaker", "cues", "presence_head"},
    "interop": {"features", "audio", "metrics", "checkpoint", "backbones", "speaker", "cues", "extractor"},
    "losses": {"metrics", "features"},
    "models": {"checkpoint"},
    "corpus": {"audio"},
    "simulation": {"audio", "corpus"},
    "inference": {"audio", "checkpoint", "extractor", "features", "models"},
}
MAY_IMPORT["evaluation"] = {"audio", "checkpoint", "metrics", "inference", "corpus", "simulation", "speaker"}
MAY_IMPORT["training"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _type_only(tree: ast.AST) -> set[int]:
    """The ids of the nodes below `if TYPE_CHECKING:`."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    return found


def _imported_rooms(path: Path) -> dict[str, int]:
    """Room -> line of each import of a room of this package, wherever in the file; types only are passed over."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    passed_over = _type_only(tree)
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if id(node) in passed_over:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; spell the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "wesep_py" and len(parts) > 1 and not parts[1].startswith("_"):
                found.setdefault(parts[1], node.lineno)
    return found


def test_every_room_is_in_the_plan():
    rooms = {_room(path) for path in _modules()} - {"__init__"}
    assert rooms <= GROUND_FLOOR | set(MAY_IMPORT)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_goes_back(path: Path):
    room = _room(path)
    if room == "__init__":  # the package's own names, loaded when they are used
        allowed = {"errors", "inference"}
    elif room in GROUND_FLOOR:
        allowed = GROUND_FLOOR
    else:
        allowed = GROUND_FLOOR | MAY_IMPORT[room] | {room}
    wrong = {name: line for name, line in _imported_rooms(path).items() if name not in allowed}
    assert not wrong, f"{room} may not import {wrong} (room: line)"


def test_the_command_line_is_imported_by_nothing():
    importers = [p for p in _modules() if _room(p) != "cli" and "cli" in _imported_rooms(p)]
    assert importers == []


def test_there_is_no_cycle_in_the_plan():
    finished: set[str] = set()
    waiting = dict(MAY_IMPORT, cli=set(MAY_IMPORT) - {"cli"}, training=set(MAY_IMPORT) - {"training", "cli"})
    while waiting:
        free = [room for room, needs in waiting.items() if needs <= finished]
        assert free, f"a cycle among {sorted(waiting)}"
        for room in free:
            finished.add(room)
            del waiting[room]


def test_the_check_sees_imports_inside_functions_and_passes_over_types(tmp_path: Path):
    module = tmp_path / "module.py"
    module.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wesep_py.cli import main\n"
        "def f():\n    from wesep_py.training.loop import train\n    import wesep_py.audio\n"
    )
    assert _imported_rooms(module) == {"training": 5, "audio": 6}
