from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.speaker_losses import (
    AAMSoftmax,
    BetweenSpeakerLoss,
    CentreLoss,
    CombinedSpeakerLoss,
    HardNegativeLoss,
    build_speaker_loss,
)

PAPER = [
    {"name": "aam", "margin": 0.3, "num_subcentres": 2, "schedule": {"start_step": 10, "end_step": 20}},
    {"name": "hard_negative", "num_hard": 3, "weight": 0.5},
    {"name": "between_speaker", "weight": 0.01},
    {"name": "centre", "strength": 1.0, "weight": 2},
    {"name": "ge2e", "weight": 0},
]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 8), torch.tensor([0, 0, 1, 1, 4, 4])


def test_loss_is_the_weighted_sum_of_its_parts():
    loss, (embeddings, labels) = build_speaker_loss(PAPER, 8, 5), batch()
    output = loss(embeddings, labels)
    aam = loss.losses["aam"]
    assert isinstance(aam, AAMSoftmax) and loss.classifier is aam
    expected = {
        "aam": aam(embeddings, labels).loss,
        "hard_negative": HardNegativeLoss(3)(aam.basis(), aam.cosines(embeddings), labels),
        "between_speaker": BetweenSpeakerLoss()(aam.basis(), aam.cosines(embeddings), labels),
        "centre": CentreLoss(8, 5, strength=1.0)(embeddings, labels).loss,
    }
    for name, value in expected.items():
        torch.testing.assert_close(output.parts[name], value.detach())
    weights = {"aam": 1.0, "hard_negative": 0.5, "between_speaker": 0.01, "centre": 2.0}
    torch.testing.assert_close(output.loss, sum(weights[name] * value for name, value in expected.items()))
    assert set(output.parts) == {config["name"] for config in PAPER}
    assert torch.equal(output.cosines, aam.cosines(embeddings))


def test_classifier_is_stored_once_and_trained_by_basis_losses():
    loss, (embeddings, labels) = build_speaker_loss(PAPER, 8, 5), batch()
    assert sorted(loss.state_dict()) == [
        "losses.aam.weight",
        "losses.centre.centres",
        "losses.ge2e.bias",
        "losses.ge2e.scale",
    ]
    alone = build_speaker_loss([PAPER[0]], 8, 5)
    alone.load_state_dict({"losses.aam.weight": loss.classifier.weight})
    loss(embeddings, labels).loss.backward()
    alone(embeddings, labels).loss.backward()
    assert not torch.allclose(loss.classifier.weight.grad, alone.classifier.weight.grad, rtol=1e-3)


def test_update_reaches_the_losses():
    loss = build_speaker_loss(PAPER, 8, 5)
    assert loss.classifier.current_margin == 0.0
    loss.update(20)
    assert loss.classifier.current_margin == 0.3


def test_no_cosines_without_a_classification_loss():
    embeddings, labels = batch()
    loss = build_speaker_loss([{"name": "angular_prototypical"}, {"name": "triplet"}], 8, 5)
    assert loss.classifier is None and loss(embeddings, labels).cosines is None


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([], "losses: losses: is empty"),
        ([{"name": "aamm"}], r"losses\[0\]: no speaker loss is called 'aamm'; did you mean 'aam'"),
        ([{"margin": 0.2}], r"losses\[0\]: needs a key 'name'"),
        ([{"name": "aam", "margn": 0.2}], r"losses\[0\].margn: unknown key; did you mean 'margin'"),
        ([{"name": "aam", "embedding_dim": 3}], r"losses\[0\].embedding_dim: unknown key"),
        ([{"name": "aam", "margin": -0.2}], r"losses\[0\]: margin: is -0.2"),
        ([{"name": "aam"}, {"name": "am"}], "aam and am both classify"),
        ([{"name": "ge2e"}, {"name": "hard_negative"}], "hard_negative needs the basis of a classification loss"),
        ([{"name": "aam", "weight": "much"}], r"losses\[0\].weight: is 'much'; a number"),
        ([{"name": "aam", "weight": -1.0}], "weight of aam: is -1.0; 0 or more"),
        ([{"name": "aam"}, {"name": "aam"}], r"losses\[1\]: 'aam' is listed twice"),
        (["aam"], r"losses\[0\]: is 'aam'; a mapping"),
    ],
)
def test_impossible_lists_are_refused(configs, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_speaker_loss(configs, 8, 5)
    assert "\n" not in str(caught.value)


def test_sum_can_be_built_from_losses():
    loss = CombinedSpeakerLoss({"mine": AAMSoftmax(8, 5)}, {"mine": 2.0})
    embeddings, labels = batch()
    assert loss(embeddings, labels).loss == 2 * loss.losses["mine"](embeddings, labels).loss
