"""A model from the snapshots of a run: the average of the last of them, or of the best."""

from __future__ import annotations

import hashlib
import math
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, InputError, OutputExistsError, WesepError, shorten
from wesep_py.common.files import atomic_path, refuse_inputs
from wesep_py.common.torchfiles import read_tensors, with_nan
from wesep_py.training.experiment import Experiment
from wesep_py.training.speaker_task import Verification
from wesep_py.training.training_config import load_config
from wesep_py.training.validation import Validation

# ----------------------------------------
# Snapshots of the weights, the newest and the best, and their average.

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


JUDGES: dict[str, type[Validation] | type[Verification]] = {"extraction": Validation, "speaker": Verification}
"""By what the best of a task are known."""


@dataclass(frozen=True)
class Averaged:
    """A model that was averaged.

    Attributes:
        folder: its checkpoint.
        steps: of the snapshots.
        results: of their validations, where the best were asked for; else empty.
    """

    folder: Path
    steps: list[int]
    results: list[float]


def average_run(
    experiment: str | Path,
    output: str | Path,
    last: int | None = None,
    best: int | None = None,
    overwrite: bool = False,
    other: str | Path | None = None,
    share: float | None = None,
) -> Averaged:
    """Average snapshots of a run, finished or not, into a checkpoint.

    Args:
        experiment: the run's folder.
        output: the checkpoint's folder.
        last: the newest so many, or
        best: the so many that were best in the validation.
        overwrite: replace a checkpoint that is there.
        other: a checkpoint or experiment, as that from which the run went on, whose weights are mixed in.
        share: of `other` in what both have, above 0 and below 1; by default half.

    Raises:
        InputError: neither `last` nor `best`, or both; not a positive number; more than there are; a share out of
            range; the output is what is read, or holds other things than a checkpoint.
        CheckpointError: no experiment, a damaged snapshot, or weights of `other` that do not fit.
        OutputExistsError: the output is there already.

    Example:
        >>> average_run("exp/bsrnn", "exp/bsrnn/best3", best=3)  # doctest: +SKIP
    """
    if (last is None) == (best is None):
        raise InputError("give either --last N or --best N")
    count = last if last is not None else best
    assert count is not None
    if count < 1:
        raise InputError(f"{count} snapshots: at least 1 is needed")
    if other is None and share is not None:
        raise InputError("--share: says how much of --with; give both")
    share = 0.5 if share is None else share
    if not 0 < share < 1:
        raise InputError(f"share: is {share:g}; above 0 and below 1 is allowed")
    run, output = Experiment(experiment), Path(output)
    if not run.config_file.is_file():
        raise CheckpointError(f"{run.folder}: is no experiment folder (config.yaml is missing)")
    if output.exists() and not overwrite:
        raise OutputExistsError(f"{output}: exists already; name another output, or pass --overwrite")
    last_one = run.checkpoints / "last"
    inputs = [(run.folder, "the experiment"), (last_one, "the run's last checkpoint")]
    if other is not None:
        inputs += [(Path(other), "the other model"), (checkpoint.resolve(other), "the other model")]
    refuse_inputs([output], inputs)
    checkpoint.check_output(output, overwrite)
    task = load_config(run.config_file, resolved=True).task
    if best is None:
        found, key = Snapshots(run.snapshots, count).newest(count), "keep"
    else:
        found, key = BestSnapshots(run.best, count, JUDGES[task].lower_is_better).best(count), "keep_best"
    if len(found) < count:
        raise InputError(f"{run.folder}: has {len(found)} such snapshots; ask for fewer, or raise checkpoint.{key}")
    weights = average_state_dicts([read_snapshot(path) for path in found])
    model = checkpoint.load(last_one)
    steps, results = [step_of(path) for path in found], [] if best is None else [result_of(path) for path in found]
    provenance = {key: value for key, value in model.provenance.items() if key not in ("validation", "step")}
    provenance |= {"made_by": "wesep average", "command": sys.argv, "snapshots_averaged": count, "steps": steps}
    if results:
        provenance["validations"] = {"measure": JUDGES[task].measure, "results": results}
    if missing := [key for key in model.state_dict if f"network.{key}" not in weights]:
        raise CheckpointError(f"{run.snapshots}: the snapshots lack {missing[0]}; they are not of this run's network")
    own = {key: weights[f"network.{key}"] for key in model.state_dict}
    told = f"The mean of the snapshots of steps {', '.join(map(str, steps))}"
    if other is not None:
        mixed_in = checkpoint.load(other)
        own = interpolate(own, mixed_in.state_dict, share)
        provenance["mixed_in"] = {"share": share, "hash": mixed_in.hash}
        told += f", with {share:.0%} of the weights of {Path(other).name} ({mixed_in.hash[:12]})"
    card = f"# {run.folder.name} ({output.name})\n\n{told}.\n"
    return Averaged(checkpoint.save(output, model.config, own, provenance, card), steps, results)
