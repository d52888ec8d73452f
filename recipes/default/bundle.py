"""Make a bundled model of a training run: strip it, store it in half precision, check it, write its card.

    python recipes/default/bundle.py exp/default_gpu -o wesep_py/models/base --half --root DATA \\
        --trials DATA/trials/dev_2mix --trials DATA/trials/dev_ls_2mix --results exp/default_gpu/results \\
        recipe='recipes/default/train_gpu.yaml' hardware='one H200'

CHECKPOINT is a checkpoint or an experiment folder. --results holds folders of `wesep evaluate` of this very model (by
its hash): dev_2mix/clean, dev_2mix/noisy, dev_2mix_absent/clean, … Nothing is written where a check fails.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from bundle_card import (
    Facts,
    Row,
    fill,
    headline,
    presence_text,
    read_results,
    results_tables,
    speed_text,
    training_text,
)
from safetensors.torch import save as serialise

from wesep_py import checkpoint
from wesep_py.common.config import construct, dump_yaml, load_yaml
from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.common.files import refuse_inputs
from wesep_py.data import read_trials
from wesep_py.inference import Extractor
from wesep_py.metrics import si_sdr
from wesep_py.models import BUNDLE_KEY, MAX_WEIGHTS_BYTES
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.simulation.trial_audio import render_trial

HERE = Path(__file__).resolve().parent
MAX_COST_DB = 0.05
"""What half precision may cost: the mean over trials of the difference in SI-SDR, whichever its sign."""
MAX_ROUNDING = 1e-3
"""A tensor whose relative error in half precision is larger (it holds values too small or too large) stays float32."""
TRAINING_ONLY = ("mode", "checkpoint", "spec_augment")
"""Keys of `speaker` that say how its encoder trained."""
KEPT = (
    "made_by", "step", "steps", "mixtures", "hours_trained", "snapshots_averaged", "mixed_in", "went_on_from",
    "corpus", "data", "validation", "validations", "training", "presence",
)  # fmt: skip
"""What a bundle's provenance takes over."""


@dataclass(frozen=True)
class Cost:
    """SI-SDR of the bundle against that of the checkpoint, over trials.

    Attributes:
        trials: how many.
        mean_db, largest_db: of the differences without their sign.
    """

    trials: int
    mean_db: float
    largest_db: float


def for_use(
    config: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and weights without what only training needs: speaker classifiers, and how the encoder began."""
    config, dropped = copy.deepcopy(dict(config)), []
    for i, cue in enumerate(config["cues"]):
        if cue.pop("num_speakers", None) is not None:
            dropped.append(f"cues.{i}.classifier.")
    for key in TRAINING_ONLY if config.get("speaker") else ():
        config["speaker"].pop(key, None)
    return config, {name: value for name, value in state_dict.items() if not name.startswith(tuple(dropped))}


def halved(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floating-point tensors as float16, but for those that it cannot hold."""
    return {name: _halved(value) if value.is_floating_point() else value for name, value in state_dict.items()}


def _halved(value: torch.Tensor) -> torch.Tensor:
    half = value.half()
    error = (half.double() - value.double()).norm()
    return half if error <= MAX_ROUNDING * value.double().norm() else value


def cost_of(before: Extractor, after: Extractor, lists: Sequence[Path], root: Path | None, limit: int) -> Cost:
    """Extract trials with both.

    Args:
        before, after: the checkpoint and the bundle.
        lists: each stands for LIST.csv and LIST.map_mixture2enrollment.
        root: where the paths in them start.
        limit: at most so many trials of each list, spread over it; from 1.

    Raises:
        InputError: a list is missing, there are no trials with a target, or the limit is below 1.
    """
    if limit < 1:
        raise InputError(f"limit: is {limit}; 1 or more is allowed")
    differences = []
    for listed in lists:
        trials = read_trials(f"{listed}.csv", f"{listed}.map_mixture2enrollment", root)
        for trial in islice(trials, 0, None, max(1, math.ceil(len(trials) / limit))):
            if trial.target_index is None:
                continue
            audio = render_trial(trial, "clean", before.sample_rate)
            reached = []
            for extractor in (before, after):
                voice = extractor.enroll((audio.enrollment, extractor.sample_rate))
                estimate = extractor.extract((audio.mixture, extractor.sample_rate), voice).waveform
                reached.append(float(si_sdr(estimate, audio.reference)))
            differences.append(abs(reached[1] - reached[0]))
    if not differences:
        raise InputError("--trials: hold no trial with a target; half precision is checked on such")
    return Cost(len(differences), float(np.mean(differences)), max(differences))


def plain_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What others can use of how a checkpoint was made: no commands, no folders of one machine."""
    kept = {key: _placeless(provenance[key]) for key in KEPT if key in provenance}
    if git := provenance.get("git"):
        kept["git"] = {key: git[key] for key in ("commit", "changed_count") if key in git}
    return kept


def _placeless(value: Any) -> Any:
    """The value with every absolute path, and every one that leaves its folder, cut to its last two parts."""
    if isinstance(value, Mapping):
        return {_placeless(key): _placeless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_placeless(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "../", "~")) and len(parts := PurePath(value).parts) > 1:
        return "/".join(part for part in parts[-2:] if part not in ("/", "..", "~"))
    return value


def bundle(
    source: Path,
    output: Path,
    facts: Facts,
    results: Path,
    half: bool = True,
    trials: Sequence[Path] = (),
    root: Path | None = None,
    limit: int = 50,
    speed: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Make the bundle.

    Args:
        source: a checkpoint or experiment folder.
        output: the folder to write; its name is the model's.
        facts: for the card.
        results: folder of results of this model.
        half: store float16.
        trials, root, limit: on what half precision is checked; see `cost_of`.
        speed: what `bench/extract.py` printed, for the card.
        overwrite: replace a bundle that is there.

    Raises:
        InputError: the weights are too large; results of another model; half precision without trials.
        OutputExistsError: it is there already.
        WesepError: half precision costs too much.
    """
    if output.exists() and not overwrite:
        raise OutputExistsError(f"{output}: exists already; name another folder, or pass --overwrite")
    saved = checkpoint.load(source)
    refuse_inputs([output], [(source, "the checkpoint"), (saved.folder, "the checkpoint"), (results, "the results")])
    checkpoint.check_checkpoint_folder(output, overwrite)
    config, weights = for_use(saved.config, saved.state_dict)
    weights = halved(weights) if half else weights
    network = build_network(config, initialise=False)
    network.load_state_dict(weights)
    bytes_, text = serialise({name: value.contiguous() for name, value in weights.items()}), dump_yaml(config)
    if len(bytes_) > MAX_WEIGHTS_BYTES:
        how = "train a smaller model" if half else "store it with --half"
        raise InputError(f"{source}: weights of {_mib(len(bytes_))}; {_mib(MAX_WEIGHTS_BYTES)} are allowed: {how}")
    rows = read_results(results, (saved.hash, model_hash := checkpoint.fingerprint(bytes_, text)))
    cost = None
    if half:
        if not trials:
            raise InputError("--half needs --trials, to see what it costs")
        before, after = Extractor(load_network(source), name=str(source)), Extractor(network, name=output.name)
        cost = cost_of(before, after, trials, root, limit)
        if not cost.mean_db < MAX_COST_DB:
            raise WesepError(f"half precision costs {cost.mean_db:.3f} dB; less than {MAX_COST_DB} dB is allowed")
    provenance = plain_provenance(saved.provenance)
    provenance[BUNDLE_KEY] = {
        "licence": facts.licence,
        "figures": headline(rows),
        "made_from": saved.hash,
        "removed": sorted(set(saved.state_dict) - set(weights)),
        "float32": sorted(name for name, value in weights.items() if half and value.dtype == torch.float32),
        "half_costs": None if cost is None else vars(cost),
    }
    values = {
        "name": output.name,
        "parameters": f"{sum(value.numel() for value in weights.values() if value.is_floating_point()) / 1e6:.2f} M",
        "size": _mib(len(bytes_)),
        "stored": "float16, computing as float32" if half else "float32",
        "sample_rate": f"{network.sample_rate} Hz",
        "hash": model_hash,
        "training": training_text(facts, provenance),
        "results": results_tables(rows, (provenance.get("presence") or {}).get("threshold")),
        "half": half_text(cost, rows, saved.hash),
        "presence": "The model has no presence head."
        if network.presence is None
        else presence_text(provenance.get("presence")),
        "speed": speed_text(rows, speed),
    }
    return checkpoint.save(output, config, weights, provenance, fill(values, facts))


def half_text(cost: Cost | None, rows: Sequence[Row], source_hash: str) -> str:
    """What half precision costs, and of which weights the results are."""
    measured = {row.summary["protocol"]["model"]["hash"] == source_hash for row in rows}
    of = {(True,): "the trained weights", (False,): "the weights in this folder"}
    text = f"Measured with {of.get(tuple(measured), 'the trained weights or those in this folder')}."
    if cost is None:
        return text
    return (
        f"{text} Storing them in half precision changes SI-SDR by {cost.mean_db:.4f} dB in the mean and by "
        f"{cost.largest_db:.3f} dB at most ({cost.trials} trials)."
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the facts")
    parser.add_argument("-o", "--output", type=Path, required=True, help="wesep_py/models/NAME")
    parser.add_argument("--results", type=Path, required=True, help="folder of results of wesep evaluate")
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--trials", type=Path, action="append", default=[], metavar="LIST", help="LIST.csv and its map")
    parser.add_argument("--root", type=Path, help="where paths of the lists start")
    parser.add_argument("--limit", type=int, default=50, help="trials of each list; 50")
    parser.add_argument("--facts", type=Path, default=HERE / "facts.yaml", help="for the card; facts.yaml")
    parser.add_argument("--speed", type=Path, help="a file with what bench/extract.py printed, for the card")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    given = parser.parse_intermixed_args(arguments)
    try:
        facts = construct(Facts, load_yaml(given.facts, given.overrides), "facts")
        speed = None if given.speed is None else given.speed.read_text(encoding="utf-8")
        made = bundle(
            given.checkpoint, given.output, facts, given.results, given.half, given.trials, given.root,
            given.limit, speed, given.overwrite,
        )  # fmt: skip
    except (WesepError, OSError) as error:
        print(f"bundle: {' '.join(str(error).split())}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    print((made / checkpoint.CARD).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
