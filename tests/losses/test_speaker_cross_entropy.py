from __future__ import annotations

import math

import pytest
import torch

from wesep_py.errors import ConfigError
from wesep_py.extractor import NetworkOutput, build_network
from wesep_py.losses import SpeakerCrossEntropy

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
