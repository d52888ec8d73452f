"""Every fixture of WeSpeaker's networks through the one door, `load_wespeaker`, and their files as a starting point."""

from __future__ import annotations

import pytest
import torch

from tests.interop.public import read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop import encoders, load_wespeaker
from wesep_py.interop.public_checkpoints import read as read_file
from wesep_py.interop.public_checkpoints import unwrap
from wesep_py.network.speaker import SpeakerNetwork, build_encoder, speaker_networks

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
XVECTOR = {"model": "XVEC", "args": {"feat_dim": 20, "hid_dim": 8, "stats_dim": 12, "embed_dim": 6}}
LAYERS = (("convs", "conv_1d"), ("norms", "bn"))


def public_xvector() -> tuple[SpeakerNetwork, dict[str, torch.Tensor]]:
    """A small network of ours, and its weights under their public names."""
    torch.manual_seed(0)
    network = speaker_networks.build(encoders.translate(**named(XVECTOR)), "network", num_mel_bins=20).eval()
    names = {"linear.": "seg_1.", "second.1.": "seg_bn_1.", "second.2.": "seg_2."}
    names |= {f"{ours}.{i}.": f"frame_{i + 1}.{theirs}." for i in range(5) for ours, theirs in LAYERS}
    public: dict[str, torch.Tensor] = {}
    for key, value in network.state_dict().items():
        ours = next(start for start in names if key.startswith(start))
        public[names[ours] + key.removeprefix(ours)] = value
    return network, public


def named(config: dict) -> dict:
    return {"named": config["model"], "arguments": config["args"]}


@pytest.mark.parametrize("name", FIXTURES)
def test_computes_what_the_public_network_computes(shared_parity, name):
    config, weights, inputs, expected = read(shared_parity, f"wespeaker_{name}")
    adapter = load_wespeaker(config, weights)
    with torch.no_grad():
        out = adapter(*inputs)
    assert isinstance(adapter.network, SpeakerNetwork)
    assert isinstance(out, tuple) == (len(expected) > 1)
    for ours, theirs in zip(out if isinstance(out, tuple) else (out,), expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < 1e-4


def test_a_training_file_with_a_classifier():
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


def test_an_unknown_network_names_those_there_are():
    with pytest.raises(ConfigError, match="did you mean 'ResNet34'"):
        load_wespeaker({"model": "RestNet34", "args": {}}, {})


@pytest.mark.parametrize("named", ["ResNet34", "ResNet293", "Res2Net34_Base", "ReDimNetB2", "REPVGG_TINY_A0", "XVEC"])
def test_a_name_has_one_family(named):
    assert encoders.names().count(named) == 1
    ours = next(name for name, family in encoders.FAMILIES.items() if family is encoders.family(named))
    assert ours.startswith(named.lower()[:4])


def test_a_speaker_checkpoint_in_a_configuration(tmp_path):
    network, public = public_xvector()
    torch.save({**public, "projection.weight": torch.ones(9, 6)}, tmp_path / "avg_model.pt")
    config = {
        "network": encoders.translate(**named(XVECTOR)),
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


def test_nothing_but_tensors_is_unpickled(tmp_path):
    import pathlib

    torch.save({"model": {"a": torch.ones(1)}, "path": pathlib.PurePosixPath("x")}, tmp_path / "code.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name, message in (("code", "holds more than weights"), ("text", "no PyTorch file, or damaged|holds more than")):
        with pytest.raises(CheckpointError, match=message):
            read_file(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("content", [[], {}, {"epoch": 3}, None])
def test_a_file_without_weights(content):
    with pytest.raises(CheckpointError, match="no weights in it"):
        unwrap(content)
