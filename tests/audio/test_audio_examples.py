"""The examples in this room's docstrings are true, and what needs no torch does not import it."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

from wesep_py import audio

MODULES = ["files", "writer", "resample", "graph_resample", "level", "loudness", "strictness"]
MODULES += ["containers.source", "containers.layout", "containers.tags"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    result = doctest.testmod(importlib.import_module(f"wesep_py.audio.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_name_is_there_and_documented():
    for name in audio.__all__:
        assert getattr(audio, name).__doc__
    with pytest.raises(AttributeError):
        _ = audio.no_such_name


def test_reading_and_levels_do_not_import_torch_or_scipy():
    code = "import sys, wesep_py.audio; print({'torch', 'torchaudio', 'scipy', 'soundfile'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
