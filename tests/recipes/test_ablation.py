"""recipes/ablation: each cell of the grids builds, and one runs from the data to a row of the table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import build_encoder
from wesep_py.training import load_config

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "ablation" / "run.py"
GRID, ENCODERS, DVECTOR, LITERATURE = (
    SCRIPT.parent / f"{name}.yaml" for name in ("grid", "encoders", "dvector", "literature")
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablation_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_cell_builds_with_a_similar_size(script: ModuleType):
    cells = script.cell_names(GRID)
    assert len(cells) == 4 * 8
    for cell in cells:
        config = script.configuration(GRID, cell, Path("data"), Path("exp"), steps=7)
        assert load_config(config).train.steps == 7
        size = sum(parameter.numel() for parameter in build_network(config["model"]).parameters())
        assert 0.1e6 < size < 1.1e6, f"{cell}: {size} parameters"


def test_encoder_cells_differ_only_in_the_training_mode(script: ModuleType):
    trained = {}
    for cell in script.cell_names(ENCODERS):
        config = load_config(script.configuration(ENCODERS, cell, Path("data"), Path("exp"), steps=7))
        trained[cell.split("/")[1]] = config.model.speaker and config.model.speaker["mode"]
    assert trained["tf_map"] is None
    assert {trained[cell] for cell in ("joint", "tf_map_joint")} == {"joint"}
    assert {trained[cell] for cell in ("frozen", "tf_map_frozen")} == {"frozen"}
    assert {trained[cell] for cell in ("finetune", "tf_map_finetune")} == {"finetune"}


def test_cells_with_the_public_encoder_need_its_name_alone(script: ModuleType, tmp_path: Path, monkeypatch):
    """Network and front end are those of the installed encoder, here a small one of the same form."""
    monkeypatch.setenv("WESEP_HOME", str(tmp_path))
    form = {
        "network": {"name": "dvector", "hidden_dim": 8, "frame_dim": 8, "embedding_dim": 6, "pooling": "last"},
        "front_end": "slaney_mel",
        "windows": {},
    }
    encoder = build_encoder(form, 16000)
    assert encoder is not None
    checkpoint.save(tmp_path / "models" / "dvector", form, encoder.state_dict())
    for cell in script.cell_names(DVECTOR):
        config = load_config(script.configuration(DVECTOR, cell, Path("data"), Path("exp"), steps=7))
        network = build_network(config.model)
        assert network.config["speaker"]["network"]["hidden_dim"] == 8 and network.encoder.mode == "frozen"
        assert torch.equal(network.encoder.network.linear.weight, encoder.network.linear.weight)


def test_cells_of_the_literature_change_losses_and_mixtures(script: ModuleType):
    configs = {
        cell.split("/")[1]: load_config(script.configuration(LITERATURE, cell, Path("data"), Path("exp"), steps=7))
        for cell in script.cell_names(LITERATURE)
    }
    for config in configs.values():
        network = build_network(config.model)
        assert 0.1e6 < sum(parameter.numel() for parameter in network.parameters()) < 1.1e6
        assert network.takes_negative == (config is configs["tf_map_negative"])
    terms = {name: config.loss if isinstance(config.loss, list) else [config.loss] for name, config in configs.items()}
    losses = {name: [term["name"] for term in each] for name, each in terms.items()}
    assert losses["tf_map_chunks"] == ["si_sdr", "chunk_distribution"]
    assert losses["embedding_ge2e"] == ["si_sdr", "speaker_margin"]
    assert losses["tf_map"] == losses["tf_map_negative"] == ["si_sdr"]
    assert {name for name, config in configs.items() if config.simulation.enrollment.negative_probability} == {
        "tf_map_negative"
    }
    assert configs["tf_map_negative"].simulation.sir_db == configs["tf_map"].simulation.sir_db


def test_a_cell_is_evaluated_in_its_variants(script: ModuleType, tmp_path: Path, monkeypatch):
    ran: list[list[str]] = []
    monkeypatch.setattr(script.subprocess, "run", lambda command, check: ran.append(command))
    arguments = ["--grid", str(LITERATURE), "--data", str(tmp_path), "-o", str(tmp_path / "out"), "*/tf_map_negative"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    script.main()
    train, plain, negatives = ran
    assert "train" in train and "--negatives" not in plain and "--negatives" in negatives
    assert plain[-1].endswith("results/dev_2mix") and negatives[-1].endswith("results/dev_2mix_negatives")
    names = [row.split(" | ")[1] for row in script.table(LITERATURE, tmp_path, "dev_2mix").splitlines()[2:]]
    assert "tf_map_negative" in names and "tf_map_negative, negatives" in names and "tf_map, repair" in names


def test_the_table_marks_cells_that_were_not_run(script: ModuleType, tmp_path: Path):
    rows = script.table(GRID, tmp_path, "dev_2mix").splitlines()
    assert len(rows) == 2 + 32 and all("not run" in row for row in rows[2:])


@pytest.mark.parametrize("grid", [GRID, ENCODERS], ids=lambda grid: grid.stem)
def test_a_pattern_without_matches_is_refused_first(script: ModuleType, tmp_path, monkeypatch, capsys, grid: Path):
    monkeypatch.setattr(script, "run_cell", lambda *arguments: pytest.fail(f"runs {arguments}"))
    arguments = ["--grid", str(grid), "--data", str(tmp_path), "-o", str(tmp_path / "out"), "*", "bsrn/*"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        script.main()
    message = capsys.readouterr().err
    assert ended.value.code == 2 and f"no cell of {grid.name} matches 'bsrn/*'" in message
    assert script.cell_names(grid)[-1] in message


@pytest.mark.slow
def test_a_cell_runs_on_real_speech(script: ModuleType, shared_data: Path, tmp_path: Path, monkeypatch, capsys):
    arguments = ["--data", str(shared_data), "-o", str(tmp_path), "--steps", "2", "bsrnn/tf_map"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    script.main()
    monkeypatch.setattr(sys, "argv", ["run.py", "-o", str(tmp_path), "--table"])
    script.main()
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| bsrnn | tf_map |"))
    assert "not run" not in row and "0.68" in row
