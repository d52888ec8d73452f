"""Finding the files of a list: other Unicode spellings, and data sets that have moved."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.data.manifest import FileLocator, is_file

NFC, NFD = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("speech/anna/1.wav", "speech/bert/1.wav", "2.wav", f"speech/{NFC}/{NFD}.wav"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "root"


@pytest.mark.parametrize(
    "written",
    [
        "speech/anna/1.wav",
        "/data/old/speech/anna/1.wav",
        "/anna/../speech/anna/1.wav",
        "C:\\corpora\\speech\\anna\\1.wav",
        "D:/speech/anna/1.wav",
        "speech\\anna\\1.wav",
        "\\\\server\\share\\speech\\anna\\1.wav",
    ],
)
def test_the_longest_existing_end_of_a_path_is_used(root: Path, written: str):
    assert FileLocator(root, "list.csv").find(written) == root / "speech/anna/1.wav"


def test_an_existing_file_is_never_replaced_by_another(root: Path, tmp_path: Path):
    other = tmp_path / "speech/anna/1.wav"
    other.parent.mkdir(parents=True)
    other.touch()
    assert FileLocator(root, "list.csv").find(str(other)) == other
    assert FileLocator(root, "list.csv").find("anna/1.wav") == root / "anna/1.wav"  # relative ones are what they say
    assert FileLocator(root, "list.csv", search_moved=False).find("/old/2.wav") == Path("/old/2.wav")
    assert FileLocator(root, "list.csv", search_moved=False).find("speech\\anna\\1.wav") == root / "speech/anna/1.wav"


@pytest.mark.parametrize("folder", [NFC, NFD])
@pytest.mark.parametrize("name", [NFC, NFD])
@pytest.mark.parametrize("before", ["speech", "/old/speech"])
def test_both_spellings_are_found(root: Path, folder: str, name: str, before: str):
    assert FileLocator(root, "list.csv").find(f"{before}/{folder}/{name}.wav") == root / f"speech/{NFC}/{NFD}.wav"
    absolute = f"{root}/speech/{folder}/{name}.wav"
    assert FileLocator("/elsewhere", "list.csv").find(absolute) == root / f"speech/{NFC}/{NFD}.wav"


def test_moves_are_logged_once_and_two_files_never_become_one(root: Path, caplog: pytest.LogCaptureFixture):
    places = FileLocator(root, "list.csv")
    with caplog.at_level(logging.WARNING):
        for name in ("anna", "bert", "anna"):
            places.find(f"/old/speech/{name}/1.wav")
    (message,) = caplog.messages
    assert message.startswith(f"list.csv: /old/speech/anna/1.wav does not exist; {root}")
    places.find("/old/anna/2.wav")
    with pytest.raises(InputError, match=r"list\.csv: old/anna/2\.wav and old/bert/2\.wav would both be .*--root"):
        places.find("/old/bert/2.wav")


@pytest.mark.parametrize("name", ["a" * 300, "nu\0l.wav", "/" + "é" * 200, "C:\\" + "é" * 300])
def test_impossible_file_names_are_not_found(root: Path, name: str):
    assert not is_file(FileLocator(root, "list.csv").find(name))
