"""Snapshots of the weights, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from wesep_py.errors import CheckpointError
from wesep_py.files import atomic_path


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
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / f"step_{step:08d}.safetensors") as temporary:
            temporary.write_bytes(serialise({k: v.detach().cpu().contiguous().clone() for k, v in state_dict.items()}))
        for old in self._files()[: -self.keep]:
            old.unlink()

    def drop_after(self, step: int) -> None:
        """Remove snapshots of steps after `step`: a resumed run makes them anew."""
        for path in self._files():
            if int(path.stem.removeprefix("step_")) > step:
                path.unlink()

    def __len__(self) -> int:
        return len(self._files())

    def average(self, count: int) -> dict[str, torch.Tensor]:
        """The average of the newest `count`."""
        return average_state_dicts([load_file(path) for path in self._files()[-count:]])

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.safetensors"))
