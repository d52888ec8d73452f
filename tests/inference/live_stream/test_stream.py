"""A stream gives the estimate of the whole recording, whatever the blocks, rates, types, voices and interruptions."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest

from tests.inference.networks import BSRNN, noise, random_extractor
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.inference import Extractor, Stream, Voice
from wesep_py.inference.presence_decision.presence import Calibration
from wesep_py.network.extraction_network import build_network

LIVE = {
    "backbone": {**BSRNN, "live": True, "norm": "frame", "window": "asymmetric"},
    "cues": [{"name": "tf_map"}],
    "live_presence": {"smoothing": "lstm"},
}


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return random_extractor(LIVE)[0]


@pytest.fixture(scope="module")
def voice(extractor: Extractor) -> Voice:
    return extractor.enroll((noise(16000)[0], 16000))


@pytest.fixture(scope="module")
def other(extractor: Extractor) -> Voice:
    return extractor.enroll((noise(24000)[0][::-1], 16000))


def cut(stream: Stream, mixture: np.ndarray, largest: int = 700, seed: int = 0) -> np.ndarray:
    """Return what a stream makes of a mixture in blocks of 0 to `largest` samples."""
    rng, blocks, start = np.random.default_rng(seed), [], 0
    while start < mixture.shape[-1]:
        stop = start + int(rng.integers(0, largest + 1))
        blocks.append(stream.process(mixture[..., start:stop]))
        start = stop
    return np.concatenate([*blocks, stream.flush()], axis=-1)


@pytest.mark.parametrize("num_samples", [0, 1, 127, 128, 129, 255, 256, 257, 1000, 16001])
def test_any_cutting_gives_the_estimate_of_the_whole_recording(extractor: Extractor, voice: Voice, num_samples: int):
    mixture = noise(num_samples, 2 if num_samples > 1 else 1) + 0.02
    result = cut(extractor.stream(voice, num_channels=len(mixture)), mixture, seed=num_samples)
    assert result.size == mixture.size
    if num_samples:
        expected = extractor.live().extract((mixture, 16000), voice).waveform
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_one_block_equals_many_at_another_rate(extractor: Extractor, voice: Voice):
    mixture = noise(33333)[0]
    stream = extractor.stream(voice, sample_rate=44100)
    pieces = cut(stream, mixture)
    stream.reset()
    whole = np.concatenate([stream.process(mixture), stream.flush()])
    assert pieces.shape == whole.shape == mixture.shape
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    # The offline path resamples with a sharper filter: the same signal, up to the band edge.
    offline = extractor.live().extract((mixture, 44100), voice).waveform
    assert np.corrcoef(offline[500:-500], whole[500:-500])[0, 1] > 0.95


@pytest.mark.parametrize("rate", [16000, 48000, 44100, 8000])
def test_a_constant_delay_returns_as_many_samples_as_it_gets(extractor: Extractor, voice: Voice, rate: int):
    mixture, rng = noise(rate)[0], np.random.default_rng(1)
    delayed, stream = extractor.stream(voice, rate, constant_delay=True), extractor.stream(voice, rate)
    blocks, start = [], 0
    while start < len(mixture):
        stop = min(len(mixture), start + int(rng.integers(0, 500)))
        blocks.append(delayed.process(mixture[start:stop]))
        assert len(blocks[-1]) == stop - start
        start = stop
    last = delayed.flush()
    assert len(last) == delayed.delay
    result = np.concatenate([*blocks, last])
    assert not result[: delayed.delay].any()
    np.testing.assert_allclose(result[delayed.delay :], cut(stream, mixture), atol=1e-5)


def test_latency_and_delay_are_those_of_the_network_and_the_resamplers(extractor: Extractor, voice: Voice):
    stream = extractor.stream(voice)
    assert (stream.latency, stream.delay) == (254, 255)  # two hops of 128 samples
    assert 254 * 3 < extractor.stream(voice, 48000).latency < 254 * 3 + 48 * 4.5
    mixture, changed = noise(6000)[0], noise(6000)[0]
    changed[3000:] = 1.0
    results = []
    for samples in (mixture, changed):
        stream.reset()
        results.append(np.concatenate([stream.process(samples), stream.flush()]))
    first = int(np.flatnonzero(np.abs(results[0] - results[1]) > 1e-6)[0])
    assert 3000 - stream.latency <= first <= 3000


def test_several_voices_at_once_equal_one_by_one(extractor: Extractor, voice: Voice, other: Voice):
    mixture = noise(9000)[0]
    both = cut(extractor.stream([voice, other]), mixture)
    assert both.shape == (2, 9000)
    for row, single in zip(both, (voice, other), strict=True):
        np.testing.assert_allclose(row, cut(extractor.stream(single), mixture), atol=1e-6)


def test_a_changed_voice_is_extracted_from_then_on(extractor: Extractor, voice: Voice, other: Voice):
    stream, mixture = extractor.stream(voice), noise(8000)[0]
    before = stream.process(mixture[:4000])
    stream.change_voice(other)
    after = np.concatenate([stream.process(mixture[4000:]), stream.flush()])
    unchanged = cut(extractor.stream(voice), mixture)
    np.testing.assert_allclose(before, unchanged[: len(before)], atol=1e-5)
    assert np.abs(after - unchanged[len(before) :]).max() > 1e-4


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("constant_delay", [False, True])
def test_a_stored_state_continues_the_stream(extractor: Extractor, voice: Voice, rate: int, constant_delay: bool):
    mixture = noise(2 * rate)[0]
    stream = extractor.stream(voice, rate, constant_delay=constant_delay)
    first = stream.process(mixture[: rate + 77])
    stored = pickle.dumps(stream.state())
    later = extractor.stream(voice, rate, constant_delay=constant_delay)
    later.restore(pickle.loads(stored))
    rest = [np.concatenate([one.process(mixture[rate + 77 :]), one.flush()]) for one in (stream, later)]
    np.testing.assert_array_equal(*rest)
    assert len(first) + len(rest[0]) == len(mixture) + (stream.delay if constant_delay else 0)


def test_a_state_of_another_stream_is_refused(extractor: Extractor, voice: Voice):
    state = extractor.stream(voice).state()
    with pytest.raises(InputError, match="a stream with another sample_rate"):
        extractor.stream(voice, 48000).restore(state)
    with pytest.raises(InputError, match="other channels or voices"):
        extractor.stream([voice, voice]).restore(state)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16])
def test_the_result_has_the_type_of_the_block(extractor: Extractor, voice: Voice, dtype: type):
    mixture, stream = noise(4000)[0], extractor.stream(voice)
    block = (mixture * 32768).astype(dtype) if dtype == np.int16 else mixture.astype(dtype)
    result = stream.process(block)
    assert result.dtype == dtype
    expected = extractor.stream(voice).process(mixture)
    scale = 32768 if dtype == np.int16 else 1
    np.testing.assert_allclose(result / scale, expected, atol=2e-3)


def test_16_bit_samples_beyond_full_scale_are_clipped(voice: Voice):
    extractor, _ = random_extractor(LIVE)
    last = extractor.network.backbone.masks[0].layers[-1]
    last.bias.data += 5
    block = (noise(4000)[0] * 200000).clip(-32768, 32767).astype(np.int16)
    result = extractor.stream(extractor.enroll((noise(16000)[0], 16000))).process(block)
    assert result.max() == 32767 and result.min() == -32768


def test_samples_that_are_not_finite_become_zero_and_are_counted(extractor: Extractor, voice: Voice):
    mixture = noise(6000)[0]
    broken, clean = mixture.copy(), mixture.copy()
    broken[[100, 2000, 2001]] = np.nan, np.inf, -np.inf
    clean[[100, 2000, 2001]] = 0
    stream = extractor.stream(voice)
    np.testing.assert_array_equal(cut(stream, broken), cut(extractor.stream(voice), clean))
    assert stream.num_replaced == 3


def test_silence_stays_silence(extractor: Extractor, voice: Voice):
    assert not cut(extractor.stream(voice), np.zeros(8000, np.float32)).any()


def test_presence_is_that_of_the_last_frame(extractor: Extractor, voice: Voice, other: Voice):
    stream = extractor.stream(voice)
    assert stream.presence is None
    stream.process(noise(4000)[0])
    assert 0 < stream.presence < 1
    several = extractor.stream([voice, other])
    several.process(noise(4000)[0])
    assert several.presence[0] == pytest.approx(stream.presence, abs=1e-5)
    extractor.live_calibration = Calibration(frame_scale=0.5, frame_offset=2.0)
    calibrated = extractor.stream(voice)
    calibrated.process(noise(4000)[0])
    extractor.live_calibration = Calibration()
    logit = np.log(stream.presence / (1 - stream.presence))
    assert calibrated.presence == pytest.approx(1 / (1 + np.exp(-0.5 * logit - 2.0)), abs=1e-5)
    headless, own = random_extractor({**LIVE, "live_presence": None})
    without = headless.stream(own)
    without.process(noise(4000)[0])
    assert without.presence is None


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros(10, np.int32), "samples: are of type int32; float or int16 is needed"),
        (np.zeros(10, complex), "are of type complex128"),
        (np.array(["a"]), "float or int16 is needed"),
        (np.zeros((2, 10), np.float32), r"have the shape \[2, 10\]; \[samples\] or \[1, samples\] is needed"),
        (np.zeros((1, 1, 10), np.float32), "have the shape"),
        (np.float32(0.5), "have the shape"),
    ],
)
def test_a_wrong_block_is_refused_and_changes_nothing(extractor: Extractor, voice: Voice, block, message: str):
    mixture, stream = noise(5000)[0], extractor.stream(voice)
    first = stream.process(mixture[:2000])
    with pytest.raises(InputError, match=message):
        stream.process(block)
    rest = np.concatenate([stream.process(mixture[2000:]), stream.flush()])
    np.testing.assert_allclose(np.concatenate([first, rest]), cut(extractor.stream(voice), mixture), atol=1e-5)


def test_an_error_within_a_step_changes_nothing(extractor: Extractor, voice: Voice, monkeypatch: pytest.MonkeyPatch):
    mixture, stream = noise(5000)[0], extractor.stream([voice, voice])
    first = stream.process(mixture[:2000])
    step, calls = stream.engine.step, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 2:  # the second voice, after the first was computed
            raise MemoryError
        return step(*arguments)

    monkeypatch.setattr(stream.engine, "step", failing)
    with pytest.raises(MemoryError):
        stream.process(mixture[2000:])
    rest = np.concatenate([stream.process(mixture[2000:]), stream.flush()], axis=1)
    np.testing.assert_allclose(
        np.concatenate([first, rest], axis=1), cut(extractor.stream([voice, voice]), mixture), atol=1e-5
    )


def test_usage_that_is_refused(extractor: Extractor, voice: Voice):
    stream = extractor.stream(voice)
    with pytest.raises(InputError, match="is 48000 Hz, and the stream began at 16000 Hz"):
        stream.process(noise(10)[0], sample_rate=48000)
    stream.flush()
    with pytest.raises(InputError, match=r"was flushed; call reset\(\)"):
        stream.process(noise(10)[0])
    assert stream.flush().size == 0
    foreign = Voice(voice.tensors, "another", 1.0)
    with pytest.raises(InputError, match="enrolled with another model"):
        extractor.stream(foreign)
    with pytest.raises(InputError, match="enrolled with another model"):
        stream.change_voice(foreign)
    with pytest.raises(InputError, match="voices: is empty"):
        extractor.stream([])
    for arguments in ({"sample_rate": 100}, {"sample_rate": 16000.5}, {"num_channels": 0}, {"num_channels": 65}):
        with pytest.raises(InputError, match=next(iter(arguments))):
            extractor.stream(voice, **arguments)


def test_an_offline_model_says_what_looks_ahead():
    extractor = Extractor(build_network({"backbone": BSRNN, "cues": [{"name": "tf_map"}]}), model_hash="hash")
    with pytest.raises(ConfigError, match="its backbone 'bsrnn' looks ahead"):
        extractor.stream(extractor.enroll((noise(16000)[0], 16000)))


@pytest.mark.parametrize("constant_delay", [False, True])
def test_a_long_stream_neither_drifts_nor_grows(extractor: Extractor, voice: Voice, constant_delay: bool):
    stream, block = extractor.stream(voice, 48000, constant_delay=constant_delay), noise(4801)[0]
    for _ in range(20):
        stream.process(block)
    sizes = [len(pickle.dumps(stream.state()))]
    tracemalloc.start()
    for _ in range(200):
        stream.process(block)
    sizes.append(len(pickle.dumps(stream.state())))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(sizes[1] - sizes[0]) < 20_000 and grown < 2_000_000
