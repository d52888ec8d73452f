"""Registries build classes by name, also of the user's own files, unless a checkpoint names them."""

from __future__ import annotations

import pytest

from wesep_py.common.errors import ConfigError
from wesep_py.common.registry import Registry, no_plugins

shapes: Registry[object] = Registry("shape")


@shapes.register("circle")
class Circle:
    def __init__(self, radius: float = 1.0) -> None:
        self.radius = radius


def test_a_name_builds_its_class():
    assert shapes.build({"name": "circle", "radius": 2}, "model.shape").radius == 2.0


def test_an_unknown_name_lists_the_known_names():
    with pytest.raises(ConfigError, match=r"model.shape: no shape is called 'cirle'; did you mean 'circle'"):
        shapes.build({"name": "cirle"}, "model.shape")
    with pytest.raises(ConfigError, match="needs a key 'name'"):
        shapes.build({}, "model.shape")


def test_errors_name_the_key_of_an_unknown_argument():
    with pytest.raises(ConfigError, match=r"model.shape.radus: unknown key; did you mean 'radius'"):
        shapes.build({"name": "circle", "radus": 2}, "model.shape")


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="twice"):
        shapes.register("circle")(Circle)


def test_a_class_is_loaded_from_a_file(tmp_path):
    (tmp_path / "square.py").write_text("class Square:\n    def __init__(self, side: int = 1): self.side = side\n")
    assert shapes.build({"name": f"{tmp_path}/square.py:Square", "side": 3}, "shape").side == 3
    with pytest.raises(ConfigError, match="no class 'Sqare'; did you mean 'Square'"):
        shapes.build({"name": f"{tmp_path}/square.py:Sqare"}, "shape")
    with pytest.raises(ConfigError, match="cannot be imported"):
        shapes.build({"name": f"{tmp_path}/none.py:Square"}, "shape")


def test_files_of_equal_name_are_different_modules(tmp_path):
    for side in (1, 2):
        folder = tmp_path / str(side)
        folder.mkdir()
        (folder / "part.py").write_text(f"class Square:\n    side = {side}\n")
    assert [shapes.build({"name": f"{tmp_path}/{s}/part.py:Square"}, "shape").side for s in (1, 2)] == [1, 2]


def test_a_corrected_file_is_imported_again(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("class Square:\n    pass\nimport no_such_package\n")
    name = {"name": f"{path}:Square"}
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"cannot be imported .No module named 'no_such_package'"):
            shapes.build(name, "shape")
    path.write_text("class Square:\n    pass pass\n")
    with pytest.raises(ConfigError, match=r"cannot be imported .invalid syntax"):
        shapes.build(name, "shape")
    path.write_text("class Square:\n    pass\n")
    assert type(shapes.build(name, "shape")).__name__ == "Square"


@pytest.mark.parametrize("name", ["os:system", "pathlib:Path"])
def test_only_classes_of_the_kind_are_built(name: str, tmp_path):
    kind: Registry[Circle] = Registry("circle", Circle)
    with pytest.raises(ConfigError, match=r"has no class 'system'|'pathlib:Path' is no circle; derive it from Circle"):
        kind.build({"name": name, "command": f"touch {tmp_path}/run"}, "shape")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_runs_no_code_without_permission(tmp_path, monkeypatch):
    (tmp_path / "spy.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Square:\n    pass\n")
    name = {"name": f"{tmp_path}/spy.py:Square"}
    with no_plugins(), pytest.raises(ConfigError, match=r"not run unasked; if you trust it, set .* WESEP_PLUGINS=1"):
        shapes.build(name, "shape")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WESEP_PLUGINS", "1")
    with no_plugins():
        shapes.build(name, "shape")
    assert (tmp_path / "run").exists()
