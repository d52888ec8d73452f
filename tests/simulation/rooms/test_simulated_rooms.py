"""Simulated rooms of a bank, with pyroomacoustics if it is installed."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.simulation.rooms.acoustics import measure_acoustics
from wesep_py.simulation.rooms.bank_making import RoomBankConfig, make_bank
from wesep_py.simulation.rooms.fra import SPEED_OF_SOUND_M_S
from wesep_py.simulation.rooms.simulated_rooms import SimulatedRoomsConfig, import_pyroomacoustics, simulate_room

RATE = 8000
ROOMS = SimulatedRoomsConfig(
    count=6, method="fra", rt60_s=(0.1, 0.4), num_reflections=256, num_sources=3, num_microphones=2
)
CONFIG = RoomBankConfig(sample_rate=RATE, simulated=ROOMS)


needs_pyroomacoustics = pytest.mark.skipif(
    importlib.util.find_spec("pyroomacoustics") is None, reason="pyroomacoustics is not installed"
)


def test_missing_pyroomacoustics_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    config = dataclasses.replace(CONFIG, simulated=dataclasses.replace(ROOMS, method="hybrid"))
    with pytest.raises(InputError, match=r"need pyroomacoustics .*; pip install 'pyroomacoustics>=0.10', or give") as e:
        make_bank(config, tmp_path / "rooms")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "rooms").exists()


@needs_pyroomacoustics
@pytest.mark.parametrize("method", ["image_source", "hybrid"])
@pytest.mark.parametrize("absorption", ["eyring", "materials"])
def test_rooms_of_pyroomacoustics(method: str, absorption: str) -> None:
    config = SimulatedRoomsConfig(
        method=method, absorption=absorption, num_sources=2, num_microphones=2, num_rays=1000, max_order=30,  # type: ignore[arg-type]
        rt60_s=(0.2, 0.2), length_m=(4, 5), width_m=(4, 5),
        materials={"floor": ["carpet_hairy"], "ceiling": ["ceiling_fibre_absorber"], "walls": ["curtains_velvet"]},
    )  # fmt: skip
    room = simulate_room(config, 3, 0, 16000)
    again = simulate_room(config, 3, 0, 16000)
    for response, same in zip(room.responses, again.responses, strict=True):
        assert np.array_equal(response.samples, same.samples)
        source, microphones = np.array(response.about["source_m"]), np.array(room.about["microphones_m"])
        distances = np.linalg.norm(source - microphones, axis=-1)
        # Air and the high-pass take little of the direct path.
        np.testing.assert_allclose(response.direct_gains, 1 / distances, rtol=0.15)
        assert response.direct_taps[0] == 96
        steps = distances[0] * 16000 / SPEED_OF_SOUND_M_S
        assert abs(steps - round(steps)) < 0.02
        assert response.samples[0, 96] == pytest.approx(response.direct_gains[0])
        assert np.abs(response.samples[0, :84]).max() < 0.1 * np.abs(response.samples[0, 96])
        assert (
            0.15 < measure_acoustics(response.samples[0], 16000, 96).rt60_s < (0.35 if absorption == "eyring" else 1.2)
        )
    assert ("materials" in room.about) == (absorption == "materials")


@needs_pyroomacoustics
def test_pyroomacoustics_bank_does_not_depend_on_processes(tmp_path: Path) -> None:
    rooms = dataclasses.replace(ROOMS, count=3, method="hybrid", num_rays=500, hybrid_order=2)
    config = RoomBankConfig(sample_rate=RATE, simulated=rooms)
    assert make_bank(config, tmp_path / "1").fingerprint == make_bank(config, tmp_path / "2", jobs=2).fingerprint


@needs_pyroomacoustics
def test_unknown_materials_are_named() -> None:
    names = {"floor": ["carpet_hairy"], "ceiling": ["hard_surface"], "walls": ["carpet_hair"]}
    config = SimulatedRoomsConfig(absorption="materials", materials=names)
    import_pyroomacoustics()
    with pytest.raises(InputError, match=r"^materials\.walls: pyroomacoustics knows no 'carpet_hair'; did you mean"):
        simulate_room(config, 0, 0, RATE)
