"""`docs/extending.md`, run: its files written, its commands given, in its order."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from wesep_py import load
from wesep_py.audio import info
from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.network.extraction_network import load_network

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
PARTS = {"backbone": "MyBackbone", "encoder.network": "MySpeaker", "cues.1": "MyCue"}


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file that the line before it names."""

    language: str
    text: str
    file: str | None


def blocks() -> list[Block]:
    found = re.findall(r"(?:^`([\w.]+)`:\n\n)?^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(language, text, file or None) for file, language, text in found]


def forget_plugins() -> None:
    """As a new process would: files named in configurations are read again."""
    for name in [name for name in sys.modules if name.startswith("wesep_py_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def desk(tiny_speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the demo leaves."""
    shutil.copytree(tiny_speech, tmp_path / "demo" / "voices")
    voices = [soundfile.read(tiny_speech / name / f"{name}-0.wav")[0] for name in ("anna", "bert")]
    length = min(map(len, voices))
    soundfile.write(tmp_path / "demo" / "mixture.wav", np.add(voices[0][:length], voices[1][:length]) / 2, 16000)
    shutil.copy(tiny_speech / "anna" / "anna-1.wav", tmp_path / "demo" / "enrollment.wav")
    monkeypatch.chdir(tmp_path)
    forget_plugins()
    yield tmp_path
    forget_plugins()


def test_every_block_is_a_file_or_commands():
    kinds = [block.file or block.language for block in blocks()]
    files = ["my_backbone.py", "my_cue.py", "my_speaker.py", "my_loss.py", "mine.yaml"]
    assert kinds == [*files, "sh", "check.py", "sh"]
    assert PAGE.read_text("utf-8").count("```") == 2 * len(kinds)


def test_the_page_runs(desk: Path, wesep, monkeypatch):
    """Together, since each block needs those before it."""
    for block in blocks():
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
            continue
        for command in block.text.splitlines():
            program, *arguments = shlex.split(command)
            if program == "export":
                monkeypatch.setenv(*arguments[0].split("=", 1))
                continue
            if program == "python":
                runpy.run_path(*arguments)
                continue
            assert program == "wesep"
            ran = wesep(*arguments)
            assert ran.status == 0, f"{command}: {ran.err}"
    assert info("mine.wav").num_samples == info("demo/mixture.wav").num_samples

    forget_plugins()
    network = load_network("exp/mine")
    for name, class_name in PARTS.items():
        part = network.get_submodule(name)
        assert type(part).__name__ == class_name
        assert type(part).__module__.startswith("wesep_py_plugin_my_")
    assert network.backbone.latent_dim == 32 and network.cues[1].power == 0.3 and network.encoder.embedding_dim == 16
    initial = runpy.run_path("check.py")["network"].state_dict()
    trained = network.state_dict()
    for key in ("backbone.mask.weight", "encoder.network.frame.weight", "encoder.network.embedding.weight"):
        assert trained[key].isfinite().all() and not torch.equal(trained[key], initial[key])

    extractor = load("exp/mine")
    result = extractor.extract("demo/mixture.wav", extractor.enroll("demo/enrollment.wav"))
    written, _ = soundfile.read("mine.wav", dtype="float32")
    assert np.abs(np.squeeze(result.waveform) - written).max() < 1e-3 and np.abs(written).max() > 1e-3


def test_without_its_files_the_model_says_what_is_missing(desk: Path, wesep, monkeypatch):
    for block in blocks()[:5]:
        Path(block.file).write_text(block.text, encoding="utf-8")
    assert wesep("prepare", "folder", "demo/voices", "-o", "speech.jsonl").status == 0
    assert wesep("train", "mine.yaml", "train.steps=1").status == 0
    forget_plugins()
    extract = ["extract", "demo/mixture.wav", "--enroll", "demo/enrollment.wav", "-o", "m.wav", "--model", "exp/mine"]
    ran = wesep(*extract)
    assert ran.status != 0 and "not run unasked" in ran.message and "WESEP_PLUGINS=1" in ran.message
    assert not [name for name in sys.modules if name.startswith("wesep_py_plugin_")]
    monkeypatch.setenv("WESEP_PLUGINS", "1")
    Path("my_cue.py").rename("elsewhere.py")
    ran = wesep(*extract)
    assert ran.status != 0 and "my_cue.py:MyCue" in ran.message and not Path("m.wav").exists()


def test_a_mistake_in_an_argument_names_its_key(desk: Path, wesep):
    for block in blocks()[:5]:
        Path(block.file).write_text(block.text, encoding="utf-8")
    assert wesep("prepare", "folder", "demo/voices", "-o", "speech.jsonl").status == 0
    ran = wesep("train", "mine.yaml", "model.backbone.hiden=8")
    assert ran.status == 2 and "model.backbone.hiden: unknown key; did you mean 'hidden'" in ran.message
    ran = wesep("train", "mine.yaml", "model.backbone.hidden=0")
    assert ran.status == 2 and "hidden: is 0; an even number is needed" in ran.message


def test_the_parts_work_with_the_packages_own(desk: Path):
    """Each of them alone, in a shipped model: there is no pact between the three."""
    from wesep_py.network.extraction_network import build_network

    for block in blocks()[:3]:
        Path(block.file).write_text(block.text, encoding="utf-8")
    shipped = load_yaml(conf_folder() / "model" / "bsrnn_tiny.yaml")["model"]
    mine = load_yaml_text(blocks()[4].text)["model"]
    exchanged = [
        {"backbone": mine["backbone"]},
        {"speaker": mine["speaker"]},
        {"cues": [*shipped["cues"], mine["cues"][1]]},
    ]
    for exchange in exchanged:
        network = build_network({**shipped, **exchange}).eval()
        assert network(torch.randn(1, 3000), torch.randn(1, 9000)).waveforms[0].shape == (1, 3000)


def load_yaml_text(text: str) -> dict:
    Path("block.yaml").write_text(text, encoding="utf-8")
    return load_yaml("block.yaml")
