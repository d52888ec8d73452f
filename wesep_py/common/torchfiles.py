"""Read `.pt` and `.safetensors` files as plain data: numbers, texts, containers and dense tensors, nothing else.

A `.pt` file is a pickle and the bytes of its tensors, in a zip archive or, from PyTorch before 1.6, one after the
other. A pickle is a list of operations that can call any function, and a file can state sizes that it does not hold.
So nothing is unpickled here: the operations that make containers and tensors are carried out by `_Machine`, which has
no others, each tensor is compared with the bytes that are there before it is made, and the checksums of the archive
are compared. `torch.load(weights_only=True)` is not enough: it makes room for what a storage states, whatever there
is, and does not look at the checksums.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import pickletools
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py.common.errors import CheckpointError, shorten

if TYPE_CHECKING:
    import torch

MAX_DEPTH = 64
"""Containers within containers."""
MAX_SHARING = 8
"""The tensors of a file may share their numbers; together they are at most this many times the size of the file."""

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
"""The storage classes of PyTorch, and the type of their numbers."""
DTYPES = frozenset(STORAGES.values())
REAL = frozenset(name for name in DTYPES if not name.startswith("complex"))
LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
    ]
)
"""Operations of a pickle that are a number, a text or bytes."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
FOREIGN = {
    "_rebuild_qtensor": "a quantised tensor",
    "QInt": "a quantised tensor",
    "QUInt": "a quantised tensor",
    "_rebuild_sparse": "a sparse tensor",
    "_rebuild_meta": "a tensor without numbers, of the device meta",
    "_rebuild_nested": "a nested tensor",
}
"""Tensors that are not read, by a part of the name of what makes them."""


class _ForeignError(Exception):
    """The file holds something that is no plain data."""


class _BrokenError(Exception):
    """The file contradicts itself."""


def read_torch(path: str | Path, what: str = "a PyTorch file", allow_complex: bool = False) -> dict[Any, Any]:
    """Read a `.pt` file whose content is a dictionary, on the CPU; nothing in it is ever run.

    Args:
        path: written by `torch.save`, in either of its formats.
        what: what the file should be, for messages: "a training state".
        allow_complex: read complex tensors too, which no weights are.

    Returns:
        The dictionary; parameters are plain tensors.

    Raises:
        CheckpointError: the file is missing, damaged (its checksums are compared), holds no dictionary, or anything
            else than numbers, texts, containers and dense tensors of real numbers.

    >>> import torch
    >>> torch.save({"bias": torch.ones(1), "step": 3}, "/tmp/doctest.pt")
    >>> read_torch("/tmp/doctest.pt")
    {'bias': tensor([1.]), 'step': 3}
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give {what}")
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        _check_content(content, path.stat().st_size, allow_complex)
    except _ForeignError as error:
        raise CheckpointError(
            f"{path}: holds more than weights, and is not read for safety ({shorten(str(error))}); "
            "save its state_dict alone"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or shorten(str(error))})") from error
    except Exception as error:  # which one a damaged pickle raises depends on where the damage is
        reason = str(error) if isinstance(error, (_BrokenError, zipfile.BadZipFile)) else ""
        raise CheckpointError(
            f"{path}: is no PyTorch file, or damaged ({shorten(reason) or type(error).__name__}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds {_kind(content)}; {what} is a dictionary with tensors")
    return content


def read_tensors(path: str | Path, again: str = "copy it again") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors, on the CPU, and the texts in its header.

    Args:
        path: the file.
        again: what to do where it is damaged, for messages.

    Raises:
        CheckpointError: the file is missing, damaged, or has a tensor of a type that no model of ours has.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or shorten(str(error))})") from error
    return parse_tensors(content, path, again)


def parse_tensors(
    content: bytes, path: Path, again: str = "copy it again"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """`read_tensors`, of a file that was read already."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, struct.error) as error:
        raise CheckpointError(
            f"{path}: is cut short or damaged ({shorten(str(error)) or type(error).__name__}); {again}"
        ) from error
    wrong = next((name for name, value in tensors.items() if str(value.dtype).removeprefix("torch.") not in REAL), None)
    if wrong is not None:
        raise CheckpointError(
            f"{path}: the tensor {shorten(wrong)} is {str(tensors[wrong].dtype).removeprefix('torch.')}; "
            f"real numbers of ordinary types are needed; {again}"
        )
    return tensors, header.get("__metadata__") or {}


def with_nan(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of the first tensor that holds NaN; `None` if there is none."""
    return next((name for name, value in tensors.items() if value.is_floating_point() and value.isnan().any()), None)


def _read_zip(path: Path) -> Any:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if sum(info.file_size for info in members.values()) > size or len(members) != len(archive.infolist()):
            raise _BrokenError("its archive states more bytes than the file has")
        for info in members.values():
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise _BrokenError(f"{info.filename} is compressed, which PyTorch does not do")
        root = next((name.removesuffix("data.pkl") for name in members if name.split("/")[1:] == ["data.pkl"]), None)
        if root is None:
            raise _BrokenError("its archive has no data.pkl")
        if f"{root}constants.pkl" in members:
            raise _ForeignError("it is a TorchScript program")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != sys.byteorder.encode():
            raise _BrokenError("its numbers have another byte order")
        raw: dict[str, torch.Tensor] = {}

        def storage(key: str, dtype: str, numel: int) -> torch.Tensor:
            if key not in raw:
                if (name := f"{root}data/{key}") not in members:
                    raise _BrokenError(f"{name} is missing")
                raw[key] = _bytes_of(archive, members[name])
            wanted = numel * _itemsize(dtype)
            if len(raw[key]) != wanted:
                raise _BrokenError(f"tensor data {key} should be {wanted} bytes and has {len(raw[key])}")
            return raw[key]

        content = _Machine(io.BytesIO(archive.read(f"{root}data.pkl")), storage).run()
        for name, info in members.items():  # what nothing refers to may be damaged all the same
            if not name.startswith(f"{root}data/"):
                archive.read(info)
        return content


def _bytes_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> torch.Tensor:
    """The bytes of a member, at an address that torch has aligned; its checksum is compared."""
    import torch

    raw = torch.empty(info.file_size, dtype=torch.uint8)
    view, at = memoryview(raw.numpy()), 0
    with archive.open(info) as member:
        while block := member.read(2**20):
            view[at : at + len(block)] = block
            at += len(block)
    if at != info.file_size:
        raise _BrokenError(f"{info.filename} is cut short")
    return raw


def _read_legacy(path: Path) -> Any:
    """The format before PyTorch 1.6: four pickles (magic, version, system, content), keys, and the storages' bytes."""
    import torch

    size = path.stat().st_size
    if not size:
        raise _BrokenError("it is empty")
    raw: dict[str, torch.Tensor] = {}
    itemsizes: dict[str, int] = {}

    def storage(key: str, dtype: str, numel: int) -> torch.Tensor:
        wanted = numel * _itemsize(dtype)
        if key not in raw:
            if wanted + sum(map(len, raw.values())) > size:
                raise _BrokenError(f"tensor data {key} would be {wanted} bytes; the file has {size}")
            raw[key], itemsizes[key] = torch.empty(wanted, dtype=torch.uint8), _itemsize(dtype)
        if len(raw[key]) != wanted:
            raise _BrokenError(f"tensor data {key} has two sizes")
        return raw[key]

    # A mapped file gives no more than it holds; a stream would make room for the sizes that a pickle states.
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        if _Machine(file).run() != LEGACY_MAGIC:
            raise _BrokenError("it does not begin as a PyTorch file does")
        if _Machine(file).run() != LEGACY_PROTOCOL:
            raise _BrokenError("it is of an unknown version")
        _Machine(file).run()
        content = _Machine(file, storage).run()
        keys = _Machine(file).run()
        if not isinstance(keys, list) or sorted(map(_text, keys)) != sorted(raw):
            raise _BrokenError("its list of tensor data is damaged")
        for key in map(_text, keys):
            (count,) = struct.unpack("<q", file.read(8))
            block = file.read(len(raw[key]))
            if count * itemsizes[key] != len(raw[key]) or len(block) != len(raw[key]):
                raise _BrokenError(f"tensor data {key} is cut short")
            memoryview(raw[key].numpy())[:] = block
    return content


class _Storage:
    """Bytes of the file, and the type of the numbers in them."""

    def __init__(self, raw: torch.Tensor, dtype: str) -> None:
        self.raw, self.dtype = raw, dtype


class _Type:
    """The type of numbers."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class _Function:
    """What may be called, and no value of its own."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _Machine:
    """Carries out the operations of a pickle that make containers, numbers, texts and tensors; there are no others.

    Args:
        file: with `read`, `readline` and `tell`.
        storage: bytes by key, type and count; `None` where there can be none.
    """

    def __init__(self, file: Any, storage: Callable[[str, str, int], torch.Tensor] | None = None) -> None:
        self._file, self._storage = file, storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes."""
        for operation, argument, _ in pickletools.genops(self._file):
            if (name := operation.name) == "STOP":
                return self._stack.pop()
            if name in LITERALS:
                self._stack.append(argument)
            elif name in CONSTANTS:
                self._stack.append(CONSTANTS[name])
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self._memo[argument] = self._stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self._stack.append(self._memo[argument])
            else:
                self._carry_out(name, argument)
        raise _BrokenError("it is cut short")

    def _carry_out(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append([] if name == "EMPTY_LIST" else {})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "LIST":
                stack.append(self._since_mark())
            case "DICT":
                stack.append(_filled({}, self._since_mark()))
            case "APPEND" | "APPENDS":
                items = self._since_mark() if name == "APPENDS" else [stack.pop()]
                if not isinstance(stack[-1], list):
                    raise _BrokenError("an item is put into something that is no list")
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                _filled(stack[-1], items)
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [_named(*map(str, stack[-2:]))]
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, _Function) or not isinstance(arguments, tuple):
                    raise _BrokenError("it calls something that is no function")
                stack.append(function.call(*arguments))
            case "BUILD":
                stack.pop()
                if not isinstance(stack[-1], OrderedDict):  # versions of a state_dict's modules, which are left out
                    raise _ForeignError("an object with attributes")
            case "BINPERSID":
                stack.append(self._data_of(stack.pop()))
            case _:
                raise _ForeignError(f"the operation {name}")

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _data_of(self, identity: Any) -> _Storage:
        """The bytes that a tensor names."""
        if self._storage is None or not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise _BrokenError("it refers to something that is not in it")
        word, kind, key, _, numel, *view = identity
        if word != "storage" or not isinstance(kind, _Type) or not _is_count(numel) or (view and view[0] is not None):
            raise _BrokenError("the data of a tensor is described wrongly")
        return _Storage(self._storage(_text(key), kind.dtype, numel), kind.dtype)


def _named(module: str, name: str) -> Any:
    """What a name in a pickle stands for; anything but types of numbers and what makes tensors is refused."""
    if module in ("torch", "torch.storage") and name in STORAGES:
        return _Type(STORAGES[name])
    if module == "torch" and name in DTYPES:
        return _Type(name)
    if (full := f"{module}.{name}") not in CALLABLE:
        kinds = (kind for part, kind in FOREIGN.items() if module.startswith("torch") and part in name)
        raise _ForeignError(next(kinds, full))
    return _Function(CALLABLE[full])


def _filled(target: Any, items: list[Any]) -> dict[Any, Any]:
    """The dictionary, with keys and values that follow each other."""
    if not isinstance(target, dict) or len(items) % 2:
        raise _BrokenError("an entry is put into something that is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value
    return target


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: str | None = None) -> torch.Tensor:
    """A view of a storage; whatever is left says whether it learns."""
    import torch

    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise _ForeignError("a tensor that is no dense one")
    if not all(map(_is_count, (offset, *size, *stride))) or len(size) != len(stride):
        raise _BrokenError("the shape of a tensor is described wrongly")
    numel = len(storage.raw) // _itemsize(dtype or storage.dtype)
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if math.prod(size) > numel or (math.prod(size) and last >= numel) or len(size) > MAX_DEPTH:
        raise _BrokenError(f"a tensor of size {shorten(str(list(size)), 80)} is stated where {numel} numbers are")
    flat = storage.raw.view(getattr(torch, dtype or storage.dtype))
    return torch.as_strided(flat, size, stride, offset) if math.prod(size) else flat.new_empty(size)


def _tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, learns: Any, hooks: Any, dtype: Any, *rest: Any
) -> torch.Tensor:
    if not isinstance(dtype, _Type):
        raise _BrokenError("the type of a tensor is described wrongly")
    return _tensor(storage, offset, size, stride, dtype=dtype.dtype)


def _parameter(data: Any, *rest: Any) -> torch.Tensor:
    import torch

    if not isinstance(data, torch.Tensor):
        raise _BrokenError("a parameter is no tensor")
    return data


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    if isinstance(items, Mapping):
        return OrderedDict(items)
    if not isinstance(items, (list, tuple)) or not all(
        isinstance(one, (list, tuple)) and len(one) == 2 for one in items
    ):
        raise _BrokenError("a dictionary is made of something else")
    return OrderedDict((_key(key), value) for key, value in items)


def _counter(items: Any = ()) -> Counter[Any]:
    return Counter(dict(_ordered(items)))


def _size(items: Any = ()) -> tuple[int, ...]:
    if not isinstance(items, (list, tuple)) or not all(map(_is_count, items)):
        raise _BrokenError("a size is made of something else")
    return tuple(items)


def _device(*names: Any) -> str:
    return ":".join(str(name) for name in names if isinstance(name, (str, int)))[:80]


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in an old protocol."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _BrokenError("bytes are made of something else")
    return text.encode("latin1")


CALLABLE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encoded,
}
"""The names that a pickle may call, and what is called in their place."""


def _check_content(content: Any, size: int, allow_complex: bool) -> None:
    """Refuse what is nested too deeply, or holds itself, before anything else walks through it."""
    import torch

    seen, total, waiting = 0, 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > size:
            raise _BrokenError("its content is nested too deeply, or repeats itself")
        if isinstance(value, Mapping):
            waiting.extend((one, depth + 1) for one in value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend((one, depth + 1) for one in value)
        elif isinstance(value, torch.Tensor):
            if value.is_complex() and not allow_complex:
                raise _ForeignError("a complex tensor")
            total += value.numel() * value.element_size()
            if total > MAX_SHARING * size:
                raise _BrokenError("its tensors are together far larger than the file")
        elif value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            raise _BrokenError(f"it holds {_kind(value)} by itself")


def _key(key: Any) -> Any:
    # Hashing a tuple of tuples of tuples that are all one object takes for ever; keys of weights are texts and numbers.
    if key is not None and not isinstance(key, (bool, int, float, str, bytes)):
        raise _BrokenError("a key of a dictionary is neither a text nor a number")
    return key


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise _BrokenError("the name of tensor data is no text")
    return key


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _itemsize(dtype: str) -> int:
    import torch

    return int(getattr(torch, dtype).itemsize)


def _kind(value: Any) -> str:
    names = {"Tensor": "a tensor", "list": "a list", "tuple": "a list", "str": "a text", "int": "a number"}
    name = type(value).__name__.lstrip("_")
    return names.get(name, f"an object of type {name}")
