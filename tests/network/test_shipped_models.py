"""Every YAML of `conf/model` builds, trains a step, is saved and loaded; every published system has a small twin."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.inference import Extractor
from wesep_py.network.cues import EmbeddingCue
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, load_network
from wesep_py.training.devices import convolve_in_float32, resolve_precision

FOLDER = conf_folder() / "model"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL = {"bsrnn_tiny", *(name for name in NAMES if name.endswith("_small"))}
PUBLISHED = {
    "convtasnet": "conv_tasnet",
    "spexplus": "conv_tasnet",
    "td_speakerbeam": "conv_tasnet",
    "bsrnn": "bsrnn",
    "bsrnn_tfmap": "bsrnn",
    "bsrnn_multilevel": "bsrnn",
    "bsrnn_causal": "bsrnn",
    "bsrnn_negative": "bsrnn",
    "convtasnet_sinc": "conv_tasnet",
    "skim": "skim",
    "ssl_td_speakerbeam": "ssl_conv_tasnet",
    "speakerbeam_ss": "speakerbeam_ss",
    "dpccn": "dpccn",
    "tfgridnet": "tf_gridnet",
    "usef_tfgridnet": "tf_gridnet",
    "bsrnn_veve": "bsrnn",
    "mcspex": "conv_tasnet",
    "sefnet": "sepformer",
    "xsepformer": "sepformer",
    "xt_tasnet": "conv_tasnet",
    "xtasnet": "conv_tasnet",
}
PUBLISHED_CUES = {
    "bsrnn_tfmap": {"tf_map"},
    "bsrnn_multilevel": {"tf_map", "context", "embedding"},
    "bsrnn_negative": {"tf_map", "context", "embedding"},
    "usef_tfgridnet": {"usef"},
    "bsrnn_veve": {"own_states"},
    "sefnet": {"own_frames"},
}


def model(name: str) -> dict:
    """Return a model; where it names the folder of a self-supervised model, a tiny one takes its place."""
    config = load_yaml(FOLDER / f"{name}.yaml")["model"]
    for part in (config["backbone"], config.get("speaker") or {}):
        if part.get("self_supervised", {}).get("path") == "???":
            tiny = load_yaml(FOLDER / "ssl_td_speakerbeam_small.yaml")["model"]["backbone"]["self_supervised"]["config"]
            part["self_supervised"] |= {"path": None, "config": tiny}
    return config


def cues(name: str) -> set[str]:
    return {cue["name"] for cue in model(name)["cues"]}


def step(network: TargetSpeakerExtractor, mixture: torch.Tensor, enrollment: torch.Tensor) -> None:
    """Take one optimiser step, with half the mixture as the target; a network with a live mode trains both modes."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    for mode in [network, network.live()] if network.backbone.live else [network]:
        out = mode(mixture, enrollment)
        loss = sum((estimate - 0.5 * mixture).square().mean() for estimate in out.waveforms)
        if out.presence_logits is not None:
            loss = loss + out.presence_logits.square().mean()
        loss.backward()
    optimiser.step()


@pytest.fixture
def folder(tmp_path: Path):
    """Give the folder of a checkpoint, and delete it at once: the large ones together are a gigabyte."""
    yield tmp_path / "model"
    shutil.rmtree(tmp_path / "model", ignore_errors=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_builds_trains_saves_and_loads(name, folder):
    torch.manual_seed(0)
    network = build_network(model(name)).train()
    # Full-size spectral networks take seconds for a tenth of a second of audio; a batch norm needs two items.
    # … and SkiM needs a whole segment for its memory.
    samples = 4000 if name in SMALL or name == "skim" else 480
    mixture, enrollment = torch.randn(2, samples), torch.randn(2, 4000 if name in SMALL else 2000)
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    step(network, mixture, enrollment)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, f"{key} is not used"
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    parts = {"backbone"}
    parts |= {f"cues.{i}" for i, cue in enumerate(network.cues) if isinstance(cue, EmbeddingCue)}
    for part in parts:
        moved = [not torch.equal(before[key], p) for key, p in network.named_parameters() if key.startswith(part)]
        assert any(moved), f"the step moved nothing of {part}"

    checkpoint.save(folder, network.config, network.state_dict(), {"step": 1})
    again, network = load_network(folder), network.eval()
    assert again.config == network.config
    with torch.no_grad():
        ours, theirs = (each(mixture, enrollment).waveforms for each in (network, again))
    assert ours[0].shape == mixture.shape and ours[0].isfinite().all()
    assert all(torch.equal(saved, loaded) for saved, loaded in zip(ours, theirs, strict=True))
    assert ours[0].std() > 1e-4, "two silent estimates would be equal too"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_system_has_a_small_twin(name):
    assert {name, f"{name}_small"} <= set(NAMES)
    assert model(name)["backbone"]["name"] == model(f"{name}_small")["backbone"]["name"] == PUBLISHED[name]
    assert cues(name) == PUBLISHED_CUES.get(name, {"embedding"})
    assert cues(name) <= cues(f"{name}_small")
    causal = [model(each)["backbone"].get("causal", False) for each in (name, f"{name}_small")]
    assert causal == [name in ("bsrnn_causal", "skim")] * 2


@pytest.mark.processor
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_step_in_the_platforms_half_precision_stays_near_float32(name):
    """The type that `train.precision: auto` chooses: bfloat16 where the processor has it for all layers."""
    torch.manual_seed(0)
    network = build_network(model(name)).train()
    convolve_in_float32(network, "auto", "cpu")
    mixture, enrollment = torch.randn(2, 4000), torch.randn(2, 4000)
    is_half = resolve_precision("auto", "cpu") == "bf16-mixed"
    estimates, gradients = [], []
    for half in (False, True) if is_half else (False,):
        network.zero_grad()
        torch.manual_seed(0)  # dither
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            estimate = network(mixture, enrollment).waveforms[0]
        assert estimate.dtype == torch.float32
        estimate.square().mean().backward()
        estimates.append(estimate.detach())
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(grad.isfinite().all() for each in gradients for grad in each)
    if not is_half:
        return
    assert (estimates[1] - estimates[0]).norm() / estimates[0].norm() < 0.2
    with torch.autocast("cpu", torch.bfloat16):
        step(network, mixture, enrollment)
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
        with torch.no_grad():
            estimate = network.eval()(mixture, enrollment).waveforms[0]
    assert estimate.dtype == torch.float32 and estimate.isfinite().all()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_model_extracts_and_streams_if_it_can(name):
    torch.manual_seed(0)
    extractor = Extractor(build_network(model(name)))
    sizes = (7000, 12000)
    mixture, enrollment = (0.1 * np.random.default_rng(n).standard_normal(n, np.float32) for n in sizes)
    voice = extractor.enroll((enrollment, 16000))
    result = extractor.extract((mixture, 16000), voice)
    assert result.waveform.shape == mixture.shape and np.isfinite(result.waveform).all()
    backbone = extractor.network.backbone
    if backbone.latency is None and not backbone.live:
        with pytest.raises(ConfigError, match="works on whole recordings only"):
            extractor.stream(voice)
        return
    stream = extractor.stream(voice)
    blocks = [stream.process(block) for block in np.split(mixture, [300, 1300, 4000])]
    streamed = np.concatenate([*blocks, stream.flush()])
    live = extractor.live()
    with torch.inference_mode():
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in voice.tensors.items()}
        whole = live.network.extract(torch.from_numpy(mixture)[None], tensors).waveforms[0][0].numpy()
    assert streamed.shape == mixture.shape
    np.testing.assert_allclose(streamed, whole, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_small_models_have_at_most_a_million_parameters(name):
    network = build_network(model(name))
    assert sum(parameter.numel() for parameter in network.parameters()) < 1.1e6


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_every_yaml_describes_the_model(name):
    first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first.split()) >= 6, first


@pytest.mark.parametrize("name", ["bsrnn_tfmap", "bsrnn_multilevel", "usef_bsrnn", "bsrnn_listen_first"])
def test_bsrnn_with_other_cues_has_the_published_size(name):
    network = build_network(model(name))
    assert network.backbone.latent_dim == 128 and network.backbone.num_fusion_points == 6
    small = build_network(model(f"{name}_small"))
    assert [type(cue) for cue in small.cues] == [type(cue) for cue in network.cues]
