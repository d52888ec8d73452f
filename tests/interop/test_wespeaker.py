"""All fixtures of WeSpeaker's networks and losses through `load_wespeaker`, their errors, and files as checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.interop.public import XVECTOR, public_xvector, read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError, InputError
from wesep_py.interop import load_wespeaker, load_wespeaker_loss
from wesep_py.interop.wespeaker import translate_loss
from wesep_py.interop.wespeaker_networks import translate_network
from wesep_py.network.speaker import SpeakerNetwork, build_encoder

FIXTURES = [
    "campplus",
    "ecapa_glob",
    "ecapa_local",
    "eres2net",
    "gemini",
    "redimnet_b0",
    "repvgg_small",
    "res2net",
    "resnet_basic_ASTP",
    "resnet_basic_MHASTP",
    "resnet_basic_MQMHASTP",
    "resnet_basic_TAP",
    "resnet_basic_TSDP",
    "resnet_basic_TSTP",
    "resnet_bottleneck_TSTP_two_emb",
    "simam_resnet34",
    "xvec",
]
TOLERANCES = {"redimnet_b0": 1e-4, "repvgg_small": 1e-4}
"""Of the fixtures whose tolerance is not 1e-5."""
LOSSES = ["add_margin", "arc_margin", "arc_margin_intertopk_subcenter", "sphere", "sphereface2"]


@pytest.mark.parametrize("name", FIXTURES)
def test_loaded_network_computes_what_the_public_one_computes(shared_parity, name):
    config, weights, inputs, expected = read(shared_parity, f"wespeaker_{name}")
    adapter = load_wespeaker(config, weights)
    with torch.no_grad():
        out = adapter(*inputs)
    assert isinstance(adapter.network, SpeakerNetwork)
    assert isinstance(out, tuple) == (len(expected) > 1)
    for ours, theirs in zip(out if isinstance(out, tuple) else (out,), expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < TOLERANCES.get(name, 1e-5)


def test_classifier_in_a_training_file_is_left_out():
    network, public = public_xvector()
    features = torch.randn(2, 40, 20)
    file = {"models": [{**{f"module.{k}": v for k, v in public.items()}, "projection.weight": torch.ones(9, 6)}]}
    with torch.no_grad():
        assert torch.equal(load_wespeaker(XVECTOR, file)(features), network(features).embedding)


def test_weights_that_do_not_fit_are_named():
    _, public = public_xvector()
    del public["seg_2.bias"]
    with pytest.raises(CheckpointError, match=r"XVEC: the weights do not fit the arguments: missing: second\.2\.bias$"):
        load_wespeaker(XVECTOR, public)
    with pytest.raises(CheckpointError, match=r"linear\.weight: has size"):
        load_wespeaker({**XVECTOR, "args": {**XVECTOR["args"], "stats_dim": 13}}, public_xvector()[1])


def test_unknown_network_error_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ResNet34'"):
        load_wespeaker({"model": "RestNet34", "args": {}}, {})


def test_public_file_is_a_checkpoint_of_a_speaker_encoder(tmp_path):
    network, public = public_xvector()
    torch.save({**public, "projection.weight": torch.ones(9, 6)}, tmp_path / "avg_model.pt")
    config = {
        "network": translate_network(XVECTOR["model"], XVECTOR["args"]),
        "filterbank": {"num_mel_bins": 20},
        "mode": "frozen",
        "checkpoint": str(tmp_path / "avg_model.pt"),
    }
    encoder = build_encoder(config, 16000)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in encoder.network.state_dict().items())
    with pytest.raises(CheckpointError) as caught:
        build_encoder({**config, "filterbank": {"num_mel_bins": 24}}, 16000)
    assert "the configured network 'xvector' (tensors that differ: 1; the first: convs.0.weight" in str(caught.value)
    assert "has size [8, 20, 5]; [8, 24, 5] is needed" in str(caught.value)
    with pytest.raises(ConfigError, match="WeSpeaker's files fill no 'dvector' network"):
        build_encoder({**config, "network": {"name": "dvector"}}, 16000)
    with pytest.raises(CheckpointError, match="no such file"):
        build_encoder({**config, "checkpoint": str(tmp_path / "other.pt")}, 16000)


# Losses


def loss_weights(rows: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(rows, 4)}


@pytest.mark.parametrize("name", LOSSES)
def test_loaded_loss_computes_what_the_public_one_computes(shared_parity, name):
    config, weights, inputs, expected = read(shared_parity, f"wespeaker_loss_{name}")
    outputs = load_wespeaker_loss(config, weights)(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative_error(ours.detach().flatten(), theirs.flatten()) < 1e-5


def test_our_loss_is_the_cross_entropy_of_the_public_logits():
    adapter = load_wespeaker_loss({"model": "arc_margin", "args": {"scale": 20.0, "margin": 0.3}}, loss_weights())
    embeddings, labels = torch.randn(3, 4), torch.tensor([0, 2, 4])
    expected = F.cross_entropy(adapter(embeddings, labels), labels)
    torch.testing.assert_close(adapter.loss(embeddings, labels).loss, expected)


def test_penalty_is_set_by_the_first_update():
    """The public loss starts with angle 0 for the penalty; `update` sets it to mp · margin / 0.2."""
    config = {"model": "arc_margin_intertopk_subcenter", "args": {"scale": 1.0, "K": 1, "k_top": 1, "mp": 0.06}}
    adapter = load_wespeaker_loss(config, loss_weights())
    embeddings, labels = torch.randn(1, 4), torch.tensor([0])
    cosines = (F.normalize(embeddings) @ F.normalize(loss_weights()["weight"]).T)[0]
    torch.testing.assert_close(adapter(embeddings, labels)[0, 1:], cosines[1:])
    adapter.update(0.1)
    nearest = 1 + int(cosines[1:].argmax())
    expected = cosines.clone()
    expected[0] = torch.cos(torch.acos(cosines[0]) + 0.1)
    expected[nearest] = torch.cos(torch.acos(cosines[nearest]) - 0.03)
    torch.testing.assert_close(adapter(embeddings, labels)[0], expected)
    adapter.update(0.0)
    torch.testing.assert_close(adapter(embeddings, labels)[0], cosines)


def test_large_margin_fine_tuning_has_no_penalty():
    config = {"model": "arc_margin_intertopk_subcenter", "args": {"K": 1, "do_lm": True}}
    adapter = load_wespeaker_loss(config, loss_weights())
    plain = load_wespeaker_loss({"model": "arc_margin", "args": {}}, loss_weights())
    embeddings, labels = torch.randn(3, 4), torch.tensor([0, 2, 4])
    for margin in (0.2, 0.5):
        adapter.update(margin)
        plain.update(margin)
        torch.testing.assert_close(adapter(embeddings, labels), plain(embeddings, labels))


@pytest.mark.parametrize("margin_type", ["C", "A"])
def test_sphereface2_with_a_bias(margin_type):
    state = loss_weights() | {"bias": torch.tensor([[0.7]])}
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


def test_defaults_of_losses_are_the_public_ones():
    assert translate_loss("sphere", {}) == {"name": "a_softmax", "margin": 2}
    several = translate_loss("arc_margin_intertopk_subcenter", {"scale": 30.0})
    assert several == {"name": "aam", "num_subcentres": 3, "num_hard": 5, "scale": 30.0}


def test_losses_that_cannot_be_read_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'arc_margin'"):
        load_wespeaker_loss({"model": "arc_margn", "args": {}}, loss_weights())
    with pytest.raises(ConfigError, match=r"args\.margins: cannot be translated"):
        load_wespeaker_loss({"model": "arc_margin", "args": {"margins": 0.2}}, loss_weights())
    with pytest.raises(ConfigError, match=r"args\.margin_type: is 'M'"):
        load_wespeaker_loss({"model": "sphereface2", "args": {"margin_type": "M"}}, loss_weights())
    with pytest.raises(CheckpointError, match="no tensor 'weight'"):
        load_wespeaker_loss({"model": "arc_margin", "args": {}}, {})
    with pytest.raises(CheckpointError, match="'weight' has 5 rows, which 3 sub-centres do not divide"):
        load_wespeaker_loss({"model": "arc_margin_intertopk_subcenter", "args": {}}, loss_weights())
    with pytest.raises(CheckpointError, match="do not fit"):
        load_wespeaker_loss({"model": "sphereface2", "args": {}}, loss_weights())
    with pytest.raises(ConfigError, match="no margin that can be set"):
        load_wespeaker_loss({"model": "sphere", "args": {}}, loss_weights()).update(0.2)
    with pytest.raises(InputError, match="labels: has 5"):
        load_wespeaker_loss({"model": "arc_margin", "args": {}}, loss_weights())(torch.randn(1, 4), torch.tensor([5]))
