"""Voice prints on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.inference import Voice

VOICE = Voice({"0.embedding": torch.arange(4.0)[None], "1.frames": torch.ones(1, 3, 5)}, "abc123", 7.25)


def test_voice_print_is_read_as_it_was_saved(tmp_path: Path):
    path = VOICE.save(tmp_path / "alice.voice")
    back = Voice.load(path)
    assert back.model_hash == "abc123" and back.enrolled_s == 7.25
    assert back.tensors.keys() == VOICE.tensors.keys()
    for name, tensor in VOICE.tensors.items():
        assert torch.equal(back.tensors[name], tensor)


def test_shared_tensors_are_saved(tmp_path: Path):
    mask = torch.ones(1, 5)
    back = Voice.load(
        Voice({"0.mask": mask, "1.mask": mask, "2.part": mask[:, :3]}, "abc", 1.0).save(tmp_path / "a.voice")
    )
    assert torch.equal(back.tensors["0.mask"], mask) and torch.equal(back.tensors["1.mask"], mask)
    assert back.tensors["2.part"].shape == (1, 3)


def test_existing_voice_print_is_not_overwritten(tmp_path: Path):
    path = VOICE.save(tmp_path / "alice.voice")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        Voice({}, "other", 1.0).save(path)
    assert Voice.load(path).model_hash == "abc123"
    Voice({"x": torch.zeros(1)}, "other", 1.0).save(path, overwrite=True)
    assert Voice.load(path).model_hash == "other"


def test_other_files_are_refused(tmp_path: Path):
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


def test_incomplete_header_or_tensors_are_refused(tmp_path: Path):
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


def test_truncated_voice_print_is_refused(tmp_path: Path):
    path = VOICE.save(tmp_path / "alice.voice")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="enroll the voice again"):
        Voice.load(path)


def test_print_without_a_report_has_no_quality(tmp_path: Path):
    assert VOICE.quality is None
    assert Voice.load(VOICE.save(tmp_path / "alice.voice")).quality is None


def test_damaged_report_is_refused(tmp_path: Path):
    header = {"format": "wesep-voice", "format_version": "1", "model_hash": "a", "enrolled_s": "1", "quality": "{}"}
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.voice", header)
    with pytest.raises(InputError, match=r"odd\.voice: is damaged.*enroll the voice again"):
        Voice.load(tmp_path / "odd.voice")


HEADER = {"format": "wesep-voice", "format_version": "1", "model_hash": "a", "enrolled_s": "1"}


@pytest.mark.parametrize(
    "changes",
    [
        {"enrolled_s": "NaN"},
        {"enrolled_s": "[" * 5000},
        {"enrolled_s": "-1"},
        {"enrolled_s": "1" * 5000},
        {"enrolled_s": '"' + "x" * 5000},
        {"quality": "[]"},
        {"quality": '{"recordings": [], "vad": "energy"}'},
        {"quality": '{"recordings": [{"name": "a"}], "vad": "energy"}'},
        {"quality": '{"recordings": [{"name": 3, "duration_s": "x", "speech_s": 1, "snr_db": 1, "clipped": 0}]}'},
        {"quality": "[" * 5000},
    ],
    ids=range(10),
)
def test_damaged_header_is_refused_in_one_line(tmp_path: Path, changes: dict[str, str]):
    save_file({"x": torch.zeros(2)}, tmp_path / "a.voice", {**HEADER, **changes})
    with pytest.raises(InputError, match="its header") as refused:
        Voice.load(tmp_path / "a.voice")
    assert str(tmp_path / "a.voice") in str(refused.value) and len(str(refused.value)) < 500


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 400)),
)
def test_mutated_print_gives_a_voice_or_an_error_of_one_line(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int | None
):
    content = bytearray(VOICE.save(tmp_path / "alice.voice", overwrite=True).read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / "alice.voice").write_bytes(content[:cut])
    try:
        assert isinstance(Voice.load(tmp_path / "alice.voice"), Voice)
    except InputError as error:
        assert str(tmp_path) in str(error) and len(str(error)) < 500 and "\n" not in str(error)


def test_tensors_that_do_not_fit_the_model_are_refused(tmp_path: Path, tiny_model: Path, tiny_speech: Path):
    import numpy as np

    from wesep_py.inference import load

    extractor, recording = load(tiny_model, "cpu"), tiny_speech / "anna" / "anna-0.wav"
    path = extractor.enroll(recording).save(tmp_path / "anna.voice")
    good = Voice.load(path)
    assert np.isfinite(extractor.extract(recording, good).waveform).all()
    name, tensor = next(iter(good.tensors.items()))
    wrong = {
        "more": {**good.tensors, "9.extra": tensor},
        "none": {"x": tensor},
        "axes": {**good.tensors, name: tensor[None]},
        "empty": {**good.tensors, name: tensor[..., :0]},
        "batch": {**good.tensors, name: torch.cat([tensor, tensor])},
        "whole": {**good.tensors, name: tensor.to(torch.int32)},
        "double": {**good.tensors, name: tensor.double()},
    }
    for case, tensors in wrong.items():
        path = Voice(tensors, good.model_hash, 1.0).save(tmp_path / f"{case}.voice")
        with pytest.raises(InputError, match="does not fit") as refused:
            extractor.extract(recording, Voice.load(path))
        assert str(path) in str(refused.value) and len(str(refused.value)) < 500
    long = extractor.enroll(recording, tiny_speech / "anna" / "anna-1.wav").save(tmp_path / "long.voice")
    extractor.extract(recording, Voice.load(long))
