"""The GE2E d-vector of Resemblyzer as a speaker encoder of ours.

The wheel `Resemblyzer` on the Python Package Index carries the weights (`resemblyzer/pretrained.pt`); the network is
that of Wan et al., "Generalized end-to-end loss for speaker verification" (ICASSP 2018): an LSTM of three layers, whose
last frame of each window of 1.6 s becomes the embedding. The front end is that of the package: power in 40 mel bands,
from librosa 0.9.1 or later, which the package requires and which pads recordings with zeros.

The package's `preprocess_wav` also removes long silences (WebRTC's voice activity detection); `embed_utterance` does
not, and neither does the encoder here: windows without speech take part in the mean, as with every encoder of ours.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from wesep_py import checkpoint
from wesep_py.common.config import construct
from wesep_py.common.errors import CheckpointError, InputError, shorten
from wesep_py.common.safe_building import build_within
from wesep_py.common.torchfiles import read_torch
from wesep_py.interop.importing import ImportedCheckpoint
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder

MEMBER = "resemblyzer/pretrained.pt"
"""The weights in the wheel."""
MAX_WEIGHTS_BYTES = 256 * 2**20
"""Largest size of that member that is unpacked; it has 17 MB."""
STATE_KEY = "model_state"
"""Key of the weights in the file, which is that of a training state."""
LOSS_TENSORS = ("similarity_weight", "similarity_bias")
"""Parameters of the GE2E loss, which the network does not need."""
LICENCE = "Apache-2.0"
CITATION = (
    'L. Wan, Q. Wang, A. Papir, I. L. Moreno: "Generalized end-to-end loss for speaker verification", ICASSP 2018; '
    "weights by C. Jemine, Resemblyzer (https://github.com/resemble-ai/Resemblyzer)"
)
CONFIG: dict[str, Any] = {
    "network": {
        "name": "dvector",
        "hidden_dim": 256,
        "num_layers": 3,
        "frame_dim": 256,
        "embedding_dim": 256,
        "pooling": "last",
        "activation": "relu",
    },
    "front_end": "slaney_mel",
    "filterbank": {"num_mel_bins": 40, "window_ms": 25.0, "hop_ms": 10.0, "padding": "zeros"},
    "sample_rate": 16000,
    "min_level_dbfs": -30.0,
    "windows": {"num_frames": 160, "hop_frames": 77, "min_coverage": 0.75},
}
"""The encoder as a `SpeakerConfig`; windows of 1.6 s start every 0.77 s (1.3 a second)."""


def import_resemblyzer(path: str | Path) -> ImportedCheckpoint:
    """Read the d-vector of Resemblyzer into a speaker encoder of ours; nothing is unpickled.

    Args:
        path: the wheel (`Resemblyzer-0.1.4-py3-none-any.whl`), or its `pretrained.pt`.

    Raises:
        InputError: no such file.
        CheckpointError: the file is no such wheel, is damaged, or holds other weights.

    >>> import_resemblyzer("Resemblyzer-0.1.4-py3-none-any.whl").save(Path("dvector"))  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the wheel of Resemblyzer (pip download --no-deps Resemblyzer)")
    weights = {key: value for key, value in _read_state(path).items() if key not in LOSS_TENSORS}
    if foreign := [key for key, value in weights.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path}: {shorten(str(foreign[0]))} is no tensor; the d-vector of Resemblyzer is needed")
    renamed = {f"network.{key}": value.float() for key, value in weights.items()}
    config = construct(SpeakerConfig, CONFIG, "speaker")
    encoder = build_within(lambda: SpeakerEncoder(config, config.sample_rate, initialise=False), renamed)
    if problems := checkpoint.weight_mismatches(encoder.state_dict(), renamed):
        raise CheckpointError(
            f"{path}: is not the d-vector of Resemblyzer (tensors that differ: {len(problems)}; the first: "
            f"{problems[0]}); version 0.1.4 is known"
        )
    source = {
        "toolkit": "Resemblyzer",
        "model": "d-vector (GE2E)",
        "file": path.name,
        "sha256": _sha256(path),
        "licence": LICENCE,
        "citation": CITATION,
    }
    return ImportedCheckpoint(dict(CONFIG), renamed, "speaker encoder", {"imported_from": source})


def _read_state(path: Path) -> dict[str, Any]:
    """Return the weights in the wheel, or in the file itself if it is one of PyTorch."""
    if path.suffix != ".whl":
        content = read_torch(path, "the weights of Resemblyzer")
    else:
        with tempfile.TemporaryDirectory() as folder:
            content = read_torch(_unpack(path, Path(folder)), "the weights of Resemblyzer")
    state = content.get(STATE_KEY)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: has no {STATE_KEY!r}; the weights of Resemblyzer have one")
    return state


def _unpack(wheel: Path, folder: Path) -> Path:
    """Write the weights of a wheel into a folder, and return the file."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(MEMBER).file_size
            if size > MAX_WEIGHTS_BYTES:
                raise CheckpointError(
                    f"{wheel}: its {MEMBER} has {size} bytes; at most {MAX_WEIGHTS_BYTES} are allowed"
                )
            with archive.open(MEMBER) as member, (folder / "pretrained.pt").open("wb") as file:
                shutil.copyfileobj(member, file)
    except KeyError as error:
        raise CheckpointError(f"{wheel}: holds no {MEMBER}; the wheel of Resemblyzer 0.1.4 does") from error
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{wheel}: is no wheel, or damaged ({shorten(error)}); download it again") from error
    return folder / "pretrained.pt"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
