"""Targets of `wesep extract` and `wesep enroll`: names, enrollment files, voice prints to select a voice by."""

from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.cli.targets import parse_targets
from wesep_py.common.errors import AudioError, InputError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Empty files by name; `parse_targets` does not open them."""
    for name in ("a.wav", "b.wav", "x/1.wav", "x/2.flac", "alice.voice", "k=v.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_files_without_a_name_belong_to_one_target(files: Path):
    (target,) = parse_targets([f"{files}/a.wav", f"{files}/b.wav", f"{files}/x"])
    assert (target.name, target.named) == ("a", False)
    assert [file.name for file in target.files] == ["a.wav", "b.wav", "1.wav", "2.flac"]


def test_each_name_is_a_target_and_may_be_repeated(files: Path):
    alice, bob = parse_targets([f"alice={files}/a.wav", f"bob={files}/b.wav", f"alice={files}/x"])
    assert (alice.name, bob.name, alice.named) == ("alice", "bob", True)
    assert [len(alice.files), len(bob.files)] == [3, 1]


def test_a_path_may_contain_an_equals_sign(files: Path):
    (target,) = parse_targets([f"{files}/k=v.wav"])
    assert target.files == [files / "k=v.wav"] and not target.named


@pytest.mark.parametrize(
    ("enrollments", "error", "message"),
    [
        ([], InputError, "no enrollment"),
        (["{}/a.wav", "bob={}/b.wav"], InputError, "give every file a NAME=, or none"),
        (["bob={}/b.wav", "{}/a.wav"], InputError, "give every file a NAME=, or none"),
        (["{}/missing.wav"], AudioError, "missing.wav: no such file"),
        (["={}/a.wav"], InputError, "NAME=FILE is needed"),
        (["../bob={}/a.wav"], InputError, "NAME without a slash"),
        (["b" * 300 + "={}/a.wav"], InputError, "at most 100 bytes"),
        (["{}/alice.voice", "{}/a.wav"], InputError, "cannot be joined with other files"),
    ],
)
def test_wrong_enrollments_are_refused(files: Path, enrollments, error, message):
    with pytest.raises(error, match=message):
        parse_targets([text.format(files) for text in enrollments])


@pytest.mark.parametrize(
    ("enrollments", "prints", "message"),
    [
        (["{}/a.wav"], ["bob={}/p.voice"], "give it without a name"),
        (["bob={}/a.wav"], ["{}/p.voice"], "give it with a name of --enroll: bob="),
        (["bob={}/a.wav"], ["eve={}/p.voice"], "give it with a name of --enroll: bob="),
        (["{}/p.voice"], ["{}/p.voice"], "is one voice; the option is for recordings"),
        (["{}/a.wav"], ["{}/a.wav"], "a voice print .* is needed"),
        (["{}/a.wav"], ["{}/p.voice", "{}/p.voice"], "was given already"),
    ],
)
def test_wrong_prints_of_enroll_like_are_refused(tmp_path: Path, enrollments, prints, message):
    for name in ("a.wav", "p.voice"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        parse_targets([text.format(tmp_path) for text in enrollments], [text.format(tmp_path) for text in prints])


def test_each_target_may_have_its_own_print(tmp_path: Path):
    for name in ("a.wav", "b.wav", "p.voice"):
        (tmp_path / name).touch()
    enrollments = [f"alice={tmp_path}/a.wav", f"bob={tmp_path}/b.wav"]
    alice, bob = parse_targets(enrollments, [f"bob={tmp_path}/p.voice"])
    assert alice.like is None and bob.like == tmp_path / "p.voice"
