"""An exported model gives what the model gives in torch: recordings, streams, voices, presence, errors."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.inference.networks import noise
from tests.runtime.conftest import MODELS, STREAMS, ExportedPair, spoken
from wesep_py import audio, runtime
from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.inference import Blocks, Stream, Voice

SHORT = Blocks(1.0, 0.4, 0.2)


def cut(stream: Stream, mixture: np.ndarray, largest: int = 700, seed: int = 0) -> np.ndarray:
    """Return what a stream makes of a mixture in blocks of 0 to `largest` samples."""
    rng, blocks, start = np.random.default_rng(seed), [], 0
    while start < mixture.shape[-1]:
        stop = start + int(rng.integers(0, largest + 1))
        blocks.append(stream.process(mixture[..., start:stop]))
        start = stop
    return np.concatenate([*blocks, stream.flush()], axis=-1)


# Voices.


@pytest.mark.parametrize("name", MODELS)
def test_a_voice_enrolled_here_equals_that_of_torch(pairs: dict[str, ExportedPair], name: str):
    pair = pairs[name]
    sources = [(noise(20000)[0], 16000), (spoken(30000)[0], 16000)]
    for some in (sources[:1], sources):
        expected, voice = pair.torch.enroll(*some), runtime.load(pair.folder).enroll(*some)
        assert voice.enrolled_s == expected.enrolled_s and voice.model_hash == expected.model_hash
        assert (voice.quality.untold, len(voice.quality.recordings)) == (expected.quality.untold, len(some))
        for mine, theirs in zip(voice.quality.recordings, expected.quality.recordings, strict=True):
            for figure, known in asdict(theirs).items():
                is_number = isinstance(known, float)
                assert asdict(mine)[figure] == (pytest.approx(known, rel=1e-3) if is_number else known), figure
        assert voice.tensors.keys() == expected.tensors.keys()
        for key, tensor in expected.tensors.items():
            assert voice.tensors[key].dtype == tensor.numpy().dtype
            np.testing.assert_allclose(voice.tensors[key], tensor.numpy(), atol=1e-4)


def test_a_print_of_torch_works_here_and_one_of_here_in_torch(pairs: dict[str, ExportedPair], tmp_path: Path):
    pair, mixture = pairs["embedding"], (spoken(16000)[0], 16000)
    extractor = runtime.load(pair.folder)
    pair.voice.save(tmp_path / "torch.voice")
    extractor.enroll((noise(16000)[0], 16000)).save(tmp_path / "runtime.voice")
    expected = pair.torch.extract(mixture, pair.voice).waveform
    for file in ("torch.voice", "runtime.voice"):
        here = extractor.extract(mixture, runtime.Voice.load(tmp_path / file)).waveform
        there = pair.torch.extract(mixture, Voice.load(tmp_path / file)).waveform
        np.testing.assert_allclose(here, expected, atol=1e-4)
        np.testing.assert_allclose(there, expected, atol=1e-4)
    assert runtime.Voice.load(tmp_path / "runtime.voice").quality == Voice.load(tmp_path / "runtime.voice").quality
    with pytest.raises(OutputExistsError):
        runtime.Voice.load(tmp_path / "torch.voice").save(tmp_path / "runtime.voice")


def test_a_voice_in_memory_of_torch_works_here_but_not_the_other_way(pairs: dict[str, ExportedPair]):
    pair, mixture = pairs["live"], (spoken(8000)[0], 16000)
    extractor = runtime.load(pair.folder)
    assert extractor.extract(mixture, pair.voice).waveform.shape == (8000,)
    with pytest.raises(InputError, match="enrolled with numpy instead of torch; save it"):
        pair.torch.extract(mixture, extractor.enroll((noise(16000)[0], 16000)))


def test_a_long_enrollment_is_cut_to_its_best_segments(
    pairs: dict[str, ExportedPair], caplog: pytest.LogCaptureFixture
):
    pair, source = pairs["live"], (spoken(5 * 48000)[0], 48000)
    expected = pair.torch.enroll(source, max_enrollment_s=2.0)
    with caplog.at_level(logging.WARNING):
        voice = runtime.load(pair.folder, max_enrollment_s=2.0).enroll(source)
    assert "the 2.0 s of 5.0 s with the most speech are enrolled" in caplog.text
    for key, tensor in expected.tensors.items():
        np.testing.assert_allclose(voice.tensors[key], tensor.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "no enrollment was given"),
        (((np.zeros(16000, np.float32), 16000),), {}, "is silent"),
        (((noise(100)[0], 16000),), {}, "needs at least 0.1 s"),
        (((noise(16000)[0], 16000),), {"vad": "silero"}, "needs torch"),
        (((noise(16000)[0], 16000),), {"vad": "loud"}, "energy or silero"),
        (((noise(16000)[0], 16000),), {"min_speech_s": 9.0}, "an enrollment needs at least 9 s"),
        (((noise(16000)[0], 16000),), {"max_enrollment_s": 0.1}, "max_enrollment_s"),
        ((np.ones(8, np.float32),), {}, "no embedding"),
        (("missing.wav",), {}, "missing.wav"),
    ],
)
def test_an_enrollment_that_cannot_be_used_is_refused(
    pairs: dict[str, ExportedPair], arguments: tuple, options: dict, message: str
):
    with pytest.raises((InputError, AudioError), match=message):
        runtime.load(pairs["live"].folder).enroll(*arguments, **options)


def test_a_voice_of_another_model_or_shape_is_refused(pairs: dict[str, ExportedPair], tmp_path: Path):
    extractor, mixture = runtime.load(pairs["live"].folder), (spoken(8000)[0], 16000)
    voice = extractor.enroll((noise(16000)[0], 16000))
    wrong = runtime.RuntimeVoice(voice.tensors, "another", 1.0)
    with pytest.raises(InputError, match="enrolled with another model"):
        extractor.extract(mixture, wrong)
    with pytest.raises(InputError, match="the voice is str"):
        extractor.stream("alice.voice")
    name, array = next(iter(voice.tensors.items()))
    for tensors in ({}, {**voice.tensors, name: array[:, :3]}, {**voice.tensors, name: array.astype(np.float64)}):
        with pytest.raises(InputError, match="does not fit tiny"):
            extractor.extract(mixture, runtime.RuntimeVoice(tensors, voice.model_hash, 1.0))


# Recordings.


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("num_samples", "rate", "channels"), [(20001, 16000, 1), (33333, 44100, 2), (700, 8000, 1)])
def test_a_recording_gives_what_it_gives_in_torch(
    pairs: dict[str, ExportedPair], name: str, num_samples: int, rate: int, channels: int
):
    pair, mixture = pairs[name], spoken(num_samples, channels)
    mixture[-1] *= channels == 1  # the last of several channels is silent
    expected = pair.torch.extract((mixture, rate), pair.voice)
    result = runtime.load(pair.folder).extract((mixture, rate), pair.voice)
    assert result.sample_rate == rate
    np.testing.assert_allclose(result.waveform, expected.waveform, atol=1e-4)
    assert (result.presence is None) == (expected.presence is None)
    if expected.presence is not None:
        assert result.presence == pytest.approx(expected.presence, abs=1e-4)
        np.testing.assert_allclose(result.detection.track, expected.detection.track, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_long_recording_by_blocks_gives_what_it_gives_in_torch(pairs: dict[str, ExportedPair], name: str):
    pair, mixture = pairs[name], (spoken(50001, 2), 16000)
    expected = pair.torch.extract(mixture, pair.voice, SHORT)
    result = runtime.load(pair.folder).extract(mixture, pair.voice, SHORT)
    np.testing.assert_allclose(result.waveform, expected.waveform, atol=1e-4)
    if expected.detection is not None:
        np.testing.assert_allclose(result.detection.track, expected.detection.track, atol=1e-4)


def test_a_file_is_extracted_and_saved_in_its_format(pairs: dict[str, ExportedPair], tmp_path: Path):
    pair = pairs["live"]
    audio.write(tmp_path / "meeting.wav", spoken(16000, 2), 16000, "PCM_16")
    result = runtime.load(pair.folder).extract(tmp_path / "meeting.wav", pair.voice)
    result.save(tmp_path / "alice.wav")
    assert audio.info(tmp_path / "alice.wav").subtype == "PCM_16"


def test_samples_that_are_not_finite_are_refused(pairs: dict[str, ExportedPair]):
    extractor = runtime.load(pairs["live"].folder)
    with pytest.raises(AudioError, match="not finite"):
        extractor.extract((np.full(100, np.nan, np.float32), 16000), pairs["live"].voice)
    with pytest.raises(InputError, match="a Blocks is needed"):
        extractor.extract((noise(100)[0], 16000), pairs["live"].voice, blocks=30)


# Streams.


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("num_samples", [0, 1, 17, 127, 128, 255, 256, 257, 1000, 16001])
def test_a_stream_cut_anywhere_equals_that_of_torch(pairs: dict[str, ExportedPair], name: str, num_samples: int):
    pair, mixture = pairs[name], spoken(num_samples)[0]
    extractor = runtime.load(pair.folder)
    streams = [one.stream(pair.voice) for one in (pair.torch, extractor)]
    assert extractor.latency == streams[0].latency == streams[1].latency
    assert streams[0].delay == streams[1].delay
    expected, result = (cut(stream, mixture, seed=num_samples) for stream in streams)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("name", STREAMS)
def test_each_block_returns_as_many_samples_as_in_torch(pairs: dict[str, ExportedPair], name: str):
    pair, mixture = pairs[name], spoken(4000)[0]
    streams = [one.stream(pair.voice) for one in (pair.torch, runtime.load(pair.folder))]
    for start in range(0, 4000, 50):
        expected, result = (stream.process(mixture[start : start + 50]) for stream in streams)
        assert len(result) == len(expected)
        assert (streams[1].presence is None) == (streams[0].presence is None)
        if streams[0].presence is not None:
            assert streams[1].presence == pytest.approx(streams[0].presence, abs=1e-4)


@pytest.mark.parametrize(("rate", "constant_delay"), [(48000, False), (44100, True), (8000, False)])
def test_rates_channels_voices_and_types_are_those_of_the_stream(
    pairs: dict[str, ExportedPair], rate: int, constant_delay: bool
):
    pair = pairs["live"]
    other = pair.torch.enroll((spoken(24000)[0], 16000))
    mixture = (spoken(rate, 2) * 20000).astype(np.int16)
    streams = [
        one.stream([pair.voice, other], rate, num_channels=2, constant_delay=constant_delay)
        for one in (pair.torch, runtime.load(pair.folder))
    ]
    for start in range(0, rate, 1234):
        expected, result = (stream.process(mixture[:, start : start + 1234]) for stream in streams)
        assert result.dtype == np.int16 and result.shape == expected.shape
        np.testing.assert_allclose(result.astype(int), expected.astype(int), atol=4)
    np.testing.assert_allclose(streams[1].flush(), streams[0].flush(), atol=1e-4)


def test_a_stored_state_continues_the_stream(pairs: dict[str, ExportedPair]):
    pair, mixture = pairs["live"], spoken(9000)[0]
    extractor = runtime.load(pair.folder)
    for stop in (100, 4077):
        stream = extractor.stream(pair.voice)
        stream.process(mixture[:stop])
        later = extractor.stream(pair.voice)
        later.restore(pickle.loads(pickle.dumps(stream.state())))
        rest = [np.concatenate([one.process(mixture[stop:]), one.flush()]) for one in (stream, later)]
        np.testing.assert_array_equal(*rest)
    state = pair.torch.stream(pair.voice).state()
    with pytest.raises(InputError, match="runs in torch"):
        extractor.stream(pair.voice).restore(state)


def test_a_changed_voice_is_that_of_torch(pairs: dict[str, ExportedPair]):
    pair, mixture = pairs["conv_tasnet"], spoken(8000)[0]
    other, results = pair.torch.enroll((spoken(24000)[0], 16000)), []
    for stream in (one.stream(pair.voice) for one in (pair.torch, runtime.load(pair.folder))):
        parts = [stream.process(mixture[:4000])]
        stream.change_voice(other)
        results.append(np.concatenate([*parts, stream.process(mixture[4000:]), stream.flush()]))
    np.testing.assert_allclose(*results, atol=1e-4)


def test_silence_gives_silence_and_nan_is_counted(pairs: dict[str, ExportedPair]):
    pair = pairs["live"]
    stream = runtime.load(pair.folder).stream(pair.voice)
    assert not np.concatenate([stream.process(np.zeros(5000, np.float32)), stream.flush()]).any()
    stream.reset()
    stream.process(np.full(3, np.nan, np.float32))
    assert stream.num_replaced == 3


# The folder.


@pytest.fixture
def folder(pairs: dict[str, ExportedPair], tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(pairs["embedding"].folder, tmp_path / "folder"))


def change(folder: Path, **values: object) -> None:
    """Set values in `wesep.json`; `None` removes one."""
    description = json.loads((folder / "wesep.json").read_text()) | values
    (folder / "wesep.json").write_text(json.dumps({k: v for k, v in description.items() if v is not None}))


def test_a_folder_without_a_stream_says_so(folder: Path, pairs: dict[str, ExportedPair]):
    extractor = runtime.load(folder)
    assert extractor.latency is None
    with pytest.raises(InputError, match="wesep export MODEL --stream"):
        extractor.stream(pairs["embedding"].voice)


def test_a_folder_that_is_no_exported_model_is_refused(folder: Path):
    with pytest.raises(InputError, match=r"is no exported model .* make one with `wesep export`"):
        runtime.load(folder / "missing")
    (folder / "wesep.json").write_text('{"format": "other"}')
    with pytest.raises(InputError, match="no description of an exported model"):
        runtime.load(folder)
    (folder / "wesep.json").write_text('{"format": ')
    with pytest.raises(InputError, match=r"wesep\.json"):
        runtime.load(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 99}, "has format version 99; this program reads version 1"),
        ({"type": "torchscript"}, "exported as torchscript, and onnx is needed"),
        ({"causal": None}, "damaged, or of an older version"),
        ({"num_frames": {"kind": "spiral", "stride": 1}}, "damaged, or of an older version"),
        ({"presence": {"scale": -1}}, "damaged, or of an older version"),
        ({"graphs": []}, "damaged, or of an older version"),
    ],
)
def test_a_description_that_does_not_fit_is_one_line(folder: Path, values: dict, message: str):
    change(folder, **values)
    with pytest.raises(InputError, match=message) as raised:
        runtime.load(folder)
    assert "\n" not in str(raised.value)


def test_a_damaged_or_missing_graph_is_refused_at_load(folder: Path):
    content = bytearray((folder / "extract.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "extract.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"extract\.onnx: is damaged \(its sha256"):
        runtime.load(folder)
    (folder / "extract.onnx").unlink()
    with pytest.raises(InputError, match="is missing; copy the whole folder"):
        runtime.load(folder)


def test_a_graph_outside_the_folder_is_refused(folder: Path):
    graphs = json.loads((folder / "wesep.json").read_text())["graphs"]
    graphs["enroll"]["file"] = "../folder/enroll.onnx"
    change(folder, graphs=graphs)
    with pytest.raises(InputError, match="outside its folder"):
        runtime.load(folder)


def test_a_graph_that_onnxruntime_does_not_know_is_one_line(folder: Path):
    import hashlib

    import onnx

    model = onnx.load(str(folder / "enroll.onnx"))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "QSpecial", "com.example"
    onnx.save(model, str(folder / "enroll.onnx"))
    graphs = json.loads((folder / "wesep.json").read_text())["graphs"]
    graphs["enroll"]["sha256"] = hashlib.sha256((folder / "enroll.onnx").read_bytes()).hexdigest()
    change(folder, graphs=graphs, precision="int8")
    with pytest.raises(InputError, match="cannot open it, precision int8") as raised:
        runtime.load(folder).enroll((noise(16000)[0], 16000))
    assert "\n" not in str(raised.value)


def test_a_missing_onnxruntime_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'wesep-py\[onnx\]'"):
        runtime.load(folder)
