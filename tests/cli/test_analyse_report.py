"""`wesep report`."""

from __future__ import annotations

import json

from wesep_py.cli.main import run_command
from wesep_py.evaluation import TrialRecord, summarise

PROTOCOL = {
    "metrics": {"si_sdr": "SI-SDR", "attenuation_db": "…"}, "threads": 1, "device": "cpu", "condition": "clean",
    "trials": {"count": 2, "sha256": "ab"}, "model": {"name": "mine", "hash": None}, "date": "2026-01-01",
}  # fmt: skip


def test_page_is_written_and_not_overwritten(tmp_path, capsys):
    records = [TrialRecord(f"mix{n}", "u", "e", values={"si_sdr": float(n)}) for n in range(2)]
    (tmp_path / "summary.json").write_text(json.dumps(summarise(records, PROTOCOL)))
    (tmp_path / "per_trial.jsonl").write_text("".join(json.dumps(r.to_dict()) + "\n" for r in records))
    assert run_command("report", [str(tmp_path)]) == 0
    page = tmp_path / "report.html"
    assert f"written: {page}" in capsys.readouterr().out
    assert "<h1>mine</h1>" in page.read_text()
    page.write_text("kept")
    assert run_command("report", [str(tmp_path)]) == 2
    assert page.read_text() == "kept"
    assert run_command("report", [str(tmp_path), "--overwrite", "--count", "1"]) == 0
    assert page.read_text() != "kept"


def test_a_folder_without_results_is_a_one_line_error(tmp_path, capsys):
    assert run_command("report", [str(tmp_path)]) == 2
    assert "holds no summary.json" in capsys.readouterr().err


def test_the_page_does_not_replace_files_of_the_result(tmp_path, capsys):
    records = [TrialRecord("mix", "u", "e", values={"si_sdr": 1.0})]
    (tmp_path / "summary.json").write_text(json.dumps(summarise(records, PROTOCOL)))
    (tmp_path / "per_trial.jsonl").write_text(json.dumps(records[0].to_dict()) + "\n")
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").touch()
    (tmp_path / "link.html").symlink_to("summary.json")
    before = (tmp_path / "summary.json").read_text()
    for name in ("summary.json", "per_trial.jsonl", "audio/a.wav", "link.html", "audio/../summary.json"):
        assert run_command("report", [str(tmp_path), "-o", str(tmp_path / name), "--overwrite"]) == 2
        assert "is a part of the result, which is read" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == before
