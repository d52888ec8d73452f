"""From a name, a checkpoint or an experiment folder to an extractor on a device."""

from __future__ import annotations

from os import PathLike

from wesep_py.errors import InputError, shorten
from wesep_py.inference.best_speech import MAX_ENROLLMENT_S
from wesep_py.inference.extractor import Extractor
from wesep_py.inference.presence import calibration_of


def load(
    model: str | PathLike[str] | None = None, device: str = "auto", max_enrollment_s: float = MAX_ENROLLMENT_S
) -> Extractor:
    """An extractor.

    Args:
        model: a checkpoint folder or an experiment folder (its averaged checkpoint, else the best, else the
            last); or the name of a bundled model (`wesep_py.models`); `None` is the bundled default.
            Weights stored in half precision compute as float32.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
        max_enrollment_s: as `Extractor`.

    Raises:
        CheckpointError: there is no such model, or its checkpoint is incomplete or damaged.
        InputError: there is no such device, or no bundled model.

    >>> load("exp/mine", device="cpu").sample_rate  # doctest: +SKIP
    16000
    """
    from wesep_py import checkpoint, models
    from wesep_py.extractor import load_network

    name, path = models.find(model)
    chosen = pick_device(device)
    folder = checkpoint.resolve(path)
    saved = checkpoint.load(folder)
    return Extractor(
        load_network(folder),
        chosen,
        name,
        saved.hash,
        calibration_of(saved.provenance, str(folder / checkpoint.PROVENANCE)),
        max_enrollment_s,
    )


def pick_device(device: str = "auto") -> str:
    """The device's name, checked to be there; `"auto"` is the first GPU, or the CPU.

    Raises:
        InputError: no such device; the message lists those there are.
    """
    import torch

    if not isinstance(device, str):
        raise InputError(f"the device is {type(device).__name__}; a text such as 'cpu' or 'cuda:0' is needed")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        there.insert(1, "cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    if device == "auto":
        return next((name for name in ("cuda", "mps") if name in there), "cpu")
    if device not in there:
        raise InputError(f"device {shorten(device, 60)!r} is not there; choose among auto, {', '.join(there)}")
    return device
