"""`bench/presence_by_length.py`, with a model whose answer is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.joined_trials import PresentTrial, concatenate_to, mixtures_without, read_present_trials
from bench.presence_by_length import POOLINGS, Tracks, auc, report, scores, tracks_of
from wesep_py.common.errors import InputError
from wesep_py.inference import Calibration, Presence

RATE, STRIDE = 1000, 20


class LevelModel:
    """Model that detects a voice by its level: a frame's logit is high if its samples equal those of the enrollment."""

    sample_rate, name = RATE, "level"

    def enroll(self, source):
        return source[0][0]

    def extract(self, mixture, voice):
        frames = mixture[0][: len(mixture[0]) // STRIDE * STRIDE].reshape(-1, STRIDE)
        logits = 10 * (np.isclose(frames, voice).mean(axis=1) - 0.5).astype(np.float32)
        return SimpleNamespace(detection=Presence(0.0, logits, STRIDE / RATE))


def trial_of(number: int, speakers: tuple[str, ...], duration_s: float = 2.0) -> PresentTrial:
    level = np.full(round(duration_s * RATE), float(number), dtype=np.float32)
    audio = SimpleNamespace(mixture=level, enrollment=level[:10], reference=level)
    return PresentTrial(audio, speakers[0], frozenset(speakers))


TRIALS = [trial_of(1, ("a", "b")), trial_of(2, ("b", "c")), trial_of(3, ("c", "d")), trial_of(1, ("d", "a"))]


def test_voice_is_in_one_recording_and_not_in_the_other():
    tracks = tracks_of(LevelModel(), TRIALS[0], TRIALS, 60.0, seed=0)
    assert tracks.absent.max() < 0 and len(tracks.absent) == len(tracks.present) == 3000
    spoken_s = np.flatnonzero(tracks.present > 0) * tracks.frame_s
    assert spoken_s.min() == pytest.approx(tracks.at_s[0], abs=0.04)
    assert spoken_s.max() == pytest.approx(tracks.at_s[1], abs=0.04)
    assert tracks.at_s[1] - tracks.at_s[0] == pytest.approx(2.0)


def test_shorter_recordings_are_segments_of_the_long_one():
    logits = np.full(3000, -4.0, dtype=np.float32)
    present, spike = logits.copy(), logits.copy()
    present[1000:1100] = 4.0
    spike[50:75] = 2.0
    one = Tracks(spike, present, (20.0, 22.0), 0.02)
    for length_s, count in ((10.0, 6), (60.0, 1)):
        absent, there = scores([one], length_s, POOLINGS["0.5 s"])
        assert len(absent) == count and len(there) == 1 and there[0] == pytest.approx(4.0)
        assert sorted(absent)[-1] == pytest.approx(2.0) and sorted(absent)[0] == pytest.approx(-4.0 if count > 1 else 2)
    assert scores([one], 60.0, POOLINGS["2 s"])[0][0] < 0.0
    text = report([one], [10.0, 60.0], Calibration())
    assert "| 10 s | 16.7 % of 6 | 0.0 % of 1 |" in text and "| 60 s | 100.0 % of 1 |" in text
    assert "| 60 s | 2 s | 1.000 |" in text


def test_log_pooling_takes_more_frames_of_longer_recordings():
    log = POOLINGS["log"]
    assert (log(5.0), log(10.0), log(20.0)) == (0.5, 1.0, 1.5) and log(1.0) == 0.5
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


def test_recordings_are_made_of_mixtures_without_the_voice():
    rng = np.random.default_rng(0)
    assert {float(one[0]) for one in mixtures_without(TRIALS, "a", rng)} == {2.0, 3.0}
    assert len(concatenate_to([np.ones(3, np.float32), np.zeros(2, np.float32)], 12)) == 12
    with pytest.raises(InputError, match="speaks in all of the trials"):
        mixtures_without([TRIALS[0]], "a", rng)


def test_model_without_presence_head_is_refused():
    headless = LevelModel()
    headless.extract = lambda mixture, voice: SimpleNamespace(detection=None)
    with pytest.raises(InputError, match="has no presence head"):
        tracks_of(headless, TRIALS[0], TRIALS, 10.0, seed=0)


def test_present_trials_of_a_list(tiny_speech: Path, tmp_path: Path):
    names = ["anna/anna-0", "bert/bert-0", "carl/carl-0"]
    paths = [f"{tiny_speech}/{name}.wav" for name in names]
    rows = [f"m{i},{paths[i]},1,{paths[i - 1]},1" for i in range(3)]
    header = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\n"
    (tmp_path / "l.csv").write_text(header + "\n".join(rows) + "\n")
    lines = [f"m{i} {Path(paths[i]).stem} {paths[i]}" for i in range(3)]
    (tmp_path / "l.map_mixture2enrollment").write_text("\n".join(lines) + "\n")
    trials = read_present_trials(tmp_path / "l", None, 2, 16000)
    assert [trial.speaker for trial in trials] == ["anna", "carl"] and trials[0].speakers == {"anna", "carl"}
