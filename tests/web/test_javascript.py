"""The page's modules give what the Python package gives, in node; the browser is not needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import VOICES, make_voice
from tests.web.javascript import WEB, call, missing_node
from wesep_py import audio
from wesep_py.features.array_high_pass import ArrayHighPass
from wesep_py.inference.enrolling.enrollment import load_enrollments
from wesep_py.inference.enrolling.speech_activity import open_enrollment, scan_speech, select_segments
from wesep_py.inference.inputs_outputs.timeline import (
    SpeechSegment,
    as_csv,
    as_srt,
    frame_energies,
    timeline_from_energies,
    timeline_from_presence,
)
from wesep_py.inference.long_recordings.blocks import BlockRunner, Blocks, match_blocks
from wesep_py.inference.presence_decision.presence import Calibration, pool_logits, presence_of_channels
from wesep_py.inference.result import level_gain

pytestmark = pytest.mark.skipif(missing_node() is not None, reason=str(missing_node()))
RATE = 16000
CALIBRATION = {
    "scale": 1.5,
    "offset": 0.6,
    "threshold": 0.2,
    "frame_scale": 1.1,
    "frame_offset": 0.4,
    "growth": 0.3,
}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Return noise that comes and goes, and does not begin at zero."""
    rng = np.random.default_rng(seed)
    envelope = 1 + np.sin(np.arange(shape[-1]) / 700)
    return (0.05 + 0.1 * rng.standard_normal(shape) * envelope).astype(np.float32)


def test_the_tests_in_javascript_pass():
    files = sorted(str(path) for path in (WEB / "test").glob("*.test.js"))
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(files) >= 6


@pytest.mark.parametrize(("num_samples", "rate"), [(1, 16000), (500, 16000), (30011, 16000), (20000, 44100)])
def test_the_high_pass_is_that_of_python(num_samples: int, rate: int):
    samples = noise(num_samples)
    found = np.asarray(call("audio/high_pass.js", "removeLowFrequencies", samples, rate))
    assert np.abs(found - ArrayHighPass(rate, 40.0)(samples)).max() < 2e-6


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48000, 16000), (44100, 16000), (16000, 44100), (8000, 16000)])
def test_speech_is_resampled_as_by_soxr(from_rate: int, to_rate: int):
    voice = audio.resample(make_voice(*VOICES["anna"], 1.0, seed=1), RATE, from_rate)
    found = np.asarray(call("audio/resample.js", "resample", voice, from_rate, to_rate))
    expected = audio.resample(voice, from_rate, to_rate)
    assert found.shape == expected.shape
    assert np.abs(found - expected)[200:-200].max() < 1e-4 * np.abs(expected).max()


def test_presence_is_that_of_python():
    logits = 4 * np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32)
    found = call("model/presence.js", "presenceOfChannels", logits, 0.016, CALIBRATION)
    expected = presence_of_channels(list(logits), 0.016, Calibration(**CALIBRATION))
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-9)
    assert found["isPresent"] == expected.is_present and found["threshold"] == expected.threshold
    np.testing.assert_allclose(found["track"], expected.track, atol=1e-9)
    for row in ([60.0] * 40, [-80.0] * 40, [3.0]):
        assert call("model/presence.js", "poolLogits", row, 0.016) == pytest.approx(pool_logits(row, 0.016), rel=1e-9)


@pytest.mark.parametrize("level", ["fitted", "learned", "kept"])
@pytest.mark.parametrize("scale", [0.9, -4.0, 0.0])
def test_the_level_is_that_of_python(level: str, scale: float):
    mixture = noise(2, 4000)
    estimate = (scale * (mixture + 0.5 * noise(2, 4000, seed=1))).astype(np.float32)
    found = call("model/level.js", "levelGain", estimate, mixture, level)
    assert found == pytest.approx(level_gain(estimate, mixture, level), rel=1e-6)


def test_segments_of_a_track_are_those_of_python():
    steps = np.random.default_rng(3).standard_normal(3000)
    track = 1 / (1 + np.exp(-np.convolve(steps, np.ones(12) / 2.5, mode="same")))
    found = call("model/timeline.js", "segmentsFromPresence", track, 0.016, 47.9)
    expected = timeline_from_presence("voice", np.float32(track), 0.016, 47.9).segments
    assert len(expected) > 10
    assert [(s["startS"], s["endS"]) for s in found] == [(s.start_s, s.end_s) for s in expected]
    assert call("model/timeline.js", "asCsv", found, "voice") == as_csv([("voice", segment) for segment in expected])
    assert call("model/timeline.js", "asSrt", found, "voice") == as_srt([("voice", segment) for segment in expected])


def test_segments_of_a_model_without_presence_head_are_those_of_python():
    rate = 22050
    voice = audio.resample(make_voice(*VOICES["bert"], 4.0, seed=1), RATE, rate)
    voice[20000:45000] *= 1e-3
    mixture = (voice + 0.02 * noise(len(voice)))[None].astype(np.float32)
    found = call("model/timeline.js", "segmentsFromEnergies", voice[None], mixture, rate)
    frame, high_pass = round(0.02 * rate), ArrayHighPass(rate, 40.0)
    energies = [frame_energies(high_pass(signal), frame) for signal in (voice[None], mixture)]
    expected = timeline_from_energies("voice", *energies, frame / rate, len(voice) / rate).segments
    assert len(expected) >= 2
    times = [[(s["startS"], s["endS"]) for s in found], [(s.start_s, s.end_s) for s in expected]]
    np.testing.assert_allclose(*times, atol=1e-9)


@pytest.mark.parametrize("matches", [True, False])
@pytest.mark.parametrize("duration_s", [29.0, 31.0, 61.3])
def test_long_recordings_are_cut_and_faded_as_in_python(duration_s: float, matches: bool, tmp_path: Path):
    """The network stands aside: each block has another level, which also shows where it ends."""
    rate, stride = 400, 8
    mixture = noise(2, round(duration_s * rate))
    script = tmp_path / "blocks.mjs"
    script.write_text(
        f"""import {{ blockGrid, extractChannels, runBlocks }} from {str((WEB / "src/model/blocks.js").as_uri())!r};
        const grid = blockGrid({rate}, {stride});
        export const run = (mixture) => runBlocks(mixture, grid, {str(matches).lower()}, (block) => {{
          const gain = (block[0][5] > 0.05 ? -0.5 : 1) * (1 + Math.abs(block[0][0]));
          return extractChannels(block, null, async (samples) => ({{
            estimate: samples.map((sample) => gain * sample),
            logits: Float32Array.from({{ length: Math.floor(samples.length / {stride}) + 1 }}, (_, n) => samples[n]),
          }}));
        }});""",
        encoding="utf-8",
    )

    def network(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gain = (-0.5 if block[0, 5] > 0.05 else 1) * (1 + abs(block[0, 0]))
        return (np.float32(gain) * block)[None], block[None, :, : block.shape[1] // stride + 1].copy()

    found = call(str(script), "run", mixture)
    runner = BlockRunner(network, Blocks().grid(rate, stride), 1, 2, match_levels=matches)
    outputs = [*runner.push(mixture), *runner.finish()]
    assert len(outputs) == {29.0: 1, 31.0: 2, 61.3: 3}[duration_s]
    for key, expected in (
        ("estimates", np.concatenate([output.estimates[0] for output in outputs], axis=1)),
        ("logits", np.concatenate([output.logits[0] for output in outputs], axis=1)),
    ):
        values = np.asarray(found[key])
        assert values.shape == expected.shape
        assert np.abs(values - expected).max() < 1e-6


def test_a_silent_channel_gives_silence_and_no_presence(tmp_path: Path):
    module = (WEB / "src/model/blocks.js").as_uri()
    script = tmp_path / "channels.mjs"
    script.write_text(
        f"import {{ extractChannels }} from {module!r};"
        "export const run = (m) => extractChannels(m, 3, async (s) => ({ estimate: s, logits: null }));",
        encoding="utf-8",
    )
    found = call(str(script), "run", [[1.0, 2.0], [5.0, 5.0]])
    assert found == {"estimates": [[1, 2], [0, 0]], "logits": [[-80] * 3, [-80] * 3]}


def test_blocks_are_matched_as_in_python():
    voice, other = noise(1, 3000), noise(1, 3000, seed=1)
    for later in (-0.5 * voice, 0.95 * voice, 1e-4 * voice, other, voice + 0.8 * other):
        found = call("model/blocks.js", "matchBlocks", voice, later, voice + other)
        assert found == pytest.approx(match_blocks(voice, later.astype(np.float32), voice + other).gain, rel=1e-5)


@pytest.mark.parametrize(("rate", "num_channels"), [(16000, 1), (44100, 1), (16000, 2)])
def test_a_short_enrollment_enters_whole(rate: int, num_channels: int):
    voice = audio.resample(make_voice(*VOICES["carl"], 2.0, seed=1), RATE, rate)
    channels = np.stack([0.5 * voice + 0.3, voice])[-num_channels:]  # the constant makes the quieter channel larger
    found = np.asarray(
        call("model/enrollment.js", "enrollmentSamples", {"channels": channels, "sampleRate": rate}, RATE)
    )
    (expected,) = load_enrollments([(channels, rate)], RATE)
    assert np.abs(found - expected.waveform)[200:-200].max() < 1e-4


def test_of_a_long_enrollment_the_same_segments_are_chosen():
    rate = 8000
    rng = np.random.default_rng(5)
    parts = []
    for take in range(24):
        voice = audio.resample(make_voice(*VOICES["dora"], rng.uniform(1, 3), seed=take), RATE, rate)
        parts += [voice, 1e-3 * rng.standard_normal(round(rng.uniform(0.2, 4) * rate))]
    recording = np.concatenate(parts).astype(np.float32)[None] + np.float32(0.01)
    assert recording.shape[1] > 65 * rate  # more than a block of the scan
    scan = scan_speech(open_enrollment((recording, rate), 1))
    found = call("model/enrollment.js", "scanSpeech", recording, rate)
    assert found["speech"] == scan.speech.tolist() and found["channel"] == scan.channel
    segments = call("model/enrollment.js", "selectSegments", scan.speech.tolist(), recording.shape[1], rate, 10.0)
    assert [tuple(segment) for segment in segments] == select_segments(scan, 10.0)
    samples = call("model/enrollment.js", "enrollmentSamples", {"channels": recording, "sampleRate": rate}, rate)
    (expected,) = load_enrollments([(recording, rate)], rate, max_s=10.0)
    assert np.abs(np.asarray(samples) - expected.waveform).max() < 1e-6


def test_a_segment_without_probability_leaves_its_field_empty():
    rows = call("model/timeline.js", "asCsv", [{"startS": 1.0, "endS": 2.0, "probability": None}], "a")
    assert rows == as_csv([("a", SpeechSegment(1.0, 2.0))])
