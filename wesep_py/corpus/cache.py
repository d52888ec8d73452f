"""The latest decoded utterances, up to a size: what readers that decode on demand keep."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from wesep_py.corpus.quantised import Quantised
from wesep_py.errors import InputError


class DecodedCache:
    """Decoded audio under its key; the least recently used goes first. In another process it begins empty.

    Args:
        size_mib: how much it keeps, in MiB, at least 0.

    Attributes:
        kept: what it keeps, the least recently used first.
        num_bytes: how much that is.

    Raises:
        InputError: a negative size.
    """

    def __init__(self, size_mib: float) -> None:
        if size_mib < 0:
            raise InputError(f"cache_mib: is {size_mib}; at least 0 is needed")
        self._size = int(size_mib * 2**20)
        self._forget()

    def get(self, key: Hashable, decode: Callable[[], Quantised]) -> Quantised:
        """What is kept under the key; decoded, and kept, where it is not there."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        self.kept[key] = decoded = decode()
        self.num_bytes += decoded.samples.nbytes
        while self.num_bytes > self._size:
            _, oldest = self.kept.popitem(last=False)
            self.num_bytes -= oldest.samples.nbytes
        return decoded

    def _forget(self) -> None:
        self.kept: OrderedDict[Hashable, Quantised] = OrderedDict()
        self.num_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
