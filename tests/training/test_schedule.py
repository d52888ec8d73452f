"""Known values of the learning rate's schedules."""

from __future__ import annotations

import pytest

from wesep_py.training.optimisation import learning_rate_factor, schedule_progress
from wesep_py.training.training_config import ScheduleConfig


@pytest.mark.parametrize(
    ("name", "done", "expected"),
    [
        ("constant", 0.7, 1.0),
        ("exponential", 0.0, 1.0),
        ("exponential", 0.5, 0.1),
        ("exponential", 1.0, 0.01),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.505),
        ("cosine", 1.0, 0.01),
        ("triangular", 0.0, 0.01),
        ("triangular", 0.25, 0.505),
        ("triangular", 0.5, 1.0),
        ("triangular", 1.0, 0.01),
    ],
)
def test_decay(name: str, done: float, expected: float):
    config = ScheduleConfig(name, warmup_steps=0, final_lr_ratio=0.01)
    assert learning_rate_factor(config, 10, done) == pytest.approx(expected)


def test_warm_up_is_linear_and_reaches_one():
    config = ScheduleConfig("constant", warmup_steps=4)
    assert [learning_rate_factor(config, step, 0.0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_progress_is_by_steps_or_by_time_whichever_is_further():
    assert schedule_progress(25, 100) == 0.25
    assert schedule_progress(25, 100, elapsed_s=60, max_minutes=2) == 0.5
    assert schedule_progress(75, 100, elapsed_s=60, max_minutes=2) == 0.75
    assert schedule_progress(0, 100, elapsed_s=1e6, max_minutes=2) == 1.0
    assert schedule_progress(25, 100, elapsed_s=1e6) == 0.25


def test_triangles_follow_each_other():
    config = ScheduleConfig("triangular", warmup_steps=0, final_lr_ratio=0.2, cycles=4)
    factors = [learning_rate_factor(config, 0, done / 8) for done in range(9)]
    assert factors == pytest.approx([0.2, 1.0] * 4 + [0.2])


def test_a_plateau_lets_it_fall_down_to_the_last_ratio():
    config = ScheduleConfig("plateau", warmup_steps=0, final_lr_ratio=0.2, plateau_factor=0.5)
    assert [learning_rate_factor(config, 9, 0.5, falls) for falls in range(4)] == [1.0, 0.5, 0.25, 0.2]
