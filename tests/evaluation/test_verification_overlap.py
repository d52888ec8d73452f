"""Verification of overlapping voices, with encoders whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wesep_py.audio import info
from wesep_py.common.errors import InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.evaluation.verification import (
    OverlapRecording,
    best_scores,
    draw_overlap_recordings,
    embed_voices,
    measure_overlap,
    verify_overlap,
)
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder
from wesep_py.network.speaker.speaker_network import SpeakerEmbeddings, SpeakerOutput
from wesep_py.simulation import SimulationConfig


class Oracle(nn.Module):
    """Read the speakers from the samples of a recording: sample s is 1 if speaker s is active."""

    embedding_dim = 4

    def __init__(self, max_voices: int) -> None:
        super().__init__()
        self.max_voices = max_voices

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> SpeakerOutput:
        return SpeakerOutput(waveform, waveform, waveform[:, :4])

    def voices(self, waveform: torch.Tensor, lengths: torch.Tensor) -> SpeakerEmbeddings:
        order = waveform[:, :4].sort(dim=1, descending=True, stable=True).indices[:, :2]
        return SpeakerEmbeddings(torch.eye(4)[order], torch.zeros(len(order), 2), waveform[:, :4].sum(dim=1).long())


def recordings(*speakers: tuple[int, ...], offset: int = 0, sir_db: float | None = None) -> list[OverlapRecording]:
    written = []
    for number, own in enumerate(speakers, start=offset):
        waveform = np.zeros(6, np.float32)
        waveform[list(own)] = 1
        written.append(OverlapRecording(waveform, frozenset(map(str, own)), frozenset({f"u{number}"}), sir_db))
    return written


SINGLES = recordings((0,), (0,), (1,), (2,), (3,), (3,))
MIXTURES = recordings((0, 1), (2, 3), (1, 2), (0, 3), offset=10, sir_db=3.0)


def test_an_encoder_of_all_voices_makes_no_error():
    result = measure_overlap(Oracle(2), SINGLES, MIXTURES)
    assert result.eer == {"single_single": 0, "single_mixture": 0, "mixture_mixture": 0}
    assert result.trials == {"single_single": 15, "single_mixture": 24, "mixture_mixture": 6}
    assert result.count_accuracy == {1: 1.0, 2: 1.0} and result.count_accuracy_by_sir == {"0-5": 1.0}
    assert "2 speakers counted correctly: 100.0 %" in result.lines()


def test_an_encoder_of_one_voice_counts_nothing():
    result = measure_overlap(Oracle(1), SINGLES, MIXTURES)
    assert result.eer["single_single"] == 0 and result.count_accuracy == {} and len(result.lines()) == 3
    scores = best_scores(embed_voices(Oracle(1), [SINGLES[0], MIXTURES[0]]))
    assert scores[0, 1] == pytest.approx(2**-0.5)


def test_wrong_counts_lower_the_accuracy():
    wrong = recordings((0, 1), (2, 3), (1, 2), offset=20, sir_db=7.0)
    wrong[0].waveform[1] = 0  # one voice is heard, two speak
    result = measure_overlap(Oracle(2), SINGLES, wrong)
    assert result.count_accuracy == {1: 1.0, 2: pytest.approx(2 / 3)}
    assert result.count_accuracy_by_sir == {"5-10": pytest.approx(2 / 3)}


def test_pieces_of_one_utterance_are_no_trial():
    again = recordings((0,), offset=0)
    result = measure_overlap(Oracle(2), SINGLES + again, MIXTURES)
    assert result.trials["single_single"] == 20


def test_trials_of_one_kind_are_refused_before_embedding():
    both = recordings((0, 1), (0, 1), offset=10, sir_db=3.0)
    singles = recordings((0,), (0,), (1,))
    with pytest.raises(InputError, match=r"3 recordings of one voice and 2 of several make no single–mixture .*6 of 6"):
        measure_overlap(None, singles, both)
    with pytest.raises(InputError, match=r"no single–single .*\(0 of 1 share"):
        measure_overlap(None, singles[1:], MIXTURES)


def test_the_score_is_the_highest_among_the_voices():
    left, right = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 4.0]])
    assert best_scores([left, right])[0, 1] == pytest.approx(0.8)


@pytest.fixture(scope="module")
def utterances(tiny_speech: Path) -> list[Utterance]:
    files = sorted(tiny_speech.glob("*/*.wav"))
    return [Utterance(file.stem, file.parent.name, file, info(file).duration_s) for file in files]


SIMULATION = SimulationConfig(duration_s=1.0, min_source_s=0.5)


def test_draws_depend_on_the_seed_alone(utterances):
    drawn = [draw_overlap_recordings(utterances, FileReader(16000), 2, 3, SIMULATION, seed) for seed in (0, 0, 1)]
    one, again, other = ([recording.waveform for recording in some] for some in drawn)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert all(len(r.speaker_ids) == 2 and 0 <= r.sir_db <= 5 and len(r.waveform) == 16000 for r in drawn[0])


@pytest.mark.parametrize("pooling", ["recursive", "astp"])
def test_both_kinds_of_encoder_go_through(utterances, pooling):
    torch.manual_seed(0)
    network = {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 8, "pooling": pooling}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000).train()
    result = verify_overlap(encoder, utterances, FileReader(16000), count=8, simulation=SIMULATION)
    assert set(result.count_accuracy) == ({1, 2} if pooling == "recursive" else set()) and encoder.training
    assert all(0 <= value <= 1 for value in result.eer.values()) and result.as_dict()["trials"]["single_mixture"] > 20
