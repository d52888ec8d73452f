"""The YAML files that WeSep, real-TSE and WeSpeaker train with: which network, with which arguments, on which features.

WeSep and real-TSE: `model: {tse_model: NAME}`, `model_args: {tse_model: {…}}`. WeSpeaker: `model: NAME`,
`model_args: {…}`. All: `dataset_args`, with `resample_rate`, `fbank_args` and `cmvn_args`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wesep_py.errors import ConfigError

WESEP, EXTRACTOR = "WeSep", "tse_model"
DEFAULT_RATE = 16000
UNTOLD_OF_THE_RATE = ("ConvTasNet", "DPCCN")
"""Networks that are trained at any rate without being told which."""


@dataclass
class PublicConfig:
    """What a public configuration says.

    Attributes:
        toolkit: `WeSep` (real-TSE too) or `WeSpeaker`; which of them is not said by the short form.
        model, args: the network's public name and its constructor's arguments.
        sample_rate: Hz at which it was trained.
        filterbank: of the features that were computed for it, as arguments of `features.KaldiFilterbank`.
        block, encoder: as in the configurations that `load_wesep` and `load_wespeaker` take.
        problems: what it asks for and is not to be had here, a line each.
    """

    toolkit: str
    model: str
    args: dict[str, Any]
    sample_rate: int = DEFAULT_RATE
    filterbank: dict[str, Any] = field(default_factory=dict)
    block: str | None = None
    encoder: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)


def public_config(content: Mapping[str, Any]) -> PublicConfig:
    """Read one of the layouts, or the short form `{model: NAME, args: {…}}`.

    >>> public_config({"model": {"tse_model": "BSRNN"}, "model_args": {"tse_model": {"win": 512}}}).args
    {'win': 512}

    Raises:
        ConfigError: it is none of them.
    """
    model, dataset = content.get("model"), content.get("dataset_args") or {}
    arguments = content.get("model_args", content.get("args"))
    toolkit = "WeSep or WeSpeaker"
    if isinstance(model, Mapping) and EXTRACTOR in model:
        toolkit, model = WESEP, model[EXTRACTOR]
        arguments = (arguments or {}).get(EXTRACTOR)
    elif "model_args" in content:
        toolkit = "WeSpeaker"
    if not isinstance(model, str) or not isinstance(arguments, Mapping):
        raise ConfigError(
            "is no configuration of WeSep (model: {tse_model: …}, model_args: {tse_model: {…}}), "
            "of WeSpeaker (model: NAME, model_args: {…}), nor {model: NAME, args: {…}}"
        )
    rate = int(dataset.get("resample_rate", DEFAULT_RATE))
    told = {"sr": rate} if model in UNTOLD_OF_THE_RATE and "resample_rate" in dataset else {}
    filterbank, problems = _filterbank(dataset)
    return PublicConfig(
        toolkit,
        model,
        {**told, **arguments},
        rate,
        filterbank,
        content.get("block"),
        content.get("encoder"),
        problems,
    )


def _filterbank(dataset: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    named = {
        "num_mel_bins": "num_mel_bins",
        "frame_length": "frame_length_ms",
        "frame_shift": "frame_shift_ms",
        "dither": "dither",
    }
    given, problems = dataset.get("fbank_args") or {}, []
    if dataset.get("frontend", "fbank") != "fbank":
        problems.append(f"dataset_args.frontend: {dataset['frontend']!r} cannot be translated; 'fbank' is")
    problems += [f"dataset_args.fbank_args.{key}: cannot be translated" for key in given if key not in named]
    if (dataset.get("cmvn_args") or {}).get("norm_var", False):
        problems.append("dataset_args.cmvn_args.norm_var: true cannot be translated; only false is")
    made = {ours: given[key] for key, ours in named.items() if key in given}
    made = {key: value if key == "num_mel_bins" else float(value) for key, value in made.items()}
    if dataset.get("cmvn", True) is False or (dataset.get("cmvn_args") or {}).get("norm_mean", True) is False:
        made["mean_norm"] = False
    return made, problems
