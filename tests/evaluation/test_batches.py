from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.evaluation.conftest import Oracle
from wesep_py.evaluation import evaluate
from wesep_py.extractor import build_network
from wesep_py.inference import Extractor, Result
from wesep_py.inference.level import gain_onto


class BatchExtractor(Extractor):
    """An extractor that takes several mixtures of one length at a time."""

    sizes: list[int]

    def extract_batch(self, recordings: Sequence[tuple[np.ndarray, int]], voices: Sequence) -> list[Result]:
        self.sizes.append(len(recordings))
        mixtures = np.stack([waveform for waveform, _ in recordings])
        keys = voices[0].tensors
        prepared = {key: torch.cat([voice.tensors[key] for voice in voices]) for key in keys}
        with torch.inference_mode():
            estimates = self._network.extract(torch.from_numpy(mixtures), prepared).waveforms[0].numpy()
        return [
            Result(estimate * np.float32(gain_onto(estimate[None], mixture[None])), rate)
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
    several = evaluate(embedding_model, trials, tmp_path / "several", batch_size=2)
    assert embedding_model.sizes == [2, 2, 2]  # the two trials of each mixture
    assert several["si_sdr"]["mean"] == pytest.approx(one["si_sdr"]["mean"], abs=1e-3)
    assert several["speed"]["rtf"] > 0
    assert several["protocol"]["batch_size"] == 2
    ids = [
        [line.split('"target_utterance_id": ')[1].split(",")[0] for line in path.read_text().splitlines()]
        for path in (tmp_path / "one" / "per_trial.jsonl", tmp_path / "several" / "per_trial.jsonl")
    ]
    assert ids[0] == ids[1]


def test_voices_of_different_lengths_are_extracted_one_by_one(trials):
    """A frame-level cue keeps as many frames as the enrollment has: such voices do not stack."""
    extractor = BatchExtractor(network([{"name": "tf_map"}]), "cpu", "tiny")
    extractor.sizes = []
    trials = [trial for trial in trials if trial.mixture_id == "mix0"]
    object.__setattr__(trials[1], "enrollment", trials[1].sources[0].path)
    assert evaluate(extractor, trials, batch_size=4)["counts"]["scored"] == 2
    assert extractor.sizes == [2]


def test_a_failure_in_a_batch_costs_its_trial_only(odd_trials, embedding_model):
    counts = evaluate(embedding_model, odd_trials, batch_size=3)["counts"]
    assert [counts[key] for key in ("scored", "silent_reference", "absent", "failed")] == [1, 1, 1, 1]


def test_a_model_without_batches_is_asked_one_by_one(trials):
    summary = evaluate(Oracle(trials), trials, batch_size=8)
    assert summary["counts"]["scored"] == 6
    assert "batch_size" not in summary["protocol"]
