"""Losses of speaker encoders among those of an extractor."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker.speaker_losses import build_speaker_loss
from wesep_py.training.extraction_task import loss_arguments
from wesep_py.training.losses import SpeakerMarginLoss
from wesep_py.training.step import Criterion, TrainingStep

AAM = {"name": "aam", "margin": 0.3, "schedule": {"start_step": 0, "end_step": 10, "increase": "linear"}}


def make(config: dict | list[dict], dim: int = 4) -> SpeakerMarginLoss:
    torch.manual_seed(0)
    return SpeakerMarginLoss(lambda given: build_speaker_loss(given, dim, 3), config)


def test_it_is_the_speaker_loss_of_the_embedding():
    embedding, labels = torch.randn(5, 4), torch.tensor([0, 2, 1, 1, 0])
    loss = make([AAM, {"name": "hard_negative", "num_hard": 1, "weight": 0.5}])
    value = loss(None, None, {"embedding": embedding, "speaker": labels})
    torch.testing.assert_close(value, loss.loss(embedding, labels).loss)
    assert sum(p.numel() for p in loss.parameters()) == 3 * 4


def test_the_margin_grows_with_the_steps():
    batch = {"embedding": torch.randn(5, 4), "speaker": torch.tensor([0, 2, 1, 1, 0])}
    loss, values = make([AAM]), []
    for step in (0, 5, 10, 99):
        loss.update(step)
        values.append(loss(None, None, batch).item())
    assert values[0] < values[1] < values[2] == values[3]


@pytest.mark.parametrize("config", [{"name": "aam"}, [{"name": "am"}, {"name": "centre", "weight": 0.1}]])
def test_it_trains_the_encoder_of_an_extractor(config):
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 8}},
            "cues": [{"name": "tf_map"}, {"name": "embedding", "transform": True}],
        }
    )
    criterion = Criterion(
        [{"name": "si_sdr"}, {"name": "speaker_margin", "weight": 1e-6, "loss": config}],
        loss_arguments(network, lambda: 5),
    )
    step = TrainingStep(network, criterion).eval()
    batch = {
        "mixture": torch.randn(2, 8000), "enrollment": torch.randn(2, 8000), "target": torch.randn(2, 8000),
        "enrollment_lengths": torch.tensor([8000, 6000]), "speaker": torch.tensor([4, 0]),
    }  # fmt: skip
    values = step(batch)
    embedding = network.encoder(*scaled(network, batch)).embedding
    expected = criterion.terms[1].loss(embedding, batch["speaker"]).loss
    torch.testing.assert_close(values["speaker_margin"], expected)
    torch.testing.assert_close(values["si_sdr"], Criterion({"name": "si_sdr"})(network(*inputs(batch)), batch)["loss"])
    values["speaker_margin"].backward()
    assert network.encoder.network.linear.weight.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in criterion.parameters())


def inputs(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return batch["mixture"], batch["enrollment"], batch["enrollment_lengths"]


def scaled(network, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    _, enrollment, lengths = inputs(batch)
    return network.preprocess(enrollment, lengths)[0], lengths


def test_the_makers_are_asked_only_by_losses_that_name_them():
    def refuse() -> int:
        raise AssertionError("nobody needs this")

    names = ("sample_rate", "num_speakers", "speaker_loss")
    Criterion([{"name": "si_sdr"}, {"name": "presence"}], dict.fromkeys(names, refuse))
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    arguments = loss_arguments(network, partial(int, 7))
    assert (arguments["sample_rate"](), arguments["num_speakers"]()) == (16000, 7)
