"""What `bench/extract.py` measures, on a model of a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.extract import mixture_of, precision, table, write_mixture
from wesep_py import audio


def test_smaller_numbers_cost_a_little(tiny_model: Path):
    full, integer, brain = precision(str(tiny_model), 2.0, 1, None, None)
    assert (full["name"], integer["name"], brain["name"]) == ("float32", "int8", "bf16")
    assert full["si_sdr"] is None and 5 < integer["si_sdr"] < 120 and 5 < brain["si_sdr"] < 80
    assert integer["bytes"] < full["bytes"]


def test_mixtures_of_any_length(tmp_path: Path):
    write_mixture(tmp_path / "a.wav", 31.5, 16000)
    assert audio.info(tmp_path / "a.wav").num_samples == 504000
    assert 0 < np.abs(mixture_of(1.0, 16000)).max() < 1.5
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
