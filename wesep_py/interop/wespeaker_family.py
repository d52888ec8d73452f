"""The form of a table of WeSpeaker's networks, and how it is applied to arguments and weights.

`NetworkFamily` is one table (the tables are in `wespeaker_networks`): `translate` turns the arguments of a public
network into ours, and `rename` its weights. `rename_tensors` applies the renaming rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.interop.public_checkpoints import UntranslatableError

Rule = tuple[str, "str | None"]
"""A regular expression and what a match becomes.

In the replacement `{1}` is the first group, and `{1-1}` the number in it, less one: WeSpeaker counts layers from one.
`None` removes the tensor.
"""
REQUIRED = None
"""In a table of defaults: an argument that has to be given."""
NUM_MEL_BINS = "feat_dim"
"""An argument of all networks: the number of mel bins. It is read by `num_mel_bins` and not translated here."""
POOLINGS = {
    "TAP": "tap",
    "TSDP": "tsdp",
    "TSTP": "tstp",
    "ASTP": "astp",
    "MHASTP": "mhastp",
    "MQMHASTP": "mqmhastp",
}
"""`pooling_func` → our name. The public networks leave all arguments but ASTP's context at their defaults, as ours."""


@dataclass(frozen=True)
class PublicNetwork:
    """The arguments of one public network.

    Attributes:
        defaults: the arguments that can be given, and their defaults; `REQUIRED` where there is none.
        implied: arguments that the name of the network implies, such as the number of blocks of `ResNet34`.
    """

    defaults: Mapping[str, Any]
    implied: Mapping[str, Any]


@dataclass(frozen=True)
class NetworkFamily:
    """Public networks that one network of ours computes.

    Attributes:
        name: the name of our network in its registry.
        networks: public name → its arguments.
        arguments: public argument → ours.
        rules: renaming rules of the weights, applied in this order.
        blocks: public name of a residual block's class → ours; `None` where a given class is ignored.
        block_argument: the public argument that holds the class of the block. Where there is none, `blocks` lists the
            classes that may be named.
        nullable: arguments that may be given as `null`.
        constants: arguments of ours that are the same for the whole family.
        convert: completed public arguments → arguments of ours that the tables cannot express.
        reshape: changes the shapes of renamed weights.
    """

    name: str
    networks: Mapping[str, PublicNetwork]
    arguments: Mapping[str, str]
    rules: tuple[Rule, ...]
    blocks: Mapping[str, str] | None = None
    block_argument: str | None = None
    nullable: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    reshape: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None

    def translate(self, model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
        """Return `{"name": …, …}` for our network, without the number of mel bins; see `translate_network`."""
        defaults = self.networks[model].defaults
        if self.block_argument in defaults and block is not None:
            args = {self.block_argument: block, **args}
        elif self.blocks is not None and self.block_argument is None and block not in (None, *self.blocks):
            allowed = nearest(str(block), self.blocks) if self.blocks else f"{model} has no choice of blocks, remove it"
            raise ConfigError(f"encoder.block: is {block!r}; {allowed}")
        public = {**self.networks[model].implied, **self._complete(model, args)}
        ours = {"name": self.name, **self.constants}
        for theirs, name in self.arguments.items():
            if theirs in public:
                ours[name] = _plain(theirs, public[theirs], defaults.get(theirs))
        if self.block_argument is not None:
            chosen = str(public[self.block_argument])
            if chosen not in self.blocks:
                raise ConfigError(f"encoder.{self.block_argument}: is {chosen!r}; {nearest(chosen, self.blocks)}")
            ours["block"] = self.blocks[chosen]
        return ours if self.convert is None else {**ours, **self.convert(public)}

    def rename(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return public weights under our names and in our shapes.

        Raises:
            CheckpointError: two different tensors get one name.
        """
        renamed = rename_tensors(state_dict, self.rules)
        return renamed if self.reshape is None else self.reshape(renamed)

    def _complete(self, model: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the defaults of those that are not given, without the number of mel bins."""
        defaults = self.networks[model].defaults
        problems = [
            f"encoder: {model} has no argument {name!r}; {nearest(str(name), [*defaults, NUM_MEL_BINS])}"
            for name in args
            if name not in defaults and name != NUM_MEL_BINS
        ]
        completed = {**defaults, **{name: args[name] for name in defaults if name in args}}
        for name, value in completed.items():
            if value is None and name not in self.nullable:
                allowed = f" (allowed: {', '.join(sorted(self.blocks))})" if name == self.block_argument else ""
                problems.append(f"encoder: {model} needs its argument {name!r}; give it{allowed}")
        if problems:
            raise UntranslatableError(problems)
        return completed


def _plain(name: str, value: Any, default: Any) -> Any:
    """Return an argument's value as our networks take it: lists for tuples, and the type of the default."""
    if name == "pooling_func":
        return translate_pooling(value)
    if isinstance(value, tuple | list):
        return list(value)
    return type(default)(value) if isinstance(default, bool | float) else value


def rename_tensors(state_dict: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Return tensors under other names: each rule is applied to each name, in order.

    Raises:
        CheckpointError: two names become one, and their tensors differ.

    >>> list(rename_tensors({"layer1.bn.weight": torch.ones(4)}, [(r"^layer(\\d)\\.bn\\.", "norms.{1-1}.")]))
    ['norms.0.weight']
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed: dict[str, Tensor] = {}
    for theirs, tensor in state_dict.items():
        ours: str | None = theirs
        for pattern, replacement in compiled:
            match = pattern.search(ours)
            if match and replacement is None:
                ours = None
                break
            if match:
                ours = pattern.sub(lambda match, text=replacement: _fill_in(text, match), ours)
        if ours is None:
            continue
        if ours in renamed and not torch.equal(renamed[ours], tensor):
            raise CheckpointError(f"two tensors of the public checkpoint become {ours!r}; one of them is {theirs!r}")
        renamed[ours] = tensor
    return renamed


def _fill_in(replacement: str, match: re.Match[str]) -> str:
    """Return the replacement with `{group}` and `{group±number}` filled in."""

    def fill(place: re.Match[str]) -> str:
        text = match[int(place[1])]
        return text if place[2] is None else str(int(text) + int(place[2]))

    return re.sub(r"\{(\d)([+-]\d)?\}", fill, replacement)


def translate_pooling(name: str) -> str:
    """Return our name of the pooling that `pooling_func` names.

    >>> translate_pooling("TSTP")
    'tstp'

    Raises:
        ConfigError: there is no pooling of that name.
    """
    if name not in POOLINGS:
        raise ConfigError(f"encoder: pooling_func {name!r} cannot be translated; {nearest(str(name), POOLINGS)}")
    return POOLINGS[name]
