"""Scores by the definitions of WeSep, SpeakerBeam and ESPnet, against independent computations of theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import VOICES, make_voice
from tests.data.public_layouts import make_espnet, make_speakerbeam, make_wesep
from wesep_py.common.errors import InputError
from wesep_py.evaluation import ScoringOptions
from wesep_py.evaluation.protocols import PROTOCOLS, find_protocol
from wesep_py.evaluation.scoring import compute_metrics

RATE = 16000


@pytest.fixture(scope="module")
def signals() -> dict[str, np.ndarray]:
    """A target, an interferer, their mixture with an offset, and an estimate; float64 `[samples]`."""
    target, other = (
        make_voice(*VOICES[name], 3.0, seed).astype(np.float64) for seed, name in enumerate(("anna", "bert"))
    )
    mixture = target + other
    return {"target": target, "mixture": mixture, "estimate": 0.3 * (target + 0.2 * other) + 0.01}


def scored(signals: dict[str, np.ndarray], protocol: str | None, metrics: tuple[str, ...] = ("si_sdr",)) -> dict:
    scores = compute_metrics(
        signals["estimate"], signals["target"], RATE, metrics, signals["mixture"], (), protocol=protocol
    )
    assert not scores.missing
    return scores.values


def test_wesep_as_its_definition_in_float32(signals: dict[str, np.ndarray]):
    def si_snr(estimate: np.ndarray, reference: np.ndarray, eps: float = 1e-8) -> float:
        x, s = (np.asarray(v, np.float32) - np.mean(v, dtype=np.float32) for v in (estimate, reference))
        t = float((x * s).sum()) / (float((s * s).sum()) + eps) * s
        return 20 * float(np.log10(eps + np.sqrt((t**2).sum()) / (np.sqrt(((x - t) ** 2).sum()) + eps)))

    values = scored(signals, "wesep")
    expected = si_snr(signals["estimate"], signals["target"])
    assert values["si_sdr"] == pytest.approx(expected, abs=1e-3)
    assert values["si_sdri"] == pytest.approx(expected - si_snr(signals["mixture"], signals["target"]), abs=1e-3)
    assert values["accuracy"] == float(values["si_sdri"] > 1)


def test_speakerbeam_as_asteroid_computes_it(signals: dict[str, np.ndarray]):
    metrics = pytest.importorskip("asteroid.metrics")
    theirs = metrics.get_metrics(
        signals["mixture"][None].astype(np.float32),
        signals["target"][None].astype(np.float32),
        signals["estimate"][None].astype(np.float32),
        sample_rate=RATE,
        metrics_list=["si_sdr", "sdr", "stoi"],
    )
    values = scored(signals, "speakerbeam", ("si_sdr", "sdr", "stoi"))
    assert values["si_sdr"] == pytest.approx(theirs["si_sdr"], abs=1e-3)
    assert values["si_sdri"] == pytest.approx(theirs["si_sdr"] - theirs["input_si_sdr"], abs=1e-3)
    assert values["sdr"] == pytest.approx(theirs["sdr"], abs=1e-3)
    assert values["sdri"] == pytest.approx(theirs["sdr"] - theirs["input_sdr"], abs=1e-3)
    assert values["stoi"] == pytest.approx(theirs["stoi"], abs=1e-5)


def test_espnet_as_fast_bss_eval_and_mir_eval_compute_it(signals: dict[str, np.ndarray]):
    import fast_bss_eval
    from pystoi import stoi

    separation = pytest.importorskip("mir_eval.separation")
    est, ref = (torch.from_numpy(signals[name])[None].float() for name in ("estimate", "target"))
    theirs = -float(fast_bss_eval.si_sdr_loss(est=est, ref=ref, zero_mean=True, clamp_db=None, pairwise=False))
    values = scored(signals, "espnet", ("si_sdr", "sdr", "stoi"))
    assert values["si_sdr"] == pytest.approx(theirs, abs=1e-3)
    both = np.stack([signals["target"], signals["mixture"] - signals["target"]])
    estimates = np.stack([signals["estimate"], signals["mixture"] - signals["estimate"]])
    sdr, *_ = separation.bss_eval_sources(both, estimates, compute_permutation=False)
    assert values["sdr"] == pytest.approx(sdr[0], abs=1e-3)
    assert values["stoi"] == pytest.approx(100 * stoi(signals["target"], signals["estimate"], RATE), abs=1e-3)


def test_only_stoi_of_wesep_and_espnet_is_in_percent(signals: dict[str, np.ndarray]):
    stoi = {name: scored(signals, name, ("stoi",))["stoi"] for name in (None, *PROTOCOLS)}
    assert stoi["speakerbeam"] == stoi[None] < 1
    assert stoi["wesep"] == stoi["espnet"] == 100 * stoi[None]


@pytest.mark.parametrize(("protocol", "expected"), [(None, 0.0), ("wesep", -160.0), ("speakerbeam", -80.0)])
def test_silent_estimates_differ(signals: dict[str, np.ndarray], protocol: str | None, expected: float):
    silent = np.zeros_like(signals["target"])
    scores = compute_metrics(silent, signals["target"], RATE, ("si_sdr",), signals["mixture"], (), protocol=protocol)
    assert scores.values["si_sdr"] == pytest.approx(expected, abs=1e-6)


def test_espnet_has_no_value_for_a_silent_estimate(signals: dict[str, np.ndarray]):
    silent = np.zeros_like(signals["target"])
    scores = compute_metrics(silent, signals["target"], RATE, ("si_sdr",), signals["mixture"], (), protocol="espnet")
    assert "si_sdr" not in scores.values and "-inf" in scores.missing["si_sdr"]
    assert {"si_sdri", "accuracy"} <= scores.missing.keys()


def test_an_unknown_protocol_is_refused():
    with pytest.raises(InputError, match="protocol 'wesepp' is not known; did you mean 'wesep'"):
        ScoringOptions(protocol="wesepp")
    assert find_protocol(None) is None


LAYOUTS = {
    "wesep": (make_wesep, "dev", "dev"),
    "espnet": (make_espnet, "dev", "dev"),
    "speakerbeam": (make_speakerbeam, "dev/mixture_dev_mix_both.csv", "dev/map_mixture2enrollment"),
}


@pytest.mark.parametrize("protocol", LAYOUTS)
def test_data_of_each_project_is_scored_by_its_protocol(protocol: str, tmp_path: Path, wesep: Callable, monkeypatch):
    """The miniature of each project is extracted and scored; the summary says by which definitions."""
    make, trials, enrollment = LAYOUTS[protocol]
    data = make(tmp_path / "recipe")
    monkeypatch.chdir("/")
    ran = wesep(
        "evaluate", "--trials", data / trials, "--enrollment", data / enrollment, "--protocol", protocol,
        "--condition", "clean" if protocol == "wesep" else "noisy", "--metrics", "si_sdr,stoi", "--jobs", 0,
        "--save-audio", 4, "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert "scored as by" in ran.out and "are no targets" not in ran.err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["counts"]["scored"] == 4 and summary["protocol"]["scoring"]["name"] == protocol
    definitions = PROTOCOLS[protocol].definitions
    assert all(definitions.get(name, text) == text for name, text in summary["protocol"]["metrics"].items())
    rows = [json.loads(line) for line in (tmp_path / "out/per_trial.jsonl").read_text().splitlines()]
    for row, folder in zip(rows, sorted((tmp_path / "out/audio").iterdir()), strict=True):
        estimate, reference = (soundfile.read(folder / f"{name}.wav")[0] for name in ("estimate", "reference"))
        assert row["si_sdr"] == pytest.approx(PROTOCOLS[protocol].si_sdr(estimate, reference), abs=0.05)


def test_speakers_that_are_no_targets_are_counted(tmp_path: Path, wesep: Callable, caplog: pytest.LogCaptureFixture):
    data = make_speakerbeam(tmp_path / "recipe") / "dev"
    lines = (data / "map_mixture2enrollment").read_text().splitlines(keepends=True)
    (data / "map").write_text(lines[0])
    ran = wesep(
        "evaluate", "--trials", data / "mixture_dev_mix_both.csv", "--enrollment", data / "map",
        "--protocol", "wesep", "--jobs", 0, "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.status == 0 and "no targets of these trials: 1" in caplog.text


def test_files_made_elsewhere_are_scored_by_a_protocol(tmp_path: Path, wesep: Callable):
    data = make_wesep(tmp_path / "recipe").parents[1] / "Libri2Mix/wav16k/min/dev"
    ran = wesep(
        "score", "--reference", data / "s1", "--estimate", data / "mix_clean", "--mixture", data / "mix_clean",
        "--protocol", "espnet", "--metrics", "si_sdr,stoi", "--jobs", 0, "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["si_sdri"]["mean"] == 0 and summary["stoi"]["mean"] > 10


def test_all_formulas_agree_on_an_ordinary_estimate(signals: dict[str, np.ndarray]):
    values = [scored(signals, name)["si_sdr"] for name in (None, *PROTOCOLS)]
    assert max(values) - min(values) < 1e-3
