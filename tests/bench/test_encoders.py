"""What `bench/encoders.py` counts and where it puts it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bench import encoders


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Run it with made-up results; returns what it printed, and what it measured."""

    def run(*arguments: str) -> tuple[str, list[str]]:
        measured: list[str] = []

        class Ran:
            returncode, stderr = 0, ""

            def __init__(self, command: list[str], **_: Any) -> None:
                name, what = command[3], command[command.index("--one") + 1]
                measured.append(f"{name}: {what}")
                counts = '{"parameters": 2500000, "macs": 1234567890, "embedding_dim": 96}'
                self.stdout = counts if what == "counts" else '{"rtf": 0.25, "waited": 0.5}'

        monkeypatch.setattr(encoders.subprocess, "run", Ran)
        monkeypatch.setattr(sys, "argv", ["encoders.py", *arguments, "--results", str(tmp_path / "results.jsonl")])
        encoders.main()
        return capsys.readouterr().out, measured

    return run


def test_what_is_measured_is_measured_once(bench):
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


def test_the_table_goes_into_the_page_and_only_there(bench, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{encoders.BEGIN}\n\nold\n\n{encoders.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(encoders, "PAGE", page)
    monkeypatch.setattr(encoders, "ROOT", tmp_path)
    bench("--no-time", "--write")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith(f"{encoders.END}\nafter\n") and "old" not in text
    assert text.count("| `xvector` |") == 1
    with pytest.raises(SystemExit, match="leave the patterns out"):
        bench("xvector", "--no-time", "--write")
    page.write_text("no place", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no place for the table"):
        bench("--no-time", "--write")


def test_counts_are_those_of_the_encoder():
    """x-vector by hand: its convolutions on 284 frames of 298, its two linear layers, and the filterbank's product."""
    found = encoders.measure("xvector", "counts", threads=1)
    frames = (294, 290, 284, 284, 284)
    convs = (80 * 512 * 5, 512 * 512 * 3, 512 * 512 * 3, 512 * 512, 512 * 1500)
    linear, filterbank = 3000 * 512 + 512 * 512, 298 * 257 * 80
    assert found["macs"] == sum(n * size for n, size in zip(frames, convs, strict=True)) + linear + filterbank
    assert found["embedding_dim"] == 512
