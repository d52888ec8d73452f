"""Losses of second tasks: presence, speaker cross-entropy, speaker margin losses."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import NetworkOutput, build_network
from wesep_py.network.speaker.speaker_losses import build_speaker_loss
from wesep_py.training.extraction_task import Criterion, TrainingStep, embed_targets, loss_arguments
from wesep_py.training.losses import PresenceLoss, SpeakerCrossEntropy, SpeakerMarginLoss, losses
from wesep_py.training.losses.auxiliary import activity_at_frames


def presence_value(
    logits: torch.Tensor, activity: torch.Tensor, present: list[int] | None = None, **arguments
) -> float:
    batch = {"activity": activity} if present is None else {"activity": activity, "present": torch.tensor(present)}
    return PresenceLoss(**arguments)(SimpleNamespace(presence_logits=logits), torch.zeros(1, 1), batch).item()


def test_presence_of_the_frames():
    logits = torch.tensor([[2.0, -2.0]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert presence_value(logits, torch.tensor([[1.0, 1, 0, 0]]), recording=0) == pytest.approx(right, abs=1e-5)
    assert presence_value(logits, torch.tensor([[0.0, 0, 1, 1]]), recording=0) == pytest.approx(wrong, abs=1e-5)


def test_the_surest_frames_decide_for_the_recording():
    logits = torch.full((1, 10), -4.0)
    logits[0, 3] = 3.0
    active = torch.zeros(1, 10)
    active[0, 3] = 1
    assert presence_value(logits, active, recording=1, surest=0.1) == pytest.approx(
        math.log(1 + math.exp(-3)), abs=1e-5
    )
    assert presence_value(logits, active, recording=1, surest=0.2) == pytest.approx(
        math.log(1 + math.exp(0.5)), abs=1e-5
    )
    assert presence_value(logits, 0 * active, recording=1) == pytest.approx(math.log(1 + math.exp(3)), abs=1e-5)


def test_the_batch_gives_the_label_of_the_recording_if_it_has_one():
    logits = torch.full((1, 10), 3.0)
    assert presence_value(logits, torch.ones(1, 10), [0], recording=1) == pytest.approx(
        math.log(1 + math.exp(3)), abs=1e-5
    )


def test_presence_weighs_frames_and_recording():
    logits, active = torch.randn(3, 20), (torch.rand(3, 40) > 0.5).float()
    frames, whole = (presence_value(logits, active, recording=share) for share in (0, 1))
    assert presence_value(logits, active, recording=0.25) == pytest.approx(0.75 * frames + 0.25 * whole, rel=1e-5)


@pytest.mark.parametrize("num_frames", [63, 100, 251])
def test_activity_at_another_frame_rate_keeps_its_time(num_frames: int):
    activity = torch.zeros(1, 100)
    activity[0, 30:60] = 1
    active = activity_at_frames(activity, num_frames)[0].nonzero()
    assert active.min().item() / num_frames == pytest.approx(0.3, abs=1 / num_frames)
    assert (active.max().item() + 1) / num_frames == pytest.approx(0.6, abs=1 / num_frames)


def test_presence_refuses_a_network_without_a_presence_head():
    with pytest.raises(ConfigError, match=r"'presence' needs a presence head; add model\.presence"):
        PresenceLoss()(SimpleNamespace(presence_logits=None), torch.zeros(1, 1), {"activity": torch.zeros(1, 1)})


@pytest.mark.parametrize("arguments", [{"recording": 1.5}, {"surest": 0.0}])
def test_presence_refuses_impossible_arguments(arguments: dict):
    with pytest.raises(ConfigError, match="is allowed"):
        losses.build({"name": "presence", **arguments}, "loss")


TARGET = torch.zeros(2, 4)


def output(logits: torch.Tensor | None) -> NetworkOutput:
    return NetworkOutput((TARGET,), None, logits)


def test_cross_entropy_is_the_log_of_the_right_speakers_share():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]))
    value = SpeakerCrossEntropy()(output(logits), TARGET, {"speaker": torch.tensor([0, 1])})
    assert value.item() == pytest.approx(-(math.log(0.7) + math.log(0.25)) / 2, abs=1e-6)


def test_cross_entropy_trains_the_encoder_of_an_extractor():
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
def test_cross_entropy_names_what_is_missing(logits, message: str):
    with pytest.raises(ConfigError, match=message):
        SpeakerCrossEntropy()(output(logits), TARGET, {"speaker": torch.tensor([0, 4])})


def test_cross_entropy_refuses_a_share_out_of_range():
    with pytest.raises(ValueError, match="label_smoothing: is 1"):
        SpeakerCrossEntropy(1.0)


def test_cross_entropy_checks_the_training_sets_number_of_speakers():
    few, batch = output(torch.zeros(2, 3)), {"speaker": torch.tensor([0, 1])}
    SpeakerCrossEntropy()(few, TARGET, batch)
    SpeakerCrossEntropy(num_speakers=3)(few, TARGET, batch)
    with pytest.raises(ConfigError, match="num_speakers is 3, and the training set has 4 speakers"):
        SpeakerCrossEntropy(num_speakers=4)(few, TARGET, batch)


def test_labels_are_read_once_at_most():
    """Reading a label from a GPU waits for all of its pending work."""

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


AAM = {"name": "aam", "margin": 0.3, "schedule": {"start_step": 0, "end_step": 10, "increase": "linear"}}


def make_margin_loss(config: dict | list[dict], dim: int = 4) -> SpeakerMarginLoss:
    torch.manual_seed(0)
    return SpeakerMarginLoss(lambda given: build_speaker_loss(given, dim, 3), config)


def test_margin_loss_is_the_speaker_loss_of_the_embedding():
    embedding, labels = torch.randn(5, 4), torch.tensor([0, 2, 1, 1, 0])
    loss = make_margin_loss([AAM, {"name": "hard_negative", "num_hard": 1, "weight": 0.5}])
    value = loss(None, None, {"embedding": embedding, "speaker": labels})
    torch.testing.assert_close(value, loss.loss(embedding, labels).loss)
    assert sum(p.numel() for p in loss.parameters()) == 3 * 4


def test_the_margin_grows_with_the_steps():
    batch = {"embedding": torch.randn(5, 4), "speaker": torch.tensor([0, 2, 1, 1, 0])}
    loss, values = make_margin_loss([AAM]), []
    for step in (0, 5, 10, 99):
        loss.update(step)
        values.append(loss(None, None, batch).item())
    assert values[0] < values[1] < values[2] == values[3]


@pytest.mark.parametrize("config", [{"name": "aam"}, [{"name": "am"}, {"name": "centre", "weight": 0.1}]])
def test_margin_loss_trains_the_encoder_of_an_extractor(config):
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


METRIC_LOSSES = ["ge2e", "prototypical", "angular_prototypical", "triplet"]


def metric_step(name: str) -> tuple[TrainingStep, dict[str, torch.Tensor]]:
    """Return a training step with a metric loss on both utterances, and a batch of three present and one absent."""
    torch.manual_seed(0)
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 8}},
            "cues": [{"name": "embedding"}],
        }
    )
    config = {"name": "speaker_margin", "utterances": "both", "loss": {"name": name}}
    criterion = Criterion([{"name": "si_sdr"}, config], loss_arguments(network, lambda: 5))
    target = torch.randn(4, 8000)
    target[3] = 0
    batch = {
        "mixture": torch.randn(4, 8000), "enrollment": torch.randn(4, 8000), "target": target,
        "enrollment_lengths": torch.tensor([8000, 6000, 8000, 8000]), "speaker": torch.tensor([4, 0, 2, 1]),
        "activity": torch.ones(4, 50), "present": torch.tensor([1, 1, 1, 0]),
    }  # fmt: skip
    return TrainingStep(network, criterion).eval(), batch


@pytest.mark.parametrize("name", METRIC_LOSSES)
def test_metric_losses_compare_enrollments_with_targets(name):
    step, batch = metric_step(name)
    value = step(batch)["speaker_margin"]
    network = step.network
    enrolled = network.encoder(*scaled(network, batch)).embedding
    targets = network.embed(batch["target"][:3])
    expected = step.criterion.terms[1].loss(
        torch.cat([enrolled, targets]), torch.cat([batch["speaker"], batch["speaker"][:3]])
    )
    torch.testing.assert_close(value, expected.loss)
    value.backward()
    gradient = network.encoder.network.linear.weight.grad.abs().sum()
    assert gradient > 0 or (name == "triplet" and value == 0)


def test_targets_that_hardly_speak_are_not_embedded():
    step, batch = metric_step("ge2e")
    batch["activity"][1] = 0
    batch["activity"][1, :10] = 1
    assert embed_targets(step.network, {**batch, "embedding": torch.zeros(4, 8)})["target_items"].tolist() == [0, 2]
    batch["activity"][2] = 0
    alone = embed_targets(step.network, {**batch, "embedding": torch.zeros(4, 8)})
    assert alone["target_items"].tolist() == [] and alone["target_embedding"].shape == (0, 8)
    value = step(batch)["speaker_margin"]
    value.backward()
    assert value.item() == 0, "a batch without two utterances of a speaker"


def test_a_step_of_training_with_a_metric_loss_moves_the_encoder():
    step, batch = metric_step("ge2e")
    step.train()
    before = step.network.encoder.network.linear.weight.clone()
    optimiser = torch.optim.SGD(step.parameters(), lr=0.1)
    step(batch)["speaker_margin"].backward()
    optimiser.step()
    assert not torch.equal(before, step.network.encoder.network.linear.weight)


def test_without_both_utterances_targets_are_not_embedded():
    step, _ = metric_step("ge2e")
    assert step.criterion.needs_target_embedding
    arguments = loss_arguments(step.network, lambda: 5)
    assert not Criterion({"name": "speaker_margin", "loss": {"name": "aam"}}, arguments).needs_target_embedding


def test_only_a_network_with_an_encoder_embeds():
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    with pytest.raises(ConfigError, match="has no speaker encoder"):
        network.embed(torch.randn(1, 8000))


def inputs(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return batch["mixture"], batch["enrollment"], batch["enrollment_lengths"]


def scaled(network, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    _, enrollment, lengths = inputs(batch)
    return network.preprocess(enrollment, lengths)[0], lengths


def test_argument_makers_are_called_only_for_losses_that_need_them():
    def refuse() -> int:
        raise AssertionError("nobody needs this")

    names = ("sample_rate", "num_speakers", "speaker_loss")
    Criterion([{"name": "si_sdr"}, {"name": "presence"}], dict.fromkeys(names, refuse))
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    arguments = loss_arguments(network, partial(int, 7))
    assert (arguments["sample_rate"](), arguments["num_speakers"]()) == (16000, 7)
