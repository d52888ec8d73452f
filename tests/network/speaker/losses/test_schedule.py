from __future__ import annotations

import math

import pytest

from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.speaker_losses import AAMSoftmax, AMSoftmax, MarginSchedule, SphereFace2


def test_exponential_increase():
    """The public schedule: 1 − exp(r · log 0.001), steep at first, at the margin from the last step on."""
    schedule = MarginSchedule(start_step=1000, end_step=3000, initial=0.1)
    for step in (1200, 2000, 2999):
        share = 1 - math.exp((step - 1000) / 2000 * math.log(1e-3))
        assert schedule.margin_at(step, 0.5) == pytest.approx(0.1 + 0.4 * share, rel=1e-12)
    assert [schedule.margin_at(step, 0.5) for step in (0, 1000, 3000, 10**6)] == [0.1, 0.1, 0.5, 0.5]
    margins = [schedule.margin_at(step, 0.5) for step in range(0, 4000, 50)]
    assert margins == sorted(margins)


def test_linear_increase_and_a_step():
    schedule = MarginSchedule(10, 20, increase="linear")
    assert [schedule.margin_at(step, 0.2) for step in (10, 15, 20)] == pytest.approx([0.0, 0.1, 0.2])
    sudden = MarginSchedule(10, 10)
    assert [sudden.margin_at(step, 0.2) for step in (9, 10)] == [0.0, 0.2]


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax, SphereFace2])
def test_the_margin_of_a_loss_follows_from_the_step_alone(kind):
    schedule = MarginSchedule(10, 20, increase="linear")
    loss = kind(4, 3, margin=0.2, schedule=schedule)
    assert loss.current_margin == 0.0
    loss.update(15)
    assert loss.current_margin == pytest.approx(0.1)
    resumed = kind(4, 3, margin=0.2, schedule=schedule)
    resumed.load_state_dict(loss.state_dict())
    resumed.update(15)
    assert resumed.current_margin == loss.current_margin
    assert "margin" not in " ".join(loss.state_dict())
    loss.update(5)
    assert loss.current_margin == 0.0


def test_the_penalty_grows_with_the_margin():
    loss = AAMSoftmax(4, 3, margin=0.2, num_hard=1, hard_penalty=0.06, schedule=MarginSchedule(0, 10, 0.0, "linear"))
    penalties = []
    for step in (0, 5, 10):
        loss.update(step)
        penalties.append(loss.current_penalty)
    assert penalties == pytest.approx([0.0, 0.03, 0.06])


def test_impossible_schedules():
    with pytest.raises(ValueError, match="start_step <= end_step"):
        MarginSchedule(20, 10)
    with pytest.raises(ValueError, match=r"initial: is -0\.1"):
        MarginSchedule(initial=-0.1)
    with pytest.raises(ConfigError, match="increase"):
        construct(MarginSchedule, {"increase": "cosine"}, "schedule")
