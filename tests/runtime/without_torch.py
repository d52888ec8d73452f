"""Use an exported model in a process where importing torch fails: `without_torch.py PACKAGE FOLDER OUT`.

PACKAGE is `wesep_py.runtime`, or `wesep_runtime`. Prints the processor time in seconds until the first extracted
block of a stream, for a voice that is read from a file, and names of large modules that were imported.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path

BLOCKED = ("torch", "torchaudio", "scipy", "omegaconf", "yaml", "typer", "rich")


class Refuser:
    """Import hook that refuses the blocked packages."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not there")


def use(package: str, folder: str, out: Path) -> None:
    """Load, read or enroll a voice, stream, extract, save."""
    wesep = import_module(package)
    extractor = wesep.load(folder)
    print_file = out / "alice.voice"
    import numpy as np

    noise = 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    if not print_file.exists():
        extractor.enroll((noise, 16000)).save(print_file)
    stream = extractor.stream(wesep.Voice.load(print_file))
    first = stream.process(noise[:4000])
    taken_s = time.process_time()
    assert len(first)
    whole = np.concatenate([first, stream.process(noise[4000:]), stream.flush()])
    result = extractor.extract((noise, 16000), wesep.Voice.load(print_file))
    assert whole.shape == result.waveform.shape == (32000,)
    result.save(out / "alice.wav", overwrite=True)
    other = extractor.extract(out / "alice.wav", extractor.enroll(out / "alice.wav", (noise, 48000)))
    assert other.waveform.shape == (1, 32000)
    np.save(out / "result.npy", result.waveform)
    heavy = sorted({name.partition(".")[0] for name in sys.modules} & set(BLOCKED))
    print(f"{taken_s:.3f} {','.join(heavy)}")


if __name__ == "__main__":
    sys.meta_path.insert(0, Refuser())  # type: ignore[arg-type]
    use(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
