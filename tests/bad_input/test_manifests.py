"""Manifests with missing files and invalid lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.data import read_manifest

LINE = {"utterance_id": "anna-0", "speaker_id": "anna", "path": "anna/anna-0.wav", "duration_s": 2.0}


def write(path: Path, *lines: dict | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_errors_name_the_line_of_a_missing_file(wesep, tiny_speech: Path, tmp_path: Path):
    manifest = write(tmp_path / "m.jsonl", LINE, {**LINE, "utterance_id": "x", "path": "anna/missing.wav"})
    with pytest.raises(InputError, match=r"m\.jsonl:2: .*anna/missing\.wav"):
        read_manifest(manifest, root=tiny_speech)
    ran = wesep("prepare", "csv", manifest, "--root", tiny_speech, "-o", tmp_path / "out.jsonl")
    assert ran.status == 2 and "m.jsonl:2" in ran.message and "missing.wav" in ran.message
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({**LINE, "duration_s": -1}, "duration_s"),
        ({**LINE, "duration_s": "long"}, "duration_s"),
        ({key: value for key, value in LINE.items() if key != "speaker_id"}, "speaker_id"),
        ("{not json", ""),
        ("[1, 2]", ""),
    ],
)
def test_errors_name_an_invalid_line(tiny_speech: Path, tmp_path: Path, line, field: str):
    other = {**LINE, "utterance_id": "anna-1", "path": "anna/anna-1.wav"}
    with pytest.raises(InputError, match=rf"m\.jsonl:2: .*{field}"):
        read_manifest(write(tmp_path / "m.jsonl", other, line), root=tiny_speech)


def test_training_refuses_a_manifest_with_a_missing_file(wesep, tiny_speech: Path, tmp_path: Path):
    write(tmp_path / "m.jsonl", {**LINE, "path": str(tiny_speech / "gone.wav")})
    config = write(
        tmp_path / "train.yaml",
        f"experiment: {tmp_path}/exp",
        "model: {backbone: {name: bsrnn, feature_dim: 8, num_blocks: 1}, cues: [{name: tf_map}]}",
        f"data: {{root: {tmp_path}, train: [m.jsonl]}}",
    )
    ran = wesep("train", config)
    assert ran.status == 2 and "m.jsonl:1" in ran.message and "gone.wav" in ran.message
