"""Weights in files of other toolkits, and the wrappers around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wesep_py.common.errors import CheckpointError
from wesep_py.interop.public_checkpoints import read_public_weights, unwrap_weights

ONE = torch.ones(1)


@pytest.mark.parametrize(
    "names",
    [
        ["module.a.w", "module.b.w"],
        ["_orig_mod.a.w", "_orig_mod.b.w"],
        ["module._orig_mod.a.w", "module._orig_mod.b.w"],
        ["_orig_mod.module.a.w", "_orig_mod.module.b.w"],
        ["_orig_mod.a.w", "b.w"],
        ["module.a.w", "_orig_mod.module.b.w"],
        ["module.module._orig_mod._orig_mod.a.w", "b._orig_mod.w"],
        ["model.module.a.w", "model._orig_mod.b.w"],
        ["module.model._orig_mod.a.w", "_orig_mod.model.b.w"],
        ["a.w", "b.w"],
    ],
)
def test_prefixes_of_wrappers_are_removed(names: list[str]):
    assert list(unwrap_weights({"models": [dict.fromkeys(names, ONE)]})) == ["a.w", "b.w"]


def test_other_prefixes_are_not_removed():
    assert list(unwrap_weights({"model.a": ONE, "b": ONE})) == ["model.a", "b"]
    assert list(unwrap_weights({"amodule.a": ONE, "x_orig_mod.b": ONE})) == ["amodule.a", "x_orig_mod.b"]
    assert list(unwrap_weights({"module.model.a": ONE, "projection.w": ONE})) == ["a", "projection.w"]


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(CheckpointError, match="two tensors are called 'a'"):
        unwrap_weights({"a": ONE, "module.a": ONE})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2, dtype=torch.complex64),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.tensor([float("nan")]),
    ],
    ids=["sparse", "meta", "complex", "quantised", "nan"],
)
def test_tensors_that_are_no_plain_weights_are_named(tmp_path: Path, tensor: torch.Tensor):
    with pytest.raises(CheckpointError, match=r"^a\.b (is quantised, sparse|holds NaN)"):
        unwrap_weights({"a.b": tensor})
    torch.save({"a.b": tensor}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as refused:
        read_public_weights(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in str(refused.value) and len(str(refused.value)) < 500


def test_file_without_weights_is_refused(tmp_path: Path):
    for content in ({}, {"a": 1}, {"models": []}, {"model": {"x" * 10**4: {}}}):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match="no weights in it") as refused:
            read_public_weights(tmp_path / "a.pt")
        assert str(tmp_path / "a.pt") in str(refused.value) and len(str(refused.value)) < 500


def test_nothing_but_tensors_is_unpickled(tmp_path):
    import pathlib

    torch.save({"model": {"a": torch.ones(1)}, "path": pathlib.PurePosixPath("x")}, tmp_path / "code.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name, message in (
        ("code", "holds more than weights"),
        ("text", "not a PyTorch file, or damaged|holds more than"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_public_weights(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("content", [[], {}, {"epoch": 3}, None])
def test_content_without_weights_is_refused(content):
    with pytest.raises(CheckpointError, match="no weights in it"):
        unwrap_weights(content)
