"""`wesep render` of LibriMix metadata; `test_simulate.py` renders recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile


def test_metadata_is_rendered_and_failures_are_named(tmp_path: Path, wesep: Callable):
    for speaker in (1, 2):
        soundfile.write(tmp_path / f"{speaker}-1-0001.flac", np.full(24000, 0.1), 16000)
    (tmp_path / "libri2mix_dev-clean.csv").write_text(
        "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\n"
        "1-1-0001_2-1-0001,1-1-0001.flac,0.5,2-1-0001.flac,2\n"
        "1-1-0001_3-1-0001,1-1-0001.flac,0.5,3-1-0001.flac,2\n"
    )
    out = tmp_path / "Libri2Mix/wav8k/min/dev"
    command = ["render", tmp_path / "libri2mix_dev-clean.csv", "-o", out, "--sample-rate", 8000, "--jobs", 1]
    assert "noise_path is missing" in wesep(*command).message
    ran = wesep(*command, "--types", "mix_clean")
    assert ran.status == 1 and ran.out == f"{out}: 1 mixtures\n"
    assert "1-1-0001_3-1-0001: " in ran.err and "1 of 2 mixtures could not be made" in ran.err
    mixture, rate = soundfile.read(out / "mix_clean/1-1-0001_2-1-0001.wav")
    assert rate == 8000 and np.abs(mixture[500:-500] - 0.25).max() < 1e-3
    assert "mix_clean" in wesep(*command, "--types", "clean").message
