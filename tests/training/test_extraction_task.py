"""Items, batches and losses of an extractor: absent targets, weighted sum, margin loss as a second task."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.common.errors import ConfigError
from wesep_py.data import FileReader, read_speaker_folders
from wesep_py.simulation import Sample, SimulationConfig, Simulator
from wesep_py.simulation.description.simulation_config import EnrollmentConfig
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.batches import ENROLLMENT_MULTIPLE, SimulatedMixtures
from wesep_py.training.extraction_task import Criterion, collate_targets, target_items
from wesep_py.training.state import load_state

all_target_items = partial(target_items, targets="all")
LABELS = {"anna": 0, "bert": 1, "carl": 2, "dora": 3}


def test_each_speaker_or_only_the_recipes_target_is_an_item(simulator: Simulator):
    recipe = simulator.draw(0, 4)
    all_items = SimulatedMixtures(simulator, LABELS, all_target_items)[0, 4]
    assert [item["speaker"] for item in all_items] == [LABELS[source.speaker_id] for source in recipe.sources]
    total = sum(item["target"] for item in all_items)
    np.testing.assert_allclose(total, all_items[0]["mixture"], atol=1e-6)
    (item,) = SimulatedMixtures(simulator, LABELS, target_items)[0, 4]
    assert item["speaker"] == LABELS[recipe.sources[recipe.target].speaker_id]
    np.testing.assert_array_equal(item["target"], all_items[recipe.target]["target"])
    np.testing.assert_array_equal(item["enrollment"], all_items[recipe.target]["enrollment"])


@pytest.fixture(scope="module")
def absent_sample(tiny_speech: Path) -> Sample:
    """Return a mixture with an absent target."""
    config = SimulationConfig(
        duration_s=1.0,
        min_source_s=0.5,
        num_speakers=3,
        enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)),
        absent_probability=1.0,
    )
    return Simulator(config, read_speaker_folders(tiny_speech), [], FileReader(16000), seed=3).sample(0, 0)


def test_an_absent_target_is_silence_with_an_enrollment(absent_sample: Sample):
    (item,) = target_items(absent_sample, LABELS)
    absent = absent_sample.recipe.absent.speaker_id
    assert absent not in {source.speaker_id for source in absent_sample.recipe.sources}
    assert (item["present"], item["speaker"]) == (0, LABELS[absent])
    np.testing.assert_array_equal(item["mixture"], absent_sample.mixture)
    assert item["enrollment"].any()
    assert item["target"].shape == absent_sample.mixture.shape and not item["target"].any()
    assert item["activity"].shape == absent_sample.activity[0].shape and not item["activity"].any()
    every = target_items(absent_sample, LABELS, "all")
    assert [item["present"] for item in every] == [1, 1, 1, 0] and every[-1]["speaker"] == LABELS[absent]
    batch = collate_targets([every])
    assert batch["present"].tolist() == [1, 1, 1, 0] and not batch["target"][3].any()


def test_each_loss_accepts_absent_targets(absent_sample: Sample):
    batch = collate_targets([target_items(absent_sample, LABELS, "all")])
    for names in (
        ["thresholded_sdr", "multi_resolution_spectral", "absent_energy", "presence"],
        ["si_sdr", "snr", "sd_sdr"],
    ):
        waveforms = (0.5 * batch["mixture"]).requires_grad_()
        logits = torch.zeros(4, 63, requires_grad=True)
        output = SimpleNamespace(waveforms=(waveforms,), presence_logits=logits, speaker_logits=None)
        losses = Criterion([{"name": name} for name in names])(output, batch)
        losses["loss"].backward()
        assert all(value.isfinite() for value in losses.values()) and waveforms.grad.isfinite().all()
        assert (waveforms.grad[3] != 0).any() == ("absent_energy" in names)


def test_collate_pads_at_the_end_and_gives_lengths():
    def item(samples: int, enrollment: int, label: int) -> dict:
        return {
            "mixture": np.full(samples, 2.0, np.float32), "target": np.ones(samples, np.float32),
            "enrollment": np.ones(enrollment, np.float32), "activity": np.array([True, False]), "present": 1,
            "speaker": label,
        }  # fmt: skip

    batch = collate_targets([[item(4, 3, 7), item(4, 5, 8)], [item(2, 1, 9)]])
    assert batch["mixture"].tolist() == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 0, 0]]
    assert batch["enrollment"].sum(1).tolist() == [3, 5, 1] and batch["enrollment"].shape == (3, ENROLLMENT_MULTIPLE)
    assert batch["enrollment_lengths"].tolist() == [3, 5, 1]
    longer = collate_targets([[item(4, ENROLLMENT_MULTIPLE + 1, 7)]])["enrollment"]
    assert longer.shape == (1, 2 * ENROLLMENT_MULTIPLE)
    assert batch["speaker"].tolist() == [7, 8, 9] and batch["speaker"].dtype == torch.int64
    assert batch["present"].tolist() == [1, 1, 1]
    assert batch["activity"].tolist() == [[1, 0]] * 3
    assert {batch[key].dtype for key in ("mixture", "target", "enrollment", "activity")} == {torch.float32}


def estimate(error: float) -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    orthogonal = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    return SimpleNamespace(waveforms=(target + error * orthogonal,)), {"target": target}


def test_one_loss_is_the_sum():
    values = Criterion({"name": "si_sdr"})(*estimate(0.1))
    assert values["loss"].item() == values["si_sdr"].item() == pytest.approx(-20.0, abs=1e-3)


def test_weighted_sum_of_named_losses():
    values = Criterion([{"name": "si_sdr"}, {"name": "si_sdr", "weight": 0.5}])(*estimate(0.1))
    assert values.keys() == {"loss", "si_sdr", "si_sdr_1"}
    assert values["si_sdr_1"].item() == pytest.approx(-20.0, abs=1e-3)
    assert values["loss"].item() == pytest.approx(-30.0, abs=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "loss: is an empty list"),
        ({"name": "si_snr"}, "loss: no loss is called 'si_snr'; did you mean 'si_sdr'"),
        ([{"name": "si_sdr"}, {"name": "si_sdr", "weight": 0}], r"loss\[1\]\.weight: is 0.0; it must be above 0"),
        ({"name": "si_sdr", "weight": "much"}, r"loss\.weight: is 'much'; a number is needed"),
        ({"name": "si_sdr", "limit": 3}, r"loss\.limit: unknown key"),
        ({}, r"loss: needs a key 'name'"),
    ],
)
def test_impossible_losses_are_refused(config, message: str):
    with pytest.raises(ConfigError, match=message):
        Criterion(config)


MARGIN = {
    "name": "speaker_margin", "weight": 0.5,
    "loss": {"name": "aam", "schedule": {"start_step": 0, "end_step": 4, "increase": "linear"}},
}  # fmt: skip
MARGIN_LOSSES = [{"name": "si_sdr"}, MARGIN]
CLASS_VECTORS = "criterion.terms.1.loss.losses.aam.weight"


def class_vectors(experiment: Path) -> torch.Tensor:
    return load_state(experiment / "state").model[CLASS_VECTORS]


def test_class_vectors_resume_exactly_but_are_in_no_checkpoint(settings, tmp_path: Path, monkeypatch):
    unbroken = settings(experiment=str(tmp_path / "unbroken"), loss=MARGIN_LOSSES, train__steps=4, log__every_steps=1)
    train(unbroken)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train(settings(loss=MARGIN_LOSSES, train__steps=4))
    begun = class_vectors(tmp_path / "exp")
    train(settings(loss=MARGIN_LOSSES, train__steps=4))
    assert class_vectors(tmp_path / "exp").shape == (4, 16)  # the corpus's four speakers
    assert torch.equal(class_vectors(tmp_path / "exp"), class_vectors(tmp_path / "unbroken"))
    assert not torch.equal(class_vectors(tmp_path / "exp"), begun)
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    assert not any("criterion" in key or "aam" in key for key in weights(tmp_path / "exp"))
    assert all(record["speaker_margin"] > 0 for record in lines(tmp_path / "unbroken", "train"))


def test_fine_tuning_on_another_number_of_speakers(settings, corpus: Path, tmp_path: Path):
    train(settings(experiment=str(tmp_path / "base"), loss=MARGIN_LOSSES, train__steps=2))
    some = [line for line in (corpus / "train.jsonl").read_text().splitlines() if "dora" not in line]
    (tmp_path / "some.jsonl").write_text("\n".join(some) + "\n")
    tuned = settings(
        loss=MARGIN_LOSSES, train__steps=1, optim__lr=1e-9, init={"checkpoint": str(tmp_path / "base"), "strict": True},
        data__train=[str(tmp_path / "some.jsonl")],
    )  # fmt: skip
    train(tuned)
    assert class_vectors(tmp_path / "exp").shape == (3, 16)
    for key, value in weights(tmp_path / "base", "average").items():
        if value.is_floating_point() and "running" not in key:
            torch.testing.assert_close(weights(tmp_path / "exp")[key], value)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"model__speaker": None, "model__cues": [{"name": "tf_map"}]}, "'speaker_margin' needs the embedding"),
        ({"model__cues": [{"name": "tf_map"}]}, "'speaker_margin' needs the embedding"),
        ({"loss": [{**MARGIN, "loss": {"name": "aamm"}}]}, r"speaker_margin\.loss\[0\]: no speaker loss is called"),
        ({"loss": [{**MARGIN, "speaker_loss": 3}]}, r"loss\[0\]\.speaker_loss: unknown key"),
    ],
)
def test_margin_loss_refusals(settings, replaced: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        train(settings(**{"loss": MARGIN_LOSSES, **replaced}))


def test_a_frozen_encoder_is_refused(settings, tmp_path: Path):
    train(settings(experiment=str(tmp_path / "base"), train__steps=1))
    mapping = settings(loss=MARGIN_LOSSES)
    mapping["model"]["speaker"] |= {"mode": "frozen", "checkpoint": str(tmp_path / "base")}
    with pytest.raises(ConfigError, match=r"speaker\.mode is 'frozen'"):
        train(mapping)


def test_cross_entropy_knows_the_number_of_speakers_before_training(settings):
    cues = [{"name": "embedding", "num_speakers": 3}]
    with pytest.raises(ConfigError, match="num_speakers is 3, and the training set has 4 speakers"):
        train(settings(loss=[{"name": "si_sdr"}, {"name": "speaker_cross_entropy"}], model__cues=cues))


PRESENCE_LOSSES = [
    {"name": "thresholded_sdr"},
    {"name": "multi_resolution_spectral", "weight": 0.3, "window_lengths": [256, 512]},
    {"name": "absent_energy"},
    {"name": "presence", "weight": 0.2},
]


def test_present_and_absent_targets_are_learned_together(settings, tmp_path: Path):
    result = train(
        settings(
            loss=PRESENCE_LOSSES, simulation__absent_probability=0.5, simulation__num_speakers=2,
            model__presence={"hidden": 4}, train__steps=6, train__batch_size=4, log__every_steps=1,
        )
    )  # fmt: skip
    logged = lines(tmp_path / "exp", "train")
    names = [loss["name"] for loss in PRESENCE_LOSSES]
    assert result.skipped == 0 and all(math.isfinite(line[name]) for line in logged for name in names)
    for line in logged:
        total = sum(loss.get("weight", 1.0) * line[loss["name"]] for loss in PRESENCE_LOSSES)
        assert abs(line["loss"] - total) < 1e-3 * max(1.0, abs(total))
    assert any(line["absent_energy"] != 0 for line in logged) and any(line["thresholded_sdr"] != 0 for line in logged)
    assert any(key.startswith("presence.") for key in weights(tmp_path / "exp"))
