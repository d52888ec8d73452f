"""`wesep ui`: the address, the end, and errors before the page opens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest


def test_without_gradio_one_line_says_what_to_install(wesep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    ran = wesep("ui", "--no-browser")
    assert ran.status == 2 and ran.message.endswith("the page needs the package gradio: pip install 'wesep-py[ui]'")


def test_the_page_is_served_until_an_interruption_and_leaves_no_files(tmp_path: Path, tiny_model: Path):
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "wesep_py.cli.main", "ui", "--no-browser", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_model)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.fullmatch(r"(http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert match, line
        with urllib.request.urlopen(match[1]) as page:
            assert page.status == 200
        assert list(tmp_path.glob("wesep_ui_*"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and err == "wesep ui: interrupted\n"
    assert not list(tmp_path.glob("wesep_ui_*"))


def test_the_browser_is_opened_and_other_hosts_are_warned_of(wesep, monkeypatch, tiny_model: Path):
    pytest.importorskip("gradio")
    from wesep_py.ui import PageServer

    opened: list[str] = []

    def interrupt(server: PageServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(PageServer, "wait", interrupt)
    ran = wesep("ui", "--model", tiny_model, "--device", "cpu")
    assert ran.status == 130 and len(opened) == 1 and opened[0] in ran.err and "warning" not in ran.err
    ran = wesep("ui", "--model", tiny_model, "--device", "cpu", "--host", "127.0.0.3", "--no-browser")
    assert ran.status == 130 and len(opened) == 1
    assert "warning: everybody who reaches this address can use the page" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "bse"], "bse: no such model; did you mean 'base'?"),
        (["--certificate", "missing.pem"], "--certificate and --key: https needs both"),
        (["--certificate", "missing.pem", "--key", "missing.pem"], "missing.pem: no such file"),
        (["--host", "203.0.113.1"], "203.0.113.1, port 7860 to 7959: cannot listen there"),
    ],
)
def test_wrong_options_are_one_line(wesep, arguments: list[str], message: str):
    pytest.importorskip("gradio")
    ran = wesep("ui", "--no-browser", "--device", "cpu", *arguments)
    assert ran.status == 2 and message in ran.message
