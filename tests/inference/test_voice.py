"""Voice prints on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wesep_py.errors import InputError, OutputExistsError
from wesep_py.inference import Voice

VOICE = Voice({"0.embedding": torch.arange(4.0)[None], "1.frames": torch.ones(1, 3, 5)}, "abc123", 7.25)


def test_a_voice_print_comes_back_as_it_was(tmp_path: Path):
    path = VOICE.save(tmp_path / "alice.voice")
    back = Voice.load(path)
    assert back.model_hash == "abc123" and back.enrolled_s == 7.25
    assert back.tensors.keys() == VOICE.tensors.keys()
    for name, tensor in VOICE.tensors.items():
        assert torch.equal(back.tensors[name], tensor)


def test_cues_that_keep_one_tensor_have_a_print_too(tmp_path: Path):
    mask = torch.ones(1, 5)
    back = Voice.load(
        Voice({"0.mask": mask, "1.mask": mask, "2.part": mask[:, :3]}, "abc", 1.0).save(tmp_path / "a.voice")
    )
    assert torch.equal(back.tensors["0.mask"], mask) and torch.equal(back.tensors["1.mask"], mask)
    assert back.tensors["2.part"].shape == (1, 3)


def test_a_voice_print_is_not_overwritten_unless_asked(tmp_path: Path):
    path = VOICE.save(tmp_path / "alice.voice")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        Voice({}, "other", 1.0).save(path)
    assert Voice.load(path).model_hash == "abc123"
    Voice({"x": torch.zeros(1)}, "other", 1.0).save(path, overwrite=True)
    assert Voice.load(path).model_hash == "other"


def test_what_is_no_voice_print_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        Voice.load(tmp_path / "missing.voice")
    (tmp_path / "text.voice").write_text("not a voice print at all")
    with pytest.raises(InputError, match="damaged or no voice print"):
        Voice.load(tmp_path / "text.voice")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.voice")
    with pytest.raises(InputError, match="no voice print"):
        Voice.load(tmp_path / "weights.voice")
    header = {"format": "wesep-voice", "format_version": "99", "model_hash": "a", "enrolled_s": "1"}
    save_file({"weight": torch.zeros(2)}, tmp_path / "future.voice", header)
    with pytest.raises(InputError, match="format version 99"):
        Voice.load(tmp_path / "future.voice")


def test_a_voice_print_that_lacks_something_is_refused(tmp_path: Path):
    header = {"format": "wesep-voice", "format_version": "1", "model_hash": "a", "enrolled_s": "1"}
    save_file({"x": torch.zeros(2)}, tmp_path / "whole.voice", header)
    assert Voice.load(tmp_path / "whole.voice").enrolled_s == 1.0
    for key in ("model_hash", "enrolled_s"):
        save_file({"x": torch.zeros(2)}, tmp_path / "a.voice", {k: v for k, v in header.items() if k != key})
        with pytest.raises(InputError, match=f"its header: '{key}'"):
            Voice.load(tmp_path / "a.voice")
    for tensors in ({}, {"x": torch.tensor([0.0, float("nan")])}):
        save_file(tensors, tmp_path / "a.voice", header)
        with pytest.raises(InputError, match="numbers are missing or not finite"):
            Voice.load(tmp_path / "a.voice")


def test_a_voice_print_cut_in_half_is_refused(tmp_path: Path):
    path = VOICE.save(tmp_path / "alice.voice")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="enroll the voice again"):
        Voice.load(path)


def test_a_print_without_a_report_has_none(tmp_path: Path):
    assert VOICE.quality is None
    assert Voice.load(VOICE.save(tmp_path / "alice.voice")).quality is None


def test_a_report_that_is_damaged_is_refused(tmp_path: Path):
    header = {"format": "wesep-voice", "format_version": "1", "model_hash": "a", "enrolled_s": "1", "quality": "{}"}
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.voice", header)
    with pytest.raises(InputError, match=r"odd\.voice: is damaged.*enroll the voice again"):
        Voice.load(tmp_path / "odd.voice")
