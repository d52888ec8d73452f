"""By what a run was made, as its folder says it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.training.runs import lines
from wesep_py import checkpoint
from wesep_py.training import train
from wesep_py.training.data_config import DataConfig
from wesep_py.training.provenance import ancestors, data_hashes, git_state, write_provenance


def test_sessions_are_recorded_and_changed_data_is_reported(settings, corpus: Path, tmp_path: Path, capsys):
    (tmp_path / "train.jsonl").write_bytes((corpus / "train.jsonl").read_bytes())
    mapping = {"data__root": str(tmp_path)}
    train(settings(train__steps=2, **mapping))
    sessions = json.loads((tmp_path / "exp" / "provenance.json").read_text())["sessions"]
    assert (
        len(sessions) == 1 and sessions[0]["step"] == 0 and sessions[0]["command"] and sessions[0]["versions"]["torch"]
    )
    expected = hashlib.sha256((corpus / "train.jsonl").read_bytes()).hexdigest()
    assert sessions[0]["data"] == {"train.jsonl": expected}
    saved = checkpoint.load(tmp_path / "exp").provenance
    assert saved["data"] == {"train.jsonl": expected} and "git" in saved
    assert "another than when the run began" not in capsys.readouterr().err
    content = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(content[:-1]))
    train(settings(train__steps=4, **mapping))
    sessions = json.loads((tmp_path / "exp" / "provenance.json").read_text())["sessions"]
    assert [session["step"] for session in sessions] == [0, 2] and sessions[1]["data"]["train.jsonl"] != expected
    assert "train.jsonl: has changed since the run started" in capsys.readouterr().err
    assert [line["step"] for line in lines(tmp_path / "exp", "train")] == [2, 4]


def test_a_folder_is_hashed_by_names_and_sizes(tmp_path: Path):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a.wav").write_bytes(b"123")
    config = DataConfig(str(tmp_path), ["gone.jsonl"], ["noise"])
    before = data_hashes(config)
    assert before["gone.jsonl"] == "not a file" and len(before["noise"]) == 64
    (tmp_path / "noise" / "a.wav").write_bytes(b"1234")
    assert data_hashes(config)["noise"] != before["noise"]


def test_a_damaged_file_is_replaced(tmp_path: Path):
    file = tmp_path / "provenance.json"
    file.write_text("{")
    assert write_provenance(file, 5, {"a": "1"}) == []
    assert len(json.loads(file.read_text())["sessions"]) == 1
    assert write_provenance(file, 6, {"a": "2"}) == ["a"]


def test_git_state_of_a_checkout(tmp_path: Path):
    assert git_state(tmp_path) is None
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q", "-b", "main"), (*identity, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40 and (state["branch"], state["changed"]) == ("main", [])
    (tmp_path / "new.py").write_text("x")
    assert git_state(tmp_path)["changed"] == ["new.py"]


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, "[]", '{"sessions": 1}', '{"sessions": [1]}', '{"sessions": [{}]}', "\udcff", '{"sessions": NaN}'],
)
def test_damaged_provenance_is_replaced_with_a_warning(tmp_path: Path, text: str):
    file = tmp_path / "provenance.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.warns(UserWarning, match=r"provenance\.json.*; a new provenance file is started"):
        assert ancestors(file) == []


def test_programs_named_by_a_repository_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], cwd=tmp_path, check=True)
    program = tmp_path / ".git" / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path.parent}/ran\n")
    program.chmod(0o755)
    (tmp_path / "git").write_bytes(program.read_bytes())  # a folder that is on the path as "."
    (tmp_path / "git").chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager"):
        subprocess.run(["git", "config", key, str(program)], cwd=tmp_path, check=True)
    (tmp_path / ".git" / "hooks" / "post-index-change").write_bytes(program.read_bytes())
    (tmp_path / ".git" / "hooks" / "post-index-change").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert git_state(tmp_path)["branch"] == "main"
    state = git_state()  # of the package's checkout, wherever somebody works
    assert state is None or state["commit"] != git_state(tmp_path)["commit"]
    assert not (tmp_path.parent / "ran").exists()
