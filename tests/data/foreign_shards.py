"""Write tar files as other toolkits do."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def audio(level: float, suffix: str = "flac", rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    noise = level * np.random.default_rng(int(1000 * level)).uniform(-1, 1, 800)
    soundfile.write(buffer, noise, rate, format=suffix.upper())
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
