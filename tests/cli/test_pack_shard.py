"""`wesep shard`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import Ran
from wesep_py.cli.main import run_command
from wesep_py.data import FileReader, read_speaker_folders, write_manifest
from wesep_py.data.shard_store import ShardReader


@pytest.fixture
def shard(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        status = run_command("shard", [str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def manifest(tiny_speech: Path, tmp_path: Path) -> Path:
    write_manifest(read_speaker_folders(tiny_speech), tmp_path / "m.jsonl", relative_to=tiny_speech)
    return tmp_path / "m.jsonl"


def test_a_corpus_is_packed_read_and_checked(manifest: Path, tiny_speech: Path, tmp_path: Path, shard: Callable):
    out = tmp_path / "s"
    again = ("--root", tiny_speech, "-o", out, "--size-mib", "0.4", "--jobs", "1")
    ran = shard(manifest, *again)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"{out}: 3 shards, 16 utterances, 4 speakers, 0.01 hours, ")
    reader, files = ShardReader(out, 16000), FileReader(16000)
    for utterance in reader.store.utterances(tiny_speech):
        np.testing.assert_array_equal(reader.read(utterance), files.read(utterance))
    assert "3 shards (3 already existed), 16 utterances" in shard(manifest, *again).out
    assert shard("--check", out).out == f"{out}: the checksums of all shards match\n"
    summary = json.loads(shard(manifest, *again, "--json").out)
    assert (summary["num_shards"], summary["num_kept"], summary["left_out"]) == (3, 3, [])


def test_damaged_shards_are_named(manifest: Path, tiny_speech: Path, tmp_path: Path, shard: Callable):
    out = tmp_path / "s"
    shard(manifest, "--root", tiny_speech, "-o", out, "--size-mib", "0.4", "--jobs", "1")
    whole = (out / "000001.tar").read_bytes()
    (out / "000001.tar").write_bytes(whole[:-512])
    ran = shard("--check", out)
    assert ran.status == 1
    assert ran.message == (
        f"wesep shard: {out}/000001.tar: has {len(whole) - 512} bytes; {len(whole)} were written; "
        "get a complete copy of it, or remove it and write it again"
    )
    (out / "000000.tar").unlink()
    ran = shard("--check", out, "--json")
    assert len(json.loads(ran.out)["problems"]) == 2
    assert len(ran.err.splitlines()) == 2 and "(2 problems in all)" in ran.err
    assert shard("--check", tmp_path).message.startswith(f"wesep shard: {tmp_path}/shards.json: cannot be read")


def test_unreadable_recordings_are_named_and_left_out(tiny_speech: Path, tmp_path: Path, shard: Callable):
    (tmp_path / "m.csv").write_text(
        "utterance_id,speaker_id,path,duration_s\na,anna,anna/anna-0.wav,2.0\nb,bert,bert/none.wav,2.0\n"
    )
    ran = shard(tmp_path / "m.csv", "--root", tiny_speech, "-o", tmp_path / "s", "--jobs", "1")
    assert ran.status == 1
    assert "1 shards, 1 utterances" in ran.out
    assert ran.err.splitlines() == [
        f"left out: {tiny_speech}/bert/none.wav: no such file",
        "wesep shard: 1 recordings were left out; the shards hold the rest",
    ]


def test_shards_without_an_index_get_one(manifest: Path, tiny_speech: Path, tmp_path: Path, shard: Callable):
    out = tmp_path / "s"
    shard(manifest, "--root", tiny_speech, "-o", out, "--jobs", "1")
    for path in (*out.glob("*.json"), *out.glob("*.jsonl")):
        path.unlink()
    assert "1 shards, 16 utterances, 4 speakers" in shard("--index", out, "--jobs", "1").out
    assert ShardReader(out, 16000).read(read_speaker_folders(tiny_speech)[0]).size == 32000
    assert shard("--index", out).message.endswith("has an index already; pass --overwrite to replace it")


def test_wrong_usage_is_a_one_line_error(manifest: Path, tiny_speech: Path, tmp_path: Path, shard: Callable):
    assert shard(manifest).message == "wesep shard: -o is missing; name the folder to write"
    assert "give one of them" in shard("--check", "--index", tmp_path).message
    assert "'mp3'" in shard(manifest, "-o", tmp_path / "s", "--format", "mp3").message
    assert "size_mib: is 0" in shard(manifest, "--root", tiny_speech, "-o", tmp_path / "s", "--size-mib", "0").message
    assert "no such file" in shard(tmp_path / "none.jsonl", "-o", tmp_path / "s").message
    assert shard("--help").status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_run_is_completed_by_the_same_command(tmp_path: Path, shard: Callable):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * 16000)
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    lines = [f'{{"utterance_id": "u{n}", "speaker_id": "a", "path": "a.wav", "duration_s": 20}}\n' for n in range(100)]
    (tmp_path / "m.jsonl").write_text("".join(lines))
    out = tmp_path / "s"
    arguments = [str(tmp_path / "m.jsonl"), "-o", str(out), "--size-mib", "2", "--jobs", "2"]
    program = "import sys; from wesep_py.cli.main import run_command; sys.exit(run_command('shard', sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(out.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == f"wesep shard: interrupted; the same command again completes {out}"
    assert not (out / "shards.json").exists() and not list(out.glob(".*.tar"))
    num_finished = len(list(out.glob("*.json")))
    assert num_finished > 0
    assert f"20 shards ({num_finished} already existed), 100 utterances" in shard(*arguments[:-1], "1").out
