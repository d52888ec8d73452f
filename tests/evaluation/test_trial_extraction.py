from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import VOICES, make_voice
from tests.evaluation.conftest import Oracle
from wesep_py.data.trials import Trial
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.inference import Extractor, Result
from wesep_py.inference.result import level_gain
from wesep_py.network.extraction_network import build_network


class BatchExtractor(Extractor):
    """An extractor that extracts several mixtures of one length together."""

    sizes: list[int]

    def extract_batch(self, recordings: Sequence[tuple[np.ndarray, int]], voices: Sequence) -> list[Result]:
        self.sizes.append(len(recordings))
        mixtures = np.stack([waveform for waveform, _ in recordings])
        keys = voices[0].tensors
        prepared = {key: torch.cat([voice.tensors[key] for voice in voices]) for key in keys}
        with torch.inference_mode():
            estimates = self._network.extract(torch.from_numpy(mixtures), prepared).waveforms[0].numpy()
        return [
            Result(estimate * np.float32(level_gain(estimate[None], mixture[None])), rate)
            for estimate, mixture, (_, rate) in zip(estimates, mixtures, recordings, strict=True)
        ]


def network(cues: list[dict]):
    torch.manual_seed(0)
    return build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}},
            "cues": cues,
        }
    )


@pytest.fixture
def embedding_model() -> BatchExtractor:
    extractor = BatchExtractor(network([{"name": "embedding"}]), "cpu", "tiny")
    extractor.sizes = []
    return extractor


def test_batches_of_one_length_give_the_same_numbers(trials, embedding_model, tmp_path):
    one = evaluate(Extractor(embedding_model._network, "cpu", "tiny"), trials, tmp_path / "one")
    several = evaluate(embedding_model, trials, tmp_path / "several", EvaluationOptions(batch_size=2))
    assert embedding_model.sizes == [2, 2, 2]  # the two trials of each mixture
    assert several["si_sdr"]["mean"] == pytest.approx(one["si_sdr"]["mean"], abs=1e-3)
    assert several["speed"]["rtf"] > 0
    assert several["protocol"]["batch_size"] == 2
    ids = [
        [line.split('"target_utterance_id": ')[1].split(",")[0] for line in path.read_text().splitlines()]
        for path in (tmp_path / "one" / "per_trial.jsonl", tmp_path / "several" / "per_trial.jsonl")
    ]
    assert ids[0] == ids[1]


def with_enrollments(trials: list[Trial], folder: Path, durations_s: Sequence[float]) -> list[Trial]:
    """Return the trials with enrollments of these lengths."""
    changed = []
    for number, (trial, duration_s) in enumerate(zip(trials, durations_s, strict=True)):
        path = folder / f"enrollment{number}.wav"
        soundfile.write(path, make_voice(*VOICES["anna"], duration_s, number), 16000)
        changed.append(replace(trial, enrollment=path))
    return changed


def test_frame_level_voices_share_batches_by_their_shapes(trials, tmp_path, caplog):
    """A frame-level cue has as many frames as the enrollment: voices of one length fit into a batch."""
    trials = [one for one in trials if one.mixture_id == "mix0"] * 2 + [trials[2]]
    trials = with_enrollments(trials, tmp_path, (1.0, 1.2, 1.2, 1.0, 1.0))
    extractor = BatchExtractor(network([{"name": "tf_map"}]), "cpu", "tiny")
    extractor.sizes = []
    batched = evaluate(extractor, trials, options=EvaluationOptions(batch_size=2))
    assert extractor.sizes == [2, 2] and caplog.messages == []
    one = evaluate(Extractor(extractor._network, "cpu", "tiny"), trials)
    assert batched["counts"]["scored"] == 5
    assert batched["si_sdr"]["mean"] == pytest.approx(one["si_sdr"]["mean"], abs=1e-3)


def test_a_failure_in_a_batch_costs_its_trial_only(odd_trials, embedding_model):
    counts = evaluate(embedding_model, odd_trials, options=EvaluationOptions(batch_size=3))["counts"]
    assert [counts[key] for key in ("scored", "silent_reference", "absent", "failed")] == [1, 1, 1, 1]


def test_an_enrollment_that_fails_costs_its_trial_only(trials, tmp_path, embedding_model):
    trials = with_enrollments([trials[0]] * 4, tmp_path, (1.0, 1.0, 0.02, 1.0))
    summary = evaluate(embedding_model, trials, options=EvaluationOptions(batch_size=3))
    assert embedding_model.sizes == [3]
    assert [summary["counts"][key] for key in ("scored", "failed")] == [3, 1]
    assert "0.1 s" in summary["failed"][0]["error"]


def test_trials_of_a_failed_batch_are_extracted_singly_but_enrolled_once(trials, embedding_model, caplog):
    enrolled, enroll = [], embedding_model.enroll

    def counted(*sources):
        enrolled.append(sources)
        return enroll(*sources)

    def out_of_memory(recordings, voices):
        raise RuntimeError("out of memory")

    embedding_model.enroll, embedding_model.extract_batch = counted, out_of_memory
    summary = evaluate(embedding_model, trials, options=EvaluationOptions(batch_size=2))
    assert summary["counts"]["scored"] == len(enrolled) == 6
    assert sum("a batch of 2 failed (out of memory)" in text for text in caplog.messages) == 3


def test_the_time_of_enrolling_counts(trials, tmp_path, embedding_model):
    enroll = embedding_model.enroll

    def slow(*sources):
        time.sleep(0.05)
        return enroll(*sources)

    embedding_model.enroll = slow
    evaluate(embedding_model, trials[:2], tmp_path / "out", EvaluationOptions(batch_size=2))
    lines = (tmp_path / "out" / "per_trial.jsonl").read_text().splitlines()
    assert all(json.loads(line)["extraction_s"] >= 0.05 for line in lines)


def test_a_model_without_batches_extracts_one_by_one(trials):
    summary = evaluate(Oracle(trials), trials, options=EvaluationOptions(batch_size=8))
    assert summary["counts"]["scored"] == 6
    assert "batch_size" not in summary["protocol"]
