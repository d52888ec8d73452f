"""recipes/librimix, through all of its stages, on a miniature of LibriSpeech, WHAM! and the published lists."""

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

SPEAKERS = {"train-clean-100": [103, 1034, 1040, 1069], "dev-clean": [84, 174], "test-clean": [61, 121]}
SYSTEMS = ("bsrnn", "bsrnn_tfmap", "td_speakerbeam", "spexplus", "smoke")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    make_librispeech(folder, SPEAKERS)
    make_wham_noise(folder)
    make_speakerbeam_maps(folder, make_librimix_metadata(folder, SPEAKERS))
    return folder


def test_all_stages_run(data: Path, tmp_path: Path):
    experiment = tmp_path / "exp"
    arguments = ["--data", data, "--exp", experiment, "--smoke", "--condition", "both", "--jobs", 1]
    ran = run_recipe("librimix", *arguments, "seed=1")
    assert ran.returncode == 0, ran.stderr
    assert [line[:10] for line in ran.stderr.splitlines() if line.startswith("==")] == [
        f"== stage {n}" for n in range(1, 6)
    ]
    summary = check_results(experiment, "checkpoints/best2", "results/test", trials=6)
    assert summary["protocol"]["condition"].startswith("noisy")
    tree = data / "Libri2Mix/wav16k/min"
    assert len(list((tree / "train-100/mix_both").iterdir())) == 6
    assert (tree / "metadata/mixture_train-100_mix_both.csv").is_file()
    trained = load_config(experiment / "config.yaml")
    assert (trained.seed, trained.data.mixtures.condition, trained.train.epoch_size) == (1, "noisy", 13900)


def test_missing_input_is_a_one_line_error(data: Path, tmp_path: Path):
    for arguments, message in (
        (["--data", tmp_path], "git clone https://github.com/BUTSpeechFIT/speakerbeam"),
        (["--data", tmp_path / "none"], "no such folder"),
        (["--data", data, "--speakers", 4], "--speakers 4: give one of 2 3"),
        (["--data", data, "--train", 360], "git clone https://github.com/JorisCos/LibriMix"),
        (["--data", data, "--system", "bsrn"], "--system takes the name of a YAML"),
        (["--daat", data], "unknown option --daat"),
        ([], "--data is missing"),
    ):
        ran = run_recipe("librimix", *arguments)
        lines = [line for line in ran.stderr.splitlines() if not line.startswith("==")]
        assert ran.returncode == 1 and len(lines) == 1 and message in lines[0], ran.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_is_a_valid_configuration(system: str):
    config = load_config(RECIPES / "librimix" / f"{system}.yaml", ["data.root=x"])
    assert (
        config.data.mixtures.lists == ["Libri2Mix/wav16k/min/train-100"] and config.train.targets_per_mixture == "all"
    )
