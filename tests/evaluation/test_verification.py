"""Speaker verification: embeddings of whole recordings, trials of all pairs, EER with its interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance, read_speaker_folders
from wesep_py.evaluation.verification import (
    VerificationTrials,
    batches_by_length,
    embed,
    mean_by_speaker,
    score_trials,
    verification_metrics,
)
from wesep_py.metrics.detection import equal_error_rate, min_dcf
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder

NETWORK = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return SpeakerEncoder(SpeakerConfig(NETWORK, filterbank={"num_mel_bins": 20}), 16000)


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path) -> list[Utterance]:
    return read_speaker_folders(tiny_speech)


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


def test_intervals_widen_with_fewer_speakers():
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
    for result in (many, of_speakers(8)[2]):
        assert result["eer"].low < result["eer"].mean < result["eer"].high
        widths.append(result["eer"].high - result["eer"].low)
    assert widths[0] < widths[1]


def test_drawing_every_speaker_once_gives_the_metrics_themselves(monkeypatch):
    rng = np.random.default_rng(1)
    speaker_ids = [f"s{i // 4}" for i in range(40)]
    trials = VerificationTrials.all_pairs(speaker_ids)
    scores = rng.normal(size=len(trials.test)) + 1.5 * trials.is_target

    class Once:
        def integers(self, high: int, size: int) -> np.ndarray:
            return np.arange(size)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Once())
    result = verification_metrics(scores, trials, speaker_ids, resamples=3)
    for name in ("eer", "min_dcf"):
        assert result[name].low == pytest.approx(result[name].mean, abs=1e-9) == result[name].high


def test_the_cohort_has_one_embedding_per_speaker():
    embeddings = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    np.testing.assert_allclose(mean_by_speaker(embeddings, ["b", "a", "b"]), [[0.0, 1.0], [0.5, 0.5]])


def test_one_speaker_makes_no_trials():
    with pytest.raises(InputError, match="3 utterances of 1 speakers make no trials of both kinds"):
        VerificationTrials.all_pairs(["a", "a", "a"])
