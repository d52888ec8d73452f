"""Validation of an extractor: scores, sums over processes, stopping."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.inference import Extractor
from wesep_py.network.extraction_network import build_network
from wesep_py.training.data_config import ValidationConfig
from wesep_py.training.task import spread
from wesep_py.training.validation import ExtractionValidator, score_means, score_sums


def scored(si_sdri: float, confusion: float) -> dict[str, float]:
    accuracy = float(si_sdri > 1)
    return {"si_sdr": si_sdri - 2, "si_sdri": si_sdri, "accuracy": accuracy, "confusion": confusion}


def test_means_of_sums_that_are_added_over_processes():
    """A trial without numbers (a silent reference, an estimate that is not finite) is counted apart."""
    first, second = score_sums([scored(12.0, 0.0), {}]), score_sums([scored(-6.0, 1.0), scored(0.0, 0.0)])
    numbers = score_means({key: first[key] + second[key] for key in first})
    assert numbers == {
        "count": 3.0, "missing": 1.0, "si_sdr": 0.0, "si_sdri": 2.0,
        "accuracy": pytest.approx(1 / 3), "confusion": pytest.approx(1 / 3),
    }  # fmt: skip
    assert np.isnan(score_means(score_sums([{}]))["si_sdri"])


@pytest.mark.parametrize(("limit", "expected"), [(None, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (2, [0, 2]), (1, [0])])
def test_a_limited_list_is_spread_over_the_whole(limit: int | None, expected: list[int]):
    assert spread(range(5), limit) == expected


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    return build_network({"backbone": backbone, "cues": [{"name": "tf_map"}]})


def test_all_trials_are_scored_and_the_network_is_unchanged(corpus: Path, network):
    validation = ExtractionValidator(ValidationConfig("trials.csv", "trials.map"), str(corpus), 16000)
    network.train()
    network.backbone.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scores, examples = validation.score_trials(network, "cpu", num_examples=1)
    assert len(scores) == 2 and all(set(values) >= {"si_sdr", "si_sdri", "accuracy", "confusion"} for values in scores)
    assert network.training and network.cues.training and not network.backbone.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert len(examples) == 1 and examples[0].estimate.shape == examples[0].mixture.shape
    again, _ = validation.score_trials(network, "cpu")
    assert again == scores


def test_the_numbers_are_those_of_the_signals(corpus: Path, network, monkeypatch):
    """An extractor that returns the target with a tenth of the rest of the mixture: 20 dB better than the mixture."""
    validation = ExtractionValidator(ValidationConfig("trials.csv", "trials.map"), str(corpus), 16000)
    references = [validation._render(index).reference for index in range(2)]

    def extract(self, mixture, voice):
        waveform = references.pop(0)
        return SimpleNamespace(waveform=waveform + 0.1 * (mixture[0] - waveform))

    monkeypatch.setattr(Extractor, "extract", extract)
    scores, _ = validation.score_trials(network, "cpu")
    assert [values["si_sdri"] for values in scores] == pytest.approx([20.0, 20.0], abs=1.0)
    assert [(values["accuracy"], values["confusion"]) for values in scores] == [(1.0, 0.0)] * 2


def test_validation_does_not_average_shifts(corpus: Path, network):
    validation = ExtractionValidator(ValidationConfig("trials.csv", "trials.map"), str(corpus), 16000)
    scores, _ = validation.score_trials(network, "cpu")
    network.shifts = 4
    assert validation.score_trials(network, "cpu")[0] == scores


def test_a_nonfinite_estimate_does_not_end_the_run(corpus: Path, network):
    validation = ExtractionValidator(ValidationConfig("trials.csv", "trials.map"), str(corpus), 16000)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    with pytest.warns(UserWarning, match="not finite"):
        scores, examples = validation.score_trials(network, "cpu", num_examples=2)
    assert scores == [{}, {}] and examples == []


def test_trials_are_divided_among_ranks(corpus: Path, network):
    config = ValidationConfig("trials.csv", "trials.map", root=str(corpus))
    both = [ExtractionValidator(config, "elsewhere", 16000, rank, 2).trials for rank in (0, 1)]
    assert [len(trials) for trials in both] == [1, 1] and both[0][0].target_index != both[1][0].target_index


def test_a_stop_ends_it_without_a_result(corpus: Path, network):
    validation = ExtractionValidator(ValidationConfig("trials.csv", "trials.map"), str(corpus), 16000)
    assert validation.score_trials(network, "cpu", should_stop=lambda: True) is None


def test_a_list_of_absent_targets_is_refused(corpus: Path, tmp_path: Path):
    target = (corpus / "trials.map").read_text().split()[2]
    (tmp_path / "absent.map").write_text(f"anna-0_bert-0 - {target}\n")
    config = ValidationConfig(str(corpus / "trials.csv"), str(tmp_path / "absent.map"))
    with pytest.raises(ConfigError, match="has no trial whose target is present"):
        ExtractionValidator(config, str(corpus), 16000)
