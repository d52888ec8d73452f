"""A model from the snapshots of a run: the average of the last of them, or of the best."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from wesep_py import checkpoint
from wesep_py.errors import CheckpointError, InputError, OutputExistsError
from wesep_py.files import refuse_inputs
from wesep_py.training.average import (
    BestSnapshots,
    Snapshots,
    average_state_dicts,
    interpolate,
    read_snapshot,
    result_of,
    step_of,
)
from wesep_py.training.config import load_config
from wesep_py.training.experiment import Experiment
from wesep_py.training.validate import Validation
from wesep_py.training.verification import Verification

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
