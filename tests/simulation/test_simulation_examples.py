"""The examples in the docstrings of wesep_py.simulation."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import wesep_py.simulation

MODULES = [m.name for m in pkgutil.walk_packages(wesep_py.simulation.__path__, "wesep_py.simulation.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
