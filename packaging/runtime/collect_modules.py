"""Collect the modules of `wesep_py` that `wesep_py.runtime` imports, as the package `wesep_runtime`.

The package has a name of its own, so that `wesep-py` and `wesep-runtime` can be installed side by side: two
distributions that write the same files break each other when one of them is updated or removed.
"""

from __future__ import annotations

import ast
import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE, TARGET = "wesep_py", "wesep_runtime"
ROOTS = ("wesep_py.runtime", "wesep_py.runtime.__main__", "wesep_py.inference.live_stream.pcm_stream")
INIT = '''"""Target speaker extraction with exported models, without torch.

>>> import wesep_runtime                                                                    # doctest: +SKIP
>>> extractor = wesep_runtime.load("exported_model")                                        # doctest: +SKIP
>>> voice = extractor.enroll("alice.wav")                                                   # doctest: +SKIP
>>> extractor.extract("meeting.wav", voice).save("alice_in_meeting.wav")                    # doctest: +SKIP
"""

from wesep_runtime.runtime import Blocks, Result, RuntimeExtractor, Stream, Voice, WesepError, load

__version__ = "{version}"
__all__ = ["Blocks", "Result", "RuntimeExtractor", "Stream", "Voice", "WesepError", "load"]
'''


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Add the renamed modules to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the package to a temporary folder, and name it to the builder."""
        repository = Path(self.root).parents[1]
        self._folder = tempfile.TemporaryDirectory()
        write_package(repository, Path(self._folder.name), self.metadata.version)
        build_data["force_include"][self._folder.name] = TARGET
        build_data["force_include"][str(repository / "LICENSE")] = f"{TARGET}/LICENSE"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        self._folder.cleanup()


def write_package(repository: Path, folder: Path, version: str) -> None:
    """Write the package `wesep_runtime`, without its own folder.

    Args:
        repository: that holds `wesep_py`.
        folder: to write to.
        version: of the package.
    """
    for path in collect(repository):
        target = folder / path.relative_to(repository / SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(re.sub(rf"\b{SOURCE}\b", TARGET, path.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "__init__.py").write_text(INIT.replace("{version}", version), encoding="utf-8")
    (folder / "py.typed").touch()


def collect(repository: Path) -> list[Path]:
    """Return the files that the roots import when they are imported, directly or through others."""
    waiting, files = [root for root in ROOTS if _file(repository, root) is not None], {}
    while waiting:
        name = waiting.pop()
        path = _file(repository, name)
        if path is None or name in files or name == SOURCE:
            continue
        files[name] = path
        # A module needs the packages that contain it.
        waiting += [".".join(name.split(".")[:depth]) for depth in range(2, name.count(".") + 1)]
        waiting += _imports(path)
    return sorted(files.values())


def _imports(path: Path) -> list[str]:
    """Return what a file imports of `wesep_py` at its top: in functions and `if TYPE_CHECKING`, nothing is loaded."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == SOURCE:
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == SOURCE]
    return names


def _file(repository: Path, name: str) -> Path | None:
    """Return the file of a module or package; `None` for any other name."""
    path = repository.joinpath(*name.split("."))
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py") if path.with_suffix(".py").is_file() else None
