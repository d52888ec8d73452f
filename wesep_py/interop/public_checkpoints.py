"""Read the files of WeSep, WeSep real-TSE, WeSpeaker and ESPnet: configuration, arguments and weights.

In the order in which a checkpoint is read:

- `parse_public_config` finds the network, its arguments and its features in a training configuration (for ESPnet,
  `espnet_config.parse_espnet_config`);
- `complete_arguments` adds public defaults and refuses what is unknown, under `translating`, which turns errors of type
  into one line;
- `read_public_weights` and `unwrap_weights` find the tensors in a `.pt` file;
- `PublicWeights` hands them out one by one, so that none is forgotten, and `fill_network` loads them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.checkpoint import weight_mismatches
from wesep_py.common.errors import CheckpointError, ConfigError, WesepError, nearest, shorten
from wesep_py.common.torchfiles import read_torch, with_nan

WESEP, EXTRACTOR_KEY = "WeSep", "tse_model"
DEFAULT_SAMPLE_RATE = 16000
NETWORKS_WITHOUT_RATE = ("ConvTasNet", "DPCCN")
"""Networks whose public constructors have no argument for the sample rate; `dataset_args` gives it."""


class UntranslatableError(ConfigError):
    """Public arguments that have no counterpart here.

    Attributes:
        lines: a line for each of them; the message holds all.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@dataclass
class PublicConfig:
    """The content of a public training configuration.

    Attributes:
        toolkit: `WeSep` (real-TSE too), `WeSpeaker` or `ESPnet`; the short form does not say which of the first two.
        model: the network's public name.
        args: its constructor's arguments.
        sample_rate: Hz at which it was trained.
        filterbank: of the features that were computed for it, as arguments of `features.KaldiFilterbank`.
        block, encoder: as in the configurations that `load_wesep` and `load_wespeaker` take.
        problems: a line for each setting that cannot be had here.
    """

    toolkit: str
    model: str
    args: dict[str, Any]
    sample_rate: int = DEFAULT_SAMPLE_RATE
    filterbank: dict[str, Any] = field(default_factory=dict)
    block: str | None = None
    encoder: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)


def parse_public_config(content: Mapping[str, Any]) -> PublicConfig:
    """Parse the configuration that a public network was trained with.

    Three layouts are known. All have `dataset_args`, with `resample_rate`, `fbank_args` and `cmvn_args`.

    - WeSep and real-TSE: `model: {tse_model: NAME}`, `model_args: {tse_model: {…}}`
    - WeSpeaker: `model: NAME`, `model_args: {…}`
    - short: `model: NAME`, `args: {…}`

    >>> parse_public_config({"model": {"tse_model": "BSRNN"}, "model_args": {"tse_model": {"win": 512}}}).args
    {'win': 512}

    Raises:
        ConfigError: the layout is none of these.
    """
    model, dataset = content.get("model"), content.get("dataset_args") or {}
    args = content.get("model_args", content.get("args"))
    toolkit = "WeSep or WeSpeaker"
    if isinstance(model, Mapping) and EXTRACTOR_KEY in model:
        toolkit, model = WESEP, model[EXTRACTOR_KEY]
        args = (args or {}).get(EXTRACTOR_KEY)
    elif "model_args" in content:
        toolkit = "WeSpeaker"
    if not isinstance(model, str) or not isinstance(args, Mapping):
        raise ConfigError(
            "is no configuration of WeSep (model: {tse_model: …}, model_args: {tse_model: {…}}), "
            "of WeSpeaker (model: NAME, model_args: {…}), of ESPnet (encoder, extractor, decoder, …_conf), "
            "nor {model: NAME, args: {…}}"
        )
    sample_rate = int(dataset.get("resample_rate", DEFAULT_SAMPLE_RATE))
    if model in NETWORKS_WITHOUT_RATE and "resample_rate" in dataset:
        args = {"sr": sample_rate, **args}
    filterbank, problems = _filterbank(dataset)
    return PublicConfig(
        toolkit,
        model,
        dict(args),
        sample_rate,
        filterbank,
        content.get("block"),
        content.get("encoder"),
        problems,
    )


def _filterbank(dataset: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of our filterbank, and a line for each setting that it does not have."""
    names = {
        "num_mel_bins": "num_mel_bins",
        "frame_length": "frame_length_ms",
        "frame_shift": "frame_shift_ms",
        "dither": "dither",
    }
    public, problems = dataset.get("fbank_args") or {}, []
    if dataset.get("frontend", "fbank") != "fbank":
        problems.append(f"dataset_args.frontend: {dataset['frontend']!r} cannot be translated; 'fbank' is")
    problems += [f"dataset_args.fbank_args.{key}: cannot be translated" for key in public if key not in names]
    if (dataset.get("cmvn_args") or {}).get("norm_var", False):
        problems.append("dataset_args.cmvn_args.norm_var: true cannot be translated; only false is")
    filterbank = {
        ours: public[theirs] if ours == "num_mel_bins" else float(public[theirs])
        for theirs, ours in names.items()
        if theirs in public
    }
    if dataset.get("cmvn", True) is False or (dataset.get("cmvn_args") or {}).get("norm_mean", True) is False:
        filterbank["mean_norm"] = False
    return filterbank, problems


@contextmanager
def translating() -> Iterator[None]:
    """Turn the errors of a translation that is given values of a wrong type into a `ConfigError` of one line."""
    try:
        yield
    except WesepError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"arguments: cannot be translated ({type(error).__name__}: {shorten(error)})") from error


def complete_arguments(
    args: Mapping[str, Any],
    defaults: Mapping[str, Any],
    ignored: Collection[str] = (),
    only: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return public arguments with the defaults of those that are not given.

    Args:
        args: as the public configuration has them.
        defaults: the arguments that are translated, with their public defaults.
        ignored: arguments that change nothing that is computed.
        only: arguments of which our network can be built with one value alone.

    Raises:
        UntranslatableError: unknown arguments, or other values than the only one.
    """
    only = only or {}
    problems = [
        f"{shorten(key, 60)}: cannot be translated; {nearest(shorten(key, 60), [*defaults, *only])}"
        for key in args
        if key not in defaults and key not in ignored and key not in only
    ]
    problems += [
        f"{key}: {shorten(repr(args[key]), 60)} cannot be translated; only {value!r} is"
        for key, value in only.items()
        if key in args and args[key] != value
    ]
    if problems:
        raise UntranslatableError(problems)
    return {**defaults, **args}


# The weights in a file.

WRAPPER_KEYS = ("models", "model", "state_dict", "model_state_dict")
"""Keys under which training code keeps the weights; WeSep keeps a list, whose second entry is its discriminator."""
DISTRIBUTED, COMPILED = "module.", "_orig_mod."
"""Parts that distributed training and compilation add to names, in any order and not always to all of them."""
OUTER_MODULE = "model."
"""The prefix of all names where the network was part of something larger."""
CLASSIFIERS = ("projection.",)
"""Layers that classify the speakers of the training data: they are no part of a speaker network."""
NAMES_IN_AN_ERROR = 5


class MisfitError(CheckpointError):
    """Weights that do not fit the network.

    Attributes:
        lines: a line for each tensor; the message holds the first ones.
    """

    def __init__(self, what: str, lines: list[str]) -> None:
        more = f" and {len(lines) - NAMES_IN_AN_ERROR} more" if len(lines) > NAMES_IN_AN_ERROR else ""
        super().__init__(f"{what}: {', '.join(lines[:NAMES_IN_AN_ERROR])}{more}")
        self.lines = lines


class MissingTensorError(CheckpointError):
    """A tensor that the public checkpoint lacks.

    Attributes:
        name: its public name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the public checkpoint has no tensor {name!r}, which its configuration promises")
        self.name = name


def read_public_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a `.pt` file, under their public names; nothing but tensors is ever unpickled.

    Raises:
        CheckpointError: the file is missing or damaged, holds no weights, or something that could run code.
    """
    path = Path(path)
    content = read_torch(path, "a checkpoint of WeSep, WeSpeaker or ESPnet, such as avg_model.pt,")
    try:
        return unwrap_weights(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def unwrap_weights(content: Any) -> dict[str, Tensor]:
    """Return the weights in the content of a training checkpoint, without the prefixes of wrappers.

    >>> unwrap_weights({"models": [{"module.fc.bias": torch.ones(1)}], "optimizers": []})
    {'fc.bias': tensor([1.])}

    Raises:
        CheckpointError: there are no weights; some are no plain tensors, or hold NaN; two get one name.
    """
    inner = content
    for key in WRAPPER_KEYS:
        if isinstance(inner, Mapping) and isinstance(inner.get(key), (Mapping, list)):
            inner = inner[key]
            inner = inner[0] if isinstance(inner, list) and inner else inner
    weights = {str(k): v for k, v in inner.items() if isinstance(v, Tensor)} if isinstance(inner, Mapping) else {}
    if not weights:
        keys = ", ".join(shorten(key, 40) for key in list(inner)[:5]) if isinstance(inner, Mapping) else ""
        raise CheckpointError(f"no weights in it (it holds: {keys or type(inner).__name__})")
    for name, value in weights.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise CheckpointError(
                f"{shorten(name)} is quantised, sparse, complex or on the meta device; give plain weights"
            )
    if (name := with_nan(weights)) is not None:
        raise CheckpointError(f"{shorten(name)} holds NaN; take an earlier checkpoint of that training")
    return _without_prefixes(weights)


def _without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without what wrappers of the network added to their names.

    >>> list(_without_prefixes({"module._orig_mod.a": torch.ones(1), "_orig_mod.module.b._orig_mod.c": torch.ones(1)}))
    ['a', 'b.c']
    """
    renamed: dict[str, Tensor] = {}
    for full_name, value in weights.items():
        name = "".join(part for part in re.split(r"(?<=\.)", full_name) if part != COMPILED)
        while name.startswith(DISTRIBUTED):
            name = name.removeprefix(DISTRIBUTED)
        if name in renamed:
            raise CheckpointError(f"two tensors are called {shorten(name)!r} without {DISTRIBUTED!r} and {COMPILED!r}")
        renamed[name] = value
    network = [name for name in renamed if not name.startswith(CLASSIFIERS)]
    if network and all(name.startswith(OUTER_MODULE) for name in network):
        inner = {name.removeprefix(OUTER_MODULE): value for name, value in renamed.items()}
        # Under `model.` there may be wrappers again.
        return inner if inner.keys() == renamed.keys() else _without_prefixes(inner)
    return renamed


def without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a speaker network's weights without the layer that classified speakers in its training."""
    return {name: value for name, value in weights.items() if not name.startswith(CLASSIFIERS)}


# From public names to ours.


class PublicWeights:
    """The tensors of a public checkpoint, each of which can be taken once.

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
        """Return the names that start with `prefix`, of tensors that are not taken yet."""
        return [name for name in self._left if name.startswith(prefix)]

    def take(self, name: str) -> Tensor:
        """Return the tensor of that name, and remove it.

        Raises:
            MissingTensorError: it is not there, or was taken before.
        """
        if name not in self._left:
            raise MissingTensorError(name)
        return self._left.pop(name)

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Return all tensors whose names start with `prefix`, under the names after it, and remove them."""
        return {name[len(prefix) :]: self._left.pop(name) for name in self.names(prefix)}

    def take_stacked(self, names: Iterable[str]) -> Tensor:
        """Return tensors of one shape, stacked along a new first axis, and remove them."""
        return torch.stack([self.take(name) for name in names])

    def take_linear(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Return weight and bias of one layer under our name; a 1×1 convolution's weight loses its axes of size one."""
        weight = self.take(f"{theirs}.weight")
        return {
            f"{ours}.weight": weight.flatten(1) if weight.dim() > 2 else weight,
            f"{ours}.bias": self.take(f"{theirs}.bias"),
        }

    def check_all_taken(self) -> None:
        """Raise an error if tensors are left.

        Raises:
            MisfitError: some tensors have no counterpart in our network; the message lists them.
        """
        if self._left:
            raise MisfitError("the public checkpoint has tensors without a counterpart here", sorted(self._left))


def fill_network(network: nn.Module, weights: Mapping[str, Tensor], public_name: str) -> None:
    """Load weights into a network, all of them and no others.

    Args:
        network: ours.
        weights: under our names. The counters of batch normalisation may be missing, as in old files.
        public_name: of the network, for the message.

    Raises:
        MisfitError: weights that are missing, too many, or of another size.
    """
    expected = network.state_dict()
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    complete = counters | dict(weights)
    if lines := weight_mismatches(expected, complete):
        raise MisfitError(f"{public_name}: the weights do not fit the arguments", lines)
    network.load_state_dict(complete)
