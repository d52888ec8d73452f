"""Load a model: find its checkpoint, build the network on a device, and add what its provenance knows.

```
name, folder or hf:ORG/NAME ─► checkpoint ─► network, calibrations ─► verifier (presence, repair) ─► Extractor
                                                                      or the live mode of the model ─► Extractor
```
"""

from __future__ import annotations

from os import PathLike

from wesep_py import checkpoint, models
from wesep_py.common.errors import InputError, shorten
from wesep_py.inference.enrolling.speech_activity import MAX_ENROLLMENT_S
from wesep_py.inference.extractor import Extractor
from wesep_py.inference.presence_decision.presence import read_calibration
from wesep_py.inference.presence_decision.presence_verifier import (
    AUTO_VERIFIER,
    NO_VERIFIER,
    load_comparer,
    load_verifier,
    read_verifiers,
)
from wesep_py.inference.presence_decision.repair import Repair


def load(
    model: str | PathLike[str] | None = None,
    device: str = "auto",
    max_enrollment_s: float = MAX_ENROLLMENT_S,
    live: bool = False,
    shifts: int | None = None,
    verify: str = AUTO_VERIFIER,
    repair: Repair = "none",
) -> Extractor:
    """Load a model and return an extractor.

    Args:
        model: a checkpoint folder or an experiment folder (its averaged checkpoint, else the best, else the
            last); or the name of a bundled model (`wesep_py.models`); `None` is the bundled default; or a repository on
            the Hugging Face Hub, `hf:ORG/NAME` or `hf:ORG/NAME@REVISION` (`wesep_py.models.hub`).
            Weights stored in half precision compute as float32.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
        max_enrollment_s: as `Extractor`.
        live: use the model's live mode (`Extractor.live`).
        shifts: as `Extractor`.
        verify: speaker encoder of the presence verifier: the name of an installed model, or a checkpoint folder;
            `"auto"` is the one that the model is calibrated for, if it is installed; `"none"` leaves the decision to
            the presence head. The live mode has no verifier.
        repair: as `Extractor`. A model without a presence head and an encoder of its own then has the encoder `verify`,
            or an installed `dvector`.

    Raises:
        CheckpointError: there is no such model, or its checkpoint is incomplete or damaged.
        InputError: there is no such device, no bundled model, or with `live` no live mode; as `Extractor`. A live mode
            allows no `shifts` above 1. There is no such encoder to verify with, or the model has no presence head.

    >>> load(device="cpu").sample_rate
    16000
    """
    from wesep_py.network.extraction_network import load_network

    name, path = models.find_model(model)
    device = pick_device(device)
    folder = checkpoint.resolve(path)
    saved = checkpoint.load(folder)
    where = str(folder / checkpoint.PROVENANCE)
    calibration = read_calibration(saved.provenance, where)
    live_calibration = read_calibration(saved.provenance, where, live=True)
    network = load_network(folder)
    chosen = verify not in (AUTO_VERIFIER, NO_VERIFIER)
    if live:
        if chosen:
            raise InputError("the live mode has no verifier; leave out --verify, or --live")
        whole = Extractor(
            network, device, name, saved.hash, calibration, max_enrollment_s, live_calibration=live_calibration
        )
        whole.folder = folder
        extractor = whole.live()
        extractor.check_shifts(shifts)
        extractor.repair = extractor.check_repair(repair)
        return extractor
    verifier = None
    if network.presence is not None:
        calibrations = read_verifiers(saved.provenance, where)
        verifier = load_verifier(verify, name, saved.hash, calibrations, network.sample_rate, device)
    elif repair != "none" and (network.encoder is None or chosen):
        verifier = load_comparer(verify, network.sample_rate, device)
    elif chosen:
        raise InputError(f"{name}: has no presence head, which a verifier needs; leave out --verify")
    extractor = Extractor(
        network, device, name, saved.hash, calibration, max_enrollment_s, shifts, verifier, live_calibration, repair
    )
    extractor.folder = folder
    return extractor


def pick_device(device: str = "auto") -> str:
    """Return the device's name if it is available; for `"auto"` the first GPU, or the CPU.

    Raises:
        InputError: no such device; the message lists those that are available.
    """
    import torch

    if not isinstance(device, str):
        raise InputError(f"the device is {type(device).__name__}; a text such as 'cpu' or 'cuda:0' is needed")
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        available.insert(1, "cuda")
    if torch.backends.mps.is_available():
        available.append("mps")
    if device == "auto":
        return next((name for name in ("cuda", "mps") if name in available), "cpu")
    if device not in available:
        raise InputError(f"device {shorten(device, 60)!r} is not there; choose among auto, {', '.join(available)}")
    return device
