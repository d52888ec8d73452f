"""A room bank straight from an LMDB of WeSep."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lmdb")

from tests.data.public_layouts import RATE, make_lmdb
from wesep_py.common.errors import InputError
from wesep_py.simulation.rooms import bank_opening
from wesep_py.simulation.rooms.bank_opening import open_bank


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    """Two rooms with three responses each, which decay within 0.2 s and 0.4 s."""
    keys = {}
    for room, decay_s in (("small", 0.2), ("large", 0.4)):
        for number in range(3):
            rng = np.random.default_rng(number)
            t = np.arange(RATE) / RATE
            taps = 0.2 * rng.standard_normal(t.size) * 10 ** (-3 * t / decay_s)
            taps[: 50 + number] = 0
            taps[50 + number] = 0.9
            keys[f"rirs/{room}/r{number}.wav"] = taps
    return make_lmdb(tmp_path / "lmdb", keys)


def test_rooms_are_drawn_by_their_measured_reverberation(responses: Path):
    bank = open_bank(responses)
    assert bank.sample_rate == RATE and len(bank.rooms) == 2
    assert sorted(round(room["rt60_s"], 1) for room in bank.rooms) == [0.2, 0.4]
    recipe = bank.draw_recipe(np.random.default_rng(0), 2, (0.3, 0.5))
    assert Path(recipe.path) == responses
    full, gains, lead = open_bank(recipe.path).read(recipe, RATE)
    assert full.shape[0] == 2 and np.allclose(full[:, lead], gains, atol=1e-3)


def test_other_processes_open_the_same_bank(responses: Path):
    bank = open_bank(responses)
    again = pickle.loads(pickle.dumps(bank))
    assert again.fingerprint == bank.fingerprint == bank_opening.StoredRoomBank(responses).fingerprint


def test_too_many_responses_need_a_bank(responses: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bank_opening, "MAX_STORED_RESPONSES", 5)
    with pytest.raises(InputError, match=r"has 6 room responses.*make_room_bank"):
        bank_opening.StoredRoomBank(responses)
