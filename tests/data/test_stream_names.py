from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.data.shard_stream import expand_braces, is_stream, stream_identity, stream_shards


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tar", True), ("s3://b/{0..9}.tar", True), ("a.tar.gz", True), ("shards", False), ("a.lmdb", False)],
)
def test_what_is_a_stream(name: str, expected: bool):
    assert is_stream(name) is expected


def test_braces_keep_their_zeros_and_multiply():
    assert expand_braces("x{098..101}y{a,b}.tar") == [
        f"x{number}y{letter}.tar" for number in ("098", "099", "100", "101") for letter in "ab"
    ]
    with pytest.raises(InputError, match=r"\{3\.\.1\}.*ends before it begins"):
        expand_braces("{3..1}.tar")


def test_names_start_from_the_root_and_patterns_find_what_is_there(tmp_path: Path):
    for name in ("b.tar", "a.tar", "a.json"):
        (tmp_path / name).write_bytes(b"x" * len(name))
    both = [(tmp_path / name).as_posix() for name in ("a.tar", "b.tar")]
    assert stream_shards(["*.tar"], tmp_path) == both
    assert stream_shards(["{b,a}.tar"], tmp_path) == both[::-1]
    assert stream_shards([str(tmp_path / "?.tar")], "elsewhere") == both
    assert stream_shards(["https://host/{0..1}.tar"], tmp_path) == ["https://host/0.tar", "https://host/1.tar"]
    with pytest.raises(InputError, match=r"c\*\.tar: no file matches"):
        stream_shards(["c*.tar"], tmp_path)


def test_a_stream_is_known_by_names_and_sizes(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"123")
    before = stream_identity("*.tar", tmp_path)
    assert before == [f"{tmp_path.as_posix()}/a.tar 3"]
    (tmp_path / "a.tar").write_bytes(b"1234")
    assert stream_identity("*.tar", tmp_path) != before
