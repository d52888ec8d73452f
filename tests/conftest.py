"""Fixtures of all tests: shared data where it exists, tiny speech, a tiny model, the command line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
SAMPLE_RATE = 16000

# Fundamental frequency and three formants of each synthetic speaker in Hz, far apart.
VOICES = {
    "anna": (220.0, (850.0, 1700.0, 2900.0)),
    "bert": (105.0, (600.0, 1150.0, 2400.0)),
    "carl": (150.0, (420.0, 2000.0, 2600.0)),
    "dora": (290.0, (700.0, 2300.0, 3300.0)),
}


def pytest_configure() -> None:
    """Handle Ctrl-C as in a terminal: a shell starts background jobs with it ignored, which children would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the shared folder {name!r} is not beside the checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _empty_model_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give all tests, and the processes that they start, an empty model store, whatever the user has installed."""
    before = os.environ.get("WESEP_HOME")
    os.environ["WESEP_HOME"] = str(tmp_path_factory.mktemp("home") / "wesep")
    yield
    if before is None:
        del os.environ["WESEP_HOME"]
    else:
        os.environ["WESEP_HOME"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings and trial lists beside the checkout; without it, tests that need it are skipped."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_parity() -> Path:
    """Folder of reference outputs of the public implementations; without it, tests that need it are skipped."""
    return _shared("parity")


@pytest.fixture
def bfloat16_lstm() -> None:
    """Skip a test that needs an LSTM in bfloat16 if the processor cannot compute it."""
    from wesep_py.common.half_precision import unsupported

    if problem := unsupported("cpu", ("lstm",)):
        pytest.skip(problem)


@dataclass(frozen=True)
class Ran:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The only line on stderr; fails if there are more, or a traceback."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, f"one line was expected: {self.err}"
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def wesep(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process: `wesep("extract", path, "--enroll", other).status`."""
    from wesep_py.cli.main import main

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


def make_voice(f0_hz: float, formants_hz: tuple[float, ...], duration_s: float, seed: int) -> np.ndarray:
    """Synthesise a voice: harmonics of a varying fundamental frequency, shaped by formants, in syllables with pauses.

    Args:
        f0_hz: mean fundamental frequency in Hz.
        formants_hz: centres of the resonances in Hz.
        duration_s: length in seconds.
        seed: two seeds give two utterances of the same voice.

    Returns:
        float32 [samples] at 16 kHz, peak 0.5; never silent for more than 0.25 s.
    """
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * SAMPLE_RATE)
    time_s = np.arange(num_samples) / SAMPLE_RATE
    wander = sum(
        rng.uniform(0.01, 0.05) * np.sin(2 * np.pi * rng.uniform(0.3, 3) * time_s + rng.uniform(0, 6)) for _ in range(3)
    )
    phase = 2 * np.pi * np.cumsum(f0_hz * (1 + wander)) / SAMPLE_RATE
    voice = np.zeros(num_samples)
    for harmonic in range(1, int(3800 / f0_hz) + 1):
        frequency = harmonic * f0_hz
        gain = sum(np.exp(-(((frequency - centre) / 180.0) ** 2)) for centre in formants_hz) + 0.02
        voice += gain * np.sin(harmonic * phase) / np.sqrt(harmonic)
    envelope = np.zeros(num_samples)
    position = 0
    while position < num_samples:
        syllable = min(int(rng.uniform(0.12, 0.3) * SAMPLE_RATE), num_samples - position)
        envelope[position : position + syllable] = np.hanning(syllable + 2)[1:-1] * rng.uniform(0.6, 1.0)
        position += syllable + int(rng.uniform(0.02, 0.2) * SAMPLE_RATE)
    voice = voice * envelope + 1e-4 * rng.standard_normal(num_samples)
    return (0.5 * voice / np.abs(voice).max()).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder per speaker: four synthetic speakers (`VOICES`), each with four wav files of 2 to 3.5 s at 16 kHz."""
    import soundfile

    folder = tmp_path_factory.mktemp("tiny_speech")
    for number, (speaker, (f0_hz, formants_hz)) in enumerate(VOICES.items()):
        (folder / speaker).mkdir()
        for index in range(4):
            voice = make_voice(f0_hz, formants_hz, 2.0 + 0.5 * index, seed=100 * number + index)
            soundfile.write(folder / speaker / f"{speaker}-{index}.wav", voice, SAMPLE_RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a very small network with random weights, 16 kHz."""
    import torch

    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "cues": [{"name": "tf_map"}],
        }
    )
    folder = tmp_path_factory.mktemp("tiny_model") / "model"
    return checkpoint.save(folder, network.config, network.state_dict())
