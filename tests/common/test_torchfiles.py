"""PyTorch and safetensors files give plain data, or one line of error, whatever they hold."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as serialise
from torch import nn

from wesep_py.common.errors import CheckpointError, shorten
from wesep_py.common.torchfiles import read_tensors, read_torch

SETTINGS = settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _trained() -> dict[str, Any]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return {
        "models": [network.state_dict()],
        "optimizer": optimizer.state_dict(),
        "half": torch.randn(3).bfloat16(),
        "none": torch.empty(0, 3),
        "view": torch.randn(4, 5).t()[1:, ::2],
        "flags": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.ones(2)),
        "plain": [1, 2.5, "text", None, b"bytes", (True, -(10**12))],
        "counter": Counter([1, 1]),
    }


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return bool(torch.equal(first, second)) and first.dtype == second.dtype
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and first == second


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_load_reads(tmp_path: Path, zipped: bool):
    torch.save(_trained(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert _same(read_torch(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True))


class _Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


UNSUPPORTED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "quantised": (lambda _: {"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "quantised"),
    "sparse": (lambda _: {"a": torch.ones(3).to_sparse()}, "sparse"),
    "meta": (lambda _: {"a": torch.ones(3, device="meta")}, "meta"),
    "complex": (lambda _: {"a": torch.ones(3, dtype=torch.complex64)}, "complex"),
    "text": (lambda _: "lone text", "holds a string"),
    "list": (lambda _: [1], "holds a list"),
    "set": (lambda _: {"a": {1, 2}}, "set"),
    "module": (lambda _: nn.Linear(1, 1), "torch.nn.modules"),
    "expanded": (lambda _: {"a": torch.ones(1).expand(10**9)}, "1000000000"),
    "code": (lambda folder: {"a": _Runs(folder / "ran")}, "not read for safety"),
    "deep": (lambda _: _nested(200), "nested too deeply"),
    "itself": (lambda _: _itself(), "nested too deeply"),
}


def _nested(depth: int) -> dict[str, Any]:
    return {"a": _nested(depth - 1)} if depth else {}


def _itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_content_is_one_line_with_the_file(tmp_path: Path, name: str, zipped: bool):
    make, message = UNSUPPORTED[name]
    torch.save(make(tmp_path), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=message) as refused:
        read_torch(tmp_path / "a.pt", "a training state")
    assert str(refused.value).startswith(f"{tmp_path / 'a.pt'}: ")
    assert not (tmp_path / "ran").exists()


def _rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def test_a_storage_larger_than_its_bytes_is_refused(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(200)}, path)
    _rewritten(path, lambda name, content: content[:-4] if name.endswith("data/0") else content)
    with pytest.raises(CheckpointError, match="should be 800 bytes and has 796"):
        read_torch(path)


def test_checksums_reveal_a_flipped_bit(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 2000] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["a"], torch.arange(1000.0))  # torch does not see it
    with pytest.raises(CheckpointError, match="Bad CRC-32"):
        read_torch(path)


PICKLES = {
    "long name": b"\x80\x02X\xff\xff\xff\x7f.",
    "bytes of 2**62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "global": b"cposix\nsystem\n(S'true'\ntR.",
    "instance": b"(S'true'\niposix\nsystem\n.",
    "number": b"I" + b"9" * 5000 + b"\n.",
    "doubling": b"\x80\x02}" + b"K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.",
    "empty": b"",
    "stop": b".",
}


@pytest.mark.parametrize("name", PICKLES)
def test_malicious_pickles_are_refused_in_one_line(tmp_path: Path, name: str):
    path = tmp_path / "a.pt"
    torch.save({}, path)
    _rewritten(path, lambda member, content: PICKLES[name] if member.endswith("data.pkl") else content)
    if name == "memo":  # a large memo index costs no memory
        assert read_torch(path) == {}
        return
    with pytest.raises(CheckpointError) as refused:
        read_torch(path)
    assert len(str(refused.value)) < 500


def test_a_compressed_archive_is_refused(tmp_path: Path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}) + b"\0" * 10**7)
    with pytest.raises(CheckpointError, match="more bytes than the file has"):
        read_torch(path)


def _mutate(content: bytes, changes: list[tuple[int, int]], cut: int | None) -> bytes:
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed if cut is None else changed[: cut % len(changed)])


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
CUTS = st.one_of(st.none(), st.integers(0, 10**6))


@pytest.mark.parametrize("zipped", [True, False])
@SETTINGS
@given(changes=CHANGES, cut=CUTS)
def test_damaged_pt_files_give_a_result_or_one_line(
    tmp_path: Path, zipped: bool, changes: list[tuple[int, int]], cut: int | None
):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(2, 3), "b": {"c": [1, "text"]}}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(_mutate(path.read_bytes(), changes, cut))
    try:
        assert isinstance(read_torch(path), dict)
    except CheckpointError as error:
        assert str(path) in str(error) and len(str(error)) < 500 + len(str(path)) and "\n" not in str(error)


@SETTINGS
@given(changes=CHANGES, cut=CUTS)
def test_damaged_pickles_give_a_result_or_one_line(tmp_path: Path, changes: list[tuple[int, int]], cut: int | None):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(2, 3), "b": {"c": [1, "text"]}}, path)
    _rewritten(path, lambda name, content: _mutate(content, changes, cut) if name.endswith(".pkl") else content)
    try:
        read_torch(path)
    except CheckpointError as error:
        assert str(path) in str(error) and len(str(error)) < 500 + len(str(path))


@SETTINGS
@given(changes=CHANGES, cut=CUTS)
def test_changed_safetensors_give_a_result_or_one_line(tmp_path: Path, changes: list[tuple[int, int]], cut: int | None):
    path = tmp_path / "a.safetensors"
    content = serialise({"a": torch.ones(2, 3), "b": torch.zeros(1)}, {"key": "value"})
    path.write_bytes(_mutate(content, [(place % 150, value) for place, value in changes], cut))
    try:
        tensors, metadata = read_tensors(path)
        assert all(isinstance(value, torch.Tensor) for value in tensors.values()) and isinstance(metadata, dict)
    except CheckpointError as error:
        assert str(path) in str(error) and len(str(error)) < 500 + len(str(path))


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        _safetensors({}, length=2**63),
        _safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"\0" * 4),
        _safetensors({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        _safetensors({"a": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
        _safetensors({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        _safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        _safetensors(b"[" * 10000 + b"]" * 10000),
        _safetensors([]),
        _safetensors(b"\xff\xfe{}"),
    ],
    ids=range(11),
)
def test_damaged_safetensors_are_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged|is float8|is complex") as refused:
        read_tensors(path)
    assert str(path) in str(refused.value) and len(str(refused.value)) < 500 + len(str(path))


def test_shorten_limits_length_and_lines():
    assert len(shorten("x" * 10**7)) <= 200
    assert shorten("a\nb") == "a b"


def test_tensors_are_aligned_as_torch_aligns_them(tmp_path: Path):
    torch.save({"a": torch.ones(100)}, tmp_path / "a.pt")
    assert read_torch(tmp_path / "a.pt")["a"].data_ptr() % 64 == 0
