"""`data.mixtures`: lists of mixtures to learn from as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from wesep_py.common.errors import ConfigError
from wesep_py.training import load_config, train
from wesep_py.training.training_config import DataConfig, MixturesConfig
from wesep_py.training.training_data import read_listed_mixtures


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`speech/*.wav`, `noise/hiss.wav`, `lists/list.csv` with paths relative to these two."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("speech", "noise", "lists"):
        (folder / name).mkdir()
    for voice in ("anna", "bert"):
        for take in range(2):
            samples = make_voice(*VOICES[voice], 1.5, seed=take)
            soundfile.write(folder / f"speech/{voice}-{take}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(folder / "noise/hiss.wav", 0.1 * make_voice(*VOICES["carl"], 0.5, seed=0), SAMPLE_RATE)
    rows = [f"anna-{n}_bert-{n},anna-{n}.wav,0.5,bert-{n}.wav,0.4,hiss.wav,1.0" for n in range(2)]
    head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"
    (folder / "lists/list.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_names_are_relative_to_the_root(data: Path):
    chosen = MixturesConfig(["lists/list.csv"], "noisy", root="speech", noise_root="noise")
    corpus = read_listed_mixtures(DataConfig(str(data), mixtures=chosen))
    assert corpus is not None and len(corpus.mixtures) == 2 and len(corpus.speech) == 4
    assert corpus.noises[0].path == data / "noise/hiss.wav"
    assert read_listed_mixtures(DataConfig(str(data), ["train.jsonl"])) is None


def test_what_makes_no_sense_is_refused(data: Path):
    chosen = MixturesConfig(["lists/list.csv"], root="speech")
    with pytest.raises(ConfigError, match=r"data\.speeds: is for mixtures that are drawn"):
        read_listed_mixtures(DataConfig(str(data), speeds=[0.9, 1.0], mixtures=chosen))
    with pytest.raises(ValueError, match=r"leave data\.mixtures out"):
        MixturesConfig([])
    with pytest.raises(ValueError, match="name at least one manifest"):
        DataConfig(str(data))


def test_a_run_learns_from_them_and_says_so(data: Path, settings):
    mixtures = {"lists": ["lists/list.csv"], "condition": "noisy", "root": "speech", "noise_root": "noise"}
    mapping = settings(data={"root": str(data), "workers": 0, "packed": str(data / "packed"), "mixtures": mixtures})
    mapping["simulation"] = {"duration_s": 1.0, "enrollment": {"duration_s": [0.5, 1.0]}}
    mapping["train"] |= {"steps": 2, "targets_per_mixture": "all"}
    result = train(mapping)
    assert result.step == 2
    assert "lists/list.csv" in (result.experiment / "checkpoints/last/card.md").read_text()
    assert "lists/list.csv" in (result.experiment / "provenance.json").read_text()
    assert load_config(result.experiment / "config.yaml").data.mixtures.condition == "noisy"
    assert (data / "packed").is_dir()
