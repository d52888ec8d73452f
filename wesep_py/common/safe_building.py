"""Build a network from a stranger's configuration, in no more memory and time than its weights account for.

A configuration may ask for a billion blocks, or for a window of a day. The parameters of a network cannot exceed the
file that holds them. So parts are counted while a network is built, and the sizes of tensors are looked at before
they are made; a network that is larger than its weights is given up there and then.
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
"""No number in a model's configuration is larger: sizes, counts, rates, times."""
SLACK = 2
"""A network may have so many times the parameters of its weights while it is built: some are made twice."""
SPARE_PARAMETERS = 100
MODULES_PER_TENSOR, SPARE_MODULES = 50, 1000
SPARE_NUMBERS = 4 * 2**20
"""Of windows, filterbanks and the like, which are computed and stand in no file."""

SIZED = {"empty", "zeros", "ones", "rand", "randn", "new_empty", "new_zeros", "new_ones", "eye"}
"""Functions of torch whose integers are the sizes of their result."""
REPEATING = {"repeat", "tile", "repeat_interleave"}
PADDING = {"pad", "one_hot"}
OUTER = {"outer", "ger", "kron", "cartesian_prod", "meshgrid"}
VALUES = {"tensor", "as_tensor", "scalar_tensor"}
"""Functions whose integers are values."""


def build_within(build: Callable[[], Network], weights: Mapping[str, Tensor], slack: int = SLACK) -> Network:
    """Build a network for weights; it is given up as soon as it is larger than they are.

    Args:
        build: makes the network.
        weights: which it is for; names and shapes may be others.
        slack: how many times their tensors and numbers the network may have.

    Raises:
        ConfigError: the network is larger than the weights account for, or cannot be built.
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
    except Exception as error:  # sizes and types that make no sense fail in many places
        raise ConfigError(f"no network can be built from it ({type(error).__name__}: {shorten(error)})") from error


def check_numbers(value: Any, where: str = "") -> None:
    """Refuse numbers that no network needs.

    Raises:
        ConfigError: one is above `MAX_NUMBER`, or no finite number.

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
    """What is built in this thread stops when it has too many parameters, modules or numbers."""
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


def _watched(most: int) -> Any:
    """A mode of torch in which no tensor is made of more than `most` numbers."""
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Watched(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            given = [*args, *kwargs.values()]
            number = _result_size(
                getattr(func, "__name__", ""), given, [one for one in given if isinstance(one, Tensor)]
            )
            if number > most:
                raise _too_large("numbers", number, most)
            return func(*args, **kwargs)

    return Watched()


def _result_size(name: str, given: Sequence[Any], tensors: Sequence[Tensor]) -> int:
    """How many numbers a function of torch makes at most."""
    whole = [abs(number) for number in _integers(given)]
    if name in VALUES:
        return 0
    if name in ("full", "new_full"):  # the other integer is the value
        return math.prod(_integers(one for one in given if isinstance(one, (tuple, list))))
    if name in SIZED:
        return math.prod(whole) * (whole[0] if name == "eye" and len(whole) == 1 else 1)
    if name in REPEATING:
        return math.prod(whole) * sum(one.numel() for one in tensors)
    if name in PADDING:
        return sum(whole) + sum(one.numel() for one in tensors)
    if not tensors:  # windows, ranges
        return max(whole, default=0)
    if name in OUTER:
        return math.prod(one.numel() for one in tensors)
    # Each axis of what is computed of several is at most the longest of theirs.
    shapes = [one.shape for one in tensors]
    axes = range(1, max(map(len, shapes)) + 1)
    return math.prod(max(shape[-axis] for shape in shapes if len(shape) >= axis) for axis in axes)


def _integers(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _integers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield value
