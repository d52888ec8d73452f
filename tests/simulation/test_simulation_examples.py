"""The examples in the docstrings of wesep_py.simulation."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import wesep_py.simulation

MODULES = [f"wesep_py.simulation.{module.name}" for module in pkgutil.iter_modules(wesep_py.simulation.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
