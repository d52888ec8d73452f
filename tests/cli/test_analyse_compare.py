"""`wesep compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wesep_py.cli.main import run_command
from wesep_py.evaluation import TrialRecord, summarise

METRICS = {"si_sdri": "SI-SDRi", "attenuation_db": "…"}


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """The second result is 2 dB better on every trial but the first, where it is 3 dB worse."""
    for name, gain in (("a", 0.0), ("b", 2.0)):
        values = [number + gain - (5.0 if gain and number == 0 else 0.0) for number in range(12)]
        records = [TrialRecord(f"mix{n}", "u", "e", values={"si_sdri": value}) for n, value in enumerate(values)]
        protocol = {
            "metrics": METRICS, "threads": 1, "device": "cpu", "condition": "clean",
            "trials": {"count": 12, "sha256": "ab"}, "model": {"name": name, "hash": None},
        }  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summarise(records, protocol)))
        (tmp_path / name / "per_trial.jsonl").write_text("".join(json.dumps(r.to_dict()) + "\n" for r in records))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_table_of_differences(folders, capsys):
    assert run_command("compare", folders) == 0
    shown = capsys.readouterr().out
    row = next(line.split() for line in shown.splitlines() if line.startswith("si_sdri "))
    assert row[:4] == ["si_sdri", "5.500", "7.083", "+1.583"]
    assert float(row[-2]) < 0.05 and row[-1] == "12"
    assert "si_sdri fell most:\n    -3.00      0.00 to -3.00   mix0 u" in shown
    assert shown.startswith("12 trials paired\n")


def test_json_result(folders, capsys):
    assert run_command("compare", [*folders, "--json", "--moved", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["si_sdri"]["difference"]["mean"] == pytest.approx(19 / 12)
    assert len(result["moved"]["highest"]) == 1
    assert result["protocol"]["second"]["model"]["name"] == "b"


def test_different_lists_are_refused_without_common(folders, capsys):
    path = Path(folders[1]) / "summary.json"
    path.write_text(path.read_text().replace('"ab"', '"cd"'))
    assert run_command("compare", folders) == 2
    assert "pass --common" in capsys.readouterr().err
    assert run_command("compare", [*folders, "--common"]) == 0
    assert run_command("compare", [folders[0], folders[0] + "/nowhere"]) == 2
