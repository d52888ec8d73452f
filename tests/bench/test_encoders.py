"""`bench/encoders.py`: counts, repeated runs, and the table in the page."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bench import encoders


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Return a function that runs the script with made-up results; it returns the output and the measurements."""

    def run(*arguments: str) -> tuple[str, list[str]]:
        measured: list[str] = []

        class Finished:
            returncode, stderr = 0, ""

            def __init__(self, command: list[str], **_: Any) -> None:
                name, what = command[3], command[command.index("--one") + 1]
                measured.append(f"{name}: {what}")
                counts = '{"parameters": 2500000, "macs": 1234567890, "embedding_dim": 96}'
                self.stdout = counts if what == "counts" else '{"rtf": 0.25, "waited": 0.5}'

        monkeypatch.setattr(encoders.subprocess, "run", Finished)
        monkeypatch.setattr(sys, "argv", ["encoders.py", *arguments, "--results", str(tmp_path / "results.jsonl")])
        encoders.main()
        return capsys.readouterr().out, measured

    return run


def test_measured_encoders_are_not_measured_again(bench):
    _, measured = bench("xvector", "ecapa_512", "--no-time")
    assert measured == ["ecapa_512: counts", "xvector: counts"]
    page, measured = bench("xvector")
    assert measured == ["xvector: time"]
    assert page.splitlines()[2] == ("| `xvector` | 2.50 | 1.23 | 0.250 † | 96 | `XVEC` | Snyder et al., ICASSP 2018 |")
    page, measured = bench("xvector", "ecapa_512", "--no-time")
    assert measured == [] and "| `ecapa_512` | 2.50 | 1.23 | – | 96 |" in page


def test_rows_are_in_natural_order(bench):
    page, _ = bench("resnet*", "--no-time")
    names = [line.split("`")[1] for line in page.splitlines()[2:]]
    assert names == [f"resnet{depth}" for depth in (18, 34, 50, 101, 152, 221, 293)]


def test_writing_replaces_only_the_table_of_the_page(bench, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{encoders.BEGIN}\n\nold\n\n{encoders.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(encoders, "PAGE", page)
    monkeypatch.setattr(encoders, "ROOT", tmp_path)
    bench("--no-time", "--write")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith(f"{encoders.END}\nafter\n") and "old" not in text
    assert text.count("| `xvector` |") == 1
    with pytest.raises(SystemExit, match="leave out the patterns"):
        bench("xvector", "--no-time", "--write")
    page.write_text("no place", encoding="utf-8")
    with pytest.raises(SystemExit, match="there is no place for the table"):
        bench("--no-time", "--write")


def test_counts_of_an_xvector_equal_those_by_hand():
    """The count by hand: the convolutions on 284 frames of 298, the two linear layers, and the filterbank's product."""
    counts = encoders.measure("xvector", "counts", threads=1)
    frames = (294, 290, 284, 284, 284)
    convs = (80 * 512 * 5, 512 * 512 * 3, 512 * 512 * 3, 512 * 512, 512 * 1500)
    linear, filterbank = 3000 * 512 + 512 * 512, 298 * 257 * 80
    assert counts["macs"] == sum(n * size for n, size in zip(frames, convs, strict=True)) + linear + filterbank
    assert counts["embedding_dim"] == 512
