"""Where the time of a mixture goes: processor time by stage, each second counted for the innermost stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

from wesep_py.data import FileReader, PackedReader, RoutedReader
from wesep_py.simulation import rendering, simulator
from wesep_py.simulation.rooms import reverberation
from wesep_py.simulation.speech import speaker_pool

STAGES: dict[str, list[tuple[Any, str]]] = {
    "draw": [(simulator.Simulator, "_draw")],
    "read": [(kind, name) for kind in (FileReader, PackedReader, RoutedReader) for name in ("read", "length")],
    "rooms": [(responses, "room_responses")],
    "convolution": [(responses, "reverberate")],
    "noise": [(rendering, "render_noise")],
    "effects": [(rendering, "apply_effects"), (rendering, "_through_effects")],
    "levels": [(module, "active_level_db") for module in (speaker_pool, rendering)] + [(simulator, "set_levels")],
    "enrollment": [(rendering, "render_enrollment")],
    "sum, activity": [(simulator, "assemble")],
}
"""What each stage is made of: functions, by where they are looked up."""


class StageClock:
    """Seconds of processor time by stage, of what is called while it is installed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Count what the functions of the stages take."""
        with ExitStack() as patches:
            for stage, functions in STAGES.items():
                for owner, name in functions:
                    timed = self._timed(stage, getattr(owner, name))
                    patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*positional: Any, **named: Any) -> Any:
            self._go_to(stage)
            try:
                return function(*positional, **named)
            finally:
                self._go_to(None)

        return run

    def _go_to(self, stage: str | None) -> None:
        """Enter a stage; `None` leaves the one that is running."""
        now = time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        if stage is None:
            self._running.pop()
        else:
            self._running.append(stage)
        self._since = now
