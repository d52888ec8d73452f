"""The YAML files of `conf/speaker`: each builds an encoder, and is the public model that it names."""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.interop.wespeaker_networks import FAMILIES, network_names, translate_network
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import build_encoder, speaker_networks
from wesep_py.network.speaker.pooling import poolings
from wesep_py.network.speaker.speaker_losses import speaker_losses
from wesep_py.training import load_config

FOLDER = conf_folder() / "speaker"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SELF_SUPERVISED = [name for name in NAMES if name.startswith("wavlm")]
TINY = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "speaker_encoders.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    """Return a row of the table in the page: block, parameters, GMAC, RTF, embedding, public name, source."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    return line.strip("| ").split(" | ")


def speaker(name: str) -> dict[str, Any]:
    return load_yaml(FOLDER / f"{name}.yaml")["speaker"]


def public_name(name: str) -> str | None:
    text = " ".join((FOLDER / f"{name}.yaml").read_text(encoding="utf-8").replace("#", " ").split())
    match = re.search(r"WeSpeaker's (\w+)\.", text)
    return match and match[1]


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time: draw random weights once, from a narrow normal distribution, and copy them."""
    drawn = 0.05 * torch.randn(1 << 16)

    def fill(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        with torch.no_grad():
            flat = tensor.view(-1)
            return tensor.copy_(drawn.repeat(flat.numel() // len(drawn) + 1)[: flat.numel()].view_as(tensor))

    for function in ("kaiming_uniform_", "uniform_", "normal_", "kaiming_normal_"):
        monkeypatch.setattr(torch.nn.init, function, fill)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SELF_SUPERVISED])
def test_configuration_builds_and_runs(name, unfilled):
    torch.manual_seed(0)
    encoder = build_encoder(speaker(name), 16000)
    waveform, lengths = torch.randn(1, 4000), torch.tensor([4000])
    with torch.inference_mode():
        embedding = encoder.eval()(waveform, lengths).embedding
    assert embedding.shape == (1, speaker(name)["network"]["embedding_dim"]) and embedding.isfinite().all()
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert (row(name)[1], row(name)[4]) == (f"{count / 1e6:.2f}", str(embedding.shape[1]))


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_self_supervised_configuration_builds_without_a_folder(name):
    if find_spec("transformers") is None:
        pytest.skip("needs the package transformers")
    config = speaker(name)
    assert config["self_supervised"].pop("path") == "???", "the user gives it"
    encoder = build_encoder({**config, "self_supervised": {**config["self_supervised"], "config": TINY}}, 16000)
    with torch.inference_mode():
        assert encoder.eval()(torch.randn(1, 4000), torch.tensor([4000])).embedding.shape == (1, 192)


@pytest.mark.parametrize("name", [name for name in NAMES if public_name(name)])
def test_arguments_are_those_of_the_public_model(name):
    """All arguments, also those at their defaults, are those that the public name translates to."""
    network, public = speaker(name)["network"], public_name(name)
    size = "acoustic_dim" if public.startswith("SimAM") else "feat_dim"
    args = {size: speaker(name)["filterbank"]["num_mel_bins"], "embed_dim": network["embedding_dim"]}
    signature = inspect.signature(speaker_networks.get(network["name"], "network")).parameters
    for key, value in translate_network(public, args).items():
        ours = network[key] if key in network else signature[key].default
        assert value == (list(ours) if isinstance(ours, tuple) else ours), key


def test_configuration_can_be_included_by_a_model(tmp_path):
    """The example of the page."""
    (example,) = re.findall(r"```yaml\n(model:\n  include:.*?)```", PAGE, re.DOTALL)
    (tmp_path / "model.yaml").write_text(example, encoding="utf-8")
    read = load_yaml(tmp_path / "model.yaml")["model"]
    assert read["speaker"] == speaker("ecapa_512_glob") and build_network(read).encoder.embedding_dim == 192


def test_all_families_and_published_sizes_have_a_configuration():
    assert {speaker(name)["network"]["name"] for name in NAMES} == {*FAMILIES, "dvector"}
    covered = {public_name(name) for name in NAMES}
    published = {
        name for name in network_names() if re.match(r"ResNet\d|ECAPA_TDNN_|ReDimNetB|Gemini_DF_ResNet\d|SimAM", name)
    }
    assert published <= covered


def test_configuration_can_be_included_by_encoder_training(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "include: [train/speaker.yaml, speaker/redimnet_b0.yaml]\nexperiment: exp/b0\n"
        "speaker: {filterbank: {dither: 1.0}}\n",
        encoding="utf-8",
    )
    config = load_config(tmp_path / "run.yaml", ["data.root=data"])
    assert config.speaker.network == speaker("redimnet_b0")["network"]
    assert config.speaker.filterbank == {"num_mel_bins": 60, "dither": 1.0}


def test_page_lists_all_configurations_poolings_and_losses():
    assert [name for name in NAMES if not any(line.startswith(f"| `{name}` |") for line in PAGE.splitlines())] == []
    for registry in (poolings, speaker_losses):
        assert [name for name in registry.names() if f"| `{name}` |" not in PAGE] == []


@pytest.mark.parametrize("name", NAMES)
def test_first_line_names_the_network_and_its_source(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert len(text.splitlines()[0].split()) >= 6 and re.search(r"\((\w+ )?(20\d\d)\)", comment), comment
