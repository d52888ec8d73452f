"""Export of trained models, for programs without this package or without torch.

A network becomes a folder of graphs, in ONNX or TorchScript, and `wesep.json`, which says all that a program needs to
run them: rates, latencies, names and shapes of all tensors, and the state of a stream (docs/export.md).
`wesep_py.runtime` reads it.

| module | contents |
| --- | --- |
| `export_folder` | `export`: write the folder |
| `graphs` | the graphs `enroll`, `extract` and `stream` as modules, with the names of their tensors |
| `traceable` | the copy of a network that can be traced: real arithmetic, no decisions by length |
| `onnx_files` | write a graph as ONNX; weights of 8 and of 16 bits; run a graph |
| `graph_runner` | run a folder with numpy and onnxruntime alone |
| `web/stream.js` | run the graph of a stream in a browser, with onnxruntime-web |
| `benchmark` | `bench_folder`, `bench_model`: time a hop, a recording and a cold start |
"""

from __future__ import annotations

from wesep_py.export.export_folder import Exported, export
from wesep_py.runtime.model_folder import DESCRIPTION, read_description

__all__ = ["DESCRIPTION", "Exported", "export", "read_description"]
