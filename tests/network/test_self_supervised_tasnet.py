"""SSL-TD-SpeakerBeam: the enhancer's levels and times, factorised attention pooling, checkpoints without the folder."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.network.self_supervised_tasnet import InputEnhancer
from wesep_py.network.speaker import MHFA, SelfSupervised

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the package transformers")
SMALL = load_yaml(conf_folder() / "model/ssl_td_speakerbeam_small.yaml")
TINY = SMALL["model"]["backbone"]["self_supervised"]["config"]


def front_end(config: dict | None = None, **arguments) -> SelfSupervised:
    torch.manual_seed(0)
    return SelfSupervised("wavlm", config={**TINY, **(config or {})}, **arguments).eval()


def test_the_enhancer_uses_the_levels_down_to_the_stride_of_the_basis():
    model = front_end()
    levels, summed = model.levels(torch.randn(2, 8000))
    assert [each.shape[1:] for each in levels] == [(12, 1599), (12, 199), (12, 25)] and summed.shape[1] == 25
    for stride, used in ((3, [0, 1, 2]), (5, [0, 1, 2]), (20, [1, 2]), (40, [1, 2]), (320, [2]), (400, [2])):
        assert InputEnhancer(model, 8, stride).used == used


def test_the_enhancers_frames_are_at_their_times():
    """Change a part of the waveform: the features change around it and, without the transformer, only there."""
    local = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    model = front_end(local, normalise=False)
    enhancer = InputEnhancer(model, 8, 32).eval()
    torch.nn.init.zeros_(enhancer.top.weight)
    waveform, positions = torch.randn(1, 16000), torch.arange(0, 16000, 32) + 32
    changed = waveform.clone()
    changed[:, 8000:8100] += torch.randn(1, 100)
    with torch.no_grad():
        before = enhancer(waveform, positions)
        difference = (enhancer(changed, positions) - before).abs().amax(dim=(0, 1))
    assert before.shape == (1, 8, 500)
    moved = positions[difference > 1e-4]
    assert moved.min() > 8000 - 700 and moved.max() < 8100 + 700 and difference.argmax() in range(240, 265)


def test_levels_end_with_the_features_of_the_front_end():
    model = front_end(mean_norm=False)
    waveform = torch.randn(2, 8000)
    torch.testing.assert_close(model.levels(waveform)[1], model(waveform))
    two = front_end(mean_norm=False, layers="two_sums")
    assert two.num_mel_bins == 32
    keys, values = two(waveform).chunk(2, dim=-1)
    torch.testing.assert_close(keys, model(waveform))
    torch.nn.init.normal_(two.layer_weights[1:])
    keys, values = two(waveform).chunk(2, dim=-1)
    assert (keys - values).abs().max() > 1e-3


def test_factorised_attention_is_its_formula():
    torch.manual_seed(0)
    network, features = MHFA(num_mel_bins=10, num_heads=3, dim=4, embedding_dim=6), torch.randn(1, 7, 10)
    keys, values = network.key(features[0, :, :5]), network.value(features[0, :, 5:])
    heads = []
    for head in network.heads.weight:
        weights = (keys @ head).softmax(dim=0)
        heads.append(sum(w * v for w, v in zip(weights, values, strict=True)))
    torch.testing.assert_close(network(features).embedding[0], network.output(torch.cat(heads)))
    padded = torch.nn.functional.pad(features, (0, 0, 0, 5))
    mask = torch.arange(12)[None] < 7
    torch.testing.assert_close(network(padded, mask).embedding, network(features).embedding)
    with pytest.raises(ValueError, match="layers: two_sums"):
        MHFA(num_mel_bins=9)


def test_real_weights_come_from_a_folder_that_a_checkpoint_does_not_need(tmp_path: Path):
    from safetensors.torch import save_file

    donor, folder = front_end(), tmp_path / "wavlm"
    folder.mkdir()
    donor.model.config.save_pretrained(folder)
    save_file(donor.model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(json.dumps(SMALL["model"]))
    config["backbone"]["self_supervised"] = {"kind": "wavlm", "path": str(folder), "training": "frozen"}
    network = build_network(config)
    weights = network.backbone.enhancer.model.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in donor.model.state_dict().items())
    assert not any(p.requires_grad for p in network.backbone.enhancer.model.model.parameters())
    assert network.config["backbone"]["self_supervised"]["path"] is None
    checkpoint.save(tmp_path / "model", network.config, network.state_dict(), {"step": 1})
    for file in folder.iterdir():
        file.unlink()
    mixture, enrollment = torch.randn(1, 4000), torch.randn(1, 8000)
    with torch.no_grad():
        expected = network.eval()(mixture, enrollment).waveforms[0]
        torch.testing.assert_close(load_network(tmp_path / "model")(mixture, enrollment).waveforms[0], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cues": [{"name": "tf_map"}]}, "takes no cue that adds feature channels"),
        ({"sample_rate": 8000}, "self-supervised models take 16000 Hz"),
        ({"backbone": {**SMALL["model"]["backbone"], "enhancer_dim": 0}}, "enhancer_dim: is 0"),
        (
            {"backbone": {"name": "ssl_conv_tasnet", "self_supervised": {"kind": "wavlm", "path": "no"}}},
            "no such folder",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_network({**SMALL["model"], **changes})
