"""Speaker verification: embeddings of whole recordings, trials of all pairs, EER with its interval."""

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
    batches_by_length,
    embed,
    mean_by_speaker,
    score_trials,
    verification_metrics,
)
from wesep_py.evaluation.verifier import read_trial_list, verify_manifest, write_verification
from wesep_py.metrics.detection import equal_error_rate, min_dcf
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


def test_an_embedding_is_that_of_the_whole_recording_alone(encoder: SpeakerEncoder, utterances: list[Utterance]):
    reader = FileReader(16000)
    encoder.train()
    some = [utterances[0], Utterance("short", "x", utterances[1].path, 0.7), utterances[5]]
    embeddings = embed(encoder, some, reader)
    assert encoder.training and encoder.network.training
    encoder.eval()
    for utterance, embedding in zip(some, embeddings, strict=True):
        waveform = torch.from_numpy(reader.read(utterance))[None]
        alone = encoder(waveform, torch.tensor([waveform.shape[1]])).embedding[0].detach()
        np.testing.assert_allclose(embedding, alone, atol=1e-5)


def test_batches_hold_every_recording_once_and_no_more_than_they_may():
    lengths = np.random.default_rng(0).integers(1, 100, size=50).tolist()
    batches = batches_by_length(lengths, 200)
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 200 for batch in batches)


def test_figures_are_the_metrics_with_an_interval_that_widens_with_fewer_speakers():
    rng = np.random.default_rng(0)

    def of_speakers(count: int):
        centres = rng.normal(size=(count, 8))
        speaker_ids = [f"s{i // 5}" for i in range(5 * count)]
        embeddings = np.repeat(centres, 5, axis=0) + 0.8 * rng.normal(size=(5 * count, 8))
        trials = VerificationTrials.all_pairs(speaker_ids)
        scores = score_trials(embeddings, trials)
        return scores, trials, verification_metrics(scores, trials, speaker_ids)

    scores, trials, many = of_speakers(40)
    assert many["eer"].mean == equal_error_rate(scores, trials.is_target).value
    assert many["min_dcf"].mean == min_dcf(scores, trials.is_target).value
    assert many["eer"].count == 200 * 199 // 2
    widths = []
    for found in (many, of_speakers(8)[2]):
        assert found["eer"].low < found["eer"].mean < found["eer"].high
        widths.append(found["eer"].high - found["eer"].low)
    assert widths[0] < widths[1]


def test_a_bootstrap_that_draws_every_speaker_once_gives_the_figures_themselves(monkeypatch):
    rng = np.random.default_rng(1)
    speaker_ids = [f"s{i // 4}" for i in range(40)]
    trials = VerificationTrials.all_pairs(speaker_ids)
    scores = rng.normal(size=len(trials.test)) + 1.5 * trials.is_target

    class Once:
        def integers(self, high: int, size: int) -> np.ndarray:
            return np.arange(size)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Once())
    found = verification_metrics(scores, trials, speaker_ids, resamples=3)
    for name in ("eer", "min_dcf"):
        assert found[name].low == pytest.approx(found[name].mean, abs=1e-9) == found[name].high


def test_the_cohort_is_one_embedding_a_speaker():
    embeddings = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    np.testing.assert_allclose(mean_by_speaker(embeddings, ["b", "a", "b"]), [[0.0, 1.0], [0.5, 0.5]])


def test_one_speaker_makes_no_trials():
    with pytest.raises(InputError, match="3 utterances of 1 speakers make no trials of both kinds"):
        VerificationTrials.all_pairs(["a", "a", "a"])


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


def test_a_cohort_of_one_speaker_is_refused_before_anything_is_embedded(
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
