"""From a name, a checkpoint or an experiment folder to an extractor on a device."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from wesep_py.errors import InputError
from wesep_py.inference.extractor import Extractor


def load(model: str | PathLike[str] | None = None, device: str = "auto") -> Extractor:
    """An extractor.

    Args:
        model: a checkpoint folder or an experiment folder (its averaged checkpoint, else the best, else the
            last); `None` is the bundled model.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete or damaged.
        InputError: there is no such device, or no bundled model.

    >>> load("exp/mine", device="cpu").sample_rate  # doctest: +SKIP
    16000
    """
    from wesep_py import checkpoint
    from wesep_py.extractor import load_network

    if model is None:
        raise InputError("no model is bundled with this version; name one (--model): a checkpoint or experiment folder")
    chosen = pick_device(device)
    folder = checkpoint.resolve(Path(model))
    return Extractor(load_network(folder), chosen, str(Path(model)), checkpoint.load(folder).hash)


def pick_device(device: str = "auto") -> str:
    """The device's name, checked to be there; `"auto"` is the first GPU, or the CPU.

    Raises:
        InputError: no such device; the message lists those there are.
    """
    import torch

    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        there.insert(1, "cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    if device == "auto":
        return next((name for name in ("cuda", "mps") if name in there), "cpu")
    if device not in there:
        raise InputError(f"device {device!r} is not there; choose among auto, {', '.join(there)}")
    return device
