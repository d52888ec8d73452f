"""Snapshots of a run's weights, the newest and the best; their average, and `average_run`, which makes it a model."""

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
from wesep_py.training.training_config import load_config
from wesep_py.training.validation import ExtractionValidator, SpeakerValidator

DIGEST = "sha256"
"""Key of the hash of the tensors in a snapshot's header; snapshots of earlier versions have none."""
VALIDATORS: dict[str, type[ExtractionValidator] | type[SpeakerValidator]] = {
    "extraction": ExtractionValidator,
    "speaker": SpeakerValidator,
}
"""The validator of each task, whose measure selects the best snapshots."""
_SNAPSHOT_NAME = re.compile(r"step_(\d{1,15})\.safetensors")


def average_state_dicts(state_dicts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of each floating-point tensor, computed in float64; integer tensors are those of the last.

    Raises:
        CheckpointError: there is no state_dict, or their tensors differ.

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
    model: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Return weights on the line between two models of which one was trained from the other.

    What was learned first and lost in further training partly comes back, at little or no cost to what was learned last
    (WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, eq. 1).

    Args:
        model: its tensors are those of the result; tensors that `other` lacks, and integer tensors, stay unchanged.
        other: the other model.
        share: of `other` in the tensors that both have, 0 to 1.

    Raises:
        CheckpointError: no common tensor, or tensors of the same name with different shapes.

    >>> interpolate({"w": torch.tensor([1.0]), "head": torch.tensor([5.0])}, {"w": torch.tensor([2.0])}, 0.25)
    {'w': tensor([1.2500]), 'head': tensor([5.])}
    """
    common = [key for key in model if key in other]
    differing = [key for key in common if model[key].shape != other[key].shape]
    if not common or differing:
        problem = f"{differing[0]} has another shape" if differing else "no tensor of one is in the other"
        raise CheckpointError(f"the weights to average are not of one network: {problem}")
    result = {key: tensor.clone() for key, tensor in model.items()}
    for key in common:
        if model[key].is_floating_point():
            mixed = (1 - share) * model[key].double() + share * other[key].double()
            result[key] = mixed.to(model[key].dtype)
    return result


class Snapshots:
    """The newest snapshots of the weights, as safetensors.

    Args:
        folder: holds them as `step_00001000.safetensors`.
        keep: number of snapshots that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of a step, and remove the oldest snapshots beyond `keep`."""
        self._write(step, state_dict)
        _remove(self._files()[: -self.keep])

    def drop_after(self, step: int) -> None:
        """Remove the snapshots of steps after `step`: a resumed run writes them again."""
        _remove(path for path in self._files() if step_of(path) > step)

    def __len__(self) -> int:
        return len(self._files())

    def newest(self, count: int) -> list[Path]:
        """Return the newest `count` files, the oldest of them first."""
        return self._files()[-count:]

    def read(self, count: int) -> list[dict[str, torch.Tensor]]:
        """Return the newest `count` snapshots, the oldest of them first; damaged ones are skipped with a warning.

        Raises:
            CheckpointError: none can be read.
        """
        state_dicts, problem = [], "there are no snapshots"
        for path in self.newest(count):
            try:
                state_dicts.append(read_snapshot(path))
            except CheckpointError as error:
                problem = str(error)
                warnings.warn(f"{problem}; left out of the average", stacklevel=2)
        if not state_dicts:
            raise CheckpointError(problem)
        return state_dicts

    def average(self, count: int) -> dict[str, torch.Tensor]:
        """Return the average of the newest `count` snapshots, see `read`."""
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
        return sorted(path for path in self.folder.glob("step_*.safetensors") if _SNAPSHOT_NAME.fullmatch(path.name))


class BestSnapshots(Snapshots):
    """The snapshots of the best validations; each file holds the result of its validation too.

    Args:
        folder: holds them.
        keep: number of snapshots that are kept; 0: none are written.
        lower_is_better: whether the lowest result is the best.
    """

    def __init__(self, folder: Path, keep: int, lower_is_better: bool = False) -> None:
        super().__init__(folder, keep)
        self._sign = 1 if lower_is_better else -1

    def offer(self, step: int, result: float, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of a step if they are among the best `keep`, and remove the worst beyond it."""
        others = [path for path in self.best(self.keep) if step_of(path) != step]
        if not self.keep or (len(others) >= self.keep and self._rank(result) >= self._rank(result_of(others[-1]))):
            return
        self._write(step, state_dict, {"result": repr(result)})
        _remove(self.best(len(self))[self.keep :])

    def best(self, count: int) -> list[Path]:
        """Return the best `count` files, the best first; of equal results the earlier step first."""
        return sorted(self._files(), key=lambda path: (self._rank(result_of(path)), step_of(path)))[:count]

    def _rank(self, result: float) -> float:
        return math.inf if math.isnan(result) else self._sign * result


def step_of(path: Path) -> int:
    """Return the step in the name of a snapshot."""
    return int(path.stem.removeprefix("step_"))


def result_of(path: Path) -> float:
    """Return the result of the validation in a snapshot; NaN if the file is damaged or has none."""
    try:
        with safe_open(path, "pt") as file:  # reads the header only, since every snapshot is read
            return float((file.metadata() or {})["result"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return math.nan


def read_snapshot(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a snapshot.

    Raises:
        CheckpointError: it is damaged, or contains NaN.
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


@dataclass(frozen=True)
class AveragedModel:
    """A model averaged from snapshots.

    Attributes:
        folder: of its checkpoint.
        steps: of the snapshots.
        results: of their validations, if the best were averaged; else empty.
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
) -> AveragedModel:
    """Average snapshots of a run, finished or not, and write the model as a checkpoint.

    Args:
        experiment: folder of the run.
        output: folder of the checkpoint.
        last: number of newest snapshots to average, or
        best: number of snapshots to average that were best in the validation.
        overwrite: replace an existing checkpoint.
        other: a checkpoint or experiment whose weights are mixed in, such as the one that the run started from.
        share: of `other` in the tensors that both have, above 0 and below 1; default 0.5.

    Raises:
        InputError: neither `last` nor `best`, or both; not a positive number; more snapshots than there are; a share
            out of range; the output is also an input, or holds other files than a checkpoint.
        CheckpointError: no experiment, a damaged snapshot, or weights of `other` that do not fit.
        OutputExistsError: the output exists already.

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
    last_checkpoint = run.checkpoints / "last"
    inputs = [(run.folder, "the experiment"), (last_checkpoint, "the run's last checkpoint")]
    if other is not None:
        inputs += [(Path(other), "the other model"), (checkpoint.resolve(other), "the other model")]
    refuse_inputs([output], inputs)
    checkpoint.check_checkpoint_folder(output, overwrite)

    validator = VALIDATORS[load_config(run.config_file, resolved=True).task]
    if best is None:
        paths, key = Snapshots(run.snapshots, count).newest(count), "keep"
    else:
        paths, key = BestSnapshots(run.best, count, validator.lower_is_better).best(count), "keep_best"
    if len(paths) < count:
        raise InputError(f"{run.folder}: has {len(paths)} such snapshots; ask for fewer, or raise checkpoint.{key}")
    averaged = average_state_dicts([read_snapshot(path) for path in paths])
    steps, results = [step_of(path) for path in paths], [] if best is None else [result_of(path) for path in paths]

    # Snapshots hold the whole training step; the run's last checkpoint says which tensors the network has.
    model = checkpoint.load(last_checkpoint)
    if missing := [key for key in model.state_dict if f"network.{key}" not in averaged]:
        raise CheckpointError(f"{run.snapshots}: the snapshots lack {missing[0]}; they are not of this run's network")
    weights = {key: averaged[f"network.{key}"] for key in model.state_dict}
    provenance = {key: value for key, value in model.provenance.items() if key not in ("validation", "step")}
    provenance |= {"made_by": "wesep average", "command": sys.argv, "snapshots_averaged": count, "steps": steps}
    if results:
        provenance["validations"] = {"measure": validator.measure, "results": results}
    description = f"The mean of the snapshots of steps {', '.join(map(str, steps))}"
    if other is not None:
        mixed_in = checkpoint.load(other)
        weights = interpolate(weights, mixed_in.state_dict, share)
        provenance["mixed_in"] = {"share": share, "hash": mixed_in.hash}
        description += f", with {share:.0%} of the weights of {Path(other).name} ({mixed_in.hash[:12]})"
    card = f"# {run.folder.name} ({output.name})\n\n{description}.\n"
    return AveragedModel(checkpoint.save(output, model.config, weights, provenance, card), steps, results)
