"""Properties of all registered losses, angular margins and the schedule of a margin."""

from __future__ import annotations

import math

import pytest
import torch

from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.speaker.speaker_losses import (
    AAMSoftmax,
    AMSoftmax,
    BasisLoss,
    MarginSchedule,
    SphereFace2,
    build_speaker_loss,
    speaker_losses,
)
from wesep_py.network.speaker.speaker_losses.speaker_loss import add_angle, sine, subtract_angle

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
    """Return the loss, with a classifier of weight 0 beside it if it needs one."""
    torch.manual_seed(0)
    on_basis = issubclass(speaker_losses.get(config["name"]), BasisLoss)
    configs = [{"name": "softmax", "scale": 1.0, "weight": 0.0}] if on_basis else []
    return build_speaker_loss([*configs, config], DIM, SPEAKERS)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, DIM, generator=generator), torch.tensor([0, 0, 1, 1, 5, 5])


def test_all_losses_are_registered():
    classification = {"softmax", "a_softmax", "am", "aam", "sphereface2", "adaptive_margin"}
    metric = {"centre", "triplet", "prototypical", "angular_prototypical", "ge2e", "running_centroid"}
    assert set(NAMES) == classification | metric | {"between_speaker", "hard_negative"}


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_loss_falls_along_its_gradient(config):
    """Small steps against the gradient of the embeddings alone."""
    loss, (embeddings, labels) = make(config).eval(), batch()
    if config["name"] == "between_speaker":
        pytest.skip("looks at the basis only")
    if config["name"] == "running_centroid":
        loss.train()(embeddings.flip(0), labels)  # no speaker has a centroid before
        loss.eval()
    embeddings.requires_grad_()
    before = loss(embeddings, labels).loss
    (slopes,) = torch.autograd.grad(before, embeddings)
    assert slopes.norm() > 0
    after = loss(embeddings - 1e-3 * slopes / slopes.norm(), labels).loss
    assert after < before


@pytest.mark.parametrize(
    "config", [c for c in VARIANTS if make(c).classifier and c["name"] != "between_speaker"], ids=str
)
def test_loss_falls_towards_the_speakers_basis_vector(config):
    loss, (embeddings, labels) = make(config), batch()
    goal = loss.classifier.basis()[labels] * embeddings.norm(dim=1, keepdim=True)
    values = [loss(torch.lerp(embeddings, goal, share), labels).loss.item() for share in (0.0, 0.5, 1.0)]
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_training_separates_the_speakers(config):
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
def test_labels_that_are_not_whole_are_refused(name):
    with pytest.raises(InputError, match="whole numbers"):
        make({"name": name})(torch.randn(2, DIM), torch.tensor([0.0, 1.0]))


half_circle = torch.linspace(0.0, math.pi, 721, dtype=torch.float64)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5, 1.5])
def test_add_angle_by_arccos(margin):
    got, expected = add_angle(half_circle.cos(), margin), torch.cos(half_circle + margin)
    within = (half_circle > 0.01) & (half_circle + margin < math.pi)
    torch.testing.assert_close(got[within], expected[within], atol=1e-9, rtol=0)
    assert (got.diff() < 0).all(), "falls with the angle all the way"
    assert got.diff().abs().max() < 0.01, "without a jump"


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5, 1.5])
def test_subtract_angle_by_arccos(margin):
    got, expected = subtract_angle(half_circle.cos(), margin), torch.cos(half_circle - margin)
    within = (half_circle - margin > 0) & (half_circle + 0.01 < math.pi)
    torch.testing.assert_close(got[within], expected[within], atol=1e-9, rtol=0)
    assert (got.diff() < 0).all()
    assert (got >= half_circle.cos() - 2e-3).all()


def test_slopes_of_angles():
    """d cos(θ + m) / d cos θ = sin(θ + m) / sin θ, and 1 beyond θ = π − m."""
    angles = torch.tensor([0.3, 1.0, 2.0, 3.05], dtype=torch.float64)
    cosines = angles.cos().requires_grad_()
    add_angle(cosines, 0.2).sum().backward()
    expected = torch.sin(angles + 0.2) / torch.sin(angles)
    expected[3] = 1.0
    torch.testing.assert_close(cosines.grad, expected)


def test_slopes_of_angles_are_finite_at_the_ends():
    cosines = torch.tensor([-1.0, 1.0, 0.0], requires_grad=True)
    (add_angle(cosines, 0.3) + subtract_angle(cosines, 0.3) + sine(cosines)).sum().backward()
    assert cosines.grad.isfinite().all()


def test_angle_zero_changes_nothing():
    assert torch.equal(add_angle(half_circle.cos(), 0.0), half_circle.cos())
    assert torch.equal(subtract_angle(half_circle.cos(), 0.0), half_circle.cos())


def test_exponential_increase():
    """The public schedule: 1 − exp(r · log 0.001), steep at first, at the margin from the last step on."""
    schedule = MarginSchedule(start_step=1000, end_step=3000, initial=0.1)
    for step in (1200, 2000, 2999):
        share = 1 - math.exp((step - 1000) / 2000 * math.log(1e-3))
        assert schedule.margin_at(step, 0.5) == pytest.approx(0.1 + 0.4 * share, rel=1e-12)
    assert [schedule.margin_at(step, 0.5) for step in (0, 1000, 3000, 10**6)] == [0.1, 0.1, 0.5, 0.5]
    margins = [schedule.margin_at(step, 0.5) for step in range(0, 4000, 50)]
    assert margins == sorted(margins)


def test_linear_increase_and_a_step():
    schedule = MarginSchedule(10, 20, increase="linear")
    assert [schedule.margin_at(step, 0.2) for step in (10, 15, 20)] == pytest.approx([0.0, 0.1, 0.2])
    sudden = MarginSchedule(10, 10)
    assert [sudden.margin_at(step, 0.2) for step in (9, 10)] == [0.0, 0.2]


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax, SphereFace2])
def test_margin_of_a_loss_is_a_function_of_the_step(kind):
    schedule = MarginSchedule(10, 20, increase="linear")
    loss = kind(4, 3, margin=0.2, schedule=schedule)
    assert loss.current_margin == 0.0
    loss.update(15)
    assert loss.current_margin == pytest.approx(0.1)
    resumed = kind(4, 3, margin=0.2, schedule=schedule)
    resumed.load_state_dict(loss.state_dict())
    resumed.update(15)
    assert resumed.current_margin == loss.current_margin
    assert "margin" not in " ".join(loss.state_dict())
    loss.update(5)
    assert loss.current_margin == 0.0


def test_the_penalty_grows_with_the_margin():
    loss = AAMSoftmax(4, 3, margin=0.2, num_hard=1, hard_penalty=0.06, schedule=MarginSchedule(0, 10, 0.0, "linear"))
    penalties = []
    for step in (0, 5, 10):
        loss.update(step)
        penalties.append(loss.current_penalty)
    assert penalties == pytest.approx([0.0, 0.03, 0.06])


def test_impossible_schedules():
    with pytest.raises(ValueError, match="start_step <= end_step"):
        MarginSchedule(20, 10)
    with pytest.raises(ValueError, match=r"initial: is -0\.1"):
        MarginSchedule(initial=-0.1)
    with pytest.raises(ConfigError, match="increase"):
        construct(MarginSchedule, {"increase": "cosine"}, "schedule")
