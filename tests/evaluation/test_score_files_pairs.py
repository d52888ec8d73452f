from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.evaluation.score_files import find_pairs, unmatched_estimates


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_files_of_one_name_belong_together(tmp_path):
    reference = touch(tmp_path / "ref", "a.wav", "sub/b.flac", "c.wav", "notes.txt")
    estimate = touch(tmp_path / "est", "a.flac", "sub/b.wav", "d.wav")
    first, second = touch(tmp_path / "i1", "a.wav", "sub/b.wav"), touch(tmp_path / "i2", "a.wav")
    mixture = touch(tmp_path / "mix", "a.wav")
    enrollment = touch(tmp_path / "enr", "sub/b.opus")
    a, c, b = find_pairs(reference, estimate, mixture, [first, second], enrollment)
    assert (a.name, a.estimate, a.mixture) == ("a", estimate / "a.flac", mixture / "a.wav")
    assert a.interferers == (first / "a.wav", second / "a.wav")
    assert b.name == "sub/b" and b.interferers == (first / "sub/b.wav",)
    assert b.mixture is None and b.enrollment == enrollment / "sub/b.opus"
    assert c.estimate is None
    assert unmatched_estimates([a, b, c], estimate) == ["d"]
    assert find_pairs(reference, estimate)[0].interferers is None


def test_a_tree_of_three_speakers(tmp_path):
    names = [f"{folder}/x-1_y-2_z-3.wav" for folder in ("s1", "s2", "s3", "mix_clean", "mix_both")]
    tree = touch(tmp_path / "tree", *names, "s1/x-4_y-5.wav", "s2/x-4_y-5.wav")
    estimate = touch(tmp_path / "est", "s1/x-1_y-2_z-3.wav", "s3/x-1_y-2_z-3.flac", "s2/x-4_y-5.wav")
    pairs = find_pairs(tree, estimate, condition="noisy")
    assert [(pair.name, pair.target) for pair in pairs] == [
        ("x-1_y-2_z-3", "x-1"), ("x-1_y-2_z-3", "y-2"), ("x-1_y-2_z-3", "z-3"), ("x-4_y-5", "x-4"), ("x-4_y-5", "y-5"),
    ]  # fmt: skip
    assert pairs[2].estimate == estimate / "s3/x-1_y-2_z-3.flac"
    assert pairs[2].interferers == (tree / "s1/x-1_y-2_z-3.wav", tree / "s2/x-1_y-2_z-3.wav")
    assert pairs[2].mixture == tree / "mix_both/x-1_y-2_z-3.wav"
    assert pairs[1].estimate is None
    assert pairs[3].interferers == (tree / "s2/x-4_y-5.wav",)
    assert pairs[3].mixture is None


def test_names_that_do_not_split_are_told_apart_by_their_source(tmp_path):
    tree = touch(tmp_path / "tree", "s1/0001.wav", "s2/0001.wav")
    estimate = touch(tmp_path / "est", "s1/0001.wav")
    assert [pair.target for pair in find_pairs(tree, estimate)] == ["s1", "s2"]


def test_what_cannot_be_matched_is_refused(tmp_path):
    reference, estimate = touch(tmp_path / "ref", "a.wav"), touch(tmp_path / "est", "b.wav")
    with pytest.raises(InputError, match=r"no file has the name of a reference; a\.\* is expected"):
        find_pairs(reference, estimate)
    with pytest.raises(InputError, match="nowhere: is not a folder"):
        find_pairs(reference, tmp_path / "nowhere")
    touch(tmp_path / "est", "b.flac")
    with pytest.raises(InputError, match=r"has the name of b\.flac"):
        find_pairs(touch(tmp_path / "est2", "b.wav"), estimate)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no audio"):
        find_pairs(tmp_path / "empty", reference)
    tree = touch(tmp_path / "tree", "s1/a.wav", "s2/a.wav")
    with pytest.raises(InputError, match="has its own interferers"):
        find_pairs(tree, reference, interferers=[reference])


def test_hidden_files_are_skipped_and_unicode_forms_match(tmp_path):
    names = [unicodedata.normalize(form, "Zoë.wav") for form in ("NFC", "NFD")]
    reference = touch(tmp_path / "ref", names[0], "._a.wav", ".hidden/b.wav", ".DS_Store")
    estimate = touch(tmp_path / "est", names[1], "._a.wav")
    (pair,) = find_pairs(reference, estimate)
    assert pair.estimate is not None and unmatched_estimates([pair], estimate) == []


def test_names_that_are_no_utf8_can_be_written(tmp_path):
    for folder in ("ref", "est"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / os.fsdecode(b"caf\xe9.wav")).touch()
    (pair,) = find_pairs(tmp_path / "ref", tmp_path / "est")
    assert pair.name.encode() == rb"caf\udce9" and pair.estimate.is_file()
