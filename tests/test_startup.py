"""Start-up: `wesep --help` is fast, and `import wesep_py` loads no torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchaudio", "numpy", "scipy", "matplotlib", "soundfile", "pandas", "omegaconf", "lightning")


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint('MODULES' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.rpartition("MODULES")[2]))


def test_importing_the_package_loads_nothing_heavy():
    assert not _modules_after("import wesep_py") & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]):
    modules = _modules_after(f"from wesep_py.cli.main import main; assert main({arguments!r}) == 0")
    assert not modules & set(HEAVY)
    if arguments == ["--help"]:
        commands = {name for name in modules if name.startswith("wesep_py.cli.")}
        assert commands == {"wesep_py.cli.main"}


def test_help_takes_less_than_half_a_second():
    # Processor time, not wall time: the machine may be busy. The best of three, for the first compiles byte code.
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "wesep_py.cli.main", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.5


def test_the_lazy_names_are_there():
    import wesep_py
    from wesep_py.inference import Extractor

    assert wesep_py.Extractor is Extractor
    with pytest.raises(AttributeError, match="no attribute 'Extracter'"):
        _ = wesep_py.Extracter
