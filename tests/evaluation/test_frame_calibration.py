"""Histograms of frame logits in results, and the calibration that is fitted to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.evaluation.frame_calibration import (
    FrameCounts,
    calibrate_frames,
    fit_weighted,
    frame_histogram,
    read_frame_counts,
)
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.trial_extraction import completed_trial
from wesep_py.inference import Presence, Result

FRAME_S, RATE = 0.008, 16000


def presence(logits) -> Presence:
    return Presence(0.0, np.asarray(logits, dtype=np.float32), FRAME_S)


def half_spoken(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return silence in the first half and noise in the second."""
    voice = rng.standard_normal(round(seconds * RATE)).astype(np.float32)
    voice[: len(voice) // 2] = 0.0
    return voice


def test_frames_are_counted_where_the_target_speaks():
    voice = half_spoken(1.6, np.random.default_rng(0))
    logits = np.where(np.arange(200) < 100, -3.2, 4.1)
    output = frame_histogram(presence(logits), voice, RATE)
    assert output["lowest"] == -7 and len(output["active"]) == len(output["inactive"]) == 16
    # An activity frame is 20 ms, so that one frame beside the edge may count to the other side.
    assert output["inactive"][0] == pytest.approx(100, abs=2) and output["active"][-1] == pytest.approx(100, abs=2)
    assert sum(output["active"]) + sum(output["inactive"]) == 200
    absent = frame_histogram(presence(logits), None, RATE)
    assert sum(absent["active"]) == 0 and sum(absent["inactive"]) == 200


def test_a_histogram_stays_small_whatever_the_logits():
    output = frame_histogram(presence([-80.0, 1e6, 0.0]), None, RATE)
    assert output["lowest"] == -40 and len(output["inactive"]) == 80 and sum(output["inactive"]) == 3


def write(folder: Path, records: list[TrialRecord]) -> Path:
    folder.mkdir()
    (folder / "per_trial.jsonl").write_text("".join(json.dumps(one.to_dict()) + "\n" for one in records))
    return folder


def record(rng: np.random.Generator, scale: float, offset: float, absent: bool = False) -> TrialRecord:
    """Return a trial of 4 s whose frame logits become log odds by this scale and offset (unless `absent`)."""
    voice = half_spoken(4.0, rng)
    p = np.where(np.arange(500) < 250, 0.0, 1.0)
    # Of a logit drawn from either kind's normal distribution, the odds are linear in it.
    spread = 2.0
    logits = np.where(p > 0, spread, -spread) + spread * rng.standard_normal(500)
    one = TrialRecord("m", "t", "e.wav", outcome="absent" if absent else "scored")
    logits = -spread + spread * rng.standard_normal(500) if absent else logits
    given = presence((logits - offset) / scale)
    one.presence_frames = frame_histogram(given, None if absent else voice, RATE)
    return one


def test_the_scale_of_frames_is_found(tmp_path: Path):
    rng = np.random.default_rng(0)
    present = write(tmp_path / "present", [record(rng, 2.0, 0.7) for _ in range(60)])
    output = calibrate_frames([present])
    # Two normal distributions at ±2 with a spread of 2: log odds of 2·2/2² = 1 for each unit, before scale and offset.
    assert output.scale == pytest.approx(2.0, rel=0.05) and output.offset == pytest.approx(0.7, abs=0.1)
    assert output.frames == 30_000 and output.ece < 0.02 < output.ece_before
    absent = write(tmp_path / "absent", [record(rng, 2.0, 0.7, absent=True) for _ in range(20)])
    # As if half of the trials were absent: a quarter of the frames is spoken in, so the odds fall by a factor of three.
    assert calibrate_frames([present, absent]).offset == pytest.approx(0.7 - np.log(3), abs=0.1)
    # The same results again give the same: nothing of the model's calibration is in them.
    assert calibrate_frames([present]) == output


def test_weights_do_what_repetition_does():
    x, y = np.array([-1.0, 0.5, 0.2, 2.0]), np.array([0.0, 0.0, 1.0, 1.0])
    times = np.array([3, 1, 2, 1])
    repeated = fit_weighted(np.repeat(x, times), np.repeat(y, times), np.ones(7))
    np.testing.assert_allclose(fit_weighted(x, y, times), repeated, rtol=1e-6)


def test_results_without_frames_say_nothing(tmp_path: Path):
    old = write(tmp_path / "old", [TrialRecord("m", "t", "e.wav", presence=0.5)])
    assert read_frame_counts([old]) is None and calibrate_frames([old]) is None
    failed = record(np.random.default_rng(0), 1.0, 0.0)
    failed.outcome = "failed"
    assert read_frame_counts([write(tmp_path / "failed", [failed])]) is None
    with pytest.raises(InputError, match="no such file; make it with `wesep evaluate`"):
        calibrate_frames([tmp_path / "none"])


def test_what_cannot_be_fitted_is_said(tmp_path: Path):
    rng = np.random.default_rng(0)
    absent = write(tmp_path / "absent", [record(rng, 1.0, 0.0, absent=True)])
    with pytest.raises(InputError, match="with and without speech of the target are needed"):
        calibrate_frames([absent])
    turned = TrialRecord("m", "t", "e.wav")
    turned.presence_frames = frame_histogram(presence(np.repeat([3.0, -3.0], 250)), half_spoken(4.0, rng), RATE)
    with pytest.raises(InputError, match="do not rise with activity"):
        calibrate_frames([write(tmp_path / "turned", [turned])])


def test_both_kinds_of_trials_count_alike():
    ones = np.ones(4)
    active, inactive = FrameCounts(ones, ones, ones, 50 * ones).weighted()
    assert active.sum() == pytest.approx(0.25) and inactive.sum() == pytest.approx(0.75)
    active, inactive = FrameCounts(ones, ones, ones, 0 * ones).weighted()
    assert active.sum() == inactive.sum() == pytest.approx(0.5)


@pytest.mark.parametrize(("target_index", "sources", "said"), [(0, (1,), True), (None, (1,), True), (None, (), False)])
def test_an_evaluation_keeps_the_frames(target_index, sources, said):
    from types import SimpleNamespace

    voice = half_spoken(1.0, np.random.default_rng(0))
    trial = SimpleNamespace(
        mixture_id="m", target_utterance_id="t", enrollment=Path("e.wav"), sources=sources, target_index=target_index,
        target=None, groups={},
    )  # fmt: skip
    audio = SimpleNamespace(mixture=voice, reference=voice, interferers=voice[None], enrollment=voice)
    result = Result(voice, RATE, 0.5, detection=presence(np.zeros(125)))
    kept = completed_trial(trial, audio, result, RATE, 0.1).record
    assert (kept.presence_frames is not None) is said
    if said:
        assert bool(sum(kept.presence_frames["active"])) is (target_index is not None)
        assert TrialRecord.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
