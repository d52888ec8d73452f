"""Precomputed embeddings: folders of .npy, Kaldi's vectors in binary and text, and means over utterances."""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.data import Utterance
from wesep_py.data.embedding_files import Embeddings
from wesep_py.data.mixture_lists import MixtureSource
from wesep_py.data.trials import Trial
from wesep_py.network.cues.fusion import mean_embedding


def _utterance(name: str, speaker: str) -> Utterance:
    return Utterance(name, speaker, Path(f"{name}.wav"), 2.0)


def _kaldi(vectors: dict[str, np.ndarray], ark: Path) -> dict[str, int]:
    """Write a binary archive as Kaldi's `copy-vector` does, and return the byte of each vector."""
    places = {}
    with ark.open("wb") as file:
        for name, vector in vectors.items():
            file.write(f"{name} ".encode())
            places[name] = file.tell()
            token = b"FV " if vector.dtype == np.float32 else b"DV "
            file.write(b"\0B" + token + b"\4" + struct.pack("<i", vector.size) + vector.tobytes())
    return places


VECTORS = {"a-1": np.array([3.0, 4.0], np.float32), "a-2": np.array([0.0, 2.0]), "b": np.array([-1.0, 0.5], np.float32)}


def test_a_folder_of_npy(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "a-1.npy", VECTORS["a-1"])
    np.save(tmp_path / "b.npy", VECTORS["b"])
    embeddings = Embeddings(tmp_path)
    assert "a-1" in embeddings and "a/a-1" in embeddings and "c" not in embeddings
    assert embeddings.read("a-1").tolist() == [3.0, 4.0] and embeddings.read("a-1").dtype == np.float32


def test_kaldi_scp_and_ark(tmp_path: Path) -> None:
    places = _kaldi(VECTORS, tmp_path / "xvector.1.ark")
    scp = tmp_path / "xvector.scp"
    scp.write_text("".join(f"{name} xvector.1.ark:{place}\n" for name, place in places.items()))
    for embeddings in (Embeddings(scp), Embeddings(tmp_path / "xvector.1.ark")):
        assert len(embeddings) == 3
        for name, vector in VECTORS.items():
            np.testing.assert_allclose(embeddings.read(name), vector)


def test_kaldi_text(tmp_path: Path) -> None:
    ark = tmp_path / "xvector.ark"
    ark.write_text("a-1  [ 3 4 ]\na-2  [ 0 2.0 ]\n")
    embeddings = Embeddings(ark)
    assert embeddings.read("a-1").tolist() == [3.0, 4.0] and embeddings.read("a-2").tolist() == [0.0, 2.0]


def test_an_embedding_is_mean_direction_times_mean_length(tmp_path: Path) -> None:
    _kaldi(VECTORS, tmp_path / "x.ark")
    embeddings = Embeddings(tmp_path / "x.ark")
    both = embeddings.of([_utterance("a-1", "a"), _utterance("a-2", "a")])
    mean = (np.array([0.6, 0.8]) + np.array([0.0, 1.0])) / 2
    np.testing.assert_allclose(both, mean * (5.0 + 2.0) / 2, rtol=1e-6)
    combined = mean_embedding([torch.from_numpy(np.float32(VECTORS[name]))[None] for name in ("a-1", "a-2")])
    np.testing.assert_allclose(both, combined[0], rtol=1e-6)
    by_speaker = embeddings.of([_utterance("b-7", "b"), _utterance("b-9", "b")])
    np.testing.assert_array_equal(by_speaker, VECTORS["b"])


def _trial(enrollment: str, speaker: str | None = None) -> Trial:
    sources = () if speaker is None else (MixtureSource("x-1", Path("x-1.wav"), speaker_id=speaker),)
    return Trial("mix", sources, None, 0 if sources else None, "x-1", Path(enrollment))


def test_a_trial_is_looked_up_by_the_end_of_its_enrollment_path(tmp_path: Path) -> None:
    names = ["s1/mix", "s2/mix", "mix2-s1", "alice", "1.5-x"]
    for number, name in enumerate(names, start=1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.full(2, number))
    embeddings = Embeddings(tmp_path)
    expected = {"data/s1/mix.wav": 1, "/data/s2/mix.flac": 2, "s1/mix2.wav": 3, "a/b/1.5-x.wav": 5, "alice.opus": 4}
    for path, number in expected.items():
        assert embeddings.of_trial(_trial(path)).tolist() == [number, number]
    assert embeddings.of_trial(_trial("s3/mix.wav", "alice")).tolist() == [4, 4]
    assert "mix" not in embeddings  # of which of the two it would be, the name does not say
    with pytest.raises(InputError, match=r"has no embedding of s3/mix\.wav; it would be called 'mix'"):
        embeddings.of_trial(_trial("s3/mix.wav", "bob"))


def test_a_corpus_is_covered_by_utterances_or_speakers(tmp_path: Path) -> None:
    _kaldi(VECTORS, tmp_path / "x.ark")
    embeddings = Embeddings(tmp_path / "x.ark", dim=2)
    embeddings.require([_utterance("a-1", "a"), _utterance("b-7", "b")])
    with pytest.raises(InputError, match="no embedding of 2 of 3 utterances, such as 'a-3', nor of its speaker 'a'"):
        embeddings.require([_utterance("a-1", "a"), _utterance("a-3", "a"), _utterance("c-1", "c")])
    with pytest.raises(InputError, match="'a-1' has 2 numbers; the model takes 3"):
        Embeddings(tmp_path / "x.ark", dim=3).read("a-1")


def test_errors_name_the_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no embedding"):
        Embeddings(tmp_path)
    with pytest.raises(InputError, match=r"none\.scp"):
        Embeddings(tmp_path / "none.scp")
    (tmp_path / "bad.scp").write_text("a-1 somewhere\n")
    with pytest.raises(InputError, match=r"bad\.scp:1: 'somewhere' is not a position in an archive"):
        Embeddings(tmp_path / "bad.scp")
    (tmp_path / "gone.scp").write_text("a-1 gone.ark:5\n")
    with pytest.raises(InputError, match=r"gone\.ark: cannot be read"):
        Embeddings(tmp_path / "gone.scp").read("a-1")
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    np.save(tmp_path / "zero.npy", np.zeros(2))
    np.save(tmp_path / "nan.npy", np.array([np.nan, 1.0]))
    (tmp_path / "text.npy").write_text("hello")
    embeddings = Embeddings(tmp_path)
    with pytest.raises(InputError, match=r"'a' has shape \[2, 2\]"):
        embeddings.read("a")
    with pytest.raises(InputError, match=r"'nan' has shape \[2\]; finite"):
        embeddings.read("nan")
    with pytest.raises(InputError, match=r"text\.npy: is not an array of numbers"):
        embeddings.read("text")
    with pytest.raises(InputError, match="has no embedding 'c'"):
        embeddings.of([_utterance("c-1", "c")])
    with pytest.raises(InputError, match="'zero' is zero"):
        embeddings.of([_utterance("zero-1", "zero")])
    with pytest.raises(InputError, match="of no utterance"):
        embeddings.of([])


def test_errors_name_damaged_archives(tmp_path: Path) -> None:
    _kaldi(VECTORS, tmp_path / "x.ark")
    whole = (tmp_path / "x.ark").read_bytes()
    (tmp_path / "cut.ark").write_bytes(whole[:-3])
    with pytest.raises(InputError, match=r"cut\.ark: is cut short"):
        Embeddings(tmp_path / "cut.ark")
    (tmp_path / "matrix.ark").write_bytes(whole.replace(b"FV ", b"FM "))
    with pytest.raises(InputError, match="give vectors, not matrices"):
        Embeddings(tmp_path / "matrix.ark")
    np.save(tmp_path / "a-1.npy", np.ones(2))
    np.save(tmp_path / "a-2.npy", np.ones(3))
    with pytest.raises(InputError, match="differ in size"):
        Embeddings(tmp_path).of([_utterance("a-1", "a"), _utterance("a-2", "a")])


def test_hidden_files_are_skipped_and_both_spellings_match(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    (tmp_path / ".hidden").mkdir()
    for name in ("._a", ".hidden/b"):
        (tmp_path / f"{name}.npy").write_bytes(b"of another system")
    np.save(tmp_path / f"{names[1]}.npy", np.ones(2))
    embeddings = Embeddings(tmp_path)
    assert len(embeddings) == 1 and all(name in embeddings and embeddings.read(name).size == 2 for name in names)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16,
        b"PK\x03\x04",
        b"\x93NUMPY\x09\x00" + bytes(100),
        bytes(80),
    ],
)
def test_errors_name_a_damaged_npy(tmp_path: Path, content: bytes):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: .*save it with numpy\.save"):
        Embeddings(tmp_path).read("a")


@pytest.mark.parametrize(
    "array", [np.array(["1.0"]), np.array([1j]), np.zeros(2_000_000, np.float32), np.array([True])]
)
def test_errors_name_an_array_that_is_no_vector(tmp_path: Path, array: np.ndarray):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"a\.npy: is not a vector of numbers"):
        Embeddings(tmp_path).read("a")


@pytest.mark.parametrize("offset", ["²", "9" * 30, "-1", ""])
def test_errors_name_an_offset_that_is_no_number(tmp_path: Path, offset: str):
    (tmp_path / "x.scp").write_text(f"a x.ark:{offset}\n")
    with pytest.raises(InputError, match=r"x\.scp:1: .* is not a position in an archive"):
        Embeddings(tmp_path / "x.scp")


def test_a_file_that_is_no_archive_is_refused_at_once(tmp_path: Path):
    (tmp_path / "x.ark").write_bytes(b"x" * 1_000_000)
    with pytest.raises(InputError, match=r"x\.ark: holds no name of a vector at byte 0"):
        Embeddings(tmp_path / "x.ark")


def test_names_of_recordings_are_names_of_sources(tmp_path: Path) -> None:
    """WeSep's `embed.scp` names vectors `s1/MIX.wav`; a list of mixtures has the utterance `MIX-s1`."""
    folder = tmp_path / "recipe/data/clean/dev"
    folder.mkdir(parents=True)
    places = _kaldi({"s1/a-1_b-1.wav": VECTORS["a-1"], "s2/a-1_b-1.wav": VECTORS["a-2"]}, folder / "embed.ark")
    (folder / "embed.scp").write_text("".join(f"{n} data/clean/dev/embed.ark:{p}\n" for n, p in places.items()))
    embeddings = Embeddings(folder / "embed.scp")
    assert len(embeddings) == 2
    np.testing.assert_allclose(embeddings.of([_utterance("a-1_b-1-s2", "b")]), VECTORS["a-2"])
    np.testing.assert_allclose(embeddings.read("s1/a-1_b-1"), VECTORS["a-1"])
