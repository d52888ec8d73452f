from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional as F

from wesep_py.common.errors import CheckpointError, ConfigError, InputError
from wesep_py.interop.wespeaker_losses import load_wespeaker_loss, translate

NAMES = ["add_margin", "arc_margin", "arc_margin_intertopk_subcenter", "sphere", "sphereface2"]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().norm() / theirs.norm())


@pytest.mark.parametrize("name", NAMES)
def test_computes_what_the_public_loss_computes(shared_parity, name):
    from safetensors import safe_open

    with safe_open(shared_parity / f"wespeaker_loss_{name}.safetensors", framework="pt") as fixture:
        config = json.loads(fixture.metadata()["config"])
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    outputs = load_wespeaker_loss(config, weights)(tensors["input/0"], tensors["input/1"])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    expected = [tensors[key] for key in sorted(tensors) if key.startswith("output/")]
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < 1e-5


def weights(rows: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(rows, 4)}


def test_the_loss_trained_here_is_the_cross_entropy_of_the_public_logits():
    adapter = load_wespeaker_loss({"model": "arc_margin", "args": {"scale": 20.0, "margin": 0.3}}, weights())
    embeddings, labels = torch.randn(3, 4), torch.tensor([0, 2, 4])
    expected = F.cross_entropy(adapter(embeddings, labels), labels)
    torch.testing.assert_close(adapter.loss(embeddings, labels).loss, expected)


def test_the_penalty_comes_with_the_first_update():
    """The public loss starts with angle 0 for the penalty; `update` sets it to mp · margin / 0.2."""
    config = {"model": "arc_margin_intertopk_subcenter", "args": {"scale": 1.0, "K": 1, "k_top": 1, "mp": 0.06}}
    adapter = load_wespeaker_loss(config, weights())
    embeddings, labels = torch.randn(1, 4), torch.tensor([0])
    cosines = (F.normalize(embeddings) @ F.normalize(weights()["weight"]).T)[0]
    torch.testing.assert_close(adapter(embeddings, labels)[0, 1:], cosines[1:])
    adapter.update(0.1)
    nearest = 1 + int(cosines[1:].argmax())
    expected = cosines.clone()
    expected[0] = torch.cos(torch.acos(cosines[0]) + 0.1)
    expected[nearest] = torch.cos(torch.acos(cosines[nearest]) - 0.03)
    torch.testing.assert_close(adapter(embeddings, labels)[0], expected)
    adapter.update(0.0)
    torch.testing.assert_close(adapter(embeddings, labels)[0], cosines)


def test_large_margin_fine_tuning_leaves_the_penalty_out():
    config = {"model": "arc_margin_intertopk_subcenter", "args": {"K": 1, "do_lm": True}}
    adapter = load_wespeaker_loss(config, weights())
    plain = load_wespeaker_loss({"model": "arc_margin", "args": {}}, weights())
    embeddings, labels = torch.randn(3, 4), torch.tensor([0, 2, 4])
    for margin in (0.2, 0.5):
        adapter.update(margin)
        plain.update(margin)
        torch.testing.assert_close(adapter(embeddings, labels), plain(embeddings, labels))


@pytest.mark.parametrize("margin_type", ["C", "A"])
def test_sphereface2_with_a_bias(margin_type):
    state = weights() | {"bias": torch.tensor([[0.7]])}
    args = {"margin_type": margin_type, "scale": 10.0, "lanbuda": 0.6, "t": 2}
    adapter = load_wespeaker_loss({"model": "sphereface2", "args": args}, state)
    adapter.update(0.1)
    embedding, label = torch.tensor([[1.0, -0.5, 0.3, 0.2]]), torch.tensor([1])
    logits, loss = adapter(embedding, label)
    cosines = (F.normalize(embedding) @ F.normalize(state["weight"]).T)[0].tolist()
    lowered = [10 * (c - 0.1 * (j == 1)) for j, c in enumerate(cosines)]
    assert logits[0].tolist() == pytest.approx(lowered, abs=1e-5)
    total = 0.0
    for j, c in enumerate(cosines):
        sign = 1 if j == 1 else -1
        turned = math.cos(math.acos(c) + sign * 0.1) if margin_type == "A" else c
        spread = 2 * ((turned + 1) / 2) ** 2 - 1 - (sign * 0.1 if margin_type == "C" else 0)
        total += (0.6 if j == 1 else 0.4) * math.log(1 + math.exp(-sign * (10 * spread + 0.7)))
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_public_defaults():
    assert translate("sphere", {}) == {"name": "a_softmax", "margin": 2}
    several = translate("arc_margin_intertopk_subcenter", {"scale": 30.0})
    assert several == {"name": "aam", "num_subcentres": 3, "num_hard": 5, "scale": 30.0}


def test_what_cannot_be_read():
    with pytest.raises(ConfigError, match="did you mean 'arc_margin'"):
        load_wespeaker_loss({"model": "arc_margn", "args": {}}, weights())
    with pytest.raises(ConfigError, match=r"args\.margins: cannot be translated"):
        load_wespeaker_loss({"model": "arc_margin", "args": {"margins": 0.2}}, weights())
    with pytest.raises(ConfigError, match=r"args\.margin_type: is 'M'"):
        load_wespeaker_loss({"model": "sphereface2", "args": {"margin_type": "M"}}, weights())
    with pytest.raises(CheckpointError, match="no tensor 'weight'"):
        load_wespeaker_loss({"model": "arc_margin", "args": {}}, {})
    with pytest.raises(CheckpointError, match="5 rows of 'weight' are not 3 sub-centres"):
        load_wespeaker_loss({"model": "arc_margin_intertopk_subcenter", "args": {}}, weights())
    with pytest.raises(CheckpointError, match="do not fit"):
        load_wespeaker_loss({"model": "sphereface2", "args": {}}, weights())
    with pytest.raises(ConfigError, match="no margin that can be set"):
        load_wespeaker_loss({"model": "sphere", "args": {}}, weights()).update(0.2)
    with pytest.raises(InputError, match="labels: has 5"):
        load_wespeaker_loss({"model": "arc_margin", "args": {}}, weights())(torch.randn(1, 4), torch.tensor([5]))
