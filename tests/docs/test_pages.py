"""Every code block of the documentation runs, in the order of its page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from tests.docs.desk import ROOT, Block, blocks_of, lay_out, missing_framework, run_shell
from tests.models.hub_server import TOKEN, HubServer
from wesep_py.common.config import construct, load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.models import MODELS_FOLDER
from wesep_py.simulation.rooms.bank_making import RoomBankConfig
from wesep_py.training.training_config import SpeakerTrainConfig, TrainConfig, load_config

EXECUTED = {
    path.relative_to(ROOT).as_posix(): path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "simulation" / "README.md"]
    if path.name != "extending.md"  # has a test of its own, which looks further
}
LANGUAGES = {"sh", "python", "yaml", "json", "jsonl", "csv", "text", "js"}  # js: by tests/export/test_browser.py


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a presence head, trained for a step: what pages call `exp/mine`."""
    from tests.recipes.miniature_default import make_data
    from wesep_py.training import train

    folder = tmp_path_factory.mktemp("trained")
    make_data(folder / "DATA")
    values = ["train.steps=1", "train.batch_size=1", "data.workers=0", f"data.root={folder}/DATA", "train.device=cpu"]
    values += [f"experiment={folder}/mine", "data.packed=null", "train.max_minutes=null", "validation=null"]
    train(load_config(ROOT / "recipes" / "default" / "smoke.yaml", values))
    return folder / "mine"


@pytest.mark.parametrize("page", EXECUTED)
def test_code_blocks_run(
    page: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    blocks = blocks_of(EXECUTED[page])
    text = EXECUTED[page].read_text(encoding="utf-8")
    assert len(blocks) * 2 == sum(line.lstrip().startswith("```") for line in text.splitlines())
    unknown = {f"{block.line}: {block.language!r}" for block in blocks} - {
        f"{block.line}: {block.language!r}" for block in blocks if block.language in LANGUAGES
    }
    assert not unknown, "name the language of each block; `text` is for what is no code"
    lay_out(tmp_path / "desk", trained)
    monkeypatch.chdir(tmp_path / "desk")
    if any("hf:" in block.text for block in blocks):
        fill_hub(request.getfixturevalue("hub"), monkeypatch)
    if "-o speech.jsonl" in text:  # the page makes it itself
        Path("speech.jsonl").unlink()
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        if block.language == "sh":
            done = run_shell(block, tmp_path / "desk")
            assert done.returncode == 0, f"{page}:{block.line}: {done.stderr[-2000:] or done.stdout[-2000:]}"
        elif block.language == "python":
            code = compile(block.text, f"{page}:{block.line}", "exec")
            if missing_framework(block) is None:
                exec(code, names)
        elif block.language == "yaml":
            check_yaml(block, tmp_path)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "jsonl":
            assert [json.loads(line) for line in block.text.splitlines()]


def fill_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the bundled model on the stand-in for the Hub, as `alice/tse`, and log in."""
    files = {path.name: path.read_bytes() for path in (MODELS_FOLDER / "base").iterdir()}
    files["README.md"] = files.pop("card.md")
    hub.add("alice/tse", files)
    hub.add("alice/tse", files, branch="v1.0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)


RUN_KEYS = {field.name for kind in (TrainConfig, SpeakerTrainConfig) for field in dataclasses.fields(kind)} | {
    "include"
}
BANK_KEYS = {field.name for field in dataclasses.fields(RoomBankConfig)}


def check_yaml(block: Block, folder: Path) -> None:
    """Check a block as its command does: a configuration, or a part of one merged over a whole one."""
    values = yaml.safe_load(block.text)
    place = f"{block.page}:{block.line}"
    if set(values) <= BANK_KEYS:
        construct(RoomBankConfig, {**load_yaml("simulation/room_bank.yaml"), **values})
        return
    assert set(values) <= RUN_KEYS, (
        f"{place}: {sorted(set(values) - RUN_KEYS)} are no keys of a training or of a room bank"
    )
    includes = [values.pop("include", [])] if isinstance(values.get("include"), str) else values.pop("include", [])
    if "train/speaker.yaml" in includes or values.get("task") == "speaker":
        required = ["data.root=."]
    else:
        if "speaker" in values:  # of an extraction model
            values["model"] = {"speaker": values.pop("speaker")}
        includes = ["conf/train/example.yaml", *includes]
        required = [] if "data" in values else ["data.train=[speech.jsonl]"]
    file = folder / "desk" / f"block_{block.line}.yaml"
    file.write_text(yaml.safe_dump({**values, "include": includes}), encoding="utf-8")
    load_config(file, required)


@pytest.mark.parametrize(
    "text",
    ["self_enrollment: {probabilty: 0.4}", "simulation: {noise: {snr: 3}}", "simulate: {}", "recorded: [{rot: x}]"],
)
def test_a_wrong_key_in_a_yaml_block_is_found(
    text: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lay_out(tmp_path / "desk", trained)
    monkeypatch.chdir(tmp_path / "desk")
    with pytest.raises((AssertionError, ConfigError), match="key"):
        check_yaml(Block("page.md", 1, "yaml", text, None), tmp_path)


def test_recipe_pages_name_options_and_files_that_exist():
    """The scripts themselves are run by tests/recipes; here their pages' commands are parsed."""
    import shlex

    from wesep_py.cli.main import _command_app

    problems = []
    for path in sorted((ROOT / "recipes").glob("*/README.md")):
        for block in blocks_of(path):
            if block.language not in ("", "sh"):
                continue
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if not words:
                    continue
                where = f"{path.parent.name}/README.md:{block.line}: {words[0]}"
                if words[0].endswith(".sh"):
                    if not (ROOT / words[0]).is_file():
                        problems.append(f"{where} is no file")
                elif words[0] == "wesep" and len(words) > 1:
                    help_text = _help_of(_command_app(words[1]), words[1])
                    problems += [
                        f"{where} {words[1]}: no option {word}"
                        for word in words
                        if word.startswith("--") and word.split("=")[0] not in help_text
                    ]
    assert not problems


def _help_of(app, name: str) -> str:
    from typer.testing import CliRunner

    runner = CliRunner()
    shown = runner.invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}, prog_name=name).output
    for group in app.registered_commands if len(app.registered_commands) > 1 else []:
        shown += runner.invoke(app, [group.name or group.callback.__name__, "--help"], env={"COLUMNS": "200"}).output
    return shown


def test_the_example_configuration_loads():
    assert load_yaml(ROOT / "conf" / "train" / "example.yaml")["experiment"] == "exp/example"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if f" {path.name}\n" not in navigation]
    assert not missing
