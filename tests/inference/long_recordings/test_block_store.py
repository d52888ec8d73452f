"""Finished blocks of an extraction on disk."""

from __future__ import annotations

import numpy as np
import pytest

from wesep_py.common.errors import WesepError
from wesep_py.inference.long_recordings.block_store import BlockStore


def test_incomplete_block_is_not_counted(tmp_path):
    block = {"a": np.arange(10.0)}
    first = BlockStore(tmp_path / "o.wav", {"x": 1})
    for _ in range(3):
        first.append(block)
    first.close()
    data = bytearray((tmp_path / ".o.wav.partial").read_bytes())
    data[-3] ^= 1  # one bit of the last block
    (tmp_path / ".o.wav.partial").write_bytes(data)
    second = BlockStore(tmp_path / "o.wav", {"x": 1})
    assert second.count == 2 and not second.discarded
    np.testing.assert_array_equal(second.last()["a"], block["a"])
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_store_is_reported(tmp_path, monkeypatch):
    def refuse(*given, **named):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(
        WesepError, match=r"\(Read-only file system\); finished blocks .* beside its output: choose an output else"
    ):
        BlockStore(tmp_path / "a.wav", {})
