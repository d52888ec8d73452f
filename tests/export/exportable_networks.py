"""Small networks with random weights, of each kind that can be exported, and the folders that they are exported to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wesep_py.export import export
from wesep_py.export.graph_runner import GraphRunner
from wesep_py.inference import Extractor
from wesep_py.inference.presence_decision.presence import Calibration
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network
from wesep_py.network.streaming_network import StreamingNetwork

BSRNN = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "hop_ms": 16}
TF_MAP = {"name": "tf_map", "power": 0.5, "temperatures": [1, 20]}
BAND_ATTENTION = {"name": "band_attention", "dim": 8, "hidden": 8, "attention_dim": 8}
TD_SPEAKERBEAM = {
    "name": "conv_tasnet",
    "kernels_ms": [4],
    "hop_ms": 2,
    "num_filters": 12,
    "bottleneck": 6,
    "hidden": 8,
    "blocks_per_stack": 2,
    "num_stacks": 2,
    "fusion_blocks": [2],
}
SPEX_BRANCH = {"front_end": "backbone", "network": {"name": "spex_plus", "channels": 4, "embedding_dim": 6}}
ESPNET_FORM = {
    "fusion_place": "output",
    "skip": True,
    "skip_sum": "network",
    "latent_activation": "prelu",
    "conv_bias": False,
    "norm_eps": 1e-7,
    "drop_last": True,
}
TCN_BRANCH = {
    "front_end": "backbone",
    "network": {"name": "tcn", "bottleneck": 6, "hidden": 8, "num_blocks": 2, "embedding_dim": 12},
}
SCALE = {"name": "embedding", "fusion": "scale", "split": True}
MULTIPLY = {"name": "embedding", "fusion": "multiply", "points": "first"}
HEAD = {"hidden": 8, "inputs": ["latent", "similarity"], "smoothing": "lstm"}

OFFLINE: dict[str, dict[str, Any]] = {
    "bsrnn": {"backbone": BSRNN, "cues": [TF_MAP]},
    "as bundled": {
        "backbone": {**BSRNN, "norm": "frame", "input_power": 0.5},
        "cues": [TF_MAP, BAND_ATTENTION],
        "presence": {**HEAD, "inputs": ["latent", "similarity", "energy", "voice", "mixture"], "window_s": [0.5, 2]},
        "level": "learned",
    },
    "embedding": {
        "backbone": {**BSRNN, "pad_mode": "reflect"},
        "speaker": {"network": {"name": "ecapa_tdnn", "channels": 8, "embedding_dim": 6}},
        "cues": [{"name": "embedding"}, {"name": "context", "dim": 4}],
        "normalise": "std",
    },
    "own states": {"backbone": BSRNN, "cues": [{"name": "own_states"}, {"name": "own_frames", "dim": 8}]},
    "usef": {"backbone": BSRNN, "cues": [{"name": "usef", "query_dim": 64}]},
    "negative": {  # exported without a negative enrollment
        "backbone": BSRNN,
        "cues": [{**TF_MAP, "negative": True}, {**BAND_ATTENTION, "negative": True}],
    },
    "td_speakerbeam": {"backbone": TD_SPEAKERBEAM, "speaker": SPEX_BRANCH, "cues": [MULTIPLY]},
    "samples dropped": {
        "backbone": {**TD_SPEAKERBEAM, "drop_last": True, "skip": True, "norm": "batch", "kernels_ms": [5]},
        "speaker": SPEX_BRANCH,
        "cues": [MULTIPLY],
        "highpass_hz": 0,
    },
}
OFFLINE["td_speakerbeam of espnet"] = {
    "backbone": {**TD_SPEAKERBEAM, **ESPNET_FORM},
    "speaker": TCN_BRANCH,
    "cues": [SCALE],
    "normalise": "none",
    "level": "kept",
    "highpass_hz": 0,
}
STREAMING: dict[str, dict[str, Any]] = {
    "live": {
        "backbone": {**BSRNN, "live": True, "norm": "frame"},
        "cues": [TF_MAP, BAND_ATTENTION],
        "live_presence": HEAD,
    },
    "causal": {
        "backbone": {**BSRNN, "causal": True, "hop_ms": 8, "window": "asymmetric"},
        "cues": [TF_MAP],
        "presence": HEAD,
        "normalise": "none",
    },
    "own states live": {
        "backbone": {**BSRNN, "live": True, "norm": "frame"},
        "cues": [{"name": "own_states"}],
    },
    "negative live": {
        "backbone": {**BSRNN, "live": True, "norm": "frame"},
        "cues": [{**TF_MAP, "negative": True}, {**BAND_ATTENTION, "negative": True}],
    },
    "usef causal": {
        "backbone": {**BSRNN, "causal": True},
        "cues": [{"name": "usef", "query_dim": 64}],
        "normalise": "tracked",
    },
    "td_speakerbeam causal": {
        "backbone": {**TD_SPEAKERBEAM, "causal": True},
        "speaker": SPEX_BRANCH,
        "cues": [MULTIPLY],
        "normalise": "tracked",
    },
    "td_speakerbeam of espnet causal": {
        "backbone": {**TD_SPEAKERBEAM, **ESPNET_FORM, "causal": True},
        "speaker": TCN_BRANCH,
        "cues": [SCALE],
        "normalise": "none",
        "highpass_hz": 0,
    },
    "no high-pass": {
        "backbone": {**TD_SPEAKERBEAM, "causal": True, "basis_bias": True},
        "speaker": SPEX_BRANCH,
        "cues": [MULTIPLY],
        "normalise": "none",
        "highpass_hz": 0,
    },
}


def random_network(config: dict[str, Any]) -> TargetSpeakerExtractor:
    """Return a network in which no parameter has the value at which it has no effect."""
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def calibrated_extractor(network: TargetSpeakerExtractor) -> Extractor:
    """Return the extractor of a network whose live presence is calibrated."""
    calibration = Calibration(frame_scale=0.5, frame_offset=1.0)
    return Extractor(network, "cpu", live_calibration=calibration)


def exported(network: TargetSpeakerExtractor, folder: Path, **options: Any) -> GraphRunner:
    """Export a network and return what runs it."""
    return GraphRunner(export(calibrated_extractor(network), folder, **options).folder)


def sound(num_samples: int, seed: int = 0) -> Tensor:
    """Return `[1, num_samples]`: noise that comes and goes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, num_samples, generator=generator)
    return 0.1 * noise * (1 + torch.sin(torch.arange(num_samples) / 700))


def difference(ours: NDArray[Any] | Tensor, theirs: NDArray[Any] | Tensor) -> float:
    """Return the largest difference, relative to the largest value of `ours` where this is above 1."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max(initial=0) / max(1.0, np.abs(ours).max(initial=0)))


def stream_in_torch(network: TargetSpeakerExtractor, samples: Tensor, prepared: dict[str, Tensor]) -> Any:
    """Return the output of `StreamingNetwork` for all samples in one block."""
    streaming = StreamingNetwork(network).eval()
    with torch.inference_mode():
        return streaming(samples, streaming.initial_state(1), prepared)
