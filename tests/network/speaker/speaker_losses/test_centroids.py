"""The loss on running centroids: its values, what moves the centroids, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import RunningCentroidLoss, build_speaker_loss


def test_centroids_are_running_means_of_directions():
    torch.manual_seed(0)
    loss, labels = RunningCentroidLoss(4, 3, memory=0.8), torch.tensor([0, 0, 2])
    expected = torch.zeros(3, 4)
    for _ in range(3):
        embeddings = 5 * torch.randn(3, 4)
        loss(embeddings, labels)
        unit = F.normalize(embeddings)
        expected[0] = 0.8 * expected[0] + 0.2 * unit[:2].mean(0)
        expected[2] = 0.8 * expected[2] + 0.2 * unit[2]
    torch.testing.assert_close(loss.centroids, expected)


def test_the_loss_is_the_mean_cosine_distance_to_known_centroids():
    torch.manual_seed(0)
    loss = RunningCentroidLoss(4, 3)
    loss.centroids[0], loss.centroids[1] = torch.tensor([3.0, 0, 0, 0]), torch.tensor([0, 0.1, 0, 0])
    embeddings = torch.randn(3, 4, requires_grad=True)
    value = loss.eval()(embeddings, torch.tensor([0, 1, 2])).loss
    unit = F.normalize(embeddings)
    torch.testing.assert_close(value, ((1 - unit[0, 0]) + (1 - unit[1, 1])) / 2)
    value.backward()
    assert embeddings.grad[:2].any(dim=1).all() and not embeddings.grad[2].any()


def test_only_training_moves_centroids_and_they_are_saved():
    loss, batch = RunningCentroidLoss(4, 3), (torch.randn(2, 4), torch.tensor([0, 1]))
    loss.eval()(*batch)
    assert not loss.centroids.any() and "centroids" in loss.state_dict()
    loss.train()(*batch)
    assert loss.centroids[:2].any(dim=1).all() and not loss.centroids[2].any()


def test_one_utterance_learns_to_predict_the_centroid_of_its_speaker():
    """Two speakers whose utterances are noisy: the layer that learns removes the noise."""
    torch.manual_seed(0)
    speakers = F.normalize(torch.randn(2, 8))
    layer, loss = (
        torch.nn.Linear(8, 4),
        build_speaker_loss([{"name": "running_centroid"}, {"name": "softmax", "scale": 10.0}], 4, 2),
    )
    optimiser = torch.optim.Adam([*layer.parameters(), *loss.parameters()], lr=0.02)
    spreads = []
    for _ in range(200):
        labels = torch.arange(16) % 2
        embeddings = layer(speakers[labels] + 0.3 * torch.randn(16, 8))
        value = loss(embeddings, labels)
        spreads.append(value.parts["running_centroid"].item())
        optimiser.zero_grad()
        value.loss.backward()
        optimiser.step()
    assert sum(spreads[-20:]) < 0.6 * sum(spreads[5:25])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 2), "embedding_dim"), ((4, 0), "num_speakers"), ((4, 2, 1.0), "memory: is 1.0")],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RunningCentroidLoss(*arguments)


def test_labels_out_of_range_are_refused():
    with pytest.raises(InputError, match="the loss is for 2 speakers"):
        RunningCentroidLoss(4, 2)(torch.randn(1, 4), torch.tensor([2]))
