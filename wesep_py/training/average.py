"""Snapshots of the weights, the newest and the best, and their average."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from wesep_py.errors import CheckpointError, WesepError, shorten
from wesep_py.files import atomic_path
from wesep_py.torchfiles import read_tensors, with_nan

DIGEST = "sha256"
"""Under which the header of a snapshot has the hash of its tensors; snapshots of earlier versions have none."""
_NAME = re.compile(r"step_(\d{1,15})\.safetensors")


def average_state_dicts(state_dicts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each floating-point tensor, computed in float64; counters are those of the last.

    Raises:
        CheckpointError: no state_dict, or different tensors.

    >>> average_state_dicts([{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}])
    {'w': tensor([1.5000])}
    """
    if not state_dicts:
        raise CheckpointError("there are no weights to average")
    last = state_dicts[-1]
    for other in state_dicts:
        if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in last.items()}:
            raise CheckpointError("the weights to average are not of one network: their tensors differ")
    result = {}
    for key, tensor in last.items():
        if tensor.is_floating_point():
            total = sum((other[key].double() for other in state_dicts), torch.zeros((), dtype=torch.float64))
            result[key] = (total / len(state_dicts)).to(tensor.dtype)
        else:
            result[key] = tensor.clone()
    return result


def interpolate(
    own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Weights on the line from one model's to those of another from which it was trained on, or the other way round.

    What was learned first and is lost in further training partly comes back, at little or no cost to what was learned
    last (WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, eq. 1).

    Args:
        own: whose tensors the result has; what `other` lacks stays as it is, and so do counters.
        other: the other model's.
        share: of the other's in what both have, 0 to 1.

    Raises:
        CheckpointError: nothing in common, or tensors of one name and different shapes.

    >>> interpolate({"w": torch.tensor([1.0]), "head": torch.tensor([5.0])}, {"w": torch.tensor([2.0])}, 0.25)
    {'w': tensor([1.2500]), 'head': tensor([5.])}
    """
    common = [key for key in own if key in other]
    differing = [key for key in common if own[key].shape != other[key].shape]
    if not common or differing:
        told = f"{differing[0]} has another shape" if differing else "no tensor of one is in the other"
        raise CheckpointError(f"the weights to average are not of one network: {told}")
    result = {key: tensor.clone() for key, tensor in own.items()}
    for key in common:
        if own[key].is_floating_point():
            mixed = (1 - share) * own[key].double() + share * other[key].double()
            result[key] = mixed.to(own[key].dtype)
    return result


class Snapshots:
    """The weights of the newest few checkpoints, as safetensors.

    Args:
        folder: where they lie, `step_00001000.safetensors`.
        keep: how many stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of a step, and drop the oldest beyond `keep`."""
        self._write(step, state_dict)
        _remove(self._files()[: -self.keep])

    def drop_after(self, step: int) -> None:
        """Remove snapshots of steps after `step`: a resumed run makes them anew."""
        _remove(path for path in self._files() if step_of(path) > step)

    def __len__(self) -> int:
        return len(self._files())

    def newest(self, count: int) -> list[Path]:
        """The newest `count` files, the oldest of them first."""
        return self._files()[-count:]

    def read(self, count: int) -> list[dict[str, torch.Tensor]]:
        """The newest `count`, the oldest of them first; what is damaged is left out, with a warning.

        Raises:
            CheckpointError: none can be read.
        """
        found, problem = [], "there are no snapshots"
        for path in self.newest(count):
            try:
                found.append(read_snapshot(path))
            except CheckpointError as error:
                problem = str(error)
                warnings.warn(f"{problem}; left out of the average", stacklevel=2)
        if not found:
            raise CheckpointError(problem)
        return found

    def average(self, count: int) -> dict[str, torch.Tensor]:
        """The average of the newest `count`; see `read`."""
        return average_state_dicts(self.read(count))

    def _write(self, step: int, state_dict: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state_dict.items()}
        metadata = {**(metadata or {}), DIGEST: _digest_of(tensors)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WesepError(f"{self.folder}: cannot be made ({error.strerror or error}); make it writable") from error
        with atomic_path(self.folder / f"step_{step:08d}.safetensors") as temporary:
            temporary.write_bytes(serialise(tensors, metadata))

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step_*.safetensors") if _NAME.fullmatch(path.name))


class BestSnapshots(Snapshots):
    """The weights of the steps that were best in the validation; each file holds its result too.

    Args:
        folder: where they lie.
        keep: how many stay; none are written if it is 0.
        lower_is_better: whether the best is the lowest.
    """

    def __init__(self, folder: Path, keep: int, lower_is_better: bool = False) -> None:
        super().__init__(folder, keep)
        self._sign = 1 if lower_is_better else -1

    def offer(self, step: int, result: float, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of a step, and drop the worst beyond `keep`; nothing if it is the worst itself."""
        others = [path for path in self.best(self.keep) if step_of(path) != step]
        if not self.keep or (len(others) >= self.keep and self._rank(result) >= self._rank(result_of(others[-1]))):
            return
        self._write(step, state_dict, {"result": repr(result)})
        _remove(self.best(len(self))[self.keep :])

    def best(self, count: int) -> list[Path]:
        """The best `count` files, the best first; of equals the earlier."""
        return sorted(self._files(), key=lambda path: (self._rank(result_of(path)), step_of(path)))[:count]

    def _rank(self, result: float) -> float:
        return math.inf if math.isnan(result) else self._sign * result


def step_of(path: Path) -> int:
    """The step of a snapshot's file."""
    return int(path.stem.removeprefix("step_"))


def result_of(path: Path) -> float:
    """The validation's result of a best snapshot; not a number if the file is damaged or has none."""
    try:
        with safe_open(path, "pt") as file:  # its head alone: this is asked of every snapshot
            return float((file.metadata() or {})["result"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return math.nan


def read_snapshot(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a snapshot.

    Raises:
        CheckpointError: it is damaged, or holds NaN.
    """
    tensors, header = read_tensors(path, "delete it")
    if (name := with_nan(tensors)) is not None:
        raise CheckpointError(f"{path}: {shorten(name)} holds NaN; delete it")
    if DIGEST in header and header[DIGEST] != _digest_of(tensors):
        raise CheckpointError(f"{path}: is damaged (its hash differs); delete it")
    return tensors


def _digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    return hashlib.sha256(serialise(dict(tensors))).hexdigest()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WesepError(f"{path}: cannot be removed ({error.strerror or error}); make it writable") from error
