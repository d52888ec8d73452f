"""ResNet, SimAM-ResNet, Gemini DF-ResNet, x-vector and ECAPA-TDNN against WeSpeaker's, by translated weights."""

from __future__ import annotations

import json

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.interop import wespeaker_ecapa, wespeaker_gemini, wespeaker_resnet, wespeaker_simam, wespeaker_xvector
from wesep_py.network.speaker import resnet as gemini  # noqa: F401 (they register themselves)
from wesep_py.network.speaker.speaker_network import speaker_networks

POOLINGS = ("TAP", "TSDP", "TSTP", "ASTP", "MHASTP", "MQMHASTP")
FIXTURES = {
    **{f"resnet_basic_{pooling}": wespeaker_resnet for pooling in POOLINGS},
    "resnet_bottleneck_TSTP_two_emb": wespeaker_resnet,
    "simam_resnet34": wespeaker_simam,
    "gemini": wespeaker_gemini,
    "xvec": wespeaker_xvector,
    "ecapa_glob": wespeaker_ecapa,
    "ecapa_local": wespeaker_ecapa,
}

MILLIONS = {
    "ResNet18": 4.11,
    "ResNet34": 6.63,
    "ResNet50": 11.13,
    "ResNet101": 15.89,
    "ResNet152": 19.81,
    "ResNet221": 23.79,
    "ResNet293": 28.63,
    "SimAM_ResNet34_ASP": 25.21,
    "SimAM_ResNet100_ASP": 50.23,
    "Gemini_DF_ResNet60": 4.05,
    "Gemini_DF_ResNet114": 6.53,
    "Gemini_DF_ResNet183": 9.20,
    "Gemini_DF_ResNet237": 11.68,
    "XVEC": 4.61,
    "ECAPA_TDNN_c512": 5.80,
    "ECAPA_TDNN_c1024": 14.26,
    "ECAPA_TDNN_GLOB_c512": 6.19,
    "ECAPA_TDNN_GLOB_c1024": 14.66,
}
"""Parameters; of ResNet-34, 221, 293, x-vector and ECAPA as WeSpeaker's results list them (VoxCeleb v2)."""


def module_of(model: str):
    return next(module for module in set(FIXTURES.values()) if model in module.MODELS)


@pytest.mark.parametrize("name", FIXTURES)
def test_computes_what_the_public_network_computes(shared_parity, name):
    from safetensors import safe_open

    module = FIXTURES[name]
    with safe_open(shared_parity / f"wespeaker_{name}.safetensors", framework="pt") as fixture:
        config = json.loads(fixture.metadata()["config"])
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
    num_mel_bins = config["args"].get("feat_dim", config["args"].get("acoustic_dim"))
    arguments = module.translate(config["model"], config["args"], config.get("block"))
    network = speaker_networks.build(arguments, "network", num_mel_bins=num_mel_bins).eval()
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    network.load_state_dict(module.rename(weights))
    with torch.no_grad():
        output = network(tensors["input/0"])
        embeddings = [output.embedding]
        if "output/1" in tensors:
            embeddings.insert(0, network.first_embedding(output))
    for number, embedding in enumerate(embeddings):
        expected = tensors[f"output/{number}"]
        assert (embedding - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("model", MILLIONS)
def test_sizes_of_the_published_networks(model):
    embed_dim = 512 if model == "XVEC" else 192 if model.startswith("ECAPA") else 256
    arguments = module_of(model).translate(model, {"embed_dim": embed_dim})
    with torch.device("meta"):
        network = speaker_networks.build(arguments, "network", num_mel_bins=80)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(MILLIONS[model], abs=0.006)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_ecapa_takes_the_other_poolings(pooling):
    """The names that the weights of a public one have, from its own tree, find their place."""
    arguments = wespeaker_ecapa.translate("ECAPA_TDNN", {"channels": 16, "embed_dim": 8, "pooling_func": pooling})
    network = speaker_networks.build(arguments, "network", num_mel_bins=8)
    assert arguments["pooling"] == pooling.lower() and arguments["frame_dim"] == 1536
    theirs = {
        "MHASTP": {"pool.heads_att_trans.1.att_1.weight": (1, 64, 1)},
        "MQMHASTP": {"pool.n_query.1.heads_att_trans.7.att_0.weight": (64, 192, 1)},
    }.get(pooling, {})
    for key, shape in theirs.items():
        (ours,) = wespeaker_ecapa.rename({key: torch.zeros(shape)})
        assert network.state_dict()[ours].shape == shape
    assert network.eval()(torch.randn(1, 12, 8)).embedding.shape == (1, 8)


def test_defaults_are_wespeakers():
    resnet = wespeaker_resnet.translate("ResNet", {"num_blocks": [1, 1, 1, 1]}, "BasicBlock")
    assert (resnet["channels"], resnet["embedding_dim"], resnet["second_layer"]) == (32, 128, False)
    assert wespeaker_ecapa.translate("ECAPA_TDNN", {})["global_context"] is False
    assert wespeaker_ecapa.translate("ECAPA_TDNN_GLOB_c512", {})["global_context"] is True
    assert "global_context" not in wespeaker_ecapa.translate("ECAPA_TDNN_GLOB_c512", {"pooling_func": "TSTP"})
    assert wespeaker_simam.translate("SimAM_ResNet34_ASP", {"dropout": 0.3})["dropout"] == 0.3
    assert wespeaker_gemini.translate("Gemini_DF_ResNet183", {"embed_dim": 8, "two_emb_layer": True})["second_layer"]


@pytest.mark.parametrize(
    ("module", "model", "args", "message"),
    [
        (wespeaker_resnet, "ResNet3", {}, "did you mean 'ResNet34'"),
        (wespeaker_resnet, "ResNet34", {}, "needs its argument 'embed_dim'"),
        (wespeaker_resnet, "ResNet34", {"embed_dim": 8, "pooling_func": "ASTPP"}, "pooling_func 'ASTPP'.*'ASTP'"),
        (wespeaker_resnet, "ResNet34", {"embd_dim": 8}, "no argument 'embd_dim'; did you mean 'embed_dim'"),
        (wespeaker_resnet, "ResNet", {"num_blocks": [1, 1, 1, 1]}, "encoder.block: is 'None'.*BasicBlock"),
        (wespeaker_simam, "SimAM_ResNet50_ASP", {}, "allowed: SimAM_ResNet100_ASP, SimAM_ResNet34_ASP"),
        (wespeaker_simam, "SimAM_ResNet34_ASP", {"pooling_func": "TSTP"}, "no argument 'pooling_func'"),
        (wespeaker_gemini, "Gemini_DF_ResNet", {"depths": [1, 1, 1, 1]}, "needs its argument 'dims'"),
        (wespeaker_gemini, "Gemini_DF_ResNet6", {}, "did you mean 'Gemini_DF_ResNet60'"),
        (wespeaker_xvector, "XVEC", {"pooling_func": "ASP"}, "pooling_func 'ASP' cannot be translated"),
        (wespeaker_xvector, "XVECTOR", {}, "did you mean 'XVEC'"),
        (wespeaker_ecapa, "ECAPA_TDNN_c2048", {}, "did you mean 'ECAPA_TDNN_c1024'|allowed"),
        (wespeaker_ecapa, "ECAPA_TDNN", {"width": 8}, "no argument 'width'"),
    ],
)
def test_what_cannot_be_translated(module, model, args, message):
    with pytest.raises(ConfigError, match=message):
        module.translate(model, args)
