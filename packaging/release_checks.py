"""Check a release before it is published: the tag, the files of the distributions, an installation from the wheel.

    python packaging/release_checks.py tag v0.1.0    the tag names the version; CHANGELOG and CITATION are of it
    python packaging/release_checks.py dist          build, check, install into a fresh environment, extract, demo

`dist` builds into `dist/` (a source distribution and a wheel of wesep-py, and the wheel of wesep-runtime) and needs the
packages `build` and `twine`; `make dist` installs them. The environment is fresh: nothing of this folder is on its
path. As torch takes 5 GB and minutes, `--venv-from VENV` makes a rehearsal faster: the dependencies then come from
another environment, and only the wheels are installed. A release is checked without it.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGE = "wesep_py"
MAX_MIB = 8
"""Largest size of a distribution; the bundled models are most of it."""
SDIST_EXTRA = frozenset(
    {
        ".gitignore",
        "PKG-INFO",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
    }
)
"""Files of the source distribution beside the package and `conf/`."""
ESSENTIAL = (
    "wesep_py/py.typed",
    "wesep_py/conf/model/bsrnn_small.yaml",
    "wesep_py/conf/train/example.yaml",
    "wesep_py/models/public_models.yaml",
    "wesep_py/models/base/model.safetensors",
    "wesep_py/models/base/config.yaml",
    "wesep_py/models/base/provenance.json",
    "wesep_py/models/base/card.md",
    "wesep_py/export/web/stream.js",
    "wesep_py/evaluation/report.html.jinja",
    "wesep_py/ui/web/page.css",
)
"""Files without which an installed package fails; the check of all files misses one that has left the repository."""

SMOKE = """
import sys, numpy as np, soundfile, wesep_py
from pathlib import Path
assert Path(wesep_py.__file__).is_relative_to(sys.prefix), wesep_py.__file__
rng, time_s = np.random.default_rng(0), np.arange(48000) / 16000
def voice(f0_hz, seed):
    rng = np.random.default_rng(seed)
    syllables = np.repeat(rng.uniform(0, 1, 16) > 0.3, 3000) * 0.3
    return syllables * sum(np.sin(2 * np.pi * k * f0_hz * time_s) / k for k in range(1, 12))
soundfile.write("mixture.wav", (voice(110, 1) + voice(210, 2)) / 4, 16000)
soundfile.write("enrollment.wav", voice(110, 3) / 2, 16000)
"""
"""Run in the fresh environment: writes a mixture and an enrollment."""


class ReleaseError(Exception):
    """Why something cannot be released, in one line."""


def version() -> str:
    """Return the version of the package, from its one place, without importing it."""
    for node in ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise ReleaseError(f"{PACKAGE}/__init__.py: has no __version__")


def check_tag(tag: str, folder: Path = ROOT, of_package: str | None = None) -> None:
    """Check that a tag names the version, and that CHANGELOG.md and CITATION.cff are of the same version.

    Args:
        tag: `v` and the version.
        folder: of the two files.
        of_package: version of the package; by default that of this one.

    Raises:
        ReleaseError: something differs.
    """
    of_package = version() if of_package is None else of_package
    if tag != f"v{of_package}":
        raise ReleaseError(f"the tag is {tag}, and the package has version {of_package}; tag v{of_package}")
    changes = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## \[{re.escape(of_package)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |^\[|\Z)", changes, re.M | re.S
    )
    if section is None:
        raise ReleaseError(f"CHANGELOG.md: has no section '## [{of_package}] - YYYY-MM-DD'; name what is unreleased so")
    if not section[1].strip():
        raise ReleaseError(f"CHANGELOG.md: the section [{of_package}] is empty")
    cited = re.search(r"^version: (\S+)$", (folder / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    if cited is None or cited[1].strip("'\"") != of_package:
        raise ReleaseError(f"CITATION.cff: has version {cited[1] if cited else '(none)'}; write {of_package}")


# Files of the distributions.


def package_files(folder: Path = ROOT) -> set[str]:
    """Return the files that the wheel must have, as named in it: the package, and `conf/` inside of it."""
    files = set()
    for source, target in ((PACKAGE, PACKAGE), ("conf", f"{PACKAGE}/conf")):
        for path in sorted((folder / source).rglob("*")):
            relative = path.relative_to(folder / source)
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in relative.parts):
                files.add(str(PurePosixPath(target, *relative.parts)))
    return files


def check_wheel_files(names: Iterable[str], expected: set[str]) -> None:
    """Check the files of the wheel of wesep-py: exactly the package, `conf/` and the metadata.

    Raises:
        ReleaseError: files are missing, or there are others.
    """
    packed = {name for name in names if not name.endswith("/")}
    metadata = {name for name in packed if name.split("/")[0].endswith(".dist-info")}
    _compare("the wheel", packed - metadata, expected)
    if missing := [name for name in ESSENTIAL if name not in packed]:
        raise ReleaseError(f"the wheel lacks {', '.join(missing)}")
    for name in ("entry_points.txt", "licenses/LICENSE"):
        if not any(entry.endswith(f".dist-info/{name}") for entry in metadata):
            raise ReleaseError(f"the wheel lacks its {name}")


def check_sdist_files(names: Iterable[str], expected: set[str]) -> None:
    """Check the files of the source distribution: what builds the wheel, and the project's own papers.

    Raises:
        ReleaseError: files are missing, or there are others.
    """
    inside = {name.partition("/")[2] for name in names if name.partition("/")[2]}
    sources = {name.replace(f"{PACKAGE}/conf/", "conf/") for name in expected}
    _compare("the source distribution", inside - {".gitignore"}, sources | (SDIST_EXTRA - {".gitignore"}))


def _compare(what: str, actual: set[str], expected: set[str]) -> None:
    for problem, names in (("lacks", expected - actual), ("has what does not belong there:", actual - expected)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ReleaseError(f"{what} {problem} {', '.join(sorted(names)[:5])}{more}")


# Building and trying.


def run(*command: object, folder: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Run a command, show it, and return what it prints.

    Raises:
        ReleaseError: it fails; its last lines are printed.
    """
    words = [str(word) for word in command]
    print("+", " ".join(_shown(word) for word in words), flush=True)
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print((done.stdout + done.stderr)[-4000:], file=sys.stderr)
        raise ReleaseError(
            f"{_shown(words[0])} {' '.join(map(_shown, words[1:4]))} … failed (status {done.returncode})"
        )
    return done.stdout


def _shown(word: str) -> str:
    return word.replace(f"{ROOT}/", "") if len(word) < 200 else "…"


def build() -> tuple[Path, Path, Path]:
    """Build into `dist/`, and return source distribution, wheel, and wheel of the runtime.

    The wheel is built from the source distribution, which shows that this is complete.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", DIST, ROOT / "packaging" / "runtime")
    name = f"wesep_py-{version()}"
    paths = (
        DIST / f"{name}.tar.gz",
        DIST / f"{name}-py3-none-any.whl",
        DIST / f"wesep_runtime-{version()}-py3-none-any.whl",
    )
    for path in paths:
        if not path.is_file():
            raise ReleaseError(f"dist/{path.name}: was not built; the version is in more than one place")
        size_mib = path.stat().st_size / 2**20
        print(f"  {path.name}: {size_mib:.2f} MiB")
        if size_mib > MAX_MIB:
            raise ReleaseError(f"dist/{path.name}: has {size_mib:.1f} MiB; {MAX_MIB} are allowed")
    return paths


def make_environment(folder: Path, wheel: Path, runtime: Path, venv_from: Path | None) -> Path:
    """Install the wheels into a fresh environment, and return its folder of programs.

    Args:
        folder: of the environment; an existing one is replaced.
        wheel, runtime: the wheels.
        venv_from: an environment that has the dependencies; `None` installs them, as `constraints.txt` says.
    """
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if venv_from is None:
        run(*pip, "-c", ROOT / "constraints.txt", f"{wheel}[demo]", runtime, folder=folder)
        run(programs / "python", "-m", "pip", "check", folder=folder)
        return programs
    (packages,) = folder.glob("lib/python*/site-packages")
    # Modules of the other environment are found after those of this one. Its own .pth files are not read, so that a
    # checkout which is installed there for development stays out.
    others = [str(path) for path in venv_from.resolve().glob("lib/python*/site-packages")]
    if len(others) != 1 or Path(others[0]).parent.name != packages.parent.name:
        raise ReleaseError(f"{venv_from}: is no environment of {packages.parent.name}")
    (packages / "dependencies_of_another_environment.pth").write_text(f"{others[0]}\n", encoding="utf-8")
    run(*pip, "--no-deps", wheel, runtime, folder=folder)
    return programs


def try_wheel(programs: Path) -> None:
    """Extract a voice and run the demo in an empty folder, with nothing of this repository on the path.

    Raises:
        ReleaseError: a command fails, or its output is missing.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        hidden = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WESEP", "VIRTUAL_ENV"))
        }
        environment = {
            **hidden,
            "PATH": os.pathsep.join([str(programs), "/usr/bin", "/bin"]),
            "WESEP_HOME": str(folder / "home"),
        }
        options = {"folder": folder, "environment": environment}
        shown = run(programs / "wesep", "--version", **options)
        if shown != f"wesep {version()}\n":
            raise ReleaseError(f"`wesep --version` prints {shown.strip()!r}; 'wesep {version()}' is expected")
        run(programs / "python", "-c", SMOKE, **options)
        extract = (
            programs / "wesep",
            "extract",
            "mixture.wav",
            "--enroll",
            "enrollment.wav",
            "-o",
            "voice.wav",
            "--force",
        )
        run(*extract, **options)
        check = "import soundfile; assert len(soundfile.read('voice.wav')[0]) == 48000"
        run(programs / "python", "-c", check, **options)
        run(programs / "wesep", "demo", "-o", "demo", **options)
        made = {path.name for path in (folder / "demo").iterdir()}
        if not {"picture.png", "extracted.wav", "mixture.wav"} <= made:
            raise ReleaseError(
                f"`wesep demo` wrote {', '.join(sorted(made))}; picture.png and extracted.wav are expected"
            )
        code = "import wesep_runtime; print(wesep_runtime.__version__)"
        if run(programs / "python", "-c", code, **options).strip() != version():
            raise ReleaseError("wesep_runtime has another version than wesep_py")


def check_dist(venv_from: Path | None) -> None:
    """Build the distributions, check their files and descriptions, and try the wheel."""
    sdist, wheel, runtime = build()
    expected = package_files()
    with tarfile.open(sdist) as archive:
        check_sdist_files([entry.name for entry in archive.getmembers() if entry.isfile()], expected)
    with zipfile.ZipFile(wheel) as archive:
        check_wheel_files(archive.namelist(), expected)
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, runtime)
    try_wheel(make_environment(ROOT / "build" / "dist_env", wheel, runtime, venv_from))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tag", help="check a tag").add_argument("tag")
    dist = commands.add_parser("dist", help="build, check and try the distributions")
    dist.add_argument("--venv-from", type=Path, help="take the dependencies from this environment: a rehearsal")
    options = parser.parse_args(arguments)
    try:
        if options.command == "tag":
            check_tag(options.tag)
        else:
            check_dist(options.venv_from)
    except (ReleaseError, OSError) as error:
        print(f"release_checks: {error}", file=sys.stderr)
        return 1
    print(
        "ok"
        if options.command == "tag" or options.venv_from is None
        else "ok, with dependencies of another environment"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
