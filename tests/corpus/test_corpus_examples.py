"""The examples in the docstrings of wesep_py.corpus."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import wesep_py.corpus

MODULES = [f"wesep_py.corpus.{module.name}" for module in pkgutil.iter_modules(wesep_py.corpus.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name: str):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
