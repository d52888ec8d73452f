"""`bench/live_peers.py`: the rendered folders, a stream of our own, and a package whose delay is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import wesep_py
from bench import live_peers
from wesep_py import checkpoint
from wesep_py.network.extraction_network import build_network

LIVE = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "live": True, "norm": "frame"},
    "cues": [{"name": "tf_map"}],
}
TRIALS = (("anna", "bert"), ("bert", "carl"), ("carl", "dora"), ("dora", "anna"))


@pytest.fixture(scope="module")
def lists(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a list of four mixtures, its map of four trials with and one without their target, and noise."""
    folder = tmp_path_factory.mktemp("lists")
    noise = np.random.default_rng(0).standard_normal(16000)
    soundfile.write(folder / "noise.wav", 0.1 * noise, 16000)
    rows = ["mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"]
    lines = []
    for target, other in TRIALS:
        sources = f"{tiny_speech}/{target}/{target}-0.wav,0.5,{tiny_speech}/{other}/{other}-1.wav,0.8"
        rows.append(f"{target}-0_{other}-1,{sources},{folder}/noise.wav,0.5")
        lines.append(f"{target}-0_{other}-1 {target}-0 {tiny_speech}/{target}/{target}-2.wav")
    lines.insert(0, f"anna-0_bert-1 - {tiny_speech}/dora/dora-2.wav")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    (folder / "list.map").write_text("\n".join(lines) + "\n")
    return folder


def prepared(lists: Path, out: Path, *options: str) -> Path:
    words = ["--trials", str(lists / "list.csv"), "--enrollment", str(lists / "list.map"), "-o", str(out)]
    live_peers.main(["prepare", *words, *options])
    return out


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def test_prepare_spreads_trials_with_their_targets(lists: Path, tiny_speech: Path, tmp_path: Path):
    folder = prepared(lists, tmp_path / "noisy", "--limit", "2", "--condition", "noisy")
    assert [line.split()[0] for line in (folder / "trials.map").read_text().splitlines()] == [
        "anna-0_bert-1",
        "dora-0_anna-1",
    ]
    for kind in ("mix", "s", "other", "enroll"):
        assert [path.name for path in sorted((folder / kind).iterdir())] == ["0000.wav", "0001.wav"]
    target, other = samples(folder / "s" / "0001.wav"), samples(folder / "other" / "0001.wav")
    np.testing.assert_allclose(target, 0.5 * samples(tiny_speech / "dora" / "dora-0.wav"), atol=1e-6)
    noise = samples(folder / "mix" / "0001.wav") - target - other
    assert 0.03 < noise.std() < 0.07
    np.testing.assert_array_equal(samples(folder / "enroll" / "0001.wav"), samples(tiny_speech / "dora" / "dora-2.wav"))


def test_our_stream_is_the_live_mode_and_can_be_scored(lists: Path, tmp_path: Path, wesep):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    network = build_network(LIVE)
    model = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    folder, out = prepared(lists, tmp_path / "clean"), tmp_path / "estimates"
    live_peers.main(["run", "--system", "wesep", "--model", str(model), str(folder), "-o", str(out)])

    extractor = wesep_py.load(model, "cpu", live=True)
    voice = extractor.enroll((samples(folder / "enroll" / "0002.wav"), 16000))
    mixture = samples(folder / "mix" / "0002.wav")
    expected = extractor.extract((mixture, 16000), voice).waveform
    estimate, ran = samples(out / "0002.wav"), json.loads((out / "run.json").read_text())
    moved = np.roll(expected.reshape(-1), -ran["shift"])  # random weights: SI-SDR may prefer a shift
    np.testing.assert_allclose(estimate[800:-800], moved[800:-800], atol=1e-5)
    assert (ran["recordings"], ran["documented_shift"], ran["block_ms"]) == (4, 0, 8.0)
    assert ran["delay_ms"] - 1000 * ran["shift"] / 16000 == pytest.approx(extractor.stream(voice).delay / 16, abs=0.1)

    assert wesep("export", model, "--stream", "-o", tmp_path / "onnx").status == 0
    exported = tmp_path / "exported"
    live_peers.main(
        ["run", "--system", "wesep_onnx", "--model", str(tmp_path / "onnx"), str(folder), "-o", str(exported)]
    )
    np.testing.assert_allclose(samples(exported / "0002.wav"), estimate, atol=1e-4)

    options = ("--mixture", folder / "mix", "--interferers", folder / "other", "-o", tmp_path / "results")
    assert wesep("score", "--reference", folder / "s", "--estimate", out, *options).status == 0
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["si_sdri"]["count"] == summary["confusion"]["count"] == 4


class Late:
    """Package that returns its input 300 samples late, and documents 280."""

    package, block, shift = "late 1.0", 160, 280

    def start(self, enrollment: np.ndarray) -> None:
        self.waiting = np.zeros(300, np.float32)

    def process(self, block: np.ndarray) -> np.ndarray:
        self.waiting = np.concatenate([self.waiting, block])
        returned, self.waiting = self.waiting[: block.size], self.waiting[block.size :]
        return returned

    def finish(self) -> np.ndarray:
        return self.waiting


def test_a_delay_that_is_documented_wrongly_costs_nothing(lists: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(live_peers.SYSTEMS, "late", lambda model: Late())
    folder = prepared(lists, tmp_path / "clean")
    live_peers.main(["run", "--system", "late", str(folder), "-o", str(tmp_path / "out")])
    ran = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (ran["shift"], ran["shift_against_mixture"], ran["documented_shift"]) == (300, 300, 280)
    assert ran["si_sdr_db"] > ran["si_sdr_db_documented_shift"] + 1
    assert ran["delay_ms"] == (300 + 160 - 1) / 16  # the first sample of a block waits for the last one
    np.testing.assert_array_equal(samples(tmp_path / "out" / "0000.wav"), samples(folder / "mix" / "0000.wav"))


def test_si_sdr_by_shift_agrees_with_the_metric():
    from wesep_py.metrics.separation import si_sdr

    rng = np.random.default_rng(0)
    reference = rng.standard_normal(500)
    output = 0.1 + np.pad(reference, (7, 0)) + 0.5 * rng.standard_normal(507)
    curve = live_peers.si_sdr_by_shift(output, reference, range(-20, 30))
    padded = np.pad(output, (20, 60))
    for index, shift in enumerate(range(-20, 30)):
        assert curve[index] == pytest.approx(float(si_sdr(padded[20 + shift :][:500], reference)), abs=1e-4)
