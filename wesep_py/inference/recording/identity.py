"""What tells one voice, and one recording, from another: hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wesep_py.inference.voice import Voice


def voice_hash(voice: Voice) -> str:
    """SHA-256 of what a model keeps of a voice."""
    digest = hashlib.sha256(voice.model_hash.encode())
    for key in sorted(voice.tensors):
        tensor = voice.tensors[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def file_ends(path: Path, size: int = 1 << 16) -> str:
    """SHA-256 of the first and the last bytes of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(size))
        file.seek(max(0, path.stat().st_size - size))
        digest.update(file.read(size))
    return digest.hexdigest()
