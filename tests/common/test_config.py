"""Configurations are read, merged and checked against the signatures of what they build."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from wesep_py.common.config import conf_folder, construct, dump_yaml, load_yaml, to_plain
from wesep_py.common.errors import ConfigError


@dataclass
class Inner:
    size: int = 3
    name: str | None = None


@dataclass
class Outer:
    rate: float
    kind: Literal["a", "b"] = "a"
    span: tuple[float, float] = (0.0, 1.0)
    points: Literal["all"] | list[int] = "all"
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate: is {self.rate}; above 0 is needed")


def test_values_are_converted_to_the_annotated_types():
    outer = construct(Outer, {"rate": 1, "span": [2, 3], "points": [1, 2], "inner": {"name": "x"}})
    assert outer == Outer(1.0, "a", (2.0, 3.0), [1, 2], Inner(3, "x"))
    assert isinstance(outer.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 1, "kidn": "a"}, "kidn: unknown key; did you mean 'kind'?"),
        ({"rate": 1, "inner": {"sise": 1}}, "inner.sise: unknown key; did you mean 'size'?"),
        ({"rate": "fast"}, "rate: is 'fast'; a number is needed"),
        ({"rate": float("nan")}, "rate: is not a number"),
        ({"rate": 1, "inner": {"size": True}}, "inner.size: is True; a whole number is needed"),
        ({"rate": 1, "inner": {"size": 1.5}}, "inner.size: is 1.5; a whole number is needed"),
        ({"rate": 1, "inner": 4}, "inner: is 4; a mapping"),
        ({"rate": 1, "kind": "c"}, "kind: is 'c'"),
        ({"rate": 1, "span": [1]}, "span: has 1 values; 2 are needed"),
        ({"rate": 1, "points": "some"}, "points: is 'some'"),
        ({"rate": -1}, "rate: is -1.0; above 0 is needed"),
        ({}, "rate: is required but missing"),
    ],
)
def test_errors_name_the_key_and_the_allowed_values(values, message):
    with pytest.raises(ConfigError) as caught:
        construct(Outer, values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_nested_mapping_can_include_files(tmp_path):
    (tmp_path / "block.yaml").write_text("speaker: {network: {name: a, size: 1}}\n")
    (tmp_path / "run.yaml").write_text(
        "optim:\n  lr: ???\nmodel: {include: block.yaml, speaker: {network: {size: 2}}, rate: '${optim.lr}'}\n"
    )
    network = {"name": "a", "size": 2}
    expected = {"optim": {"lr": 3}, "model": {"speaker": {"network": network}, "rate": 3}}
    assert load_yaml(tmp_path / "run.yaml", ["optim.lr=3"]) == expected
    (tmp_path / "block.yaml").write_text("deeper: {include: run.yaml}\n")
    with pytest.raises(ConfigError, match="includes itself"):
        load_yaml(tmp_path / "run.yaml")


def test_a_list_replaces_a_mapping_and_the_reverse(tmp_path):
    (tmp_path / "base.yaml").write_text("loss: {name: aam, margin: 0.2}\ncues: [a, b]\nroot: data\n")
    (tmp_path / "run.yaml").write_text("include: base.yaml\nloss: [{name: softmax}]\ncues: {a: 1}\nroot: ???\n")
    run = load_yaml(tmp_path / "run.yaml")
    assert run["loss"] == [{"name": "softmax"}] and run["cues"] == {"a": 1} and run["root"] == "data"
    assert load_yaml(tmp_path / "base.yaml", ["loss=[{name: am}]", "cues=null"])["loss"] == [{"name": "am"}]


def test_files_override_includes_and_overrides_the_files(tmp_path):
    (tmp_path / "base.yaml").write_text("optim: {lr: 1.0, name: adam}\nseed: 1\n")
    (tmp_path / "run.yaml").write_text("include: base.yaml\noptim: {lr: 0.5}\n")
    assert load_yaml(tmp_path / "run.yaml") == {"optim": {"lr": 0.5, "name": "adam"}, "seed": 1}
    assert load_yaml(tmp_path / "run.yaml", ["optim.lr=1e-3"])["optim"]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1", "holds no mapping"),
        ("include: nowhere.yaml", "include 'nowhere.yaml' was not found"),
        ("include: run.yaml", "includes itself"),
        ("a: ${b}", "run.yaml"),
    ],
)
def test_an_invalid_file_is_an_error_of_one_line(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(tmp_path / "run.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_malformed_overrides_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "run.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="give it as key=value"):
        load_yaml(tmp_path / "run.yaml", ["a"])


@pytest.mark.parametrize("value", ["[shards/{000000..000009}.tar]", "{x", "b: c: d"])
def test_an_override_that_is_not_yaml_asks_for_quotes(tmp_path, value):
    (tmp_path / "run.yaml").write_text("data: {train: []}")
    with pytest.raises(ConfigError) as caught:
        load_yaml(tmp_path / "run.yaml", ["a=1", f"data.train={value}"])
    assert str(caught.value).startswith(f"override 'data.train={value}': its value is not valid YAML (")
    assert str(caught.value).endswith(
        """put quotes around a name that holds { or [, as in 'data.train=["a/{0..9}.tar"]'"""
    )
    assert "\n" not in str(caught.value)


def test_an_override_with_a_quoted_pattern_is_a_list(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {train: []}")
    read = load_yaml(tmp_path / "run.yaml", ['data.train=["shards/{000000..000009}.tar", other.jsonl]'])
    assert read == {"data": {"train": ["shards/{000000..000009}.tar", "other.jsonl"]}}


def test_dumped_values_are_read_back(tmp_path):
    plain = to_plain(Outer(2.0))
    (tmp_path / "run.yaml").write_text(dump_yaml(plain))
    assert load_yaml(tmp_path / "run.yaml") == plain


def test_the_folder_of_building_blocks_exists():
    assert conf_folder().is_dir()
