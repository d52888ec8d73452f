"""The example of a Hugging Face Space: its header, and that the app builds and answers."""

from __future__ import annotations

import runpy
import urllib.request
from pathlib import Path

import pytest
import yaml

SPACE = Path(__file__).resolve().parents[2] / "packaging" / "space"


def test_the_header_names_files_that_exist():
    _, header, text = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["sdk"] == "gradio" and int(values["sdk_version"].split(".")[0]) >= 6
    assert (SPACE / values["app_file"]).is_file() and text.strip()
    assert len(values["short_description"]) <= 60  # the Hub refuses longer ones
    assert "wesep-py[ui,media]" in (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()


def test_the_app_builds_and_answers(monkeypatch: pytest.MonkeyPatch):
    gradio = pytest.importorskip("gradio")
    names = runpy.run_path(str(SPACE / "app.py"), run_name="space")
    assert isinstance(names["demo"], gradio.Blocks)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "127.0.0.1")
    with names["server"] as server, urllib.request.urlopen(server.url) as page:
        assert page.status == 200 and b"wesep" in page.read()
