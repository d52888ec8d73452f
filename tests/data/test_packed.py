from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, PackedReader, Reader, Utterance, pack, read_speaker_folders


@pytest.fixture
def utterances(tiny_speech: Path, tmp_path: Path) -> list[Utterance]:
    """Whole recordings, a segment, one beyond full scale and one at another rate, in a lossy format."""
    loud = 1.9 * np.sin(np.arange(8000) / 7)
    soundfile.write(tmp_path / "loud.wav", loud, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "other.ogg", 0.3 * np.sin(np.arange(22050) / 9), 22050)
    whole = read_speaker_folders(tiny_speech)
    return [
        *whole,
        Utterance("cut", "anna", whole[0].path, 0.7, start_s=0.9),
        Utterance("loud", "loud", tmp_path / "loud.wav", 0.5),
        Utterance("other", "other", tmp_path / "other.ogg", 1.0),
    ]


@pytest.mark.parametrize(("sample_rate", "threads"), [(16000, 1), (8000, 3)])
def test_both_readers_give_the_same_samples(
    utterances: list[Utterance], tmp_path: Path, sample_rate: int, threads: int
):
    packed = pack(utterances, tmp_path / "pack", sample_rate, threads)
    files = FileReader(sample_rate)
    assert isinstance(packed, Reader)
    assert packed.sample_rate == sample_rate
    for utterance in utterances:
        assert packed.length(utterance) == files.length(utterance)
        np.testing.assert_array_equal(packed.read(utterance), files.read(utterance))
        np.testing.assert_array_equal(packed.read(utterance, 100, 300), files.read(utterance, 100, 300))
    assert np.abs(packed.read(utterances[-2])).max() > 1.8


def test_the_folder_holds_an_index_and_one_file_of_samples(utterances: list[Utterance], tmp_path: Path):
    packed = pack(utterances, tmp_path / "pack", 16000)
    total = sum(packed.length(utterance) for utterance in utterances)
    index = json.loads((tmp_path / "pack/index.json").read_text())
    assert sorted(p.name for p in (tmp_path / "pack").iterdir()) == ["index.json", index["samples"]]
    assert (tmp_path / "pack" / index["samples"]).stat().st_size == 2 * total


def test_packing_again_does_nothing_until_a_change(utterances: list[Utterance], tmp_path: Path):
    calls: list[tuple[int, int]] = []

    def repack(sample_rate: int = 16000, some: list[Utterance] = utterances) -> int:
        calls.clear()
        pack(some, tmp_path / "pack", sample_rate, on_progress=lambda *count: calls.append(count))
        assert len(list((tmp_path / "pack").iterdir())) == 2
        return len(calls)

    assert repack() == len(utterances)
    assert calls[-1] == (len(utterances), len(utterances))
    assert repack() == 0
    assert repack(8000) == len(utterances)
    assert repack(some=utterances[:3]) == 3
    changed = utterances[-2].path
    assert repack() == len(utterances)
    soundfile.write(changed, 0.1 * np.ones(8000), 16000, subtype="FLOAT")
    os.utime(changed, ns=(1, 1))
    assert repack() == len(utterances)
    assert np.abs(PackedReader(tmp_path / "pack").read(utterances[-2])).max() == pytest.approx(0.1, rel=1e-4)


def test_a_pack_with_cut_samples_is_made_anew(utterances: list[Utterance], tmp_path: Path):
    pack(utterances, tmp_path / "pack", 16000)
    (samples,) = (tmp_path / "pack").glob("samples-*")
    samples.write_bytes(samples.read_bytes()[:-100])
    with pytest.raises(InputError, match="holds no packed corpus"):
        PackedReader(tmp_path / "pack")
    packed = pack(utterances, tmp_path / "pack", 16000)
    np.testing.assert_array_equal(packed.read(utterances[-1]), FileReader(16000).read(utterances[-1]))


def test_unreadable_recordings_are_left_out_logged_and_counted(
    utterances: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "bad.wav").write_text("no audio")
    bad = Utterance("bad", "bad", tmp_path / "bad.wav", 1.0)
    gone = Utterance("gone", "gone", tmp_path / "gone.wav", 1.0)
    calls: list[tuple[int, int]] = []
    corpus = [bad, *utterances, gone]
    packed = pack(corpus, tmp_path / "pack", 16000, on_progress=lambda *count: calls.append(count))
    assert calls[-1] == (len(corpus), len(corpus))
    assert f"left out of {tmp_path / 'pack'} (1 so far): {tmp_path / 'bad.wav'}: is not audio" in caplog.text
    assert f"(2 so far): {tmp_path / 'gone.wav'}: no such file" in caplog.text
    index = json.loads((tmp_path / "pack/index.json").read_text())
    assert list(index["left_out"]) == ["bad", "gone"]
    np.testing.assert_array_equal(packed.read(utterances[0]), FileReader(16000).read(utterances[0]))
    for reader in (packed, PackedReader(tmp_path / "pack")):
        with pytest.raises(AudioError, match=r"bad\.wav: is not audio"):
            reader.length(bad)
        with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
            reader.read(gone)
    caplog.clear()
    pack(corpus, tmp_path / "pack", 16000)
    assert f"2 of {len(corpus)} recordings could not be read and are not in it; the first: " in caplog.text
    assert len(caplog.records) == 1
    soundfile.write(gone.path, np.full(16000, 0.25), 16000)
    caplog.clear()
    assert pack(corpus, tmp_path / "pack", 16000).length(gone) == 16000
    assert "(1 so far)" in caplog.text and "(2 so far)" not in caplog.text


def test_the_former_pack_is_kept_if_nothing_can_be_read(utterances: list[Utterance], tmp_path: Path):
    pack(utterances[:2], tmp_path / "pack", 16000)
    gone = [Utterance(f"gone{n}", "gone", tmp_path / f"gone{n}.wav", 1.0) for n in range(2)]
    with pytest.raises(
        AudioError, match=r"pack: none of 2 recordings can be read; the last: .*gone1\.wav: no such file"
    ):
        pack(gone, tmp_path / "pack", 16000)
    assert PackedReader(tmp_path / "pack").length(utterances[1]) > 0
    assert len(list((tmp_path / "pack").iterdir())) == 2


def test_another_packed_corpus_is_replaced_with_a_warning(
    utterances: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    pack(utterances, tmp_path / "pack", 16000)
    pack(utterances, tmp_path / "pack", 16000)
    assert not caplog.records
    pack(utterances, tmp_path / "pack", 8000)
    (message,) = caplog.messages
    assert (
        message == f"{tmp_path / 'pack'}: holds another corpus, or files have changed; it is packed again and replaced"
    )


def test_a_folder_with_other_files_is_refused(utterances: list[Utterance], tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which does not belong to a packed corpus"):
        pack(utterances, tmp_path / "mine", 16000)
    with pytest.raises(InputError, match="does not exist; create it first"):
        pack(utterances, tmp_path / "no/where", 16000)
    with pytest.raises(InputError, match="is a file"):
        pack(utterances, tmp_path / "loud.wav", 16000)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_utterances_that_were_not_packed_are_errors(utterances: list[Utterance], tmp_path: Path):
    packed = pack(utterances[:1], tmp_path / "pack", 16000)
    with pytest.raises(InputError, match="'other' was not packed"):
        packed.read(utterances[-1])
    with pytest.raises(InputError, match="it has "):
        packed.read(utterances[0], 0, 10**9)
    with pytest.raises(InputError, match="no utterance to pack"):
        pack([], tmp_path / "pack", 16000)
    with pytest.raises(InputError, match="must be unique"):
        pack(
            [utterances[0], Utterance(utterances[0].utterance_id, "x", utterances[1].path, 1.0)], tmp_path / "p", 16000
        )


def test_a_reader_works_in_another_process(utterances: list[Utterance], tmp_path: Path):
    packed = pack(utterances, tmp_path / "pack", 16000)
    expected = packed.read(utterances[0])
    assert len(pickle.dumps(packed)) < 5000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(packed.read, utterances[0]).result(), expected)


@pytest.mark.parametrize("name", ["index.json", "samples-mine.int16"])
def test_files_of_other_programs_are_not_replaced(utterances: list[Utterance], tmp_path: Path, name: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match="name an empty folder"):
        pack(utterances, tmp_path / "mine", 16000)
    assert (tmp_path / "mine" / name).read_text() == '{"mine": 1}'


def test_an_index_that_names_another_file_is_ignored(utterances: list[Utterance], tmp_path: Path):
    pack(utterances[:2], tmp_path / "pack", 16000)
    (tmp_path / "thesis").write_bytes(b"years")
    index = json.loads((tmp_path / "pack/index.json").read_text())
    index |= {"samples": "../thesis", "num_samples": 2.5, "fingerprint": "of another"}
    (tmp_path / "pack/index.json").write_text(json.dumps(index))
    pack(utterances[:2], tmp_path / "pack", 16000)
    assert (tmp_path / "thesis").read_bytes() == b"years"
