"""Exported models without torch: the same `load`, `enroll`, `extract` and `stream`, with onnxruntime.

```
wesep export MODEL --stream -o DIR      (with torch, once)

load(DIR) ─► RuntimeExtractor
               .enroll(recordings)        ─► Voice
               .extract(mixture, Voice)   ─► Result
               .stream(Voice)             ─► Stream
```

| module | contents |
| --- | --- |
| `runtime_extractor` | `load`, `RuntimeExtractor` |
| `model_folder` | the exported folder: its description, checked, and its graphs |
| `onnx_engine` | the network of a `Stream`: one step of the graph at a time |
| `runtime_voice` | `Voice` with NumPy arrays; the files are those of `wesep_py.Voice` |
| `runtime_command` | `python -m wesep_py.runtime`: enroll, extract, stream |

Needed are numpy, onnxruntime, soundfile, soxr and safetensors. Recordings, enrollments, blocks, levels and presence are
handled by `wesep_py.inference`, as with torch.
"""

from __future__ import annotations

from wesep_py.common.errors import WesepError
from wesep_py.inference.live_stream.stream import Stream
from wesep_py.inference.long_recordings.blocks import Blocks
from wesep_py.inference.result import Result
from wesep_py.runtime.runtime_extractor import RuntimeExtractor, load
from wesep_py.runtime.runtime_voice import RuntimeVoice
from wesep_py.runtime.runtime_voice import RuntimeVoice as Voice

__all__ = ["Blocks", "Result", "RuntimeExtractor", "RuntimeVoice", "Stream", "Voice", "WesepError", "load"]
