"""YAML files give plain values, or one line with file and position, whatever they hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.common.yamlfiles import dump_plain_yaml, parse_yaml, read_yaml

SETTINGS = settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
SCALARS = {
    "1": 1,
    "-0": 0,
    "1_000": 1000,
    "0123": 83,
    "0x1F": 31,
    "0b11": 3,
    "1:30": 90,
    "1.0": 1.0,
    "1e-3": 0.001,
    "-.5e1": -5.0,
    ".inf": float("inf"),
    "on": True,
    "No": False,
    "y": "y",
    "~": None,
    "2020-01-01": "2020-01-01",
    "'1'": "1",
    "!!str 1": "1",
    "!!int '3'": 3,
    "${oc.env:HOME}": "${oc.env:HOME}",
    "a b": "a b",
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_have_the_values_of_yaml_1_1(text: str):
    value = parse_yaml(f"a: {text}", "x")["a"]
    assert value == SCALARS[text] and type(value) is type(SCALARS[text])


def test_building_blocks_are_read_as_pyyaml_reads_them():
    import yaml

    for path in sorted(conf_folder().rglob("*.yaml")):
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert read_yaml(path) == {**plain} if "e-" not in path.read_text(encoding="utf-8") else True


def test_aliases_and_merge_keys_are_resolved():
    text = "a: &x {b: 1, c: [1]}\nd: {<<: *x, b: 2}\ne: {<<: [*x, {f: 3}]}\ng: *x"
    value = parse_yaml(text, "x")
    assert value["d"] == {"b": 2, "c": [1]} and value["e"] == {"b": 1, "c": [1], "f": 3} and value["g"] == value["a"]
    assert value["g"] is not value["a"]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
WRONG = {
    "deep flow": ("a: " + "[" * 20000, "nest|within each other"),
    "deep block": ("\n".join("  " * i + "a:" for i in range(100)), "within each other"),
    "bomb": (BOMB, "more than 500000"),
    "merges": (MERGES, "more than 500000"),
    "recursive": ("a: &a [*a]", "list or mapping that contains it"),
    "unknown alias": ("a: *b", "no anchor"),
    "list as key": ("? [a]\n: 1", "keys are strings"),
    "null key": ("~: 1", "keys are strings"),
    "set": ("!!set {a, b}", "!!set"),
    "binary": ("a: !!binary aGk=", "!!binary"),
    "object": ("a: !!python/object/apply:os.system [x]", "python/object"),
    "own tag": ("a: !x 1", "!x"),
    "twice": ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' appears twice"),
    "long integer": ("a: " + "9" * 5000, "integer of 5000 digits"),
    "large integer": ("a: 9223372036854775808", "an integer above"),
    "nan": ("a: .nan", "nan is not a number"),
    "wrong float": ("a: !!float x", "not a valid float"),
    "two documents": ("a: 1\n---\nb: 1", "a second document"),
    "list": ("- 1", "no mapping"),
    "number": ("3", "no mapping"),
    "text": ("lone text", "no mapping"),
    "nul": ("a: \0", "valid YAML"),
    "tab": ("\ta: 1", "valid YAML"),
    "unclosed": ("a: 'b", "valid YAML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_files_raise_one_short_line(tmp_path: Path, name: str):
    text, message = WRONG[name]
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=message) as refused:
        read_yaml(path)
    assert str(refused.value).startswith(f"{path}: ") and len(str(refused.value)) < 400 + len(str(path))
    assert "\n" not in str(refused.value) and time.perf_counter() - began < 5


def test_files_that_are_not_utf8_are_refused(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}
    (tmp_path / "a.yaml").write_bytes(b"")
    assert read_yaml(tmp_path / "a.yaml") == {}


SECRETS = ["SECRET: : x", "a: 'SECRET", "[SECRET", '"\\q SECRET"', "%SECRET", "SECRET", "- SECRET\nb", "a: *SECRET"]


@pytest.mark.parametrize("content", SECRETS)
def test_an_include_that_is_not_yaml_is_not_quoted(tmp_path: Path, content: str):
    (tmp_path / "passwd").write_text(content)
    (tmp_path / "run.yaml").write_text(f"include: {tmp_path}/passwd\n")
    with pytest.raises(ConfigError) as refused:
        load_yaml(tmp_path / "run.yaml")
    assert "passwd" in str(refused.value) and "SECRET" not in str(refused.value)


@pytest.mark.parametrize("include", ["3", "[1]", "{a: b}", "null", "[[a]]"])
def test_an_include_that_names_no_file_is_refused(tmp_path: Path, include: str):
    (tmp_path / "run.yaml").write_text(f"include: {include}\n")
    with pytest.raises(ConfigError, match=r"include: is .*; a file or a list of files is needed"):
        load_yaml(tmp_path / "run.yaml")


@pytest.mark.parametrize("override", ["a=" + "9" * 5000, "a=" + "[" * 5000, "=1", "a..b=1", "a=*x", "a=!!set {b}"])
def test_invalid_overrides_raise_one_short_line(tmp_path: Path, override: str):
    (tmp_path / "run.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="override") as refused:
        load_yaml(tmp_path / "run.yaml", [override])
    assert len(str(refused.value)) < 600


def test_a_users_file_interpolates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATA", "/data")
    (tmp_path / "run.yaml").write_text("root: ${oc.env:DATA}\ntrain: ${root}/a\n")
    assert load_yaml(tmp_path / "run.yaml", ["x[y].z=${train}"]) == {
        "root": "/data",
        "train": "/data/a",
        "x": {"y": {"z": "/data/a"}},
    }
    (tmp_path / "run.yaml").write_text("root: ${" * 2000)
    with pytest.raises(ConfigError) as refused:
        load_yaml(tmp_path / "run.yaml")
    assert len(str(refused.value)) < 500


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _printable(value: Any) -> Any:
    """Remove characters that YAML does not allow."""
    if isinstance(value, str):
        return "".join(letter for letter in value if letter.isprintable())
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


@SETTINGS
@given(value=st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_written_values_are_read_back(value: dict[str, Any]):
    value = _printable(value)
    assert parse_yaml(dump_plain_yaml(value), "x") == (value or {})


TEXT = (
    b"model: &m {backbone: {name: bsrnn, num_blocks: 3}, cues: [{name: tf_map, power: 1e-3}]}\n"
    b"other: {<<: *m, rate: 16_000, on: yes, no: 'it''s', '${a}': !!str 12}\nlist:\n- 1\n- [2.5, ~]\n"
)


@SETTINGS
@given(
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=5),
    repeated=st.integers(0, 3),
)
def test_damaged_files_give_values_or_one_line(tmp_path: Path, changes: list[tuple[int, int]], repeated: int):
    content = bytearray(TEXT)
    for place, value in changes:
        content[place % len(content)] = value
        content[place % len(content) : place % len(content)] = bytes([value]) * repeated
    (tmp_path / "a.yaml").write_bytes(content)
    for read in (read_yaml, load_yaml):
        try:
            assert isinstance(read(tmp_path / "a.yaml"), dict)
        except ConfigError as error:
            assert str(tmp_path) in str(error) and len(str(error)) < 500 and "\n" not in str(error)
