"""A live session with a sound card that is a thread, and a network that halves the amplitude."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.inference.sound_devices import SoundDevices
from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.inference.live_stream import live_session
from wesep_py.inference.live_stream.live_session import LiveSession, Recorder
from wesep_py.inference.live_stream.sound_card import find_device

BLOCK, NUM_BLOCKS = 160, 20
SIGNAL = (0.1 * np.random.default_rng(0).standard_normal((BLOCK * NUM_BLOCKS, 1))).astype(np.float32)


class Halving:
    """Stream without latency that halves the amplitude; `slow` blocks take longer."""

    sample_rate, num_channels, latency, delay, presence = 16000, 1, 80, 240, 0.75

    def __init__(self, slow: dict[int, float] | None = None, error: Exception | None = None) -> None:
        self.slow, self.error, self.num_blocks = slow or {}, error, -1

    def process(self, samples: np.ndarray) -> np.ndarray:
        if self.num_blocks >= 0:
            time.sleep(self.slow.get(self.num_blocks, 0.0))
            if self.error is not None:
                raise self.error
            self.num_blocks += 1
        return samples / 2

    def reset(self) -> None:
        """Begin: the warm-up is over."""
        self.num_blocks = 0


def session_of(sound: SoundDevices, stream: Halving, recorder: Recorder | None = None) -> LiveSession:
    microphone, loudspeaker = find_device(sound, None, "input"), find_device(sound, None, "output")
    return LiveSession(sound, stream, microphone, loudspeaker, BLOCK, recorder)  # type: ignore[arg-type]


def run(session: LiveSession, sound: SoundDevices, num_blocks: int = NUM_BLOCKS) -> np.ndarray:
    """Return what was played in the first blocks."""
    with session:
        deadline = time.monotonic() + 20
        while len(sound.played) < num_blocks and time.monotonic() < deadline:
            session.wait(0.01)
    return np.concatenate(sound.played[:num_blocks])


def in_step(sound: SoundDevices, session: LiveSession) -> None:
    """Make the sound card wait until the worker has done its work, so that nothing depends on the machine."""
    sound.pace = session._waiting.join


def test_the_voice_is_played_after_the_lead(tmp_path: Path):
    sound = SoundDevices(signal=SIGNAL)
    recorder = Recorder(tmp_path, 16000, 1)
    session = session_of(sound, Halving(), recorder)
    in_step(sound, session)
    played = run(session, sound)
    lead = live_session.LEAD_BLOCKS * BLOCK
    np.testing.assert_array_equal(played[lead:], SIGNAL[: len(played) - lead] / 2)
    assert not played[:lead].any()
    status = session.status()
    assert (status.drops, status.presence) == (0, 0.75)
    assert (status.algorithm_ms, status.buffer_ms, round(status.device_ms)) == (5.0, 10.0 + 20.0, 30)
    # Both sides are recorded as they were, and begin at the same sample.
    microphone, voice = recorder.close()
    assert (microphone.name, voice.name) == ("microphone.wav", "voice.wav")
    recorded, rate = soundfile.read(microphone, dtype="float32")
    np.testing.assert_array_equal(recorded[: len(SIGNAL)], SIGNAL[:, 0])
    np.testing.assert_array_equal(soundfile.read(voice, dtype="float32")[0][: len(played)], played[:, 0])
    assert rate == 16000 and len(recorded) == recorder.num_samples


def test_levels_are_in_dbfs():
    sound = SoundDevices(signal=np.full((BLOCK * NUM_BLOCKS, 1), 0.1, np.float32))
    session = session_of(sound, Halving())
    in_step(sound, session)
    sound.num_blocks, sound.says_so = NUM_BLOCKS, False
    run(session, sound)
    assert session.status().input_dbfs == pytest.approx(-20.0, abs=1e-3)
    # Two of the twenty blocks were silent.
    assert session.status().output_dbfs == pytest.approx(-26.02 + 10 * np.log10(0.9), abs=0.01)


def test_a_late_block_is_silence_and_the_delay_stays_the_same():
    sound = SoundDevices(signal=SIGNAL)
    session = session_of(sound, Halving(slow={6: 0.2}))
    sound.pace = lambda: session._waiting.join() if len(sound.played) not in (7, 8, 9) else None
    played = run(session, sound)
    expected = np.concatenate([np.zeros((2 * BLOCK, 1), np.float32), SIGNAL[: -2 * BLOCK] / 2])
    blocks = (played == expected).reshape(NUM_BLOCKS, BLOCK).all(axis=1)
    late = [number for number, is_right in enumerate(blocks) if not is_right]
    # Block 6 is due at 8; what waited behind it while it was computed is late as well, and no more.
    assert 8 in late and set(late) <= {8, 9, 10, 11}
    assert session.status().drops == len(late)
    assert not played.reshape(NUM_BLOCKS, BLOCK)[late].any()


def test_devices_that_lose_samples_are_counted():
    sound = SoundDevices(signal=SIGNAL)
    session = session_of(sound, Halving())
    in_step(sound, session)
    sound.flags.input_overflow = True
    run(session, sound)
    assert session.status().drops >= NUM_BLOCKS


@pytest.mark.parametrize("says_so", [True, False])
def test_an_unplugged_device_ends_the_session_and_keeps_the_recording(
    says_so: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_session, "SILENT_AFTER_S", 0.3)
    sound = SoundDevices(signal=SIGNAL, num_blocks=10, says_so=says_so)
    recorder = Recorder(tmp_path, 16000, 1)
    session = session_of(sound, Halving(), recorder)
    in_step(sound, session)
    with pytest.raises(WesepError, match=r"the sound stopped after 0\.1 s: 'Headset' was unplugged"):
        run(session, sound)
    assert [soundfile.info(path).frames for path in recorder.close()] == [10 * BLOCK] * 2


def test_an_error_of_the_network_is_raised(tmp_path: Path):
    sound = SoundDevices(signal=SIGNAL)
    recorder = Recorder(tmp_path, 16000, 1)
    with pytest.raises(WesepError, match="not finite"):
        run(session_of(sound, Halving(error=WesepError("not finite")), recorder), sound)
    assert len(recorder.close()) == 2


def test_a_device_that_cannot_be_opened_is_one_line():
    sound = SoundDevices(open_error="Device unavailable [PaErrorCode -9985]")
    with pytest.raises(WesepError, match=r"^'Headset' cannot be opened \(Device unavailable.*close other"):
        run(session_of(sound, Halving()), sound)


def test_a_recorder_checks_its_files_and_writes_none_without_sound(tmp_path: Path):
    assert Recorder(tmp_path, 16000, 1).close() == [] and not list(tmp_path.iterdir())
    (tmp_path / "voice.wav").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        Recorder(tmp_path, 16000, 1)
    with pytest.raises(InputError, match="does not exist"):
        Recorder(tmp_path / "missing", 16000, 1)
    assert (tmp_path / "voice.wav").read_bytes() == b"mine"


def test_a_recording_ends_where_a_wav_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_session, "_LARGEST_WAV_BYTES", 4 * 250)
    recorder = Recorder(tmp_path, 16000, 1)
    for _ in range(3):
        recorder.put(np.full((1, 100), np.nan, np.float32), np.ones((1, 100), np.float32))
    assert [soundfile.info(path).frames for path in recorder.close()] == [200, 200]
    assert recorder.is_full
