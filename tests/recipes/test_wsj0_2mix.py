"""recipes/wsj0_2mix, through all of its stages, on a miniature of WSJ0, WSJ0-2mix and SpEx's lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.miniature import RECIPES, check_results, make_wsj0_2mix, run_recipe
from wesep_py.data import read_mixtures
from wesep_py.training import load_config

SYSTEMS = ("spexplus", "td_speakerbeam", "bsrnn_tfmap", "usef_tfgridnet")


def test_all_stages_run(tmp_path: Path):
    data, experiment = tmp_path / "corpora", tmp_path / "exp"
    trials = make_wsj0_2mix(data, {"tr": ["01a", "20c"], "cv": ["01a", "20c"], "tt": ["050", "443"]})
    ran = run_recipe("wsj0_2mix", "--data", data, "--exp", experiment, "--smoke")
    assert ran.returncode == 0, ran.stderr
    check_results(experiment, "checkpoints/best2", "results/tt", trials=trials["tt"])
    assert len(read_mixtures(data / "wsj0_2mix_lists/min/tr.csv")) == 3
    lines = (data / "wsj0_2mix_lists/min/tt.map_mixture2enrollment").read_text().splitlines()
    assert len(lines) == trials["tt"] and all(str(data / "wsj0/si_et_05") in line for line in lines)
    trained = load_config(experiment / "config.yaml")
    assert trained.model.sample_rate == 8000 and trained.data.train == ["wsj0_2mix_lists/min/si_tr_s.jsonl"]


def test_missing_lists_are_named(tmp_path: Path):
    make_wsj0_2mix(tmp_path, {"tr": ["01a", "20c"], "cv": ["01a", "20c"]})
    (tmp_path / "SpEx_Plus/data/wsj0_2mix/cv/aux.scp").unlink()
    ran = run_recipe("wsj0_2mix", "--data", tmp_path, "--stop-stage", 1)
    assert ran.returncode == 1 and "git clone https://github.com/gemengtju/SpEx_Plus" in ran.stderr.splitlines()[-1]
    ran = run_recipe("wsj0_2mix", "--data", tmp_path, "--stop-stage", 1, "--own-enrollments")
    assert "render WSJ0-2mix with its scripts" in ran.stderr.splitlines()[-1]
    assert len((tmp_path / "wsj0_2mix_lists/min/cv.map_mixture2enrollment").read_text().splitlines()) == 6


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_is_a_valid_configuration_at_8_khz(system: str):
    assert load_config(RECIPES / "wsj0_2mix" / f"{system}.yaml", ["data.root=x"]).model.sample_rate == 8000
