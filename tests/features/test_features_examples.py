"""The examples in this room's docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["stft", "fbank", "spec_augment"])
def test_examples(name: str):
    result = doctest.testmod(importlib.import_module(f"wesep_py.features.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
