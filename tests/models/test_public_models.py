"""The registry of public models: the package's own, a user's, and wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.models.public_models import SHIPPED_REGISTRY, PublicModel, public_models, read_registry

ENTRY = """models:
  mine:
    kind: extractor
    task: test
    sample_rate: 16000
    conversion: native
    sources:
      - folder: model
        files: {weights: model.safetensors}
"""


def test_the_packages_registry_is_whole():
    models = read_registry(SHIPPED_REGISTRY)
    assert {"wesep-bsrnn-ecapa-vox1", "espnet-td-speakerbeam-librimix", "wespeaker-resnet34", "dvector"} <= set(models)
    for model in models.values():
        assert model.citation and {"source", "files", "size", "licence", "layout"} <= set(model.certain), model.name
        assert (model.published is None) == ("result" not in model.certain), model.name
        assert model.licence is not None or model.certain["licence"] != "not known", model.name
        for source in model.sources:
            known = model.certain["files"] != "not known"
            assert bool(source.files) is known and (not known or "weights" in source.files), model.name


def test_nothing_is_said_to_be_loaded_that_cannot_be():
    from wesep_py.interop.converters import CONVERTERS

    for model in read_registry(SHIPPED_REGISTRY).values():
        can_be = model.conversion in CONVERTERS and model.can_be_downloaded
        assert (model.loaded != "never") is can_be, f"{model.name}: loaded: {model.loaded}"


def test_a_users_registry_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "registry.yaml").write_text(ENTRY)
    (tmp_path / "more.yaml").write_text(ENTRY.replace("mine:", "dvector:").replace("task: test", "task: other"))
    models = public_models(tmp_path / "more.yaml")
    assert models["mine"].sources[0].folder == tmp_path / "home" / "model", "relative to the registry's own folder"
    assert models["dvector"].task == "other" and "voxlock" in models
    with pytest.raises(InputError, match=r"--registry .*none\.yaml: no such file"):
        public_models(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("models:", "modells:", r"modells: unknown key; did you mean 'models'"),
        ("kind: extractor", "kind: extracter", r"models\.mine\.kind: is 'extracter'; did you mean 'extractor'"),
        ("task: test", "tusk: test", r"models\.mine\.tusk: unknown key; did you mean 'task'"),
        ("    task: test\n", "", r"models\.mine\.task: is required but missing"),
        ("sample_rate: 16000", "sample_rate: fast", r"models\.mine\.sample_rate: is 'fast'; a whole number is needed"),
        ("sample_rate: 16000", "sample_rate: 160", r"sample_rate: is 160; 8000 to 192000 Hz is allowed"),
        ("task: test", "task: test\n    size_bytes: -1", r"size_bytes: is -1; a positive number"),
        ("task: test", "task: test\n    name: other", r"models\.mine\.name: unknown key"),
        ("task: test", "task: test\n    certain: {sise: deduced}", r"certain\.sise: unknown key; did you mean 'size'"),
        ("task: test", "task: test\n    certain: {size: guessed}", r"certain\.size: is 'guessed'"),
        ("mine:", "'../mine':", r"letters, digits, dots"),
        ("folder: model", "folder: model\n        url: https://host/a", r"url and folder: give one of"),
        ("folder: model", "revision: main", r"none: give one of"),
        ("folder: model", "url: ftp://host/a", r"url: is 'ftp://host/a'; an address that starts with https://"),
        ("folder: model", "url: file:///etc/passwd", r"an address that starts with https://"),
        ("folder: model", "huggingface: org", r"huggingface: is 'org'; a repository, org/name"),
        ("folder: model", "wheel: Resemblyzer", r"wheel: is 'Resemblyzer'; a package with its version"),
        ("folder: model", "wheel: '--index-url=x==1'", r"a package with its version"),
        ("folder: model", "google_drive: abc", r"archive: is required with google_drive"),
        ("folder: model", "google_drive: 'a&b'", r"google_drive: is 'a&b'; the id of a file"),
        ("folder: model", "folder: model\n        archive: zip", r"archive: is for url and google_drive only"),
        ("folder: model", "url: https://host/a\n        archive: rar", r"sources\[0\]\.archive: is 'rar'"),
        (
            "model.safetensors}",
            "../model.safetensors}",
            r"files\.weights: is '\.\./model.safetensors'; a relative path",
        ),
        ("model.safetensors}", "/model.safetensors}", r"a relative path without \.\. is needed"),
        ("model.safetensors}", "m.pt}\n        sha256: {weights: abc}", r"sha256\.weights: is 'abc'; 64 hexadecimal"),
        ("model.safetensors}", "m.pt}\n        sha256: {weigths: abc}", r"sha256\.weigths: .*did you mean 'weights'"),
        ("      - folder: model\n        files: {weights: model.safetensors}\n", "      []\n", r"sources: is empty"),
    ],
)
def test_a_wrong_registry_is_one_line_with_its_place(tmp_path: Path, before: str, after: str, message: str):
    assert before in ENTRY
    path = tmp_path / "registry.yaml"
    path.write_text(ENTRY.replace(before, after))
    with pytest.raises(ConfigError, match=message) as caught:
        read_registry(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_registry_that_is_no_mapping_is_refused(tmp_path: Path):
    path = tmp_path / "registry.yaml"
    for text, message in (
        ("models: [a]", "a mapping of names"),
        ("models: {a: 3}", "a mapping"),
        ("- a", "no mapping"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_registry(path)


def test_the_documentation_lists_every_entry():
    page = Path(__file__).resolve().parents[2] / "docs" / "model_store.md"
    _, _, section = page.read_text(encoding="utf-8").partition("## What can be pulled\n")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", section.partition("\n## ")[0], re.MULTILINE))
    models = read_registry(SHIPPED_REGISTRY)
    assert rows == {name: table_row(model) for name, model in models.items()}


def table_row(model: PublicModel) -> str:
    """Return the row of an entry in the table of docs/model_store.md, without its first cell."""
    size = f"{model.size_bytes / 2**20:.0f} MiB" if model.size_bytes else "not known"
    licence = model.licence or "not stated"
    if model.licence_note:
        licence += f" ({model.licence_note})"
    cells = [model.kind, f"{model.sample_rate // 1000} kHz", model.sources[0].location, size, licence, model.loaded]
    return " | ".join(cells)
