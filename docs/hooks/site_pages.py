"""Pages of the documentation site that are made while it is built, and links to files that are not on it.

Made here: the READMEs that lie beside what they describe (recipes, `simulation/`, `bench/`, CONTRIBUTING), the Python
reference (one page for each package, from its docstrings) and the help of every command. A link to a file of the
repository that is no page becomes its path, as text; one to a file that does not exist is an error.
"""

from __future__ import annotations

import ast
import io
import logging
import os
import posixpath
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "wesep_py"
log = logging.getLogger("mkdocs.hooks")

# Page of the site -> file of the repository.
COPIED = {
    "recipes/contributing.md": "CONTRIBUTING.md",
    "recipes/simulation.md": "simulation/README.md",
    "recipes/bench_models.md": "bench/models.md",
    "recipes/bench_simulation.md": "bench/simulation.md",
    "recipes/bench_exactness.md": "bench/exactness.md",
    "recipes/bench_live_peers.md": "bench/live_peers.md",
    **{
        f"recipes/{path.parent.name}.md": f"recipes/{path.parent.name}/README.md"
        for path in sorted((ROOT / "recipes").glob("*/README.md"))
    },
}
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"!\[([^\]\n]*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that are made here into the navigation."""
    for section in config.nav:
        for entries in section.values():
            if isinstance(entries, list):
                _complete(entries)
    return config


def _package_name(page: str) -> str:
    """Return the name of a package for the navigation, without `wesep_py.`.

    >>> _package_name("reference/network.speaker.md")
    'network.speaker'
    """
    return Path(page).name.removesuffix(".md")


def _complete(entries: list) -> None:
    """Give the entries "Recipes" and "Python" of a section their pages."""
    recipes = [page for page, source in COPIED.items() if source.startswith("recipes/")]
    packages = [page for page in _reference_pages() if page != "reference/index.md"]
    for number, entry in enumerate(entries):
        if entry == {"Recipes": "recipes.md"}:
            entries[number] = {"Recipes": ["recipes.md", *({Path(page).stem: page} for page in recipes)]}
        elif entry == {"Python": "reference/index.md"}:
            entries[number] = {"Python": ["reference/index.md", *({_package_name(page): page} for page in packages)]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file in `docs/`."""
    for page, source in COPIED.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    pages = _reference_pages()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "reference/cli.md", content=_command_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the pages of the site, and turn those to other files of the repository into text."""
    source = COPIED.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    if page.file.src_uri.startswith("reference/"):
        return markdown
    page_of = {path: name for name, path in COPIED.items()}
    page_of |= {f"docs/{file.src_uri}": file.src_uri for file in files if f"docs/{file.src_uri}" not in page_of}

    def target_of(link: str) -> tuple[str, str]:
        path, _, anchor = link.partition("#")
        return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source, anchor

    def replace(match: re.Match[str]) -> str:
        text, link = match.groups()
        if "://" in link or link.startswith("mailto:"):
            return match[0]
        target, anchor = target_of(link)
        if target.endswith("/") or (ROOT / target).is_dir():
            target = posixpath.join(target, "README.md") if (ROOT / target / "README.md").is_file() else target
        if target == "README.md":
            target = "docs/index.md"
        if target in page_of:
            relative = posixpath.relpath(page_of[target], posixpath.dirname(page.file.src_uri) or ".")
            return f"[{text}]({relative}{'#' + anchor if anchor else ''})"
        if not (ROOT / target).exists():
            log.warning("%s: links to %s, which does not exist", source, link)
        return text if text.startswith("`") else f"{text} (`{target}`)" if text != target else f"`{target}`"

    def place(match: re.Match[str]) -> str:
        text, link = match.groups()
        target, _ = target_of(link)
        if not (ROOT / target).is_file():
            log.warning("%s: shows %s, which does not exist", source, link)
        relative = posixpath.relpath(target, posixpath.join("docs", posixpath.dirname(page.file.src_uri)))
        return f"![{text}]({relative})"

    return _outside_code(markdown, lambda text: _PICTURE.sub(place, _LINK.sub(replace, text)))


def _outside_code(markdown: str, change) -> str:
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def _reference_pages() -> dict[str, str]:
    """Return one page for each package, with all public modules, and an index of them."""
    packages: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("cli", "conf") or parts[-1] == "__main__":
            continue
        if parts[-1] == "__init__":
            packages.setdefault("/".join(parts[:-1]), [])
        else:
            packages.setdefault("/".join(parts[:-1]), []).append(parts[-1])
    pages, rows = {}, []
    for package, modules in packages.items():
        name = ".".join(["wesep_py", *package.split("/")]) if package else "wesep_py"
        page = f"reference/{package.replace('/', '.') or 'wesep_py'}.md"
        text = [f"# `{name}`", "", f"::: {name}", "    options: {members: false, show_root_heading: false}", ""]
        for module in modules:
            text += [f"::: {name}.{module}", ""]
        pages[page] = "\n".join(text)
        rows.append(f"| [`{name}`]({posixpath.basename(page)}) | {_summary(PACKAGE / package / '__init__.py')} |")
    head = ["# Python reference", "", "From the docstrings, a page for each package.", "", "| package | holds |"]
    pages["reference/index.md"] = "\n".join([*head, "| --- | --- |", *rows, ""])
    return pages


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def _command_page() -> str:
    """Return the help of every command, as the commands print it."""
    os.environ.update(COLUMNS="80", TERM="dumb", NO_COLOR="1")  # before the command line is imported
    from wesep_py.cli.main import COMMANDS, main

    text = ["# Command line", "", "What `wesep COMMAND --help` prints.", ""]
    for name in COMMANDS:
        with redirect_stdout(io.StringIO()) as printed:
            status = main([name, "--help"])
        if status != 0:
            log.warning("wesep %s --help ended with status %d", name, status)
        text += [f"## wesep {name}", "", "```text", printed.getvalue().strip("\n"), "```", ""]
    return "\n".join(text)
