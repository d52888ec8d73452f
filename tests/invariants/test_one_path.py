"""One path: the same functions compute features, resampling and levels in training, evaluation and extraction.

A mixture is simulated as training does, written as a tree, evaluated as `wesep evaluate` does and extracted from its
files as a user does. Inputs and outputs of every transform of the network are bit-identical.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wesep_py import audio
from wesep_py.data import FileReader, Utterance, pack, read_speaker_folders, read_trials
from wesep_py.data.packed import PackedReader
from wesep_py.data.reader import quantise
from wesep_py.evaluation.trial_extraction import extract, render
from wesep_py.features import STFT, HighPass, KaldiFilterbank
from wesep_py.inference import Extractor
from wesep_py.inference.inputs_outputs.inputs import read_source
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network
from wesep_py.simulation import EnrollmentConfig, Recipe, SimulationConfig, Simulator
from wesep_py.simulation.corpus_tree import TreeLayout, write_lists, write_sample
from wesep_py.training.batches import SimulatedMixtures
from wesep_py.training.extraction_task import collate_targets, target_items

PACKAGE = Path(__file__).resolve().parents[2] / "wesep_py"

Calls = list[tuple[str, torch.Tensor, torch.Tensor]]


def _network(sample_rate: int) -> TargetSpeakerExtractor:
    """Build a network with every transform: high-pass, STFT, filterbank, and at 8 kHz a resampler."""
    torch.manual_seed(0)
    return build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}},
            "cues": [{"name": "embedding", "fusion": "film"}, {"name": "tf_map"}],
            "sample_rate": sample_rate,
        }
    )


@contextmanager
def _recording_transforms(network: nn.Module) -> Iterator[Calls]:
    """Record input and output of each transform of the network, in the order of the calls."""
    calls: Calls = []

    def record(name: str):
        return lambda module, inputs, output: calls.append((name, inputs[0].detach().clone(), output.detach().clone()))

    transforms = (HighPass, STFT, KaldiFilterbank, audio.SincResample)
    hooks = [m.register_forward_hook(record(n)) for n, m in network.named_modules() if isinstance(m, transforms)]
    assert hooks
    yield calls
    for hook in hooks:
        hook.remove()


def _assert_same(calls: Calls, others: Calls) -> None:
    assert [name for name, _, _ in calls] == [name for name, _, _ in others]
    for (name, inputs, outputs), (_, other_inputs, other_outputs) in zip(calls, others, strict=True):
        assert torch.equal(inputs, other_inputs), f"{name} has another input"
        assert torch.equal(outputs, other_outputs), f"{name} has another output"


@pytest.fixture(scope="module", params=[16000, 8000])
def simulator(request: pytest.FixtureRequest, tiny_speech: Path) -> Simulator:
    config = SimulationConfig(
        num_speakers={2: 1.0}, duration_s=1.5, enrollment=EnrollmentConfig(duration_s=(1.0, 1.3)), overlap={"full": 1.0}
    )
    return Simulator(config, read_speaker_folders(tiny_speech), [], FileReader(request.param), seed=3)


def _tree(simulator: Simulator, folder: Path) -> tuple[TreeLayout, Recipe]:
    sample = simulator.sample(0, 0)
    layout = TreeLayout(folder, has_noise=False)
    write_sample(sample, layout)
    write_lists([sample.recipe], layout)
    return layout, sample.recipe


def test_features_are_bit_identical_on_all_paths(simulator: Simulator, tmp_path: Path):
    network = _network(simulator.sample_rate)
    # Training: drawn, rendered, collated, and through the network while it trains.
    speakers = {utterance: label for label, utterance in enumerate(("anna", "bert", "carl", "dora"))}
    batch = collate_targets([SimulatedMixtures(simulator, speakers, target_items)[0, 0]])
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()  # a batch of one has no statistics of its own
    with _recording_transforms(network) as in_training:
        lengths = batch["enrollment_lengths"]
        network(batch["mixture"], batch["enrollment"][:, : lengths[0]], lengths)  # without the zeros of the batch
    assert {type(network.get_submodule(name)) for name, _, _ in in_training} >= {HighPass, STFT, KaldiFilterbank}

    # Evaluation: the trial of the same target, from the tree and its lists.
    layout, recipe = _tree(simulator, tmp_path)
    lists = layout.metadata("mix_clean"), next(tmp_path.rglob("map_mixture2enrollment*"))
    trial = read_trials(*lists, tmp_path)[recipe.target]
    extractor = Extractor(network)
    rendered = render(trial, "clean", simulator.sample_rate)
    assert not isinstance(rendered, Exception), rendered
    with _recording_transforms(network) as in_evaluation:
        extracted = extract(extractor, trial, rendered)
    assert extracted.record.outcome == "scored", extracted.record.error
    _assert_same(in_training, in_evaluation)

    # Extraction: from the files.
    with _recording_transforms(network) as in_extraction:
        result = extractor.extract(trial.rendered["clean"], extractor.enroll(trial.enrollment))
    _assert_same(in_training, in_extraction)
    np.testing.assert_array_equal(result.waveform[0], extracted.estimate)


@pytest.mark.parametrize(
    ("name", "subtype", "sample_rate", "is_16_bit"),
    [
        ("a.wav", "PCM_16", 16000, True),
        ("a.flac", "PCM_16", 16000, True),
        ("a.wav", "FLOAT", 44100, False),
        ("a.flac", "PCM_24", 8000, False),
        ("a.opus", None, 48000, False),
        ("a.mp3", None, 22050, False),
    ],
)
def test_reading_and_resampling_are_identical_on_all_paths(
    tmp_path: Path, name: str, subtype: str | None, sample_rate: int, is_16_bit: bool
):
    path = tmp_path / name
    noise = np.random.default_rng(0).uniform(-0.7, 0.7, (2, sample_rate + 17)).astype(np.float32)
    audio.write(path, noise, sample_rate, subtype)
    utterance = Utterance("alice-1", "alice", path, audio.info(path).duration_s)

    in_evaluation = audio.read_mono(path, 16000)
    recording = read_source(path)
    in_extraction = audio.resample(recording.waveform, recording.sample_rate, 16000)[0]
    np.testing.assert_array_equal(in_extraction, in_evaluation)

    in_training = FileReader(16000).read(utterance)
    pack([utterance], tmp_path / "packed", 16000)
    np.testing.assert_array_equal(PackedReader(tmp_path / "packed").read(utterance), in_training)
    # Training keeps 16 bits a sample, which is all that such a file has; of others it rounds the same samples.
    np.testing.assert_array_equal(in_training, quantise(in_evaluation).waveform())
    if is_16_bit:
        np.testing.assert_array_equal(in_training, in_evaluation)


def test_the_drawn_sir_is_the_evaluated_sir(simulator: Simulator, tmp_path: Path):
    layout, recipe = _tree(simulator, tmp_path)
    lists = layout.metadata("mix_clean"), next(tmp_path.rglob("map_mixture2enrollment*"))
    trial = read_trials(*lists, tmp_path)[recipe.target]
    rendered = render(trial, "clean", simulator.sample_rate)
    record = extract(Extractor(_network(simulator.sample_rate)), trial, rendered).record
    # The SIR that was drawn for training is the SIR by which evaluation breaks its results down.
    drawn = recipe.sir_db[1 - recipe.target]
    assert record.sir_db == pytest.approx(drawn, abs=1e-4)


# Modules outside `audio` and `features` that may use libraries which read, resample or transform audio: the
# check of the installation, which tests them, and copies of the scripts of other corpora.
LIBRARIES = {"soundfile", "soxr", "torchaudio", "librosa", "audioread", "scipy.io.wavfile"}
FUNCTIONS = {"stft", "istft", "resample", "resample_poly", "decimate", "spectrogram", "melscale_fbanks"}
ALLOWED = {
    "cli/doctor.py",
    "simulation/librimix.py",  # gives bit-exactly what LibriMix's scripts give
}


def _breaches(path: Path) -> list[str]:
    breaches = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and node.attr in FUNCTIONS:
            owner = ast.unparse(node.value)
            if owner.split(".")[0] in ("torch", "scipy", "signal", "F", "np", "librosa"):
                breaches.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {owner}.{node.attr}")
        for name in names:
            own_function = name.startswith("scipy.signal.") and name.rsplit(".", 1)[1] in FUNCTIONS
            if own_function or any(name == library or name.startswith(library + ".") for library in LIBRARIES):
                breaches.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}")
    return breaches


def test_only_audio_and_features_use_audio_libraries():
    allowed_packages = {PACKAGE / "audio", PACKAGE / "features"}
    inside = [p for p in sorted(PACKAGE.rglob("*.py")) if allowed_packages & set(p.parents)]
    assert any(_breaches(path) for path in inside)  # the search works
    others = [
        p for p in sorted(PACKAGE.rglob("*.py")) if p not in inside and str(p.relative_to(PACKAGE)) not in ALLOWED
    ]
    assert [breach for path in others for breach in _breaches(path)] == []
