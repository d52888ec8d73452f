"""Read `.pt` and `.safetensors` files as plain data: numbers, strings, containers and dense tensors, nothing else.

A `.pt` file is a pickle and the bytes of its tensors, in a zip archive or, from PyTorch before 1.6, one after the
other. A pickle is a program for a stack machine that can call any function, and a file can state sizes that it does not
have. So nothing is unpickled here: `_PickleReader` knows only the operations that make containers and tensors, each
tensor is checked against the size of the file before it is allocated, and the checksums of the archive are verified.
`torch.load(weights_only=True)` does not suffice: it allocates whatever size a storage states, and ignores checksums.
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
    from numpy.typing import NDArray

MAX_DEPTH = 64
"""Maximum depth of nested containers."""
MAX_SHARING = 8
"""Maximum ratio of the tensors' total size to the size of the file; above 1, because tensors can share storage."""

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
"""PyTorch's storage classes, and the dtype of each."""
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
"""Pickle operations that push their argument: a number, a string or bytes."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
UNSUPPORTED = {
    "_rebuild_qtensor": "a quantised tensor",
    "QInt": "a quantised tensor",
    "QUInt": "a quantised tensor",
    "_rebuild_sparse": "a sparse tensor",
    "_rebuild_meta": "a tensor without numbers, of the device meta",
    "_rebuild_nested": "a nested tensor",
}
"""Tensors that are not supported, by a part of the name of the function that builds them."""


class _UnsupportedError(Exception):
    """File with content that is not plain data."""


class _DamagedError(Exception):
    """File that contradicts itself."""


def read_torch(path: str | Path, what: str = "a PyTorch file", allow_complex: bool = False) -> dict[Any, Any]:
    """Read a `.pt` file that holds a dictionary, onto the CPU, without running any code in it.

    Args:
        path: file written by `torch.save`, in either of its formats.
        what: the kind of file, for messages: "a training state".
        allow_complex: accept complex tensors; weights are never complex.

    Returns:
        The dictionary; parameters are plain tensors.

    Raises:
        CheckpointError: the file is missing, damaged (checksums included), holds no dictionary, or holds anything but
            numbers, strings, containers and dense real tensors.

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
    except _UnsupportedError as error:
        raise CheckpointError(
            f"{path}: holds more than weights, and is not read for safety ({shorten(str(error))}); "
            "save its state_dict alone"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or shorten(str(error))})") from error
    except Exception as error:  # the class depends on where a pickle is damaged
        reason = str(error) if isinstance(error, (_DamagedError, zipfile.BadZipFile)) else ""
        raise CheckpointError(
            f"{path}: is not a PyTorch file, or damaged ({shorten(reason) or type(error).__name__}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds {_kind(content)}; {what} is a dictionary with tensors")
    return content


def read_tensors(path: str | Path, again: str = "copy it again") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file, onto the CPU, and the strings in its header.

    Args:
        path: the file.
        again: advice for a damaged file, for messages.

    Raises:
        CheckpointError: the file is missing, damaged, or has a tensor of a dtype that no model of this package has.
    """
    path = Path(path)
    return parse_tensors(_read_bytes(path), path, again)


def parse_tensors(
    content: bytes, path: Path, again: str = "copy it again"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors and header strings of a safetensors file that is in memory; see `read_tensors`."""
    from safetensors.torch import load

    return _parse(content, load, path, again)


def read_arrays(path: str | Path, again: str = "copy it again") -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file as NumPy arrays, without torch; as `read_tensors`."""
    from safetensors.numpy import load

    path = Path(path)
    return _parse(_read_bytes(path), load, path, again)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or shorten(str(error))})") from error


def _parse(
    content: bytes, load: Callable[[bytes], dict[str, Any]], path: Path, again: str
) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError

    try:
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, struct.error) as error:
        raise CheckpointError(
            f"{path}: is cut short or damaged ({shorten(str(error)) or type(error).__name__}); {again}"
        ) from error
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
    wrong = next((name for name, dtype in dtypes.items() if dtype not in REAL), None)
    if wrong is not None:
        raise CheckpointError(
            f"{path}: the tensor {shorten(wrong)} is {dtypes[wrong]}; real numbers are needed; {again}"
        )
    return tensors, header.get("__metadata__") or {}


def with_nan(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor with NaN, or `None`."""
    return next((name for name, value in tensors.items() if value.is_floating_point() and value.isnan().any()), None)


def _read_zip(path: Path) -> Any:
    """Read the zip format: `ROOT/data.pkl` is the pickle, `ROOT/data/KEY` the bytes of a storage."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if sum(info.file_size for info in members.values()) > size or len(members) != len(archive.infolist()):
            raise _DamagedError("its archive states more bytes than the file has")
        for info in members.values():
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise _DamagedError(f"{info.filename} is compressed, which PyTorch does not do")
        root = next((name.removesuffix("data.pkl") for name in members if name.split("/")[1:] == ["data.pkl"]), None)
        if root is None:
            raise _DamagedError("its archive has no data.pkl")
        if f"{root}constants.pkl" in members:
            raise _UnsupportedError("it is a TorchScript program")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != sys.byteorder.encode():
            raise _DamagedError("its numbers have another byte order")
        raw: dict[str, torch.Tensor] = {}

        def storage(key: str, dtype: str, numel: int) -> torch.Tensor:
            if key not in raw:
                if (name := f"{root}data/{key}") not in members:
                    raise _DamagedError(f"{name} is missing")
                raw[key] = _bytes_of(archive, members[name])
            num_bytes = numel * _itemsize(dtype)
            if len(raw[key]) != num_bytes:
                raise _DamagedError(f"tensor data {key} should be {num_bytes} bytes and has {len(raw[key])}")
            return raw[key]

        content = _PickleReader(io.BytesIO(archive.read(f"{root}data.pkl")), storage).run()
        for name, info in members.items():  # verifies the checksums of the members that were not read
            if not name.startswith(f"{root}data/"):
                archive.read(info)
        return content


def _bytes_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> torch.Tensor:
    """Return the bytes of a member, at an address aligned by torch; its checksum is verified."""
    import torch

    raw = torch.empty(info.file_size, dtype=torch.uint8)
    view, position = memoryview(raw.numpy()), 0
    with archive.open(info) as member:
        while block := member.read(2**20):
            view[position : position + len(block)] = block
            position += len(block)
    if position != info.file_size:
        raise _DamagedError(f"{info.filename} is cut short")
    return raw


def _read_legacy(path: Path) -> Any:
    """Read the format before PyTorch 1.6.

    Pickles of magic number, version, system, content and storage keys; then, per key, a count and the bytes.
    """
    import torch

    size = path.stat().st_size
    if not size:
        raise _DamagedError("it is empty")
    raw: dict[str, torch.Tensor] = {}
    itemsizes: dict[str, int] = {}

    def storage(key: str, dtype: str, numel: int) -> torch.Tensor:
        num_bytes = numel * _itemsize(dtype)
        if key not in raw:
            if num_bytes + sum(map(len, raw.values())) > size:
                raise _DamagedError(f"tensor data {key} would be {num_bytes} bytes; the file has {size}")
            raw[key], itemsizes[key] = torch.empty(num_bytes, dtype=torch.uint8), _itemsize(dtype)
        if len(raw[key]) != num_bytes:
            raise _DamagedError(f"tensor data {key} has two sizes")
        return raw[key]

    # Reading from a mapped file allocates no more than the file has; a stream would allocate what the pickle states.
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        if _PickleReader(file).run() != LEGACY_MAGIC:
            raise _DamagedError("it does not begin as a PyTorch file does")
        if _PickleReader(file).run() != LEGACY_PROTOCOL:
            raise _DamagedError("it is of an unknown version")
        _PickleReader(file).run()
        content = _PickleReader(file, storage).run()
        keys = _PickleReader(file).run()
        if not isinstance(keys, list) or sorted(map(_text, keys)) != sorted(raw):
            raise _DamagedError("its list of tensor data is damaged")
        for key in map(_text, keys):
            (count,) = struct.unpack("<q", file.read(8))
            block = file.read(len(raw[key]))
            if count * itemsizes[key] != len(raw[key]) or len(block) != len(raw[key]):
                raise _DamagedError(f"tensor data {key} is cut short")
            memoryview(raw[key].numpy())[:] = block
    return content


class _Storage:
    """Bytes of the file, with the dtype of the numbers in them."""

    def __init__(self, raw: torch.Tensor, dtype: str) -> None:
        self.raw, self.dtype = raw, dtype


class _Type:
    """Dtype or storage class, as a value on the stack."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class _Function:
    """Function that a pickle may call, as a value on the stack."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _PickleReader:
    """Stack machine with only those pickle operations that make containers, numbers, strings and tensors.

    Args:
        file: has `read`, `readline` and `tell`.
        storage: returns the bytes of a storage by key, dtype and number of values; `None` if the pickle has no tensors.
    """

    def __init__(self, file: Any, storage: Callable[[str, str, int], torch.Tensor] | None = None) -> None:
        self._file, self._storage = file, storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the object that the pickle describes."""
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
                self._execute(name, argument)
        raise _DamagedError("it is cut short")

    def _execute(self, name: str, argument: Any) -> None:
        """Execute an operation that changes the stack in another way than pushing a literal or a memo."""
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
                    raise _DamagedError("an item is appended to something that is not a list")
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                _filled(stack[-1], items)
            case "GLOBAL":
                stack.append(_resolve(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [_resolve(*map(str, stack[-2:]))]
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, _Function) or not isinstance(arguments, tuple):
                    raise _DamagedError("it calls something that is not a function")
                stack.append(function.call(*arguments))
            case "BUILD":
                stack.pop()
                if not isinstance(stack[-1], OrderedDict):  # there: `_metadata` of a state_dict, which is dropped
                    raise _UnsupportedError("an object with attributes")
            case "BINPERSID":
                stack.append(self._data_of(stack.pop()))
            case _:
                raise _UnsupportedError(f"the operation {name}")

    def _since_mark(self) -> list[Any]:
        """Pop the values above the last mark."""
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _data_of(self, identity: Any) -> _Storage:
        """Return the storage that a persistent id names: ("storage", class, key, device, number of values)."""
        if self._storage is None or not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise _DamagedError("it refers to something that is not in it")
        word, kind, key, _, numel, *view = identity
        if word != "storage" or not isinstance(kind, _Type) or not _is_count(numel) or (view and view[0] is not None):
            raise _DamagedError("the data of a tensor is described wrongly")
        return _Storage(self._storage(_text(key), kind.dtype, numel), kind.dtype)


def _resolve(module: str, name: str) -> Any:
    """Return the value of a global name in a pickle; only dtypes, storages and `CALLABLE` functions are allowed."""
    if module in ("torch", "torch.storage") and name in STORAGES:
        return _Type(STORAGES[name])
    if module == "torch" and name in DTYPES:
        return _Type(name)
    if (full := f"{module}.{name}") not in CALLABLE:
        kinds = (kind for part, kind in UNSUPPORTED.items() if module.startswith("torch") and part in name)
        raise _UnsupportedError(next(kinds, full))
    return _Function(CALLABLE[full])


def _filled(target: Any, items: list[Any]) -> dict[Any, Any]:
    """Add alternating keys and values to a dictionary, and return it."""
    if not isinstance(target, dict) or len(items) % 2:
        raise _DamagedError("an entry is added to something that is not a dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value
    return target


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: str | None = None) -> torch.Tensor:
    """Return a view of a storage; the remaining arguments (`requires_grad`, hooks) are ignored."""
    import torch

    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise _UnsupportedError("a tensor that is not dense")
    if not all(map(_is_count, (offset, *size, *stride))) or len(size) != len(stride):
        raise _DamagedError("the shape of a tensor is described wrongly")
    numel = len(storage.raw) // _itemsize(dtype or storage.dtype)
    # Index of the last value of the view, which has to lie inside the storage.
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if math.prod(size) > numel or (math.prod(size) and last >= numel) or len(size) > MAX_DEPTH:
        raise _DamagedError(f"a tensor of size {shorten(str(list(size)), 80)} is stated where {numel} numbers are")
    flat = storage.raw.view(getattr(torch, dtype or storage.dtype))
    return torch.as_strided(flat, size, stride, offset) if math.prod(size) else flat.new_empty(size)


def _tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> torch.Tensor:
    """Return a view, of the given dtype, of a storage without one."""
    if not isinstance(dtype, _Type):
        raise _DamagedError("the type of a tensor is described wrongly")
    return _tensor(storage, offset, size, stride, dtype=dtype.dtype)


def _parameter(data: Any, *rest: Any) -> torch.Tensor:
    """Return the tensor of a parameter."""
    import torch

    if not isinstance(data, torch.Tensor):
        raise _DamagedError("a parameter is not a tensor")
    return data


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    """Return an ordered dictionary of a mapping, or of a list of pairs."""
    if isinstance(items, Mapping):
        return OrderedDict(items)
    if not isinstance(items, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in items
    ):
        raise _DamagedError("a dictionary is made of something else")
    return OrderedDict((_key(key), value) for key, value in items)


def _counter(items: Any = ()) -> Counter[Any]:
    return Counter(dict(_ordered(items)))


def _size(items: Any = ()) -> tuple[int, ...]:
    """Return the sizes of `torch.Size`."""
    if not isinstance(items, (list, tuple)) or not all(map(_is_count, items)):
        raise _DamagedError("a size is made of something else")
    return tuple(items)


def _device(*names: Any) -> str:
    """Return the name of a device, such as `cuda:0`; tensors are read onto the CPU all the same."""
    return ":".join(str(name) for name in names if isinstance(name, (str, int)))[:80]


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes as Python 3 writes them in protocols below 3."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _DamagedError("bytes are made of something else")
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
"""The functions that a pickle may call, and what is called instead."""


def _check_content(content: Any, size: int, allow_complex: bool) -> None:
    """Refuse content that is nested too deeply, or contains itself, before any other code traverses it."""
    import torch

    count, num_bytes, pending = 0, 0, [(content, 0)]
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > size:
            raise _DamagedError("its content is nested too deeply, or repeats itself")
        if isinstance(value, Mapping):
            pending.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend((item, depth + 1) for item in value)
        elif isinstance(value, torch.Tensor):
            if value.is_complex() and not allow_complex:
                raise _UnsupportedError("a complex tensor")
            num_bytes += value.numel() * value.element_size()
            if num_bytes > MAX_SHARING * size:
                raise _DamagedError("its tensors are together far larger than the file")
        elif value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            raise _DamagedError(f"it holds {_kind(value)} by itself")


def _key(key: Any) -> Any:
    """Return the key of a dictionary if it is a string or a number."""
    # Hashing tuples within tuples that are all the same object takes exponential time.
    if key is not None and not isinstance(key, (bool, int, float, str, bytes)):
        raise _DamagedError("a key of a dictionary is neither a string nor a number")
    return key


def _text(key: Any) -> str:
    """Return the key of a storage if it is a string."""
    if not isinstance(key, str):
        raise _DamagedError("the name of tensor data is not a string")
    return key


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _itemsize(dtype: str) -> int:
    import torch

    return int(getattr(torch, dtype).itemsize)


def _kind(value: Any) -> str:
    """Return the type of a value in words, for messages."""
    names = {"Tensor": "a tensor", "list": "a list", "tuple": "a list", "str": "a string", "int": "a number"}
    name = type(value).__name__.lstrip("_")
    return names.get(name, f"an object of type {name}")
