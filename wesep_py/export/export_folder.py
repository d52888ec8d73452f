"""Write an exported model: a folder with a file for each graph, and `wesep.json`, which describes them.

network ─► support: is every part exportable? ─► graphs ─► files ─► run each, compare with the network ─► folder
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import wesep_py
from wesep_py.common.errors import ConfigError, InputError, WesepError, shorten
from wesep_py.common.files import write_json
from wesep_py.common.folders import FolderKind, atomic_folder, check_folder
from wesep_py.common.textfiles import read_json
from wesep_py.export.graphs import Graph, TensorSpec, offline_graphs, stream_graph
from wesep_py.export.onnx_files import OPSET, halve, quantise, quiet_tracing, require_package, run_onnx, write_onnx
from wesep_py.features.stft import MIN_OVERLAP
from wesep_py.inference import Extractor, load
from wesep_py.network.backbones import BSRNN, Backbone, ConvTasNet
from wesep_py.network.cues import (
    BandAttentionCue,
    ContextCue,
    Cue,
    EmbeddingCue,
    OwnFramesCue,
    OwnStatesCue,
    TFMapCue,
    USEFCue,
)
from wesep_py.network.extraction_network import TargetSpeakerExtractor
from wesep_py.network.speaker import SpeakerEncoder
from wesep_py.network.streaming_network import StreamingNetwork
from wesep_py.runtime.model_folder import DESCRIPTION, FORMAT_NAME, FORMAT_VERSION, WHAT

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "int8", "fp16"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torchscript": ".pt"}
GRAPHS = ("enroll", "extract", "stream")

BACKBONES: tuple[type[Backbone], ...] = (BSRNN, ConvTasNet)
CUES: dict[type[Cue], str] = {
    TFMapCue: "tf_map",
    BandAttentionCue: "band_attention",
    EmbeddingCue: "embedding",
    ContextCue: "context",
    USEFCue: "usef",
    OwnStatesCue: "own_states",
    OwnFramesCue: "own_frames",
}
FRONT_ENDS = ("filterbank", "backbone")
TOLERANCE = 1e-3
"""Largest difference between a graph and its network, relative to the largest value, with which it is written."""


@dataclass(frozen=True)
class Exported:
    """Files that an export wrote.

    Attributes:
        folder: the folder.
        description: content of `wesep.json`.
        difference: largest difference between graph and network, relative to the largest value, of each graph.
    """

    folder: Path
    description: dict[str, Any]
    difference: dict[str, float]


def _is_ours(folder: Path) -> bool:
    try:
        return read_json(folder / DESCRIPTION, WHAT).values.get("format") == FORMAT_NAME
    except (WesepError, OSError):
        return False


FOLDER_KIND = FolderKind(
    "an exported model",
    frozenset([DESCRIPTION, *(f"{graph}{suffix}" for graph in GRAPHS for suffix in SUFFIXES.values())]),
    _is_ours,
)
"""Files of an exported folder, and how one is recognised before it is replaced."""


def export(
    model: str | PathLike[str] | Extractor | None,
    folder: str | PathLike[str],
    format: Format = "onnx",
    stream: bool = False,
    precision: Precision = "float32",
    overwrite: bool = False,
) -> Exported:
    """Export a model as a folder of graphs.

    Args:
        model: as `wesep_py.load`, or an extractor.
        folder: the folder to write.
        format: `onnx` or `torchscript`.
        stream: whether to write the graph `stream` too, of the model's live mode.
        precision: `float32`; `int8`, which computes linear and recurrent layers with integers; `fp16`, which stores
            weights in 16 bits and computes with 32.
        overwrite: whether to replace an exported folder.

    Returns:
        What was written.

    Raises:
        InputError: the model has a part that cannot be exported or cannot stream; the message names it. Or the extra
            `onnx` is not installed, or `precision` does not go with `format`.
        OutputExistsError: the folder exists, and `overwrite` is false.
        WesepError: a graph does not compute what the network does.
    """
    if format not in SUFFIXES or precision not in ("float32", "int8", "fp16"):
        raise InputError(
            f"format {format!r}, precision {precision!r}: onnx and torchscript, and float32, int8 and fp16 are allowed"
        )
    if precision != "float32" and format != "onnx":
        raise InputError(f"precision {precision} is for ONNX only; use --format onnx, or leave it out")
    if format == "onnx":
        require_package("onnx")
        require_package("onnxruntime")
    check_folder(folder, FOLDER_KIND, overwrite)
    extractor = model if isinstance(model, Extractor) else load(model, device="cpu")
    network = extractor.network
    require_exportable(network)
    live = require_exportable(StreamingNetwork(network).network) if stream else None
    with torch.inference_mode():
        graphs = offline_graphs(network)
    if live is not None:
        graphs.append(stream_graph(network))
    difference: dict[str, float] = {}
    with atomic_folder(folder, FOLDER_KIND) as partial:
        files: dict[str, Any] = {}
        for graph in graphs:
            path = partial / f"{graph.name}{SUFFIXES[format]}"
            difference[graph.name] = _write(graph, path, format, precision)
            files[graph.name] = {"file": path.name, "sha256": _digest(path), **_describe(graph)}
        description = {
            **_describe_model(extractor, format, precision),
            **(_describe_stream(live) if live is not None else {}),
            "graphs": files,
        }
        write_json(partial / DESCRIPTION, description)
    return Exported(Path(folder), description, difference)


def require_exportable(network: TargetSpeakerExtractor) -> TargetSpeakerExtractor:
    """Return the network if all its parts can be exported.

    Raises:
        ConfigError: the message names the first part that cannot, and those that can.
    """
    if type(network.backbone) not in BACKBONES:
        raise _unsupported(f"its backbone {type(network.backbone).__name__}", "bsrnn, conv_tasnet")
    for cue in network.cues:
        if type(cue) not in CUES:
            raise _unsupported(f"its cue {type(cue).__name__}", ", ".join(CUES.values()))
        if cue.needs_speaker_frames:
            raise _unsupported("its cue tf_map with source 'encoder'", "tf_map with source 'spectrum'")
        if cue.embedding_dim is not None:
            raise _unsupported("its cue embedding with embeddings computed elsewhere", "a model with a speaker encoder")
    if network.encoder is not None:
        _require_encoder(network.encoder)
    return network


def _require_encoder(encoder: SpeakerEncoder) -> None:
    if encoder.front_end not in FRONT_ENDS:
        raise _unsupported(f"its speaker front end {encoder.front_end!r}", ", ".join(FRONT_ENDS))


def _unsupported(part: str, supported: str) -> ConfigError:
    return ConfigError(f"this model cannot be exported: {part} is not supported; supported: {supported}")


def _write(graph: Graph, path: Path, format: Format, precision: Precision) -> float:
    """Write a graph, run it with tensors of other lengths than those it was traced with, and return the difference."""
    with torch.no_grad():
        expected = graph.module(*graph.check)
    try:
        if format == "onnx":
            write_onnx(graph, path)
            outputs = run_onnx(path, [spec.name for spec in graph.inputs], graph.check)
        else:
            outputs = write_torchscript(graph, path)
    except InputError:
        raise
    except Exception as error:  # of torch's tracer or exporter: an operation that it does not know
        raise ConfigError(
            f"this model cannot be exported: the graph {graph.name!r} has an operation that {format} does not know "
            f"({shorten(str(error).splitlines()[0] if str(error) else type(error).__name__)})"
        ) from error
    difference = _difference(expected, outputs)
    if not difference <= TOLERANCE:
        raise WesepError(
            f"this model cannot be exported: the graph {graph.name!r} differs from the network by {difference:.1g} of "
            "the largest value for a recording of another length; a part of it depends on the length"
        )
    if precision == "float32":
        return difference
    (quantise if precision == "int8" else halve)(path)
    return _difference(expected, run_onnx(path, [spec.name for spec in graph.inputs], graph.check))


def write_torchscript(graph: Graph, path: Path) -> tuple[Tensor, ...]:
    """Write a graph as a TorchScript file, and return its outputs for the tensors of `check`."""
    with quiet_tracing(), torch.no_grad():
        traced = torch.jit.trace(graph.module, graph.example, check_trace=False)
        traced.save(str(path))
        outputs: tuple[Tensor, ...] = torch.jit.load(str(path))(*graph.check)
    return outputs


def _difference(expected: tuple[Tensor, ...], outputs: Any) -> float:
    """Return the largest difference, relative to the largest value of each output; infinite if a shape differs."""
    largest = 0.0
    for ours, theirs in zip(expected, outputs, strict=True):
        if ours.shape != theirs.shape:
            return float("inf")
        if ours.numel():
            peak = ours.float().abs().amax().clamp_min(1e-6)
            largest = max(largest, float((ours.float() - theirs.float()).abs().amax() / peak))
    return largest


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(graph: Graph) -> dict[str, Any]:
    described = {
        "inputs": [_describe_tensor(spec) for spec in graph.inputs],
        "outputs": [_describe_tensor(spec) for spec in graph.outputs],
    }
    return {**described, "state": [asdict(spec) for spec in graph.state]} if graph.state else described


def _describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    return dataclasses.asdict(spec)


def _describe_model(extractor: Extractor, format: Format, precision: Precision) -> dict[str, Any]:
    """Return what is true of all graphs."""
    network = extractor.network
    has_presence = network.presence is not None or getattr(network, "live_presence", None) is not None
    return {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "wesep_version": wesep_py.__version__,
        "type": format,
        "opset": OPSET if format == "onnx" else None,
        "precision": precision,
        "model": extractor.name,
        "model_hash": extractor.model_hash,
        "sample_rate": network.sample_rate,
        "level": network.level,
        "presence": asdict(extractor.calibration) if has_presence else None,
        "live_presence": asdict(extractor.live_calibration) if has_presence else None,
        "causal": network.latency is not None,
        "window": network.backbone.span.size if network.backbone.span is not None else None,
        "stride": network.backbone.stride,
        "num_frames": _frame_count(network.backbone),
        "cues": _describe_cues(network),
    }


def _frame_count(backbone: Backbone) -> dict[str, Any]:
    """Return the rule for the number of frames of a recording of T samples.

    `centred`: T // stride + 1. `filled`: 1 + max(0, T − kernel) / stride, rounded up, or down with `drop_last`.
    """
    if isinstance(backbone, ConvTasNet):
        return {
            "kind": "filled",
            "stride": backbone.stride,
            "kernel": backbone.kernels[0],
            "drop_last": backbone.drop_last,
        }
    return {"kind": "centred", "stride": backbone.stride}


def _describe_cues(network: TargetSpeakerExtractor) -> list[dict[str, Any]]:
    """Return how the tensors of several enrollments of a voice are combined, as `TargetSpeakerExtractor.combine` does.

    `concatenate`: joined along `axis`. `mean`: averaged by weight. `mean_direction`: the mean of the directions times
    the mean of the lengths, both by weight.
    """
    from wesep_py.export.graphs import prepared_specs
    from wesep_py.export.traceable import traceable

    rules = []
    for spec in prepared_specs(traceable(network)):
        if spec.dynamic:
            rules.append({"name": spec.name, "combine": "concatenate", "axis": min(spec.dynamic)})
        else:
            rules.append({"name": spec.name, "combine": "mean_direction" if "embedding" in spec.name else "mean"})
    return rules


def _describe_stream(live: TargetSpeakerExtractor) -> dict[str, Any]:
    streaming = StreamingNetwork(live)
    return {
        "first_block": streaming.first_block,
        "num_leading": streaming.num_leading,
        "max_delay": streaming.max_delay,
        "latency": live.latency,
        "end": _describe_end(live),
    }


def _describe_end(live: TargetSpeakerExtractor) -> dict[str, Any]:
    """Return what a program needs to end a stream as offline, where zeros follow the filtered recording.

    `high_pass_hz`: cutoff of the first-order high-pass, to find the sample that it makes zero; `None` without one.
    `min_weight`, `offset`: the samples after the last frame are `overlap / max(weight, min_weight) + offset`.
    """
    high_pass = live.preprocess.causal_high_pass
    with torch.no_grad():
        offset = float(live.backbone.synthesis_offset())
    return {
        "high_pass_hz": None if high_pass is None else high_pass.cutoff_hz,
        "min_weight": MIN_OVERLAP,
        "offset": offset,
    }


def format_size(num_bytes: int) -> str:
    """Return a number of bytes in MB or kB.

    >>> format_size(2_500_000)
    '2.5 MB'
    """
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.0f} kB"


def to_json(exported: Exported) -> str:
    """Return the description, and the differences, as JSON."""
    return json.dumps({**exported.description, "difference": exported.difference}, indent=2, ensure_ascii=False)
