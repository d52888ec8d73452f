"""What a checkpoint says of how it was made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from wesep_py import checkpoint
from wesep_py.data import Utterance
from wesep_py.training.experiment import CorpusSummary, Experiment, TrainedModels
from wesep_py.training.state import Progress
from wesep_py.training.training_config import load_config
from wesep_py.training.validation import ExtractionValidator

NUMBERS = {"count": 2.0, "si_sdr": 3.0, "si_sdri": 4.25, "accuracy": 0.5, "confusion": 0.25}


def make(settings, validation) -> TrainedModels:
    config = load_config(settings(validation=validation))
    utterances = [Utterance(f"{speaker}-{i}", speaker, Path("x.wav"), 900.0) for speaker in "ab" for i in range(2)]
    task = SimpleNamespace(
        checkpoint_config={"backbone": {"name": "bsrnn"}, "sample_rate": 16000},
        title="Extraction",
        exported=dict,
        validator=ExtractionValidator(config.validation, config.data.root, 16000),
    )
    return TrainedModels(Experiment(config.experiment), config, task, CorpusSummary.of(utterances))


def test_provenance_and_card(settings, validation, tmp_path: Path):
    results = make(settings, validation)
    assert results.corpus == CorpusSummary(4, 2, 1.0)
    results.save("best", {"w": torch.ones(2)}, Progress(step=7, position=28, elapsed_s=1800.0), NUMBERS)
    saved = checkpoint.load(tmp_path / "exp")
    made = saved.provenance
    assert (made["step"], made["mixtures"], made["hours_trained"]) == (7, 28, 0.5)
    assert made["validation"]["si_sdri"] == 4.25 and made["validation"]["trials"]["trials"] == "trials.csv"
    assert made["training"]["optim"]["lr"] == 0.01 and "model" not in made["training"]
    assert made["corpus"] == {"utterances": 4, "speakers": 2, "hours": 1.0}
    card = (tmp_path / "exp" / "checkpoints" / "best" / "card.md").read_text()
    assert "SI-SDRi 4.25 dB" in card and "7 steps (0.5 h)" in card and "2 speakers" in card


def test_a_run_is_final_only_at_the_step_of_its_average(settings, validation):
    results = make(settings, validation)
    assert not results.is_final(Progress(step=7))
    results.save("average", {"w": torch.ones(2)}, Progress(step=7), averaged=3)
    assert results.is_final(Progress(step=7)) and not results.is_final(Progress(step=8))
