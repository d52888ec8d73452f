"""recipes/librimix_online, through all of its stages, on a miniature of LibriSpeech, WHAM! and the published lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.miniature import (
    RECIPES,
    check_results,
    make_librimix_metadata,
    make_librispeech,
    make_speakerbeam_maps,
    make_wham_noise,
    run_recipe,
)
from wesep_py.training import load_config

TRAIN = {"train-clean-100": [103, 1034], "train-clean-360": [1040, 1069]}
HELD_OUT = {"dev-clean": [84, 174, 251], "test-clean": [61, 121, 237]}


def test_all_stages_run_with_three_speakers_and_noise(tmp_path: Path):
    data, experiment = tmp_path / "corpora", tmp_path / "exp"
    make_librispeech(data, TRAIN | HELD_OUT)
    make_wham_noise(data)
    make_speakerbeam_maps(data, make_librimix_metadata(data, HELD_OUT, num_speakers=3), "_3spk")
    chosen = ["--speakers", 3, "--train", 460, "--condition", "both", "--jobs", 1]
    ran = run_recipe("librimix_online", "--data", data, "--exp", experiment, "--smoke", *chosen)
    assert ran.returncode == 0, ran.stderr
    summary = check_results(experiment, "checkpoints/best2", "results/test", trials=9)
    assert summary["protocol"]["condition"].startswith("noisy")
    trained = load_config(experiment / "config.yaml")
    assert trained.data.train == ["train-clean-100.jsonl", "train-clean-360.jsonl"]
    assert trained.simulation.speaker_weights == {3: 1.0} and trained.data.noise == ["wham_noise/tr"]


@pytest.mark.parametrize("system", ["bsrnn", "bsrnn_tfmap"])
def test_each_system_is_a_valid_configuration(system: str):
    config = load_config(RECIPES / "librimix_online" / f"{system}.yaml", ["data.root=x", "simulation.noise=null"])
    assert config.simulation.noise is None and config.data.mixtures is None
