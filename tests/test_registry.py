from __future__ import annotations

import pytest

from wesep_py.errors import ConfigError
from wesep_py.registry import Registry

shapes: Registry[object] = Registry("shape")


@shapes.register("circle")
class Circle:
    def __init__(self, radius: float = 1.0) -> None:
        self.radius = radius


def test_a_name_builds_its_class():
    assert shapes.build({"name": "circle", "radius": 2}, "model.shape").radius == 2.0


def test_an_unknown_name_lists_the_names_there_are():
    with pytest.raises(ConfigError, match=r"model.shape: no shape is called 'cirle'; did you mean 'circle'"):
        shapes.build({"name": "cirle"}, "model.shape")
    with pytest.raises(ConfigError, match="needs a key 'name'"):
        shapes.build({}, "model.shape")


def test_an_unknown_argument_names_its_place():
    with pytest.raises(ConfigError, match=r"model.shape.radus: unknown key; did you mean 'radius'"):
        shapes.build({"name": "circle", "radus": 2}, "model.shape")


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="twice"):
        shapes.register("circle")(Circle)


def test_a_class_outside_the_package_is_named_by_its_file(tmp_path):
    (tmp_path / "square.py").write_text("class Square:\n    def __init__(self, side: int = 1): self.side = side\n")
    assert shapes.build({"name": f"{tmp_path}/square.py:Square", "side": 3}, "shape").side == 3
    with pytest.raises(ConfigError, match="no class 'Sqare'; did you mean 'Square'"):
        shapes.build({"name": f"{tmp_path}/square.py:Sqare"}, "shape")
    with pytest.raises(ConfigError, match="cannot be imported"):
        shapes.build({"name": f"{tmp_path}/none.py:Square"}, "shape")
