"""The public names of the package `audio`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wesep_py import audio


def test_every_public_name_exists_and_is_documented():
    for name in audio.__all__:
        assert getattr(audio, name).__doc__
    with pytest.raises(AttributeError):
        _ = audio.no_such_name


def test_reading_and_levels_do_not_import_torch_or_scipy():
    code = "import sys, wesep_py.audio; print({'torch', 'torchaudio', 'scipy', 'soundfile'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
