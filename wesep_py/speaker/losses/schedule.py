"""How a margin grows: late, when the speakers are roughly apart, and slowly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REMAINDER = 1e-3
"""Share of the way that the exponential increase leaves to its last step."""


@dataclass(frozen=True)
class MarginSchedule:
    """A margin that waits, grows and stays, as a function of the step alone.

    Args:
        start_step: the margin is `initial` up to this step, 0 or more.
        end_step: from this step on it is the loss's own margin; `start_step` or more.
        initial: the margin before.
        increase: `exponential`: the share of the way done is `1 − 0.001^r`, r from 0 to 1 between the two steps,
            steep at first; `linear`: it is r.

    Raises:
        ValueError: steps or a margin out of range.

    Both increases are those of WeSpeaker's recipes, which there take the epochs 20 to 40 of 150 (Wang et al.,
    "WeSpeaker: a research and production oriented speaker embedding learning toolkit", ICASSP 2023).

    >>> schedule = MarginSchedule(start_step=100, end_step=200, increase="linear")
    >>> [schedule.margin_at(step, 0.2) for step in (0, 150, 1000)]
    [0.0, 0.1, 0.2]
    """

    start_step: int = 0
    end_step: int = 0
    initial: float = 0.0
    increase: Literal["exponential", "linear"] = "exponential"

    def __post_init__(self) -> None:
        if self.start_step < 0 or self.end_step < self.start_step:
            raise ValueError(
                f"start_step and end_step: are {self.start_step} and {self.end_step}; "
                "0 <= start_step <= end_step is allowed"
            )
        if self.initial < 0:
            raise ValueError(f"initial: is {self.initial}; a margin of 0 or more is allowed")

    def margin_at(self, step: int, final: float) -> float:
        """The margin at a step, on its way to `final`."""
        if step >= self.end_step:
            return final
        if step <= self.start_step:
            return self.initial
        done = (step - self.start_step) / (self.end_step - self.start_step)
        if self.increase == "exponential":
            done = 1.0 - REMAINDER**done
        return self.initial + (final - self.initial) * done
