"""The runtime works where torch cannot be imported, and as a distribution in an environment without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.conftest import ExportedPair
from wesep_py.inference import Voice

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("without_torch.py")


def use(python: str | Path, package: str, folder: Path, out: Path, paths: str = "") -> float:
    """Run the script and return the seconds of processor time to the first block of a stream."""
    command = [str(python), str(SCRIPT), package, str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, cwd=out)
    assert done.returncode == 0, done.stderr
    taken_s, _, heavy = done.stdout.strip().partition(" ")
    assert not heavy
    return float(taken_s)


def test_everything_works_where_torch_cannot_be_imported(pairs: dict[str, ExportedPair], tmp_path: Path):
    pair = pairs["live"]
    use(sys.executable, "wesep_py.runtime", pair.folder, tmp_path, str(ROOT))
    voice = Voice.load(tmp_path / "alice.voice")
    noise = 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    expected = pair.torch.extract((noise, 16000), voice).waveform
    np.testing.assert_allclose(np.load(tmp_path / "result.npy"), expected, atol=1e-4)


def test_a_stream_starts_in_less_than_a_second(pairs: dict[str, ExportedPair], tmp_path: Path):
    # Processor time, not wall time: the machine may be busy. The best of three, for the first run compiles byte code.
    taken = [use(sys.executable, "wesep_py.runtime", pairs["live"].folder, tmp_path, str(ROOT)) for _ in range(3)]
    assert min(taken) < 1.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the distribution `wesep-runtime`."""
    folder = tmp_path_factory.mktemp("wheel")
    source = ROOT / "packaging" / "runtime"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=source)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("wesep_runtime-*.whl"))


def test_the_wheel_works_under_its_own_name(wheel: Path, pairs: dict[str, ExportedPair], tmp_path: Path):
    """A wheel is a zip archive, from which Python imports; `wesep_py` is not on the path."""
    unpacked = tmp_path / "site"
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(unpacked)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"wesep_runtime"}
    assert not [path for path in unpacked.rglob("*.py") if "wesep_py" in path.read_text(encoding="utf-8")]
    use(sys.executable, "wesep_runtime", pairs["live"].folder, tmp_path, str(unpacked))


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_without_torch(wheel: Path, pairs: dict[str, ExportedPair], tmp_path: Path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no package registry: {done.stderr[-200:]}")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0
    use(python, "wesep_runtime", pairs["live"].folder, tmp_path)
    help_text = subprocess.run([tmp_path / "env" / "bin" / "wesep-runtime", "--help"], capture_output=True, text=True)
    assert "extract" in help_text.stdout
