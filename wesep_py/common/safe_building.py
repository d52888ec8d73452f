"""Build a network from an untrusted configuration, with memory and time bounded by the size of its weights.

A configuration may ask for a billion blocks, or for a window of a day. The parameters of a network cannot exceed the
file that holds them. So modules and parameters are counted while a network is built, and the size of each tensor is
computed before it is allocated; building stops as soon as the network is larger than its weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from wesep_py.common.errors import ConfigError, WesepError, shorten

if TYPE_CHECKING:
    from torch import Tensor, nn

    Network = TypeVar("Network", bound=nn.Module)

MAX_NUMBER = 1_000_000
"""The largest number allowed in a model's configuration (sizes, counts, rates, times)."""
SLACK = 2
"""Allowed ratio of a network's parameters, while it is built, to those of its weights: some are allocated twice."""
SPARE_PARAMETERS = 100
MODULES_PER_TENSOR, SPARE_MODULES = 50, 1000
SPARE_NUMBERS = 4 * 2**20
"""Allowance for windows, filterbanks and the like, which are computed and are not in the weights' file."""

# Functions of torch, by how the size of their result follows from their arguments (`_result_size`).
SIZED = {"empty", "zeros", "ones", "rand", "randn", "new_empty", "new_zeros", "new_ones", "eye"}
"""Their integers are the shape of the result."""
REPEATING = {"repeat", "tile", "repeat_interleave"}
"""Their integers multiply the size of a tensor."""
PADDING = {"pad", "one_hot"}
"""Their integers add to the size of a tensor."""
OUTER = {"outer", "ger", "kron", "cartesian_prod", "meshgrid"}
"""The sizes of their tensors are multiplied."""
VALUES = {"tensor", "as_tensor", "scalar_tensor"}
"""Their integers are values, not sizes."""


def build_within(build: Callable[[], Network], weights: Mapping[str, Tensor], slack: int = SLACK) -> Network:
    """Build a network, and stop as soon as it is larger than the weights it is for.

    Args:
        build: returns the network.
        weights: state dictionary that the network will load; only its number of tensors and values is used.
        slack: allowed ratio of the network's tensors and values to those of the weights.

    Raises:
        ConfigError: the network is larger than its weights, or cannot be built.
    """
    numbers = sum(value.numel() for value in weights.values())
    limits = {
        "parameters": slack * len(weights) + SPARE_PARAMETERS,
        "numbers": slack * numbers + SPARE_NUMBERS,
        "modules": MODULES_PER_TENSOR * len(weights) + SPARE_MODULES,
    }
    try:
        with _counted(limits), _watched(limits["numbers"]):
            return build()
    except WesepError:
        raise
    except Exception as error:  # invalid sizes and types raise many classes of exception
        raise ConfigError(f"no network can be built from it ({type(error).__name__}: {shorten(error)})") from error


def check_numbers(value: Any, where: str = "") -> None:
    """Check that the numbers of a model's configuration are finite and at most `MAX_NUMBER`.

    Args:
        value: the configuration, or a part of it.
        where: the key of that part, for messages.

    Raises:
        ConfigError: a number is larger or not finite.

    >>> check_numbers({"backbone": {"num_blocks": 10**9}})
    Traceback (most recent call last):
    wesep_py.common.errors.ConfigError: backbone.num_blocks: is 1000000000; at most 1000000 is allowed in a model
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{where}.{shorten(key, 60)}" if where else shorten(key, 60))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_numbers(item, f"{where}[{index}]")
    elif isinstance(value, (int, float)) and not abs(value) <= MAX_NUMBER:
        raise ConfigError(f"{where}: is {shorten(value, 40)}; at most {MAX_NUMBER} is allowed in a model")


def _too_large(what: str, number: int, limit: int) -> ConfigError:
    return ConfigError(
        f"describes a network with {number} {what} or more; its weights account for {limit} at most: "
        "give the configuration that they were trained with"
    )


@contextmanager
def _counted(limits: Mapping[str, int]) -> Iterator[None]:
    """Limit the parameters, modules and numbers that this thread registers inside the block."""
    from torch.nn.modules import module as hooks

    thread, counts = threading.get_ident(), dict.fromkeys(limits, 0)

    def count(what: str, number: int) -> None:
        counts[what] += number
        if counts[what] > limits[what]:
            raise _too_large(what, counts[what], limits[what])

    def parameter(_module: Any, _name: str, value: Any) -> None:
        if value is not None and threading.get_ident() == thread:
            count("parameters", 1)
            count("numbers", _numel(value))

    def buffer(_module: Any, _name: str, value: Any) -> None:
        if value is not None and threading.get_ident() == thread:
            count("numbers", _numel(value))

    def module(_module: Any, _name: str, _value: Any) -> None:
        if threading.get_ident() == thread:
            count("modules", 1)

    handles = [
        hooks.register_module_parameter_registration_hook(parameter),
        hooks.register_module_buffer_registration_hook(buffer),
        hooks.register_module_module_registration_hook(module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _numel(value: Any) -> int:
    from torch.nn.parameter import is_lazy

    return 0 if is_lazy(value) else int(value.numel())


def _watched(limit: int) -> Any:
    """Return a context in which torch allocates no tensor of more than `limit` numbers."""
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Watched(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            arguments = [*args, *kwargs.values()]
            tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
            number = _result_size(getattr(func, "__name__", ""), arguments, tensors)
            if number > limit:
                raise _too_large("numbers", number, limit)
            return func(*args, **kwargs)

    return Watched()


def _result_size(name: str, arguments: Sequence[Any], tensors: Sequence[Tensor]) -> int:
    """Return an upper bound of the number of values in the result of a torch function.

    Args:
        name: of the function.
        arguments: all of them.
        tensors: those that are tensors.
    """
    integers = [abs(number) for number in _integers(arguments)]
    if name in VALUES:
        return 0
    if name in ("full", "new_full"):  # the other integer is the value
        return math.prod(_integers(argument for argument in arguments if isinstance(argument, (tuple, list))))
    if name in SIZED:
        return math.prod(integers) * (integers[0] if name == "eye" and len(integers) == 1 else 1)
    if name in REPEATING:
        return math.prod(integers) * sum(tensor.numel() for tensor in tensors)
    if name in PADDING:
        return sum(integers) + sum(tensor.numel() for tensor in tensors)
    if name == "conv1d":  # its bias is added along the channels; the integers are, among others, the padding
        signal, weight = tensors[:2]
        return signal.shape[0] * weight.shape[0] * (signal.shape[-1] + 2 * sum(integers))
    if not tensors:  # windows, ranges
        return max(integers, default=0)
    if name in OUTER:
        return math.prod(tensor.numel() for tensor in tensors)
    # Any other function broadcasts: each axis of the result, counted from the last, is at most the longest there.
    shapes = [tensor.shape for tensor in tensors]
    axes = range(1, max(map(len, shapes)) + 1)
    return math.prod(max(shape[-axis] for shape in shapes if len(shape) >= axis) for axis in axes)


def _integers(values: Iterable[Any]) -> Iterator[int]:
    """Yield the integers among values, lists and tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _integers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield value
