"""Runs of speaker verification: lists of trials, manifests, cohorts and the files of results."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.data import FileReader, Utterance, read_speaker_folders, write_manifest
from wesep_py.evaluation import verifier as verify
from wesep_py.evaluation.verification import (
    VerificationTrials,
    embed,
    score_trials,
)
from wesep_py.evaluation.verifier import read_trial_list, verify_manifest, write_verification
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder, encoder_config

NETWORK = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return SpeakerEncoder(SpeakerConfig(NETWORK, filterbank={"num_mel_bins": 20}), 16000)


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path) -> list[Utterance]:
    return read_speaker_folders(tiny_speech)


@pytest.fixture
def model(encoder: SpeakerEncoder, tmp_path: Path) -> Path:
    config = encoder_config(SpeakerConfig(NETWORK, filterbank={"num_mel_bins": 20}))
    return checkpoint.save(tmp_path / "encoder", config, encoder.state_dict())


@pytest.fixture
def manifest(utterances: list[Utterance], tmp_path: Path) -> Path:
    write_manifest(utterances, tmp_path / "dev.jsonl")
    return tmp_path / "dev.jsonl"


def test_lists_in_both_forms(utterances: list[Utterance], tmp_path: Path):
    first, second = utterances[0], utterances[4]
    (tmp_path / "vox.txt").write_text(f"1 anna/{first.path.name} {second.utterance_id}\n\n0 {first.path} anna-anna-1\n")
    (tmp_path / "kaldi.txt").write_text(
        f"{first.utterance_id} {second.utterance_id} target\n{first.utterance_id} anna-anna-1 nontarget\n"
    )
    lists = [read_trial_list(tmp_path / name, utterances) for name in ("vox.txt", "kaldi.txt")]
    for trials in lists:
        assert (trials.enrollment.tolist(), trials.test.tolist()) == ([0, 0], [4, 1])
        assert trials.is_target.tolist() == [True, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\n1 anna-anna-0", ":2: is '1 anna-anna-0'; '1 ENROLLMENT TEST'"),
        ("anna-anna-0 anna-anna-1 yes", ":1: the label is 'yes'; 1 or 0, or target or nontarget"),
        ("1 anna-anna-0 anna-anna-1\n1 anna-anna-0 nobody", ":2: 'nobody' is no recording of the manifest"),
        ("", ": holds no trial"),
    ],
)
def test_a_line_that_cannot_be_read(utterances: list[Utterance], tmp_path: Path, line: str, message: str):
    (tmp_path / "trials.txt").write_text(line + "\n")
    with pytest.raises(InputError, match="^" + re.escape(f"{tmp_path / 'trials.txt'}{message}")):
        read_trial_list(tmp_path / "trials.txt", utterances)


def test_a_manifest_verified_from_its_checkpoint(model: Path, manifest: Path, encoder, utterances, tmp_path: Path):
    result = verify_manifest(model, manifest)
    speaker_ids = [utterance.speaker_id for utterance in utterances]
    trials = VerificationTrials.all_pairs(speaker_ids)
    np.testing.assert_allclose(
        result.scores, score_trials(embed(encoder, utterances, FileReader(16000)), trials), atol=1e-6
    )
    summary = result.summary()
    assert summary["counts"]["target"] == 4 * 6 and summary["counts"]["speakers"] == 4
    write_verification(result, tmp_path / "out")
    lines = (tmp_path / "out" / "scores.txt").read_text().splitlines()
    assert len(lines) == 120 and lines[0].split()[3] == "target"
    assert (tmp_path / "out" / "det.png").read_bytes().startswith(b"\x89PNG")


def test_a_cohort_of_other_speakers_normalises_the_scores(model: Path, manifest: Path, utterances, tmp_path: Path):
    split = [[u for u in utterances if (u.speaker_id in ("anna", "bert")) == first] for first in (True, False)]
    for name, own in zip(("dev", "cohort"), split, strict=True):
        write_manifest(own, tmp_path / f"{name}.csv")
    plain = verify_manifest(model, tmp_path / "dev.csv")
    normalised = verify_manifest(model, tmp_path / "dev.csv", cohort=tmp_path / "cohort.csv")
    assert not np.allclose(plain.scores, normalised.scores)
    assert "AS-norm by the 2 nearest of 2 speakers" in normalised.protocol["score"]
    with pytest.raises(InputError, match="speaker 'anna' is in the trials too"):
        verify_manifest(model, tmp_path / "dev.csv", cohort=manifest)


def test_a_cohort_of_one_speaker_is_refused_before_embedding(
    model: Path, utterances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, own in (("dev", utterances[4:]), ("cohort", utterances[:4])):
        write_manifest(own, tmp_path / f"{name}.csv")
    monkeypatch.setattr(verify, "embed", lambda *given: pytest.fail("embeds"))
    with pytest.raises(InputError, match=r"cohort\.csv: the cohort has 1 speaker; AS-norm needs 2 or more"):
        verify_manifest(model, tmp_path / "dev.csv", cohort=tmp_path / "cohort.csv")


def test_a_model_without_an_encoder(manifest: Path, tmp_path: Path):
    from wesep_py.network.extraction_network import build_network

    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    checkpoint.save(tmp_path / "extractor", network.config, network.state_dict())
    with pytest.raises(CheckpointError, match="holds no speaker encoder that takes waveforms"):
        verify_manifest(tmp_path / "extractor", manifest)


def test_a_list_names_one_recording_and_each_trial_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    utterances = [Utterance(f"{name}-1", name, tmp_path / f"{name}/1.wav", 1.0) for name in ("anna", "bert")]
    path = tmp_path / "trials.txt"
    path.write_text("1 anna/1.wav anna-1\n0 /old/corpus/anna/1.wav C:\\data\\bert\\1.wav\n0 anna-1 bert-1\n")
    trials = read_trial_list(path, utterances)
    assert (trials.enrollment.tolist(), trials.test.tolist()) == ([0, 0], [0, 1])
    assert "1 lines repeat a trial, such as" in caplog.text
    for line, message in {
        "1 1.wav anna-1": "'1.wav' is the end of the paths of 2 recordings",
        "1 /old/carl/1.wav anna-1": "'/old/carl/1.wav' is no recording of the manifest",
        "1 anna-1 bert-1\n0 anna-1 bert-1": "labels anna-1 and bert-1 as '0', and .*:1 says the opposite",
    }.items():
        path.write_text(line + "\n")
        with pytest.raises(InputError, match=message):
            read_trial_list(path, utterances)
