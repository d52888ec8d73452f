"""The d-vector of Resemblyzer: its definition, written out here, gives the same embeddings as the imported encoder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from wesep_py import audio, checkpoint
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.interop.resemblyzer import MEMBER, import_resemblyzer
from wesep_py.network.speaker import load_encoder


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    lstm, linear = torch.nn.LSTM(40, 256, 3), torch.nn.Linear(256, 256)
    return {
        "similarity_weight": torch.tensor([10.0]),
        "similarity_bias": torch.tensor([-5.0]),
        **{f"lstm.{key}": 4 * value for key, value in lstm.state_dict().items()},
        **{f"linear.{key}": value for key, value in linear.state_dict().items()},
    }


def write_wheel(path: Path, content: dict) -> Path:
    torch.save(content, path.with_suffix(".pt"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".pt"), MEMBER)
    return path


def mel_filters() -> np.ndarray:
    """Return the filters `[40, 201]` of Slaney's Auditory Toolbox, each of area one, at 16 kHz."""

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, 200 / 3 * mel, 1000 * 6.4 ** ((mel - 15) / 27))

    edges = to_hz(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), 42))
    frequency = np.arange(201) * 40.0
    return np.stack(
        [np.interp(frequency, edges[i : i + 3], [0.0, 2 / (edges[i + 2] - edges[i]), 0.0]) for i in range(40)]
    )


def reference_embedding(waveform: np.ndarray, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the embedding of a recording at 16 kHz, window by window."""
    rms_db = 10 * np.log10(np.mean(waveform.astype(np.float64) ** 2))
    waveform = waveform * 10 ** (max(0.0, -30.0 - rms_db) / 20)
    num_frames = len(waveform) // 160 + 1
    starts = list(range(0, max(1, num_frames - 160 + 77 + 1), 77))
    if len(starts) > 1 and len(waveform) - 160 * starts[-1] < 0.75 * 160 * 160:
        starts.pop()
    padded = np.pad(waveform, (200, 200 + max(0, 160 * (starts[-1] + 160) - len(waveform))))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    lstm.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("lstm.")})
    linear.load_state_dict({k[7:]: v for k, v in weights.items() if k.startswith("linear.")})
    embeddings = []
    for start in starts:
        frames = [padded[160 * i : 160 * i + 400] * hann for i in range(start, start + 160)]
        power = np.abs(np.fft.rfft(frames)) ** 2 @ mel_filters().T
        with torch.no_grad():
            embedding = linear(lstm(torch.tensor(power, dtype=torch.float32)[None])[1][0][-1]).relu()[0].numpy()
        embeddings.append(embedding / np.linalg.norm(embedding))
    mean = np.mean(embeddings, axis=0)
    return mean / np.linalg.norm(mean)


def recordings(shared_data: Path) -> list[np.ndarray]:
    files = sorted((shared_data / "speech" / "dev_ls").rglob("*.opus"))[::10][:4]
    whole = [audio.read_mono(path, 16000) for path in files]
    return [*whole, 0.001 * whole[0], whole[1][:3000], whole[2][:25590], whole[3][: 3 * 25600]]


def embed(encoder, waveform: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output = encoder(torch.from_numpy(np.array(waveform))[None], torch.tensor([len(waveform)]))
    return output.embedding[0].numpy()


def test_imported_encoder_computes_the_definition(tmp_path, weights, shared_data):
    wheel = write_wheel(tmp_path / "Resemblyzer-0.1.4-py3-none-any.whl", {"step": 3, "model_state": weights})
    imported = import_resemblyzer(wheel)
    assert imported.kind == "speaker encoder"
    assert imported.provenance["imported_from"]["licence"] == "Apache-2.0"
    encoder = load_encoder(imported.save(tmp_path / "dvector"))
    for waveform in recordings(shared_data):
        np.testing.assert_allclose(embed(encoder, waveform), reference_embedding(waveform, weights), atol=1e-4)
    card = (tmp_path / "dvector" / checkpoint.CARD).read_text(encoding="utf-8")
    assert "licence: Apache-2.0" in card and "Wan" in card and "configuration" not in card.split("use:")[0]


def test_file_in_the_wheel_gives_the_same(tmp_path, weights):
    wheel = write_wheel(tmp_path / "made.whl", {"model_state": weights})
    of_file, of_wheel = import_resemblyzer(wheel.with_suffix(".pt")), import_resemblyzer(wheel)
    assert of_file.state_dict.keys() == of_wheel.state_dict.keys()
    assert all(torch.equal(of_file.state_dict[key], of_wheel.state_dict[key]) for key in of_file.state_dict)


def test_other_files_are_refused_in_one_line(tmp_path, weights):
    with pytest.raises(InputError, match="no such file; give the wheel"):
        import_resemblyzer(tmp_path / "none.whl")
    (tmp_path / "no.whl").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="is no wheel, or damaged"):
        import_resemblyzer(tmp_path / "no.whl")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/file.py", "")
    with pytest.raises(CheckpointError, match=r"holds no resemblyzer/pretrained.pt"):
        import_resemblyzer(tmp_path / "other.whl")
    with pytest.raises(CheckpointError, match="has no 'model_state'"):
        import_resemblyzer(write_wheel(tmp_path / "empty.whl", {"step": 3}))
    smaller = {key: value for key, value in weights.items() if key != "linear.bias"}
    with pytest.raises(CheckpointError, match=r"is not the d-vector of Resemblyzer .*missing: network.linear.bias"):
        import_resemblyzer(write_wheel(tmp_path / "smaller.whl", {"model_state": smaller}))


def test_imported_encoder_equals_the_package(tmp_path, shared_data):
    """Where the package is installed (and its requirements, among them librosa), its own output is compared."""
    package = pytest.importorskip("resemblyzer")
    encoder = load_encoder(import_resemblyzer(Path(package.__file__).with_name("pretrained.pt")).save(tmp_path / "d"))
    reference = package.VoiceEncoder("cpu", verbose=False)
    for waveform in recordings(shared_data):
        expected = reference.embed_utterance(package.normalize_volume(waveform, -30, increase_only=True))
        np.testing.assert_allclose(embed(encoder, waveform), expected, atol=1e-4)
