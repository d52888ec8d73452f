"""Write graphs as ONNX files, make their weights smaller, and run them.

The exporter is torch's older one, which traces: the newer one (`dynamo=True`, torch 2.11) rejects lengths that are
padded to a multiple, and would write an LSTM of unknown length as a loop. The opset is 17: it is the first with
`LayerNormalization`, and every release of onnxruntime since 1.12 reads it, in a browser too. No graph contains complex
numbers, a Fourier transform or `Col2Im`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import InputError
from wesep_py.export.graphs import Graph

OPSET = 17
QUANTISED_OPERATIONS = ("MatMul", "Gemm", "LSTM")
"""Operations whose weights `quantise` makes integers of 8 bits."""
SMALLEST_HALVED = 64
"""Fewest numbers of a tensor that `halve` stores in 16 bits."""


def require_package(name: str) -> Any:
    """Import a package of the extra `onnx`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"the package {name.split('.')[0]} is not installed, and ONNX needs it; pip install 'wesep-py[onnx]'"
        ) from error


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file."""
    onnx = require_package("onnx")
    tensors = [*graph.inputs, *graph.outputs]
    with quiet_tracing(), torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            graph.module,
            graph.example,
            str(path),
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            dynamic_axes={spec.name: spec.dynamic for spec in tensors if spec.dynamic},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(path))
    _skip_copies(model)
    onnx.save(model, str(path))


def _skip_copies(model: Any) -> None:
    """Remove the operations that copy weights, which the exporter writes for weights that are used twice."""
    weights = {tensor.name for tensor in model.graph.initializer}
    results = {result.name for result in model.graph.output}
    source: dict[str, str] = {}
    for node in list(model.graph.node):
        for position, name in enumerate(node.input):
            node.input[position] = source.get(name, name)
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in results:
            source[node.output[0]] = node.input[0]
            model.graph.node.remove(node)


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Silence what torch says about the decisions that are fixed in a graph; the graph is compared with the network."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def quantise(path: Path) -> None:
    """Store the weights of linear and recurrent layers as integers of 8 bits, one scale for each output.

    Products are computed with integers; the scale of their inputs is found while they are computed (dynamic
    quantisation). The bases of the Fourier transform keep 32 bits, and so do the layers of single bands (`BandLinear`),
    for which onnxruntime has no such product.
    """
    quantization = require_package("onnxruntime.quantization")
    onnx = require_package("onnx")
    model = onnx.load(str(path))
    _separate_recurrent_weights(model, onnx)
    kept_names = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 2 or "basis" in tensor.name}
    kept = [node.name for node in model.graph.node if node.op_type != "LSTM" and not kept_names.isdisjoint(node.input)]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the library asks there for a step that changes nothing here
    try:
        quantization.quantize_dynamic(
            model,
            str(path),
            op_types_to_quantize=list(QUANTISED_OPERATIONS),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
        )
    finally:
        root.setLevel(level)


def _separate_recurrent_weights(model: Any, onnx: Any) -> None:
    """Give each LSTM weights of its own: onnxruntime 1.32 spoils those of a second node when it quantises the first."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    used: set[str] = set()
    for node in model.graph.node:
        for position in (1, 2) if node.op_type == "LSTM" else ():
            name = node.input[position]
            if name in used and name in tensors:
                values = onnx.numpy_helper.to_array(tensors[name])
                copied = onnx.numpy_helper.from_array(values, f"{name}.of.{node.output[0]}")
                model.graph.initializer.append(copied)
                node.input[position] = copied.name
            used.add(name)


def halve(path: Path) -> None:
    """Store the weights in 16 bits; a runtime converts them to 32 bits when it loads the file, and computes with those.
    The bases of the Fourier transform keep 32 bits.

    Processors other than graphics cards have few operations in 16 bits, and no LSTM.
    """
    onnx = require_package("onnx")
    import numpy as np

    model = onnx.load(str(path))
    tensors, casts = [], []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        limit = np.finfo(np.float16).max
        fits = values.size >= SMALLEST_HALVED and np.abs(values).max() < limit
        if values.dtype == np.float32 and fits and "basis" not in tensor.name:
            name = tensor.name
            tensor = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
            casts.append(
                onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT)
            )
        tensors.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    onnx.save(model, str(path))


def open_session(path: Path, threads: int = 1) -> Any:
    """Return a session of onnxruntime on the CPU.

    Raises:
        InputError: the file cannot be read, or onnxruntime is not installed.
    """
    runtime = require_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has many classes of errors, none of them public
        raise InputError(f"{path}: cannot be read by onnxruntime ({error}); export the model again") from error


def run_onnx(path: Path, inputs: Sequence[str], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Run an ONNX file once, and return its outputs."""
    session = open_session(path)
    feed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, feed)]
