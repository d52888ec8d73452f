"""Build a network from a stranger's configuration, in no more memory and time than its weights account for.

A configuration may ask for a billion blocks, or for a window of a day. The parameters of a network cannot exceed the
file that holds them. So parts are counted while a network is built, and the sizes of tensors are looked at before
they are made; a network that is larger than its weights is given up there and then.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from wesep_py.errors import ConfigError, WesepError, shorten

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

SIZED = {"empty", "zeros", "ones", "rand", "randn", "new_empty", "new_zeros", "new_ones", "eye", "repeat", "tile"}
"""Functions of torch whose integers are the sizes of their result."""


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
    wesep_py.errors.ConfigError: backbone.num_blocks: is 1000000000; at most 1000000 is allowed in a model
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
            whole = list(_integers([*args, *kwargs.values()]))
            name = getattr(func, "__name__", "")
            number = math.prod(whole) if name in SIZED else max(whole, default=0)
            if name in ("full", "new_full"):  # the other integer is the value
                number = math.prod(
                    _integers(one for one in [*args, *kwargs.values()] if isinstance(one, (tuple, list)))
                )
            shapes = [one.shape for one in args if isinstance(one, Tensor)]
            if len(shapes) > 1:  # each axis of what is computed of several is at most the longest of theirs
                axes = max(map(len, shapes))
                number = max(
                    number, math.prod(max(shape[-i] for shape in shapes if len(shape) >= i) for i in range(1, axes + 1))
                )
            if number > most:
                raise _too_large("numbers", number, most)
            return func(*args, **kwargs)

    return Watched()


def _integers(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _integers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield value
