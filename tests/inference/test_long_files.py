"""Long recordings from file to file: the result in memory, resumed after a stop, and no other files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import VOICES, make_voice
from wesep_py.common.errors import AudioError, InputError, WesepError
from wesep_py.inference import Blocks, Calibration, Extractor
from wesep_py.inference.file_extraction import extract_file
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget
from wesep_py.inference.long_files import LongExtraction
from wesep_py.inference.long_recordings.streaming import supports_streaming
from wesep_py.network.extraction_network import build_network

SHORT = Blocks.of(2.0)


@pytest.fixture(scope="module", params=["overlapping", "streaming"])
def extractor(request) -> Extractor:
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": request.param == "streaming"}
    # The state of a recurrent head is carried from block to block too.
    presence = {"inputs": ["latent", "similarity"], "smoothing": "lstm"} if request.param == "streaming" else {}
    normalise = "none" if request.param == "streaming" else "rms"
    network = build_network(
        {"backbone": backbone, "cues": [{"name": "tf_map"}], "presence": presence, "normalise": normalise}
    )
    return Extractor(network, "cpu", "tiny", f"hash of {request.param}", Calibration(threshold=0.0))


@pytest.fixture(scope="module")
def voices() -> tuple[np.ndarray, np.ndarray]:
    return make_voice(*VOICES["anna"], 7.3, seed=1), make_voice(*VOICES["bert"], 7.3, seed=2)


def enroll(extractor: Extractor, seed: int = 3):
    return extractor.enroll((make_voice(*VOICES["anna"], 2.0, seed=seed), 16000))


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 16000, 1, "PCM_16"),
        ("b.wav", 44100, 2, "PCM_24"),
        ("c.flac", 16000, 2, "PCM_16"),
        ("d.wav", 8000, 1, "FLOAT"),
        ("e.ogg", 16000, 1, "VORBIS"),
    ],
)
def test_long_file_equals_extract_in_memory(extractor, voices, tmp_path, name, rate, channels, subtype):
    mixture = tmp_path / name
    samples = np.stack([voices[0] + voices[1], voices[0] - 0.5 * voices[1]])[:channels] / 3
    from wesep_py import audio

    soundfile.write(mixture, audio.resample(samples, 16000, rate).T, rate, subtype=subtype)
    voice, out, residual = enroll(extractor), tmp_path / f"out{mixture.suffix}", tmp_path / f"residual{mixture.suffix}"
    (result,) = extract_file(extractor, mixture, [ExtractionTarget("anna", voice, out, residual)], blocks=SHORT)
    expected = extractor.extract(mixture, voice, blocks=SHORT)
    written_info, mixture_info = soundfile.info(out), soundfile.info(mixture)
    written_format = (written_info.samplerate, written_info.channels, written_info.frames, written_info.subtype)
    assert written_format == (rate, channels, mixture_info.frames, subtype)
    assert result.presence == pytest.approx(expected.presence, abs=1e-6) and not result.silenced
    written, left, whole = (soundfile.read(path, always_2d=True)[0].T for path in (out, residual, mixture))
    if subtype == "VORBIS":
        assert ((written - expected.waveform) ** 2).sum() < 0.05 * (expected.waveform**2).sum()
        return
    step = {"PCM_16": 2.0**-15, "PCM_24": 2.0**-23}.get(subtype, 0.0)
    np.testing.assert_allclose(written, expected.waveform, atol=step + 1e-5)
    if step:
        np.testing.assert_array_equal(written + left, whole)
    else:
        np.testing.assert_allclose(written + left, whole, atol=2.0**-25)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, out.name, residual.name])


def test_short_file_is_bit_exact_with_extract(extractor, voices, tmp_path):
    soundfile.write(tmp_path / "m.wav", voices[0][:31000], 16000)
    voice = enroll(extractor)
    extract_file(extractor, tmp_path / "m.wav", [ExtractionTarget("anna", voice, tmp_path / "a.wav")], blocks=SHORT)
    extractor.extract(tmp_path / "m.wav", voice).save(tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_several_voices_in_one_pass_equal_each_alone(extractor, voices, tmp_path, monkeypatch):
    from wesep_py.inference import long_files as long

    soundfile.write(tmp_path / "m.wav", (voices[0] + voices[1]) / 3, 16000)
    targets = [ExtractionTarget(f"v{seed}", enroll(extractor, seed), tmp_path / f"both{seed}.wav") for seed in (3, 4)]
    read, calls = long.audio.read_blocks, []
    monkeypatch.setattr(long.audio, "read_blocks", lambda *a: calls.append(a) or read(*a))
    extract_file(extractor, tmp_path / "m.wav", targets, blocks=SHORT)
    assert len(calls) == 2  # once to extract, once to write
    for target in targets:
        alone = tmp_path / f"alone_{target.name}.wav"
        extract_file(extractor, tmp_path / "m.wav", [ExtractionTarget(target.name, target.voice, alone)], blocks=SHORT)
        assert alone.read_bytes() == target.output.read_bytes()


class Stop(Exception):
    pass


def stopping(after: int):
    calls = []

    def progress(done_s: float, own_s: float) -> None:
        calls.append(own_s)
        if len(calls) == after:
            raise Stop

    return progress, calls


@pytest.mark.parametrize("cut", [0, 1, 4000])
def test_stopped_and_resumed_gives_the_same_bytes(extractor, voices, tmp_path, cut):
    soundfile.write(tmp_path / "m.wav", (voices[0] + voices[1]) / 3, 16000)
    voice = enroll(extractor)
    whole = [ExtractionTarget("anna", voice, tmp_path / "whole.wav", tmp_path / "whole_rest.wav")]
    extract_file(extractor, tmp_path / "m.wav", whole, blocks=SHORT)
    parts = [ExtractionTarget("anna", voice, tmp_path / "parts.wav", tmp_path / "parts_rest.wav")]
    progress, _ = stopping(after=4)  # at the beginning, and after three blocks
    with pytest.raises(Stop):
        extract_file(extractor, tmp_path / "m.wav", parts, blocks=SHORT, progress=progress)
    partial = tmp_path / ".parts.wav.partial"
    assert not (tmp_path / "parts.wav").exists() and partial.stat().st_size > 0
    if cut:  # killed while the last block was written
        with partial.open("r+b") as file:
            file.truncate(partial.stat().st_size - cut)
    progress, calls = stopping(after=-1)
    extract_file(extractor, tmp_path / "m.wav", parts, blocks=SHORT, progress=progress)
    assert 1 < len(calls) < 6  # not all of the blocks again
    for name in ("", "_rest"):
        assert (tmp_path / f"parts{name}.wav").read_bytes() == (tmp_path / f"whole{name}.wav").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("what", ["recording", "voices", "blocks", "shifts", "journal"])
def test_blocks_of_another_job_are_discarded(extractor, voices, tmp_path, caplog, what):
    soundfile.write(tmp_path / "m.wav", voices[0], 16000)
    target, blocks, shifts = ExtractionTarget("anna", enroll(extractor), tmp_path / "out.wav"), SHORT, None
    if what == "shifts" and supports_streaming(extractor.network):
        pytest.skip("a network that streams allows one shift only")
    with pytest.raises(Stop):
        extract_file(extractor, tmp_path / "m.wav", [target], blocks=blocks, progress=stopping(3)[0])
    if what == "recording":
        soundfile.write(tmp_path / "m.wav", voices[1], 16000)
    elif what == "voices":
        target = ExtractionTarget("anna", enroll(extractor, 9), target.output)
    elif what == "blocks":
        blocks = Blocks.of(3.0)
    elif what == "shifts":
        shifts = 2
    else:
        (tmp_path / ".out.wav.partial.json").write_text("{")
    work = LongExtraction(extractor, tmp_path / "m.wav", [target], blocks, shifts)
    assert f"differ in {what}; started anew" in caplog.text and work.store.count == 0
    work.close()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_shifted_blocks_resume_and_equal_extract_in_memory(voices, tmp_path):
    torch.manual_seed(0)
    config = {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    extractor = Extractor(build_network(config | {"presence": {}, "shifts": 2}), "cpu", "tiny", "hash")
    mixture, voice = tmp_path / "m.wav", enroll(extractor)
    soundfile.write(mixture, (voices[0] + voices[1]) / 3, 16000, subtype="FLOAT")

    def extract(name: str, **options) -> np.ndarray:
        target = ExtractionTarget("anna", voice, tmp_path / name)
        extract_file(extractor, mixture, [target], blocks=SHORT, force=True, **options)
        return soundfile.read(tmp_path / name, dtype="float32")[0]

    whole, single = extract("whole.wav", shifts=3), extract("single.wav", shifts=1)
    with pytest.raises(Stop):
        extract("parts.wav", shifts=3, progress=stopping(after=4)[0])
    progress, calls = stopping(after=-1)
    np.testing.assert_array_equal(extract("parts.wav", shifts=3, progress=progress), whole)
    assert len(calls) < 6  # not all of the blocks again
    for shifts, written in ((3, whole), (1, single), (None, extract("own.wav"))):
        expected = extractor.extract(mixture, voice, blocks=SHORT, shifts=shifts).waveform
        np.testing.assert_allclose(written, expected[0] if expected.ndim == 2 else expected, atol=1e-6)
    assert not np.array_equal(whole, single) and not np.array_equal(extract("two.wav", shifts=2), single)


def test_damaged_recording_leaves_no_files(extractor, voices, tmp_path):
    samples = voices[0].copy()
    samples[-100] = np.nan
    soundfile.write(tmp_path / "m.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        extract_file(
            extractor,
            tmp_path / "m.wav",
            [ExtractionTarget("a", enroll(extractor), tmp_path / "o.wav")],
            blocks=SHORT,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m.wav"]


def test_second_process_at_one_output_is_refused(extractor, voices, tmp_path):
    soundfile.write(tmp_path / "m.wav", voices[0], 16000)
    targets = [ExtractionTarget("a", enroll(extractor), tmp_path / "o.wav")]
    first = LongExtraction(extractor, tmp_path / "m.wav", targets, SHORT)
    with pytest.raises(InputError, match="another process"):
        LongExtraction(extractor, tmp_path / "m.wav", targets, SHORT)
    first.close()


def test_absent_voice_is_silence_unless_forced(extractor, voices, tmp_path):
    soundfile.write(tmp_path / "m.wav", voices[0], 16000)
    sure = Extractor(extractor.network, "cpu", "tiny", extractor.model_hash, Calibration(offset=-50.0))
    voice, lines = enroll(sure), [tmp_path / "t.json", tmp_path / "t.rttm"]
    targets = [ExtractionTarget("anna", voice, tmp_path / "o.wav", tmp_path / "r.wav")]
    (result,) = extract_file(sure, tmp_path / "m.wav", targets, lines, blocks=SHORT)
    assert result.absent and result.silenced and result.presence < 0.5
    assert not soundfile.read(tmp_path / "o.wav")[0].any()
    np.testing.assert_array_equal(soundfile.read(tmp_path / "r.wav")[0], soundfile.read(tmp_path / "m.wav")[0])
    target = json.loads((tmp_path / "t.json").read_text())["targets"][0]
    assert target["absent"] and target["segments"] == [] and (tmp_path / "t.rttm").read_text() == ""
    (forced,) = extract_file(sure, tmp_path / "m.wav", targets, force=True, overwrite=True, blocks=SHORT)
    assert forced.absent and not forced.silenced and soundfile.read(tmp_path / "o.wav")[0].any()


def test_network_that_returns_nan_is_reported(voices, tmp_path):
    torch.manual_seed(0)
    config = {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    network = build_network(config)
    good = Extractor(network, "cpu", "tiny", "hash")
    voice = enroll(good)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    soundfile.write(tmp_path / "m.wav", voices[0], 16000)
    with pytest.raises(WesepError, match="not finite"):
        extract_file(good, tmp_path / "m.wav", [ExtractionTarget("a", voice, tmp_path / "o.wav")], blocks=SHORT)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["m.wav"]
