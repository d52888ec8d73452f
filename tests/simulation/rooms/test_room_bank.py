"""Room banks: reproducible, complete or absent, drawn by RT60, one room at a time."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.config import construct, load_yaml, to_plain
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import (
    EnrollmentConfig,
    RoomConfig,
    SimulationConfig,
    Simulator,
    read_recipes,
    render,
    write_recipes,
)
from wesep_py.simulation.description.recipe import BankRoomRecipe, RoomRecipe
from wesep_py.simulation.rooms.acoustics import measure_acoustics
from wesep_py.simulation.rooms.bank_making import RoomBankConfig, make_bank
from wesep_py.simulation.rooms.bank_writer import lead_of
from wesep_py.simulation.rooms.reverberation import reverberate, room_responses
from wesep_py.simulation.rooms.room_bank import RoomBank
from wesep_py.simulation.rooms.simulated_rooms import SimulatedRoomsConfig, simulate_room
from wesep_py.simulation.simulated_corpus import change_paths

RATE = 8000
ROOMS = SimulatedRoomsConfig(
    count=6, method="fra", rt60_s=(0.1, 0.4), num_reflections=256, num_sources=3, num_microphones=2
)
CONFIG = RoomBankConfig(sample_rate=RATE, simulated=ROOMS)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> RoomBank:
    return make_bank(CONFIG, tmp_path_factory.mktemp("banks") / "rooms")


def _folder(bank: RoomBank) -> Path:
    return Path(bank.draw_recipe(np.random.default_rng(0), 1, (0.0, 9.0)).path)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bank_responses_equal_those_of_the_rooms(bank: RoomBank) -> None:
    assert len(bank.rooms) == 6 and len(bank.responses) == 18
    for index, room in enumerate(bank.rooms):
        made = simulate_room(ROOMS, index, CONFIG.seed, RATE)
        for source, response in enumerate(made.responses):
            assert np.array_equal(bank.response(3 * index + source), response.samples)
        asked = room["rt60_asked_s"]
        assert room["method"] == "fra" and 0.8 * asked < room["rt60_s"] < 1.2 * asked
        assert 0 < room["absorption"] < 1 and len(room["microphones_m"]) == 2


def test_index_has_the_measures(bank: RoomBank) -> None:
    for index, entry in enumerate(bank.responses):
        measured = measure_acoustics(bank.response(index)[0], RATE, entry["direct_taps"][0])
        assert entry["rt60_s"] == pytest.approx(measured.rt60_s, abs=1e-3)
        assert entry["c50_db"] == pytest.approx(measured.c50_db, abs=1e-3)
        assert entry["drr_db"] == pytest.approx(measured.drr_db, abs=1e-3)
        assert entry["direct_taps"][0] == bank.direct_tap == lead_of(RATE)
        for channel, tap, gain in zip(bank.response(index), entry["direct_taps"], entry["direct_gains"], strict=True):
            assert np.abs(channel[tap - 1 : tap + 2]).max() > 0.55 * gain


def test_draw_is_of_one_room_in_the_range(bank: RoomBank) -> None:
    rng = np.random.default_rng(0)
    times = sorted(room["rt60_s"] for room in bank.rooms)
    low, high = times[1], times[4]
    drawn_rooms = set()
    for _ in range(100):
        responses = bank.draw(rng, 3, (low, high))
        assert len(set(responses)) == 3
        rooms = {index // 3 for index in responses}
        assert len(rooms) == 1
        drawn_rooms |= rooms
    assert drawn_rooms == {n for n, room in enumerate(bank.rooms) if low <= room["rt60_s"] <= high}
    assert bank.draw(np.random.default_rng(5), 2, (0.0, 9.0)) == bank.draw(np.random.default_rng(5), 2, (0.0, 9.0))


def test_error_says_what_the_bank_has(bank: RoomBank) -> None:
    with pytest.raises(InputError, match=r"has no room with 2 responses and an RT60 of 2 to 3 s; .* up to 3 responses"):
        bank.draw(np.random.default_rng(0), 2, (2.0, 3.0))
    with pytest.raises(InputError, match="has no room with 4 responses"):
        bank.draw(np.random.default_rng(0), 4, (0.0, 9.0))
    bank.check(3, (0.0, 9.0), RATE)
    with pytest.raises(InputError, match="has no room with 4 responses"):
        bank.check(4, (0.0, 9.0), RATE)
    with pytest.raises(InputError, match="the bank is for 8000 Hz, the mixture has 16000 Hz"):
        bank.check(1, (0.0, 9.0), 16000)
    with pytest.raises(InputError, match="has no response 18; it has 0 to 17"):
        bank.response(18)


def test_sources_in_a_bank_room(bank: RoomBank) -> None:
    recipe = bank.draw_recipe(np.random.default_rng(1), 2, (0.0, 9.0), early_ms=20.0)
    dry = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    for channel in (0, 1):
        room = dataclasses.replace(recipe, channel=channel)
        responses = room_responses(room, RATE)
        for row, index in zip(responses.full, room.responses, strict=True):
            tap = bank.responses[index]["direct_taps"][channel]
            stored = bank.response(index)[channel]
            lead = responses.direct_tap - tap
            assert np.array_equal(row[lead : lead + stored.size], stored)
        images, targets = reverberate(dry, room, RATE, "dry")
        wanted = np.convolve(dry[1], responses.full[1])[responses.direct_tap :][:3000]
        np.testing.assert_allclose(images[1], wanted, atol=1e-4)
        np.testing.assert_allclose(targets, dry * responses.direct_gains[:, None])
        assert not responses.early[:, responses.direct_tap + 160 :].any()
        for target in ("direct", "early", "full"):
            assert reverberate(dry, room, RATE, target)[1].shape == dry.shape


def test_recipe_survives_json_and_pickling(bank: RoomBank) -> None:
    recipe = bank.draw_recipe(np.random.default_rng(1), 2, (0.0, 9.0))
    assert construct(BankRoomRecipe, json.loads(json.dumps(to_plain(recipe)))) == recipe
    bank.response(0)
    sent = pickle.dumps(bank)
    assert len(sent) < 50_000
    assert np.array_equal(pickle.loads(sent).response(5), bank.response(5))


def test_recipes_of_another_bank_are_refused(bank: RoomBank) -> None:
    recipe = bank.draw_recipe(np.random.default_rng(1), 2, (0.0, 9.0))
    with pytest.raises(InputError, match=r"is another bank \([0-9a-f]{12}\) than the recipe was drawn from"):
        room_responses(dataclasses.replace(recipe, fingerprint="0" * 64), RATE)
    with pytest.raises(InputError, match=r"the bank is for 8000 Hz, the mixture has 16000 Hz; make a bank"):
        room_responses(recipe, 16000)
    with pytest.raises(InputError, match=r"responses \[0, 5\] are of different rooms"):
        room_responses(dataclasses.replace(recipe, responses=(0, 5)), RATE)
    with pytest.raises(InputError, match=r"has no microphone 2$"):
        room_responses(dataclasses.replace(recipe, channel=2), RATE)
    with pytest.raises(InputError, match=r"^microphones_m: a bank's room has the microphones"):
        room_responses(recipe, RATE, [[1.0, 1.0, 1.0]])


def test_result_does_not_depend_on_processes(bank: RoomBank, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    again = make_bank(CONFIG, tmp_path / "rooms", jobs=2, on_progress=lambda done, of: seen.append((done, of)))
    assert seen == [(n, 6) for n in range(1, 7)]
    assert _files(tmp_path / "rooms") == _files(_folder(bank))
    assert again.fingerprint == bank.fingerprint
    other = make_bank(dataclasses.replace(CONFIG, seed=1), tmp_path / "other")
    assert other.fingerprint != bank.fingerprint


def test_mixtures_with_bank_rooms_render_from_json(bank: RoomBank, utterances: list[Utterance], tmp_path: Path) -> None:
    def simulator(**room: object) -> Simulator:
        rooms = RoomConfig(rt60_s=(0.05, 2.0), bank=str(_folder(bank)), **room)  # type: ignore[arg-type]
        enrollment = EnrollmentConfig(duration_s=(1.0, 1.5))
        config = SimulationConfig(duration_s=1.0, room=rooms, target="early", enrollment=enrollment)
        return Simulator(config, utterances, [], FileReader(RATE))

    drawn = simulator()
    sample = drawn.sample(0, 3)
    assert isinstance(sample.recipe.room, BankRoomRecipe)
    path = tmp_path / "recipes.jsonl"
    write_recipes([sample.recipe], path)
    (recipe,) = read_recipes(path)
    assert recipe == sample.recipe
    assert np.array_equal(render(recipe, FileReader(RATE)).mixture, sample.mixture)
    moved = change_paths(recipe, lambda path: Path("elsewhere") / path.name)
    assert isinstance(moved.room, BankRoomRecipe) and moved.room.path == f"elsewhere/{_folder(bank).name}"
    mixed = simulator(bank_share=0.5)
    kinds = {type(mixed.draw(0, index).room) for index in range(12)}
    assert kinds == {BankRoomRecipe, RoomRecipe}
    with pytest.raises(InputError, match="has no room with 2 responses and an RT60 of 2 to 3 s"):
        config = SimulationConfig(duration_s=1.0, room=RoomConfig(bank=str(_folder(bank)), rt60_s=(2.0, 3.0)))
        Simulator(config, utterances, [], FileReader(RATE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"simulated": {"method": "rays"}}, "simulated.method"),
        ({"simulated": {"array_radius_m": 0.5}}, "array_radius_m: is 0.5"),
        ({"simulated": {"absorption": "materials", "materials": {"floor": ["carpet_thin"]}}}, "materials: has"),
        ({"simulated": {"rt60_s": [0.5, 0.2]}}, "simulated: rt60_s: is"),
        ({"simulated": {"num_sources": 0}}, "num_sources: is 0; give 1 to 64"),
        ({"recorded": [{"folder": "x", "max_s": 0}]}, "max_s: is 0"),
        ({"sample_rate": 10}, "sample_rate: is 10"),
    ],
)
def test_impossible_bank_config_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        construct(RoomBankConfig, values)


def test_shipped_yaml_is_valid() -> None:
    path = Path(__file__).parents[3] / "simulation" / "room_bank.yaml"
    config = construct(RoomBankConfig, load_yaml(path))
    assert config.simulated is not None and config.simulated.method == "hybrid"
