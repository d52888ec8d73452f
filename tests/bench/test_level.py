"""`bench/level.py`, on a network whose level is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import bench.level
from wesep_py.network.extraction_network import NetworkOutput


@pytest.mark.parametrize("there", [True, False])
def test_the_level_is_the_networks_corrected_or_fitted(monkeypatch: pytest.MonkeyPatch, there: bool):
    mixture = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    reference = mixture if there else np.zeros_like(mixture)
    trial = SimpleNamespace(mixture=mixture, enrollment=mixture, reference=reference)
    monkeypatch.setattr(bench.level, "render_trial", lambda *given: trial)
    network = SimpleNamespace(
        prepare=lambda enrollment: {}, extract=lambda heard, prepared: NetworkOutput((0.1 * heard,))
    )
    found = bench.level.levels(SimpleNamespace(network=network, sample_rate=16000), None, "clean")
    assert found == pytest.approx([-20.0, -14.0, 0.0], abs=0.02)
