"""The examples in the docstrings of inference and the command line run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "wesep_py.cli.main",
        "wesep_py.inference.activity",
        "wesep_py.inference.level",
        "wesep_py.inference.likeness",
        "wesep_py.inference.snr",
        "wesep_py.inference.sources",
    ],
)
def test_examples(name: str):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
