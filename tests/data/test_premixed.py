"""WeSep's shards of fixed mixtures as a list of mixtures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.foreign_shards import write_tar
from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.data import read_librimix_metadata, read_mixtures
from wesep_py.data.mixture_corpus import read_mixture_corpus
from wesep_py.data.premixed import unpack_premixed


def wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def mixture(key: str, speakers: list[str], noise: float = 0.0) -> dict[str, bytes]:
    """The files of a mixture, in WeSep's order."""
    rng = np.random.default_rng(len(key))
    sources = [0.1 * rng.uniform(-1, 1, 1600) for _ in speakers]
    files = {f"{key}.spk{k}": f"{name}\n".encode() for k, name in enumerate(speakers, start=1)}
    files[f"{key}.wav"] = wav(np.sum(sources, axis=0) + noise * rng.uniform(-1, 1, 1600))
    return files | {f"{key}_spk{k}.wav": wav(source) for k, source in enumerate(sources, start=1)}


KEY = "84-121123-0000_174-50561-0000"


def test_mixtures_sources_and_speakers_are_listed(tmp_path: Path):
    files = mixture(KEY, ["84", "174"]) | mixture("noisy.1", ["x", "y", "z"], noise=0.05)
    result = unpack_premixed([write_tar(tmp_path / "a.tar", files)], tmp_path / "out")
    assert (result.num_mixtures, result.num_speakers, result.left_out) == (2, 5, ())
    mixtures = read_mixtures(tmp_path / "out/mixture_premixed.csv")
    clean, noisy = mixtures[KEY], mixtures["noisy.1"]
    assert [(s.utterance_id, s.speaker_id) for s in clean.sources] == [
        ("84-121123-0000", "84"),
        ("174-50561-0000", "174"),
    ]
    assert (noisy.sources[0].utterance_id, noisy.sources[0].speaker_id) == ("noisy.1-s1", "x")
    assert clean.rendered == {"clean": tmp_path / f"out/mix_clean/{KEY}.wav"} and clean.noise is None
    assert noisy.rendered["noisy"].read_bytes() == files["noisy.1.wav"]
    assert noisy.sources[2].path.read_bytes() == files["noisy.1_spk3.wav"]
    parts = [soundfile.read(path)[0] for path in (*(s.path for s in noisy.sources), noisy.noise.path)]
    np.testing.assert_allclose(np.sum(parts, axis=0), soundfile.read(noisy.rendered["noisy"])[0], atol=1e-6)


def test_list_and_tree_are_training_data(tmp_path: Path):
    files = mixture("m1", ["84", "174"]) | mixture("m2", ["174", "84"])
    unpack_premixed([write_tar(tmp_path / "a.tar", files)], tmp_path / "out")
    for name in ("out", "out/mixture_premixed.csv"):
        corpus = read_mixture_corpus([tmp_path / name])
        assert [[s.utterance.speaker_id for s in each.sources] for each in corpus.mixtures] == [
            ["84", "174"],
            ["174", "84"],
        ]
        assert {u.speaker_id for u in read_librimix_metadata(tmp_path / name)} == {"84", "174"}


def test_incomplete_mixtures_are_named_and_files_kept(tmp_path: Path):
    files = mixture("m1", ["a", "b"])
    more = mixture("m2", ["a", "b"])
    del more["m2_spk2.wav"]
    shard = write_tar(tmp_path / "a.tar", files | more | mixture("m3", ["a", "a"]))
    result = unpack_premixed([shard], tmp_path / "out")
    assert result.num_mixtures == 1 and len(result.left_out) == 2
    assert any("'m2': has not the same speakers as sources" in line for line in result.left_out)
    assert any("'m3': its speakers are 'a', 'a'" in line for line in result.left_out)
    with pytest.raises(OutputExistsError, match=r"mixture_premixed\.csv: exists already"):
        unpack_premixed([shard], tmp_path / "out")
    assert unpack_premixed([shard], tmp_path / "out", overwrite=True).num_mixtures == 1
    with pytest.raises(InputError, match=r"mixture 'm1' is in .* already"):
        unpack_premixed([shard, write_tar(tmp_path / "b.tar", files)], tmp_path / "both")
    with pytest.raises(InputError, match=r"holds 'a\.tar', which does not belong to unpacked mixtures"):
        unpack_premixed([shard], tmp_path)
    with pytest.raises(InputError, match="hold no mixture"):
        unpack_premixed([write_tar(tmp_path / "none.tar", {"a.txt": b""})], tmp_path / "none")
    with pytest.raises(AudioError, match="/dev/null: is not a file but a folder, a device or a pipe"):
        unpack_premixed(["/dev/null"], tmp_path / "null")
    assert not (tmp_path / "none").exists() and not (tmp_path / "null").exists()
