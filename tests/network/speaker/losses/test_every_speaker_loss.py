"""What holds for every registered loss."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import wesep_py.network.speaker.speaker_losses
from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses import BasisLoss, build_speaker_loss, speaker_losses

DIM, SPEAKERS = 8, 6
NAMES = speaker_losses.names()
VARIANTS = [{"name": name} for name in NAMES] + [
    {"name": "aam", "num_subcentres": 3, "num_hard": 2},
    {"name": "am", "num_subcentres": 2, "num_hard": 2},
    {"name": "softmax", "scale": 16.0},
    {"name": "sphereface2", "margin_type": "angular"},
    {"name": "triplet", "mining": "hard"},
    {"name": "ge2e", "kind": "contrast"},
]


def make(config):
    """The loss, beside a classifier of weight 0 where it needs one."""
    torch.manual_seed(0)
    on_basis = issubclass(speaker_losses.get(config["name"]), BasisLoss)
    configs = [{"name": "softmax", "scale": 1.0, "weight": 0.0}] if on_basis else []
    return build_speaker_loss([*configs, config], DIM, SPEAKERS)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, DIM, generator=generator), torch.tensor([0, 0, 1, 1, 5, 5])


def test_every_loss_that_was_asked_for_is_there():
    classification = {"softmax", "a_softmax", "am", "aam", "sphereface2", "adaptive_margin"}
    metric = {"centre", "triplet", "prototypical", "angular_prototypical", "ge2e"}
    assert set(NAMES) == classification | metric | {"between_speaker", "hard_negative"}


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_falls_when_an_embedding_moves_to_its_speaker(config):
    """Small steps against the gradient of the embeddings alone."""
    loss, (embeddings, labels) = make(config).eval(), batch()
    if config["name"] == "between_speaker":
        pytest.skip("looks at the basis only")
    embeddings.requires_grad_()
    before = loss(embeddings, labels).loss
    (slopes,) = torch.autograd.grad(before, embeddings)
    assert slopes.norm() > 0
    after = loss(embeddings - 1e-3 * slopes / slopes.norm(), labels).loss
    assert after < before


@pytest.mark.parametrize(
    "config", [c for c in VARIANTS if make(c).classifier and c["name"] != "between_speaker"], ids=str
)
def test_falls_on_the_way_to_the_own_basis_vector(config):
    loss, (embeddings, labels) = make(config), batch()
    goal = loss.classifier.basis()[labels] * embeddings.norm(dim=1, keepdim=True)
    values = [loss(torch.lerp(embeddings, goal, share), labels).loss.item() for share in (0.0, 0.5, 1.0)]
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_training_tells_the_speakers_apart(config):
    if config["name"] in {"centre", "between_speaker"}:
        pytest.skip("joins a classification loss; alone it does not tell speakers apart")
    if config.get("num_subcentres", 1) > 1:
        pytest.skip("allows a speaker's embeddings to gather at several places")
    loss, (embeddings, labels) = make(config), batch()
    same = (labels[:, None] == labels) & ~torch.eye(6, dtype=torch.bool)
    other = labels[:, None] != labels

    def contrast() -> float:
        unit = torch.nn.functional.normalize(embeddings.detach())
        return float((unit @ unit.T)[same].mean() - (unit @ unit.T)[other].mean())

    before = contrast()
    embeddings.requires_grad_()
    for step in range(60):
        loss.update(step)
        moved = [embeddings, *loss.parameters()]
        slopes = torch.autograd.grad(loss(embeddings, labels).loss, moved, allow_unused=True)
        for tensor, slope in zip(moved, slopes, strict=True):
            if slope is not None:
                tensor.data -= 0.1 * slope / slope.norm().clamp(min=1e-6)
    assert contrast() > before + 0.1  # where the triplet loss is content: its margin is 0.2 of 2 − 2 cos


@pytest.mark.processor
@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_computes_in_float32_under_autocast_and_for_bfloat16(config):
    embeddings, labels = batch()
    embeddings = embeddings.bfloat16()
    expected = make(config)(embeddings.float(), labels).loss
    with torch.autocast("cpu", torch.bfloat16):
        got = make(config)(embeddings, labels).loss
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_gradients_by_finite_differences(config):
    loss, (embeddings, labels) = make(config).double().eval(), batch()
    embeddings = embeddings.double().requires_grad_()
    parameters = tuple(loss.parameters())

    def value(e, *_):
        return loss(e, labels).loss

    assert torch.autograd.gradcheck(value, (embeddings, *parameters), atol=1e-5)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_zero_embeddings_have_finite_gradients(config):
    loss, (embeddings, labels) = make(config), batch()
    embeddings = torch.zeros_like(embeddings).requires_grad_()
    output = loss(embeddings, labels)
    output.loss.backward()
    gradients = [embeddings.grad, *(p.grad for p in loss.parameters() if p.grad is not None)]
    assert output.loss.isfinite()
    assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_labels_that_are_not_whole(name):
    with pytest.raises(InputError, match="whole numbers"):
        make({"name": name})(torch.randn(2, DIM), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    "module", [module.name for module in pkgutil.iter_modules(wesep_py.network.speaker.speaker_losses.__path__)]
)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"wesep_py.network.speaker.speaker_losses.{module}"))
    assert result.failed == 0
