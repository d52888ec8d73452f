"""recipes/speaker/compare.py: each experiment builds, and one runs from the data to a row of the table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from wesep_py.network.speaker import SpeakerEncoder
from wesep_py.network.speaker.speaker_losses import build_speaker_loss
from wesep_py.training import load_config

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "speaker" / "compare.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speaker_compare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_experiment_builds_and_losses_share_one_network(script: ModuleType):
    networks = set()
    for name in script.experiment_names():
        plain = script.configuration(name, Path("data"), Path("exp"), steps=7)
        config = load_config(plain)
        encoder = SpeakerEncoder(config.speaker, config.sample_rate)
        build_speaker_loss(
            config.loss if isinstance(config.loss, list) else [config.loss], encoder.embedding_dim, 1278, "loss"
        )
        assert config.train.steps == 7 and plain["experiment"] == f"exp/{name}"
        if name.startswith("losses/"):
            networks.add(str(plain["speaker"]["network"]))
    assert len(networks) == 1


def test_the_table_marks_experiments_that_were_not_run(script: ModuleType, tmp_path: Path):
    rows = script.table("losses", tmp_path).splitlines()
    losses = [name for name in script.experiment_names() if name.startswith("losses/")]
    assert len(rows) == 2 + len(losses) and all("not run" in row for row in rows[2:])


def test_a_pattern_without_matches_is_refused_first(script: ModuleType, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "run", lambda *arguments: pytest.fail(f"runs {arguments}"))
    arguments = ["--data", str(tmp_path), "-o", str(tmp_path / "out"), "losses/*", "nothing/*"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        script.main()
    message = capsys.readouterr().err
    assert ended.value.code == 2 and "no experiment matches 'nothing/*'" in message and "networks/xvector" in message


@pytest.mark.slow
def test_an_experiment_runs_on_real_speech(script: ModuleType, shared_data: Path, tmp_path: Path, monkeypatch, capsys):
    arguments = ["--data", str(shared_data), "-o", str(tmp_path), "--steps", "2", "losses/softmax"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    script.main()
    monkeypatch.setattr(sys, "argv", ["compare.py", "-o", str(tmp_path), "--table"])
    script.main()
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| softmax |"))
    assert "not run" not in row and "0.53" in row
