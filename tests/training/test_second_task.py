"""A margin loss as second task of an extractor: what trains, what is saved, and fine-tuning on other speakers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.common.errors import ConfigError
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.state import load_state

MARGIN = {
    "name": "speaker_margin", "weight": 0.5,
    "loss": {"name": "aam", "schedule": {"start_step": 0, "end_step": 4, "increase": "linear"}},
}  # fmt: skip
LOSS = [{"name": "si_sdr"}, MARGIN]
CLASSES = "criterion.terms.1.loss.losses.aam.weight"


def classes(experiment: Path) -> torch.Tensor:
    return load_state(experiment / "state").model[CLASSES]


def test_it_resumes_exactly_and_its_classes_are_in_no_checkpoint(settings, tmp_path: Path, monkeypatch):
    unbroken = settings(experiment=str(tmp_path / "unbroken"), loss=LOSS, train__steps=4, log__every_steps=1)
    train(unbroken)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train(settings(loss=LOSS, train__steps=4))
    begun = classes(tmp_path / "exp")
    train(settings(loss=LOSS, train__steps=4))
    assert classes(tmp_path / "exp").shape == (4, 16)  # the corpus's four speakers
    assert torch.equal(classes(tmp_path / "exp"), classes(tmp_path / "unbroken"))
    assert not torch.equal(classes(tmp_path / "exp"), begun)
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    assert not any("criterion" in key or "aam" in key for key in weights(tmp_path / "exp"))
    assert all(record["speaker_margin"] > 0 for record in lines(tmp_path / "unbroken", "train"))


def test_fine_tuning_on_another_number_of_speakers(settings, corpus: Path, tmp_path: Path):
    train(settings(experiment=str(tmp_path / "base"), loss=LOSS, train__steps=2))
    some = [line for line in (corpus / "train.jsonl").read_text().splitlines() if "dora" not in line]
    (tmp_path / "some.jsonl").write_text("\n".join(some) + "\n")
    tuned = settings(
        loss=LOSS, train__steps=1, optim__lr=1e-9, init={"checkpoint": str(tmp_path / "base"), "strict": True},
        data__train=[str(tmp_path / "some.jsonl")],
    )  # fmt: skip
    train(tuned)
    assert classes(tmp_path / "exp").shape == (3, 16)
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
def test_what_is_refused(settings, replaced: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        train(settings(**{"loss": LOSS, **replaced}))


def test_a_frozen_encoder_is_refused(settings, tmp_path: Path):
    train(settings(experiment=str(tmp_path / "base"), train__steps=1))
    mapping = settings(loss=LOSS)
    mapping["model"]["speaker"] |= {"mode": "frozen", "checkpoint": str(tmp_path / "base")}
    with pytest.raises(ConfigError, match=r"speaker\.mode is 'frozen'"):
        train(mapping)


def test_speaker_cross_entropy_knows_the_number_of_speakers_before_the_first_step(settings):
    cues = [{"name": "embedding", "num_speakers": 3}]
    with pytest.raises(ConfigError, match="num_speakers is 3, and the training set has 4 speakers"):
        train(settings(loss=[{"name": "si_sdr"}, {"name": "speaker_cross_entropy"}], model__cues=cues))
