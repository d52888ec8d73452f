"""Handing the tensors of a public checkpoint to a network of ours, one by one, so that none is forgotten."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.checkpoint import misfit
from wesep_py.common.errors import CheckpointError, ConfigError, WesepError, nearest, shorten
from wesep_py.common.torchfiles import read_torch, with_nan
from wesep_py.network.backbones.spectrum import group_bands

# ----------------------------------------
# Arguments of public networks: completed by their defaults, and what cannot be translated said in full.


class UntranslatableError(ConfigError):
    """Arguments that have no counterpart here: `lines` has one for each, and the message all of them."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@contextmanager
def translating() -> Iterator[None]:
    """Arguments of a wrong type, of which a translation can make nothing, are a `ConfigError` of one line."""
    try:
        yield
    except WesepError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"arguments: cannot be translated ({type(error).__name__}: {shorten(error)})") from error


def complete(
    args: Mapping[str, Any],
    defaults: Mapping[str, Any],
    inert: Collection[str] = (),
    only: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments, with the defaults of those that are not given.

    Args:
        args: as the public configuration has them.
        defaults: those that are translated.
        inert: those that change nothing that is computed.
        only: arguments that a network of ours can be built with one value of.

    Raises:
        UntranslatableError: an unknown argument, or another value than the only one.
    """
    only = only or {}
    lines = [
        f"{shorten(key, 60)}: cannot be translated; {nearest(shorten(key, 60), [*defaults, *only])}"
        for key in args
        if key not in defaults and key not in inert and key not in only
    ]
    lines += [
        f"{key}: {shorten(repr(args[key]), 60)} cannot be translated; only {value!r} is"
        for key, value in only.items()
        if key in args and args[key] != value
    ]
    if lines:
        raise UntranslatableError(lines)
    return {**defaults, **args}


# ----------------------------------------
# The YAML files that WeSep, real-TSE and WeSpeaker train with: which network, with which arguments, on which features.
#
# WeSep and real-TSE: `model: {tse_model: NAME}`, `model_args: {tse_model: {…}}`. WeSpeaker: `model: NAME`,
# `model_args: {…}`. All: `dataset_args`, with `resample_rate`, `fbank_args` and `cmvn_args`.

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


# ----------------------------------------
# The weights in a file of WeSep, real-TSE or WeSpeaker.

WRAPPERS = ("models", "model", "state_dict", "model_state_dict")
"""Under which key training code keeps the weights; WeSep keeps a list, its discriminator second."""
WRAPPER, COMPILED = "module.", "_orig_mod."
"""What distribution puts before names, and compilation into them, in any order, and not always into all of them."""
OUTER = "model."
"""What stands before every name where the network was part of something larger."""
CLASSIFIERS = ("projection.",)
"""Layers that tell the training speakers from each other: no part of a speaker network."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a `.pt` file, under their public names; nothing but tensors is ever unpickled.

    Raises:
        CheckpointError: the file is missing or damaged, holds no weights, or something that could run code.
    """
    path = Path(path)
    content = read_torch(path, "a checkpoint of WeSep or WeSpeaker, such as avg_model.pt,")
    try:
        return unwrap(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def unwrap(content: Any) -> dict[str, Tensor]:
    """The weights themselves, out of what training code wraps them in.

    >>> unwrap({"models": [{"module.fc.bias": torch.ones(1)}], "optimizers": []})
    {'fc.bias': tensor([1.])}

    Raises:
        CheckpointError: there are none, or some are no numbers, or no plain tensors.
    """
    found = content
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), (Mapping, list)):
            found = found[key]
            found = found[0] if isinstance(found, list) and found else found
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        keys = ", ".join(shorten(key, 40) for key in list(found)[:5]) if isinstance(found, Mapping) else ""
        raise CheckpointError(f"no weights in it (found: {keys or type(found).__name__})")
    for name, value in weights.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise CheckpointError(
                f"{shorten(name)} is quantised, sparse, complex or of the device meta; give plain weights"
            )
    if (name := with_nan(weights)) is not None:
        raise CheckpointError(f"{shorten(name)} holds NaN; take an earlier checkpoint of that training")
    return _under_own_names(weights)


def _under_own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without what wrappers of the network added to their names.

    >>> list(_under_own_names({"module._orig_mod.a": torch.ones(1), "_orig_mod.module.b._orig_mod.c": torch.ones(1)}))
    ['a', 'b.c']
    """
    named: dict[str, Tensor] = {}
    for full, value in weights.items():
        name = "".join(part for part in re.split(r"(?<=\.)", full) if part != COMPILED)
        while name.startswith(WRAPPER):
            name = name.removeprefix(WRAPPER)
        if name in named:
            raise CheckpointError(f"two tensors are called {shorten(name)!r} without {WRAPPER!r} and {COMPILED!r}")
        named[name] = value
    own = [name for name in named if not name.startswith(CLASSIFIERS)]
    if own and all(name.startswith(OUTER) for name in own):
        inner = {name.removeprefix(OUTER): value for name, value in named.items()}
        return inner if inner.keys() == named.keys() else _under_own_names(inner)
    return named


def without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A speaker network's weights, without those of the layer that classified speakers in its training."""
    return {name: value for name, value in weights.items() if not name.startswith(CLASSIFIERS)}


NAMES_IN_AN_ERROR = 5


class MisfitError(CheckpointError):
    """Weights that do not fit; `lines` says why, a line for each tensor. The message names the first ones."""

    def __init__(self, what: str, lines: list[str]) -> None:
        more = f" and {len(lines) - NAMES_IN_AN_ERROR} more" if len(lines) > NAMES_IN_AN_ERROR else ""
        super().__init__(f"{what}: {', '.join(lines[:NAMES_IN_AN_ERROR])}{more}")
        self.lines = lines


class MissingTensorError(CheckpointError):
    """A tensor that the public checkpoint lacks; `name` is the public one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the public checkpoint has no tensor {name!r}, which its configuration promises")
        self.name = name


class PublicWeights:
    """The tensors of a public checkpoint, each taken once.

    >>> weights = PublicWeights({"fc.weight": torch.ones(2, 3)})
    >>> weights.take("fc.weight").shape
    torch.Size([2, 3])
    >>> weights.check_all_taken()
    """

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self._left = dict(state_dict)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self, prefix: str) -> list[str]:
        """Names not yet taken that start with `prefix`."""
        return [name for name in self._left if name.startswith(prefix)]

    def take(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            MissingTensorError: it is not there, or was taken before.
        """
        if name not in self._left:
            raise MissingTensorError(name)
        return self._left.pop(name)

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name starts with `prefix`, under the rest of its name."""
        return {name[len(prefix) :]: self._left.pop(name) for name in self.names(prefix)}

    def stacked(self, names: Iterable[str]) -> Tensor:
        """Tensors of one shape, along a new first axis."""
        return torch.stack([self.take(name) for name in names])

    def check_all_taken(self) -> None:
        """Raises:
        MisfitError: some tensors have no place in our network; the message lists them.
        """
        if self._left:
            raise MisfitError("the public checkpoint has tensors that find no place", sorted(self._left))


def fill(network: nn.Module, weights: Mapping[str, Tensor], named: str) -> None:
    """Give a network its weights, all of them and no others.

    Args:
        network: ours.
        weights: under our names. The counters of batch normalisation may be missing, as in old files.
        named: what the public toolkit calls the network, for the message.

    Raises:
        MisfitError: weights that are missing, too many, or of another size.
    """
    expected = network.state_dict()
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    complete = counters | dict(weights)
    if lines := misfit(expected, complete):
        raise MisfitError(f"{named}: the weights do not fit the arguments", lines)
    network.load_state_dict(complete)


def linear(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    """Weight and bias of one layer, renamed; a 1×1 convolution's weight loses its axes of size one."""
    weight = weights.take(f"{theirs}.weight")
    return {
        f"{ours}.weight": weight.flatten(1) if weight.dim() > 2 else weight,
        f"{ours}.bias": weights.take(f"{theirs}.bias"),
    }


def band_layers(
    weights: PublicWeights, theirs: str, ours: str, widths: list[int], layers: Mapping[int, str]
) -> dict[str, Tensor]:
    """A `Sequential` a band → batched layers a group of bands.

    Args:
        theirs, ours: `"{}"` stands for the band's index in the one, and for the group's in the other.
        widths: bins of each band.
        layers: index in their `Sequential` → our layer's name.
    """
    mapped: dict[str, Tensor] = {}
    first = 0
    for index, group in enumerate(group_bands(widths)):
        bands = range(first, first + group.count)
        first += group.count
        for number, name in layers.items():
            weight = weights.stacked(f"{theirs.format(band)}.{number}.weight" for band in bands)
            bias = weights.stacked(f"{theirs.format(band)}.{number}.bias" for band in bands)
            # A convolution's weight is [bands, out, in, 1], ours [bands, in, out]; a normalisation's [bands, features].
            target = f"{ours.format(index)}.{name}"
            mapped[f"{target}.weight"] = weight.squeeze(-1).transpose(1, 2) if weight.dim() == 4 else weight[:, None]
            mapped[f"{target}.bias"] = bias[:, None]
    return mapped
