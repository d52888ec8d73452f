from __future__ import annotations

import json
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.evaluation.results import AudioSaver, Journal, TrialRecord, audio_folder, check_output

PROTOCOL = {"condition": "clean", "date": "today", "command": "a"}


def record(number: int, **more) -> TrialRecord:
    return TrialRecord(f"mix{number}", "u", "e.wav", values={"si_sdri": float(number)}, number=number, **more)


def test_lines_are_on_disk_at_once_and_in_order_at_the_end(tmp_path):
    journal = Journal(tmp_path / "out", PROTOCOL)
    path = tmp_path / "out" / "per_trial.jsonl"
    for count, number in enumerate((2, 0, 1), start=1):
        journal.append(record(number))
        assert len(path.read_text().splitlines()) == count
    journal.finish([record(number) for number in range(3)], {"counts": {"trials": 3}})
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert not (tmp_path / "out" / "run.json").exists()
    with pytest.raises(OutputExistsError):
        Journal(tmp_path / "out", PROTOCOL)


def test_it_resumes_with_another_date_and_command_only(tmp_path):
    journal = Journal(tmp_path / "out", PROTOCOL)
    journal.append(record(0))
    journal.append(record(1, outcome="failed", error="no memory"))
    journal.close()
    again = Journal(tmp_path / "out", {**PROTOCOL, "date": "tomorrow", "command": "b"})
    assert again.done == {0: record(0)}
    again.close()
    with pytest.raises(InputError, match="differs in condition, device; repeat"):
        Journal(tmp_path / "out", {"condition": "noisy", "device": "cpu"})


def test_damaged_lines_of_the_journal_are_skipped(tmp_path):
    Journal(tmp_path / "out", PROTOCOL).close()
    good = json.dumps(record(3).to_dict())
    (tmp_path / "out" / "per_trial.jsonl").write_bytes(good.encode() + b'\n{"mixture_id": 1}\n\xff\xfe\n{"mixtu')
    journal = Journal(tmp_path / "out", PROTOCOL)
    assert list(journal.done) == [3]
    journal.append(record(4))
    journal.close()
    lines = (tmp_path / "out" / "per_trial.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [3, 4]


def test_overwriting_removes_results_and_leaves_other_files(tmp_path):
    journal = Journal(tmp_path / "out", PROTOCOL)
    journal.finish([record(0)], {})
    (tmp_path / "out" / "audio").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    Journal(tmp_path / "out", PROTOCOL, overwrite=True).close()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "run.json", "per_trial.jsonl", "notes.txt"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WesepError, match="file/out: cannot be written"):
        Journal(tmp_path / "file" / "out", PROTOCOL)


def test_the_extremes_of_an_interrupted_run_are_known(tmp_path):
    done = [record(number) for number in (5, 1, 9)]
    for one in done:
        (tmp_path / audio_folder(one)).mkdir()
    keeper = AudioSaver(tmp_path, 0, 1, done)
    assert {path.name[:4] for path in tmp_path.iterdir()} == {"0001", "0009"}
    assert not keeper._insert(record(6))
    assert keeper._insert(record(0))
    assert {path.name[:4] for path in tmp_path.iterdir()} == {"0009"}


def test_overwriting_removes_saved_audio_only(tmp_path):
    audio = tmp_path / "out" / "audio"
    (audio / audio_folder(record(0))).mkdir(parents=True)
    (audio / audio_folder(record(0)) / "mixture.wav").write_bytes(b"saved")
    (audio / audio_folder(record(0)) / ".mixture.ab_12345.wav").write_bytes(b"left by a kill")
    (audio / "alice.wav").write_bytes(b"mine")
    for _ in range(2):
        with pytest.raises(InputError, match=r"audio: holds other files than saved audio \(alice.wav\)"):
            Journal(tmp_path / "out", PROTOCOL, overwrite=True)
    assert (audio / "alice.wav").read_bytes() == b"mine" and len(list(audio.rglob("*.wav"))) == 3
    (audio / "alice.wav").rename(tmp_path / "alice.wav")
    (audio / audio_folder(record(0)) / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"\(0000_mix0_u/notes.txt\)"):
        Journal(tmp_path / "out", PROTOCOL, overwrite=True)
    (audio / audio_folder(record(0)) / "notes.txt").unlink()
    Journal(tmp_path / "out", PROTOCOL, overwrite=True).close()
    assert not audio.exists()


def test_saved_audio_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "alice.wav").write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audio").symlink_to(tmp_path / "recordings")
    with pytest.raises(InputError, match="audio: is not a folder of saved audio"):
        Journal(tmp_path / "out", PROTOCOL, overwrite=True)
    assert (tmp_path / "recordings" / "alice.wav").exists()


@pytest.mark.parametrize("read", ["out", "out/audio", "out/audio/s1", "out/summary.json"])
def test_what_is_read_is_not_written_to(tmp_path, read: str):
    path = tmp_path / read
    if path.suffix:
        path.parent.mkdir()
        path.write_text("{}")
    else:
        path.mkdir(parents=True)
    with pytest.raises(InputError, match="--reference, which is read; name another output"):
        check_output(tmp_path / "out", True, [(path, "--reference")])
    if path.name in ("audio", "s1"):
        with pytest.raises(InputError, match="--root, which is read"):
            check_output(tmp_path / "out", True, roots=[(path, "--root")])
    elif path.name == "out":
        check_output(tmp_path / "out", True, roots=[(path, "--root")])


@pytest.mark.parametrize("name", ["/elsewhere/evil", "../../evil", "nu\0l", "x" * 400, "a/b"])
def test_ids_never_leave_the_folder(name: str):
    for record in (TrialRecord(name, "t", "e.wav", number=3), TrialRecord("m", name, "e.wav", number=3)):
        folder = audio_folder(record)
        assert folder.startswith("0003_") and Path(folder).name == folder and len(folder) <= 255 and "\0" not in folder
    assert audio_folder(TrialRecord("m-1_n-2", "m-1", "e.wav", number=12)) == "0012_m-1_n-2_m-1"
