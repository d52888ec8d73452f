"""The checks before a release find what is wrong: a tag, a missing or a foreign file, another version."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import wesep_py

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("release_checks", ROOT / "packaging" / "release_checks.py")
checks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(checks)
ReleaseError = checks.ReleaseError


# One version.


def test_the_version_has_one_place():
    assert checks.version() == wesep_py.__version__
    for project in ("pyproject.toml", "packaging/runtime/pyproject.toml"):
        text = (ROOT / project).read_text(encoding="utf-8")
        assert 'dynamic = ["version"]' in text and "wesep_py/__init__.py" in text and "\nversion" not in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == wesep_py.__version__
    assert f"Version {wesep_py.__version__} is in preparation" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_runtime_has_the_same_version(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("hook", ROOT / "packaging" / "runtime" / "collect_modules.py")
    pytest.importorskip("hatchling")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    hook.write_package(ROOT, tmp_path, checks.version())
    assert f'__version__ = "{wesep_py.__version__}"' in (tmp_path / "__init__.py").read_text(encoding="utf-8")


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert citation["license"] in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


# The tag.


def papers(folder: Path, section: str = "## [0.2.0] - 2026-12-01\n\n- Something.\n", version: str = "0.2.0") -> Path:
    """Write a CHANGELOG with a section, and a CITATION of a version."""
    text = f"# Changelog\n\n## [Unreleased]\n\n{section}\n## [0.1.0] - 2026-11-01\n\n- First.\n"
    (folder / "CHANGELOG.md").write_text(text, encoding="utf-8")
    (folder / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {version}\n", encoding="utf-8")
    return folder


def test_a_tag_of_a_prepared_release_is_accepted(tmp_path: Path):
    checks.check_tag("v0.2.0", papers(tmp_path), "0.2.0")
    checks.check_tag("v0.1.0", papers(tmp_path, version="0.1.0"), "0.1.0")


@pytest.mark.parametrize("tag", ["v0.2.1", "0.2.0", "v0.2.0rc1", "release-0.2.0", "v0.2.0 ", "v0X2.0"])
def test_another_tag_is_refused(tmp_path: Path, tag: str):
    with pytest.raises(ReleaseError, match=rf"^the tag is {tag}, and the package has version 0\.2\.0; tag v0\.2\.0$"):
        checks.check_tag(tag, papers(tmp_path), "0.2.0")


@pytest.mark.parametrize(
    ("section", "version", "message"),
    [
        ("", "0.2.0", r"CHANGELOG\.md: has no section '## \[0\.2\.0\] - YYYY-MM-DD'"),
        ("## [0.2.0]\n\n- Undated.\n", "0.2.0", "has no section"),
        ("## [0.2.0] - 2026-12-01\n", "0.2.0", r"the section \[0\.2\.0\] is empty"),
        ("## [0.2.0] - 2026-12-01\n\n- New.\n", "0.1.0", r"CITATION\.cff: has version 0\.1\.0; write 0\.2\.0"),
    ],
)
def test_papers_of_another_version_are_refused(tmp_path: Path, section: str, version: str, message: str):
    with pytest.raises(ReleaseError, match=message):
        checks.check_tag("v0.2.0", papers(tmp_path, section, version), "0.2.0")


def test_the_script_prints_one_line(capsys: pytest.CaptureFixture[str]):
    assert checks.main(["tag", "v99.0"]) == 1
    assert capsys.readouterr().err == (
        f"release_checks: the tag is v99.0, and the package has version {wesep_py.__version__}; "
        f"tag v{wesep_py.__version__}\n"
    )


# The files.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of distributions, built from a copy of the repository in which other files lie, too."""
    pytest.importorskip("hatchling")
    copy = tmp_path_factory.mktemp("repository")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("wesep_py", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / ".gitignore").write_text("*.safetensors\n__pycache__/\nexp/\n", encoding="utf-8")
    for name in (
        "tests/test_a.py",
        "docs/page.md",
        "exp/model.pt",
        "wesep_py/__pycache__/a.pyc",
        "recipes/run.sh",
        "notes",
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x", encoding="utf-8")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(copy / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return copy / "dist"


def test_the_distributions_have_the_package_and_nothing_else(built: Path):
    expected = checks.package_files()
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        wheel = archive.namelist()
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        sdist = archive.getnames()
    checks.check_wheel_files(wheel, expected)
    checks.check_sdist_files(sdist, expected)
    root = f"wesep_py-{wesep_py.__version__}"
    without = "wesep_py/models/base/model.safetensors"
    for names, check, place in ((wheel, checks.check_wheel_files, ""), (sdist, checks.check_sdist_files, f"{root}/")):
        with pytest.raises(ReleaseError, match=f"lacks {without}$"):
            check([name for name in names if not name.endswith(without)], expected)
        with pytest.raises(ReleaseError, match=r"has what does not belong there: tests/test_a\.py$"):
            check([*names, f"{place}tests/test_a.py"], expected)
    with pytest.raises(ReleaseError, match="lacks its entry_points"):
        checks.check_wheel_files([name for name in wheel if not name.endswith("entry_points.txt")], expected)


def test_essential_files_are_asked_for_by_name(built: Path):
    """A file that left the repository is not among the expected ones."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = [name for name in archive.namelist() if name != "wesep_py/py.typed"]
    with pytest.raises(ReleaseError, match=r"^the wheel lacks wesep_py/py\.typed$"):
        checks.check_wheel_files(names, checks.package_files() - {"wesep_py/py.typed"})


def test_the_expected_files_are_those_of_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "wesep_py", "conf"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    expected = {f"wesep_py/{name}" if name.startswith("conf/") else name for name in files}
    assert checks.package_files() == expected


def test_a_failing_command_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ReleaseError, match=r"failed \(status 3\)$"):
        checks.run(sys.executable, "-c", "import sys; print('why'); sys.exit(3)")
    assert "why" in capsys.readouterr().err


def test_an_environment_of_another_python_is_no_source_of_dependencies(tmp_path: Path):
    (tmp_path / "other" / "lib" / "python3.5" / "site-packages").mkdir(parents=True)
    with pytest.raises(ReleaseError, match=r"is no environment of python3\.\d+$"):
        checks.make_environment(tmp_path / "env", Path("a.whl"), Path("b.whl"), tmp_path / "other")
