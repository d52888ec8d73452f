"""The workflows are valid, and that of a release publishes nothing before its checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_fit_the_schema(path: Path, tmp_path: Path):
    done = validate(path)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / path.name
    broken.write_text(path.read_text(encoding="utf-8").replace("runs-on:", "run-on:"), encoding="utf-8")
    assert validate(broken).returncode != 0


def release() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))


def test_a_release_starts_with_a_tag_alone():
    assert release()[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true


def test_the_checks_come_before_the_upload():
    jobs = release()["jobs"]
    steps = [step.get("run") or step["uses"].partition("@")[0] for step in jobs["build"]["steps"]]
    assert steps == [
        "actions/checkout",
        "actions/setup-python",
        'python packaging/release_checks.py tag "$GITHUB_REF_NAME"',
        "make dist PYTHON=python",
        "actions/upload-artifact",
    ]
    assert jobs["publish"]["needs"] == "build"
    uses = [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]]
    assert uses == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    stored, taken = jobs["build"]["steps"][-1]["with"], jobs["publish"]["steps"][0]["with"]
    assert stored["name"] == taken["name"] and stored["path"] == taken["path"] == "dist/"


def test_only_the_upload_may_ask_for_an_identity():
    workflow = release()
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in workflow["jobs"]["build"]
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert workflow["jobs"]["publish"]["environment"]["name"] == "pypi"
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text and "password" not in text.replace("there is no password", "")


def test_the_page_is_built_before_it_is_published():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"} and "permissions" not in jobs["build"]
    steps = [step.get("run") or step["uses"].partition("@")[0] for step in jobs["build"]["steps"]]
    assert steps[-2:] == ["make web PYTHON=python", "actions/upload-pages-artifact"]
    assert jobs["build"]["steps"][-1]["with"]["path"] == "web/dist/"
    assert jobs["deploy"]["needs"] == "build"
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}


def test_what_the_workflows_run_exists():
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            for command in (step["run"] for step in job["steps"] if "run" in step):
                words = command.split()
                if words[0] == "make":
                    subprocess.run(["make", "-C", str(ROOT), "-n", *words[1:]], check=True, capture_output=True)
                else:
                    script = words[1] if words[0] == "python" else words[0]
                    assert (ROOT / script).is_file(), f"{path.name}: {script}"


def test_help_of_make_names_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], check=True, capture_output=True, text=True).stdout
    assert {name for name in phony.split() if f"make {name} " not in shown} <= {"help", "test-slower-list"}
