"""Negative enrollments in Python and in commands: voice prints, extraction, streams, evaluation."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import wesep_py
from wesep_py import checkpoint
from wesep_py.common.errors import InputError
from wesep_py.data import read_trials
from wesep_py.data.trials import with_negatives
from wesep_py.inference import Extractor, Voice
from wesep_py.network.extraction_network import build_network

BACKBONE = {"name": "bsrnn", "hop_ms": 16, "bands": [[250, 4], [1000, 7]], "feature_dim": 8, "num_blocks": 1}
CUES = [
    {"name": "tf_map", "temperatures": [20], "power": 0.5, "negative": True},
    {"name": "band_attention", "dim": 6, "hidden": 4, "attention_dim": 8, "negative": True},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a causal checkpoint on which negative enrollments have a strong influence."""
    torch.manual_seed(0)
    network = build_network({"backbone": {**BACKBONE, "causal": True}, "cues": CUES, "normalise": "none"})
    for name, parameter in network.named_parameters():
        if "negative" in name and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("negative") / "model"
    checkpoint.save(folder, network.config, network.state_dict(), {"step": 1})
    return folder


@pytest.fixture(scope="module")
def extractor(model: Path) -> Extractor:
    return wesep_py.load(model, device="cpu")


def test_a_voice_print_stores_the_negative(extractor: Extractor, tiny_speech: Path, tmp_path: Path):
    anna, bert, carl = (tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert", "carl"))
    assert extractor.takes_negative
    alone = extractor.enroll(anna)
    voice = extractor.enroll(anna, negative=bert)
    assert alone.negative_s == 0 and voice.negative_s == pytest.approx(soundfile.info(bert).duration, abs=0.01)
    stored = Voice.load(voice.save(tmp_path / "anna.voice"))
    assert stored.negative_s == voice.negative_s and stored.quality == voice.quality
    without, expected, result = (extractor.extract(carl, v).waveform for v in (alone, voice, stored))
    np.testing.assert_array_equal(result, expected)
    assert np.abs(expected - without).max() > 1e-3 * np.abs(without).max()
    both = extractor.with_negative(stored, [bert, carl])
    assert both.tensors["0.negative_mask"].shape[1] > voice.tensors["0.negative_mask"].shape[1]
    assert Voice.load(both.save(tmp_path / "both.voice")).negative_s > voice.negative_s
    extractor.extract(carl, Voice.load(tmp_path / "both.voice"))
    with pytest.raises(InputError, match="an empty list"):
        extractor.enroll(anna, negative=[])
    with pytest.raises(InputError, match="no embedding"):
        extractor.enroll(anna, negative=np.ones(4, dtype=np.float32))


def test_a_model_without_negatives_refuses_them(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    anna, bert = tiny_speech / "anna/anna-0.wav", tiny_speech / "bert/bert-0.wav"
    extractor = wesep_py.load(tiny_model, device="cpu")
    with pytest.raises(InputError, match=r"takes no negative enrollment; leave out --enroll-not"):
        extractor.enroll(anna, negative=bert)
    with pytest.raises(InputError, match="takes no negative enrollment"):
        extractor.with_negative(extractor.enroll(anna), bert)
    ran = wesep(
        "extract", bert, "--enroll", anna, "--enroll-not", bert, "-o", tmp_path / "o.wav", "--model", tiny_model
    )
    assert ran.status == 2 and "takes no negative enrollment; leave out --enroll-not" in ran.message


def test_commands_take_enroll_not_for_all_or_one_voice(
    wesep, model: Path, extractor, tiny_speech: Path, tmp_path: Path
):
    anna, bert, carl, dora = (tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert", "carl", "dora"))
    common = ["--model", model, "--device", "cpu"]
    targets = ["--enroll", f"anna={anna}", "--enroll", f"bert={bert}"]
    ran = wesep(
        "extract", carl, *targets, "--enroll-not", f"bert={anna}", "--enroll-not", dora, "-o", tmp_path / "o", *common
    )
    assert ran.status == 0, ran.err
    for name, file, others in (("anna", anna, [dora]), ("bert", bert, [anna, dora])):
        expected = extractor.extract(carl, extractor.enroll(file, negative=others))
        expected.save(tmp_path / "expected.wav", overwrite=True)
        assert (tmp_path / f"o/carl-0_{name}.wav").read_bytes() == (tmp_path / "expected.wav").read_bytes()
    ran = wesep("enroll", anna, "--enroll-not", dora, "-o", tmp_path / "anna.voice", *common)
    assert ran.status == 0 and "of 1 recording(s), and not 2." in ran.out, ran.out
    for enrolled in ([tmp_path / "anna.voice"], [anna, "--enroll-not", dora]):
        assert (
            wesep("extract", carl, "--enroll", *enrolled, "-o", tmp_path / "c.wav", "--overwrite", *common).status == 0
        )
        assert (tmp_path / "c.wav").read_bytes() == (tmp_path / "o/carl-0_anna.wav").read_bytes()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("zoe={bert}", "--enroll-not zoe={bert}: no --enroll has this name; give it without a name: {bert}"),
        ("missing.wav", "missing.wav: no such file"),
        ("x.voice", "--enroll-not x.voice: is a voice print; recordings of the person who is not meant are needed"),
    ],
)
def test_wrong_values_of_enroll_not_are_refused(
    wesep, model, tiny_speech: Path, tmp_path: Path, value: str, message: str
):
    bert = tiny_speech / "bert/bert-0.wav"
    arguments = [
        "extract",
        bert,
        "--enroll",
        tiny_speech / "anna/anna-0.wav",
        "-o",
        tmp_path / "o.wav",
        "--model",
        model,
    ]
    ran = wesep(*arguments, "--enroll-not", value.format(bert=bert))
    assert ran.status == 2 or "no such file" in ran.err
    assert message.format(bert=bert) in ran.message


def test_a_stream_takes_the_negative(wesep, model: Path, extractor, tiny_speech: Path, monkeypatch, tmp_path: Path):
    anna, bert, carl = (tiny_speech / name / f"{name}-0.wav" for name in ("anna", "bert", "carl"))
    samples, _ = soundfile.read(carl, dtype="int16")
    (tmp_path / "in.raw").write_bytes(samples[:16000].tobytes())
    outputs = []
    for negatives in ([], ["--enroll-not", bert]):
        with (tmp_path / "in.raw").open("rb") as source, (tmp_path / "out.raw").open("wb") as sink:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink))
            ran = wesep("stream", "--enroll", anna, *negatives, "--model", model, "--device", "cpu")
            monkeypatch.undo()
        assert ran.status == 0, ran.err
        outputs.append(np.frombuffer((tmp_path / "out.raw").read_bytes(), "<i2"))
    assert len(outputs[0]) == len(outputs[1]) == 16000
    assert np.abs(outputs[0].astype(int) - outputs[1]).max() > 10


def test_trials_are_enrolled_against_another_target(wesep, model: Path, tiny_model, tiny_speech: Path, tmp_path: Path):
    head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,source_3_path,source_3_gain\n"
    rows = "m0,anna/anna-0.wav,1,bert/bert-0.wav,1,carl/carl-0.wav,1\n"
    rows += "m1,anna/anna-1.wav,1,dora/dora-1.wav,1,carl/carl-1.wav,1\n"
    (tmp_path / "trials.csv").write_text(head + rows)
    lines = [f"m0 {name}-0 {name}/{name}-3.wav\n" for name in ("anna", "bert", "carl")] + [
        "m1 anna-1 anna/anna-3.wav\n"
    ]
    (tmp_path / "map").write_text("".join(lines))
    trials = with_negatives(read_trials(tmp_path / "trials.csv", tmp_path / "map", tiny_speech))
    assert [trial.negative and trial.negative.name for trial in trials] == [
        "bert-3.wav",
        "carl-3.wav",
        "anna-3.wav",
        None,
    ]
    with pytest.raises(InputError, match="no mixture of the trials has two targets"):
        with_negatives(trials[3:])
    arguments = [
        "evaluate",
        "--trials",
        tmp_path / "trials.csv",
        "--enrollment",
        tmp_path / "map",
        "--root",
        tiny_speech,
    ]
    summaries = []
    for name, options in (("without", []), ("with", ["--negatives"])):
        ran = wesep(*arguments, "--model", model, "-o", tmp_path / name, "--device", "cpu", *options)
        assert ran.status == 0, ran.err
        summaries.append(json.loads((tmp_path / name / "summary.json").read_text()))
    assert "negative_enrollments" not in summaries[0]["protocol"]
    assert summaries[1]["protocol"]["negative_enrollments"]["trials"] == 3
    assert summaries[0]["si_sdr"]["mean"] != summaries[1]["si_sdr"]["mean"]
    ran = wesep(*arguments, "--model", tiny_model, "-o", tmp_path / "no", "--device", "cpu", "--negatives")
    assert ran.status == 2 and "takes no negative enrollment; leave out --negatives" in ran.message
