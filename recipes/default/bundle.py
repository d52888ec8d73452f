"""Turn a training run into a bundled model: remove what only training needs, store float16, check, write the card.

    python recipes/default/bundle.py exp/default_gpu -o wesep_py/models/base --half --root DATA \\
        --trials DATA/trials/dev_2mix --trials DATA/trials/dev_ls_2mix --results exp/default_gpu/results \\
        recipe='recipes/default/train_gpu.yaml' hardware='one H200'

The first argument is a checkpoint or an experiment folder. --results is a folder of results of `wesep evaluate`, all of
this model (compared by hash): dev_2mix/clean, dev_2mix/noisy, dev_2mix_absent/clean, … If a check fails, nothing is
written.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_card import (
    Facts,
    ResultRow,
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
from wesep_py.models.public_files import shorten_paths
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.simulation.trial_audio import render_trial

HERE = Path(__file__).resolve().parent
MAX_COST_DB = 0.05
"""Largest mean absolute difference in SI-SDR, over trials, that half precision may make."""
MAX_ROUNDING = 1e-3
"""Largest relative error of a tensor in float16. A tensor with a larger one (its values are too small or too large for
float16) stays float32."""
TRAINING_ONLY = ("mode", "checkpoint", "spec_augment")
"""Keys of `speaker` that say how its encoder is trained."""
PROVENANCE_KEYS = (
    "made_by", "step", "steps", "mixtures", "hours_trained", "snapshots_averaged", "mixed_in", "went_on_from",
    "corpus", "data", "validation", "validations", "training", "presence", "live_presence",
)  # fmt: skip
"""Keys that a bundle's provenance takes from that of the checkpoint."""


@dataclass(frozen=True)
class HalfPrecisionCost:
    """Difference in SI-SDR between the bundle and the checkpoint.

    Attributes:
        trials: number of trials.
        mean_db, largest_db: of the absolute differences over the trials.
    """

    trials: int
    mean_db: float
    largest_db: float


def remove_training_parts(
    config: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return configuration and weights without what only training needs.

    Removed are the speaker classifiers of cues, and the keys of `speaker` in `TRAINING_ONLY`. The arguments are copied.
    """
    config, removed = copy.deepcopy(dict(config)), []
    for i, cue in enumerate(config["cues"]):
        if cue.pop("num_speakers", None) is not None:
            removed.append(f"cues.{i}.classifier.")
    for key in TRAINING_ONLY if config.get("speaker") else ():
        config["speaker"].pop(key, None)
    return config, {name: value for name, value in state_dict.items() if not name.startswith(tuple(removed))}


def to_half_precision(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights with floating-point tensors as float16, except those that float16 cannot hold."""
    return {name: _to_float16(value) if value.is_floating_point() else value for name, value in state_dict.items()}


def _to_float16(value: torch.Tensor) -> torch.Tensor:
    """Return the tensor as float16, or unchanged if its error would exceed `MAX_ROUNDING`."""
    half = value.half()
    error = (half.double() - value.double()).norm()
    return half if error <= MAX_ROUNDING * value.double().norm() else value


def half_precision_cost(
    before: Extractor, after: Extractor, lists: Sequence[Path], root: Path | None, limit: int
) -> HalfPrecisionCost:
    """Extract trials with the checkpoint and with the bundle, and compare their SI-SDR.

    Args:
        before, after: the checkpoint and the bundle.
        lists: paths LIST without suffix, of LIST.csv and LIST.map_mixture2enrollment.
        root: folder that paths in the lists start from; `None`: that of each list.
        limit: largest number of trials of each list, taken at equal distances; at least 1.

    Raises:
        InputError: a list is missing, no trial has a target, or the limit is below 1.
    """
    if limit < 1:
        raise InputError(f"limit: is {limit}; 1 or more is allowed")
    differences = []
    for trial_list in lists:
        trials = read_trials(f"{trial_list}.csv", f"{trial_list}.map_mixture2enrollment", root)
        for trial in islice(trials, 0, None, max(1, math.ceil(len(trials) / limit))):
            if trial.target_index is None:
                continue
            audio = render_trial(trial, "clean", before.sample_rate)
            scores = []
            for extractor in (before, after):
                voice = extractor.enroll((audio.enrollment, extractor.sample_rate))
                estimate = extractor.extract((audio.mixture, extractor.sample_rate), voice).waveform
                scores.append(float(si_sdr(estimate, audio.reference)))
            differences.append(abs(scores[1] - scores[0]))
    if not differences:
        raise InputError(
            "--trials: no list has a trial with a target; half precision is checked on such trials: add a list"
        )
    return HalfPrecisionCost(len(differences), float(np.mean(differences)), max(differences))


def public_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance for publication: without commands and without folders of one machine."""
    public = {key: shorten_paths(provenance[key]) for key in PROVENANCE_KEYS if key in provenance}
    if git := provenance.get("git"):
        public["git"] = {key: git[key] for key in ("commit", "changed_count") if key in git}
    return public


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
    """Check a model, and write its bundle with a card.

    Args:
        source: a checkpoint or experiment folder.
        output: the folder to write; its name is the name of the model.
        facts: facts for the card that no file of the run holds.
        results: folder of results of this model.
        half: store float16.
        trials, root, limit: lists on which half precision is checked; see `half_precision_cost`.
        speed: output of `bench/extract.py`, for the card.
        overwrite: replace an existing bundle.

    Returns:
        The folder of the bundle.

    Raises:
        InputError: the weights are too large; results of another model; half precision without trials.
        OutputExistsError: the bundle exists.
        WesepError: half precision changes the SI-SDR too much.
    """
    if output.exists() and not overwrite:
        raise OutputExistsError(f"{output}: exists already; name another folder, or pass --overwrite")
    saved = checkpoint.load(source)
    refuse_inputs([output], [(source, "the checkpoint"), (saved.folder, "the checkpoint"), (results, "the results")])
    checkpoint.check_checkpoint_folder(output, overwrite)
    config, weights = remove_training_parts(saved.config, saved.state_dict)
    weights = to_half_precision(weights) if half else weights
    network = build_network(config, initialise=False)
    network.load_state_dict(weights)
    weight_bytes = serialise({name: value.contiguous() for name, value in weights.items()})
    if len(weight_bytes) > MAX_WEIGHTS_BYTES:
        remedy = "train a smaller model" if half else "store it with --half"
        raise InputError(
            f"{source}: weights of {_mib(len(weight_bytes))}; {_mib(MAX_WEIGHTS_BYTES)} are allowed: {remedy}"
        )
    # The results may be of the checkpoint or of an earlier bundle of it, whose hash differs from the checkpoint's.
    model_hash = checkpoint.fingerprint(weight_bytes, dump_yaml(config))
    rows = read_results(results, (saved.hash, model_hash))
    cost = None
    if half:
        if not trials:
            raise InputError("--half needs --trials, to measure how much it changes the SI-SDR; add a list")
        before, after = Extractor(load_network(source), name=str(source)), Extractor(network, name=output.name)
        cost = half_precision_cost(before, after, trials, root, limit)
        if not cost.mean_db < MAX_COST_DB:
            raise WesepError(
                f"half precision changes the SI-SDR by {cost.mean_db:.3f} dB; less than {MAX_COST_DB} dB is allowed: "
                "leave out --half"
            )
    provenance = public_provenance(saved.provenance)
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
        "size": _mib(len(weight_bytes)),
        "stored": "float16, computed in float32" if half else "float32",
        "sample_rate": f"{network.sample_rate} Hz",
        "hash": model_hash,
        "training": training_text(facts, provenance),
        "results": results_tables(rows, (provenance.get("presence") or {}).get("threshold")),
        "half": half_text(cost, rows, saved.hash),
        "presence": (
            "The model has no presence head." if network.presence is None else presence_text(provenance.get("presence"))
        ),
        "speed": speed_text(rows, speed),
    }
    return checkpoint.save(output, config, weights, provenance, fill(values, facts))


def half_text(cost: HalfPrecisionCost | None, rows: Sequence[ResultRow], source_hash: str) -> str:
    """Return the sentences about which weights the results are of, and how much half precision changes the SI-SDR."""
    of_trained = {row.summary["protocol"]["model"]["hash"] == source_hash for row in rows}
    weights = {(True,): "the trained weights", (False,): "the weights in this folder"}
    text = f"Measured with {weights.get(tuple(of_trained), 'the trained weights or those in this folder')}."
    if cost is None:
        return text
    return (
        f"{text} Storing them in half precision changes SI-SDR by {cost.mean_db:.4f} dB on average and by "
        f"{cost.largest_db:.3f} dB at most ({cost.trials} trials)."
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint or experiment folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="facts for the card, instead of those in the file"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder of the bundle, such as wesep_py/models/NAME"
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of results of wesep evaluate")
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument(
        "--trials",
        type=Path,
        action="append",
        default=[],
        metavar="LIST",
        help="list to check --half on: LIST.csv and its map",
    )
    parser.add_argument("--root", type=Path, help="folder that paths in the lists start from")
    parser.add_argument("--limit", type=int, default=50, help="number of trials of each list; 50")
    parser.add_argument(
        "--facts", type=Path, default=HERE / "facts.yaml", help="YAML file of facts for the card; by default facts.yaml"
    )
    parser.add_argument("--speed", type=Path, help="file with the output of bench/extract.py, for the card")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    options = parser.parse_intermixed_args(arguments)
    try:
        facts = construct(Facts, load_yaml(options.facts, options.overrides), "facts")
        speed = None if options.speed is None else options.speed.read_text(encoding="utf-8")
        folder = bundle(
            options.checkpoint, options.output, facts, options.results, options.half, options.trials, options.root,
            options.limit, speed, options.overwrite,
        )  # fmt: skip
    except (WesepError, OSError) as error:
        print(f"bundle: {' '.join(str(error).split())}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    print((folder / checkpoint.CARD).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
