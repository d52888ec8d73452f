from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from wesep_py.metrics import MetricError
from wesep_py.metrics.perception import dnsmos

NOISE = np.random.default_rng(0).standard_normal(16000)


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Replace the package by a stand-in that records its arguments."""
    seen: list[tuple] = []

    def run(sample, sr, model_type="dnsmos"):
        seen.append((sample, sr, model_type))
        return {"ovrl_mos": 3.0, "sig_mos": 3.5, "bak_mos": np.float32(4.0), "p808_mos": 2.5, "filename": "x"}

    package = types.ModuleType("speechmos")
    package.dnsmos = types.SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "speechmos", package)
    return seen


def test_the_four_opinions_of_the_network_that_was_asked_for(calls):
    assert dnsmos(0.1 * NOISE, 16000) == {"ovrl": 3.0, "sig": 3.5, "bak": 4.0, "p808": 2.5}
    dnsmos(0.1 * NOISE, 16000, personalised=True)
    assert [call[1:] for call in calls] == [(16000, "dnsmos"), (16000, "dnsmos_personalized")]
    np.testing.assert_allclose(calls[0][0], 0.1 * NOISE, atol=1e-6)


def test_too_loud_a_signal_is_scaled_to_full_scale(calls):
    dnsmos(10 * NOISE, 16000)
    assert np.abs(calls[0][0]).max() == pytest.approx(1.0)
    np.testing.assert_allclose(calls[0][0], NOISE / np.abs(NOISE).max(), atol=1e-6)


def test_reasons(calls, monkeypatch):
    with pytest.raises(MetricError, match="not at 8000 Hz"):
        dnsmos(NOISE, 8000)
    with pytest.raises(MetricError, match="silent"):
        dnsmos(np.zeros(16000), 16000)
    monkeypatch.setitem(sys.modules, "speechmos", None)
    with pytest.raises(MetricError, match=r"speechmos cannot be imported .*pip install 'wesep-py\[mos\]'"):
        dnsmos(NOISE, 16000)


def test_what_the_package_itself_lacks_is_named(tmp_path, monkeypatch):
    """speechmos declares none of its dependencies, so that pip may install it without them."""
    (tmp_path / "speechmos").mkdir()
    (tmp_path / "speechmos" / "__init__.py").write_text("")
    (tmp_path / "speechmos" / "dnsmos.py").write_text("import librosa_that_is_not_there\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "speechmos"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MetricError, match="No module named 'librosa_that_is_not_there'"):
        dnsmos(NOISE, 16000)
    for name in [name for name in sys.modules if name.partition(".")[0] == "speechmos"]:
        del sys.modules[name]


def test_a_crash_of_the_network_is_a_reason(calls):
    def crash(*arguments, **named):
        raise RuntimeError("no\nmemory")

    sys.modules["speechmos"].dnsmos.run = crash
    with pytest.raises(MetricError, match="RuntimeError: no memory"):
        dnsmos(NOISE, 16000)


def test_the_package_itself_where_it_is_installed():
    pytest.importorskip("speechmos")
    clean = np.concatenate([np.hanning(2000) * np.sin(np.arange(2000) / 5), np.zeros(2000)] * 40)
    opinions = dnsmos(0.3 * clean, 16000)
    assert all(1.0 <= opinion <= 5.0 for opinion in opinions.values())
