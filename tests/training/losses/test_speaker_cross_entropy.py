from __future__ import annotations

import math

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import NetworkOutput, build_network
from wesep_py.training.losses import SpeakerCrossEntropy

TARGET = torch.zeros(2, 4)


def output(logits: torch.Tensor | None) -> NetworkOutput:
    return NetworkOutput((TARGET,), None, logits)


def test_it_is_the_log_of_the_share_of_the_right_speaker():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]))
    value = SpeakerCrossEntropy()(output(logits), TARGET, {"speaker": torch.tensor([0, 1])})
    assert value.item() == pytest.approx(-(math.log(0.7) + math.log(0.25)) / 2, abs=1e-6)


def test_it_trains_the_encoder_of_an_extractor():
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 8}},
            "cues": [{"name": "embedding", "num_speakers": 5}],
        }
    )
    out = network(torch.randn(2, 8000), torch.randn(2, 8000))
    SpeakerCrossEntropy(0.1)(out, TARGET, {"speaker": torch.tensor([4, 0])}).backward()
    assert network.encoder.network.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("logits", "message"),
    [(None, "needs speaker logits"), (torch.zeros(2, 3), "num_speakers is 3, and the training set has at least 5")],
)
def test_what_is_missing_is_said(logits, message: str):
    with pytest.raises(ConfigError, match=message):
        SpeakerCrossEntropy()(output(logits), TARGET, {"speaker": torch.tensor([0, 4])})


def test_a_share_out_of_range():
    with pytest.raises(ValueError, match="label_smoothing: is 1"):
        SpeakerCrossEntropy(1.0)


def test_the_number_of_speakers_is_that_of_the_training_set_not_of_a_batch():
    few, batch = output(torch.zeros(2, 3)), {"speaker": torch.tensor([0, 1])}
    SpeakerCrossEntropy()(few, TARGET, batch)
    SpeakerCrossEntropy(num_speakers=3)(few, TARGET, batch)
    with pytest.raises(ConfigError, match="num_speakers is 3, and the training set has 4 speakers"):
        SpeakerCrossEntropy(num_speakers=4)(few, TARGET, batch)


def test_labels_are_read_once_at_most():
    """To read a label of a GPU's is to wait for all that it has to do."""

    class Labels(torch.Tensor):
        reads = 0

        def __int__(self) -> int:
            Labels.reads += 1
            return super().__int__()

    labels, logits = torch.tensor([0, 1]).as_subclass(Labels), output(torch.zeros(2, 3))
    for loss, reads in ((SpeakerCrossEntropy(num_speakers=3), 0), (SpeakerCrossEntropy(), 1)):
        Labels.reads = 0
        for _ in range(3):
            loss(logits, TARGET, {"speaker": labels})
        assert Labels.reads == reads
