"""recipes/default/curves.py: learning curves of runs that continue each other."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wesep_py.common.errors import InputError, OutputExistsError

SCRIPTS = Path(__file__).resolve().parents[2] / "recipes" / "default"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module("curves")


def run(folder: Path, steps: int) -> Path:
    """Write a log with a training line every 10 steps of 6 s, a validation at step 25, and a line that is cut short."""
    folder.mkdir()
    lines = [
        {"kind": "train", "step": step, "loss": -step / 10, "elapsed_s": 6.0 * step}
        for step in range(10, steps + 1, 10)
    ]
    lines.append({"kind": "validation", "step": 25, "si_sdri": 3.0, "accuracy": 0.75})
    lines.append({"kind": "train", "step": steps, "loss": None, "elapsed_s": 6.0 * steps})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    return folder


def test_runs_follow_each_other(script: ModuleType, tmp_path: Path):
    curves, begins = script.read_curves([run(tmp_path / "a", 40), run(tmp_path / "b", 30)])
    assert begins == [(40, 4.0)]
    assert curves["loss"].steps == [10, 20, 30, 40, 50, 60, 70]
    assert curves["loss"].minutes == pytest.approx([1, 2, 3, 4, 5, 6, 7])
    assert curves["loss"].values == [-1, -2, -3, -4, -1, -2, -3]
    assert (curves["si_sdri"].steps, curves["si_sdri"].values) == ([25, 65], [3.0, 3.0])
    assert curves["si_sdri"].minutes == pytest.approx([2.5, 6.5])
    assert curves["accuracy"].values == [75.0, 75.0]


def test_smoothing_keeps_a_constant_and_reduces_noise(script: ModuleType):
    np.testing.assert_allclose(script.smooth(np.full(50, 2.0)), 2.0)
    noisy = np.random.default_rng(0).standard_normal(1000)
    assert script.smooth(noisy, 0.1).std() < 0.2 and len(script.smooth(noisy)) == 1000


def test_the_picture_is_written_and_not_replaced(script: ModuleType, tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    experiments = [run(tmp_path / "a", 40), run(tmp_path / "b", 30)]
    monkeypatch.setattr(sys, "argv", ["curves.py", *map(str, experiments), "-o", str(tmp_path / "c.png")])
    script.main()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG") and capsys.readouterr().out.endswith("c.png\n")
    with pytest.raises(OutputExistsError):
        script.draw(tmp_path / "c.png", *script.read_curves(experiments))
    with pytest.raises(SystemExit):
        script.main()
    assert "exists already" in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(script: ModuleType, tmp_path: Path):
    with pytest.raises(InputError, match="no such file; name a folder that `wesep train` wrote"):
        script.read_curves([tmp_path])
    (tmp_path / "log.jsonl").write_text('{"kind": "validation", "step": 1}\n')
    with pytest.raises(InputError, match="holds no line of training"):
        script.read_curves([tmp_path])
