"""Recorded rooms of a bank: alignment, measures, resampling."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wesep_py.audio import write
from wesep_py.common.errors import InputError
from wesep_py.simulation.rooms.bank_making import RecordedRoomsConfig, RoomBankConfig, make_bank
from wesep_py.simulation.rooms.recorded_rooms import find_recorded_rooms
from wesep_py.simulation.rooms.reverberation import reverberate

RATE = 8000


def _record(
    path: Path, rt60_s: float, delay: int, channels: int = 1, noise_db: float = -60.0, rate: int = 16000
) -> None:
    """Write a response with its direct path at `delay`, one sample later in each further channel."""
    rng = np.random.default_rng([delay, channels])
    response = np.zeros((channels, rate))
    for channel in range(channels):
        start = delay + channel
        taps = np.arange(rate - start)
        response[channel, start:] = 0.02 * rng.standard_normal(taps.size) * 10 ** (-3 * taps / (rt60_s * rate))
        response[channel, start] = -0.4
    response += 0.02 * 10 ** (noise_db / 20) * rng.standard_normal(response.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, response.astype(np.float32), rate, subtype="FLOAT")


def test_recorded_rooms_are_aligned_measured_and_drawn(tmp_path: Path) -> None:
    for n in range(2):
        _record(tmp_path / "wavs" / "hall" / f"seat{n}.wav", 0.6, 200 + 90 * n, channels=2)
        _record(tmp_path / "wavs" / "studio" / f"seat{n}.wav", 0.2, 400 + 90 * n)
    config = RoomBankConfig(sample_rate=16000, simulated=None, recorded=(RecordedRoomsConfig(str(tmp_path / "wavs")),))
    bank = make_bank(config, tmp_path / "bank")
    assert [room["name"] for room in bank.rooms] == ["hall", "studio"]
    assert [room["rt60_s"] for room in bank.rooms] == [pytest.approx(0.6, rel=0.1), pytest.approx(0.2, rel=0.1)]
    for index, entry in enumerate(bank.responses):
        assert entry["direct_taps"] == ([96, 97] if index < 2 else [96])
        assert entry["direct_gains"] == pytest.approx([-1.0] * len(entry["direct_taps"]), abs=0.01)
        assert np.abs(bank.response(index)).argmax(axis=1).tolist() == entry["direct_taps"]
    assert bank.responses[2]["file"] == "studio/seat0.wav"
    # Noise alone is cut: the studio has none of the last half second of its second.
    assert bank.responses[2]["taps"] < 8000
    recipe = bank.draw_recipe(np.random.default_rng(0), 2, (0.5, 0.7))
    assert set(recipe.responses) == {0, 1}
    click = np.zeros((2, 2000), dtype=np.float32)
    click[:, 700] = 1.0
    for channel in (0, 1):
        images, _ = reverberate(click, dataclasses.replace(recipe, channel=channel), 16000)
        assert np.abs(images).argmax(axis=1).tolist() == [700, 700]


def test_recorded_rooms_are_resampled_and_bad_files_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _record(tmp_path / "wavs" / "a" / "good.wav", 0.3, 480, rate=48000)
    (tmp_path / "wavs" / "a" / "bad.wav").write_bytes(b"no audio")
    (tmp_path / "wavs" / "b").mkdir()
    (tmp_path / "wavs" / "b" / "bad.wav").write_bytes(b"no audio")
    recorded = RecordedRoomsConfig(str(tmp_path / "wavs"), max_s=0.2)
    bank = make_bank(RoomBankConfig(simulated=None, recorded=(recorded,)), tmp_path / "bank")
    assert [room["name"] for room in bank.rooms] == ["a"]
    assert len(bank.responses) == 1 and bank.responses[0]["taps"] <= 96 + 3200
    assert abs(int(np.abs(bank.response(0)[0]).argmax()) - 96) <= 0
    assert "a/bad.wav" in caplog.text and "b/bad.wav" in caplog.text


def test_rooms_are_named_by_a_pattern(tmp_path: Path) -> None:
    for name in ("x_room1_far.wav", "x_room1_near.wav", "x_room2_far.wav"):
        (tmp_path / name).write_bytes(b"")
    rooms = find_recorded_rooms(tmp_path, r"_(room\d)_")
    assert [(room.name, len(room.paths)) for room in rooms] == [("room1", 2), ("room2", 1)]
    assert [room.name for room in find_recorded_rooms(tmp_path)] == [p.name for p in sorted(tmp_path.iterdir())]
    for pattern, message in (
        (r"room\d", "has no group"),
        (r"(room1)", "finds no room in 'x_room2_far"),
        ("(", "is no reg"),
    ):
        with pytest.raises(InputError, match=message):
            find_recorded_rooms(tmp_path, pattern)


def test_lmdb_gives_the_same_bank_as_the_folder(tmp_path: Path, wesep) -> None:
    pytest.importorskip("lmdb")
    for n in range(2):
        _record(tmp_path / "wavs" / "hall" / f"seat{n}.wav", 0.4, 200 + 90 * n, channels=2)
    _record(tmp_path / "wavs" / "studio.wav", 0.2, 400)
    assert (
        wesep(
            "lmdb", tmp_path / "wavs", "-o", tmp_path / "n.lmdb", "--all-channels", "--root", tmp_path / "wavs"
        ).status
        == 0
    )
    banks = [
        make_bank(RoomBankConfig(simulated=None, recorded=(RecordedRoomsConfig(str(source)),)), tmp_path / f"bank-{n}")
        for n, source in enumerate((tmp_path / "wavs", tmp_path / "n.lmdb"))
    ]
    assert banks[0].rooms == banks[1].rooms and [room["name"] for room in banks[1].rooms] == ["hall", "studio.wav"]
    for index in range(3):
        assert np.array_equal(banks[0].response(index), banks[1].response(index))
    assert banks[1].response(0).shape[0] == 2
    with pytest.raises(InputError, match=r"none\.lmdb: no such file"):
        find_recorded_rooms(tmp_path / "none.lmdb")
