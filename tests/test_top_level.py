"""The names that `import wesep_py` offers."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

import wesep_py

NAMES = [name for name in wesep_py.__all__ if not name.startswith("_")]


def test_the_names_are_complete():
    expected = {"load", "Extractor", "Voice", "train", "evaluate", "Simulator", "read_trials", "si_sdr"}
    assert expected <= set(NAMES)
    assert set(NAMES) | {"__version__"} == set(dir(wesep_py))
    assert set(NAMES) == set(wesep_py._PACKAGE_OF)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"WesepError"}))
def test_each_name_has_an_example(name: str):
    """The examples are run by tests/test_examples.py."""
    documented = getattr(wesep_py, name)
    assert documented.__doc__ and doctest.DocTestParser().get_examples(documented.__doc__)
    assert "doctest: +SKIP" not in documented.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'wesep_py' has no attribute 'nothing'"):
        _ = wesep_py.nothing


@pytest.mark.parametrize("name", ["WesepError", "si_sdr", "read_trials"])
def test_light_names_load_no_torch(name: str):
    code = f"import sys, wesep_py; wesep_py.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
