"""`wesep verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import WesepError
from wesep_py.data import read_speaker_folders, write_manifest
from wesep_py.network.extraction_network import build_network

MODEL = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
    "speaker": {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}},
    "cues": [{"name": "embedding"}],
}


@pytest.fixture
def arguments(tiny_speech: Path, tmp_path: Path) -> list:
    """A manifest and an extractor whose encoder is verified."""
    torch.manual_seed(0)
    write_manifest(read_speaker_folders(tiny_speech), tmp_path / "dev.jsonl")
    network = build_network(MODEL)
    checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    return ["verify", tmp_path / "dev.jsonl", "--model", tmp_path / "model"]


def test_table_and_files(wesep, arguments: list, tmp_path: Path):
    ran = wesep(*arguments, "-o", tmp_path / "out")
    assert ran.status == 0 and "120 trials (24 of one speaker) of 16 recordings, 4 speakers; cosine" in ran.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"summary.json", "scores.txt", "det.png"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"{100 * summary['eer']['mean']:.3f}" in ran.out and summary["protocol"]["versions"]["wesep-py"]
    again = wesep(*arguments, "-o", tmp_path / "out")
    assert again.status != 0 and "exists already" in again.message
    assert wesep(*arguments, "-o", tmp_path / "out", "--overwrite").status == 0


def test_json_summary(wesep, arguments: list):
    summary = json.loads(wesep(*arguments, "--json").out)
    assert 0 <= summary["eer"]["mean"] <= 1 and summary["eer"]["count"] == 120


def test_overlapping_speech_is_verified(wesep, arguments: list):
    ran = wesep(*arguments, "--overlap", 6)
    assert ran.status == 0, ran.err
    for kind in ("single–single", "single–mixture", "mixture–mixture"):
        assert f"{kind} EER" in ran.out


def test_overlap_needs_three_speakers(wesep, arguments: list, tiny_speech: Path, tmp_path: Path):
    two_speakers = [u for u in read_speaker_folders(tiny_speech) if u.speaker_id in ("anna", "bert")]
    write_manifest(two_speakers, tmp_path / "two.jsonl")
    arguments[1] = tmp_path / "two.jsonl"
    ran = wesep(*arguments, "--overlap", 5)
    assert ran.status == 2 and "--overlap: overlapping voices need recordings of 3 speakers or more" in ran.message
    assert "two.jsonl has 2" in ran.message and wesep(*arguments).status == 0


def test_overlap_needs_enough_recordings(wesep, arguments: list):
    ran = wesep(*arguments, "--overlap", 1)
    assert ran.status == 2 and "--overlap: 1 recordings of one voice and 1 of several" in ran.message
    assert "draw more" in ran.message


def test_a_missing_manifest_is_named(wesep, arguments: list):
    ran = wesep("verify", "none.csv", *arguments[2:])
    assert ran.status == 2 and "none.csv" in ran.message


def test_all_files_are_written_or_none(wesep, arguments: list, tmp_path: Path, monkeypatch):
    from wesep_py.evaluation import verifier as verify

    def full_disk(*arguments, **options):
        raise WesepError("summary.json: writing failed (No space left on device); nothing was changed")

    with monkeypatch.context() as patch:
        patch.setattr(verify, "write_json", full_disk)
        ran = wesep(*arguments, "-o", tmp_path / "deep" / "out")
    assert ran.status == 1 and "nothing was changed" in ran.message
    assert not (tmp_path / "deep").exists()
    assert wesep(*arguments, "-o", tmp_path / "deep" / "out").status == 0


def test_the_list_of_trials_is_not_replaced(wesep, arguments: list, tmp_path: Path):
    (tmp_path / "scores.txt").write_text("1 anna-0 anna-1\n")
    ran = wesep(*arguments, "--trials", tmp_path / "scores.txt", "-o", tmp_path, "--overwrite")
    assert ran.status == 2 and "is the list of trials, which is read" in ran.message
    assert (tmp_path / "scores.txt").read_text() == "1 anna-0 anna-1\n"
