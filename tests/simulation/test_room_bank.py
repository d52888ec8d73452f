"""Banks of rooms: the same whatever made them, whole or not there, drawn by RT60, one room at a time."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wesep_py.audio import write
from wesep_py.config import construct, load_yaml, to_plain
from wesep_py.corpus import FileReader, Utterance
from wesep_py.errors import ConfigError, InputError, OutputExistsError
from wesep_py.simulation import (
    EnrollmentConfig,
    RoomConfig,
    SimulationConfig,
    Simulator,
    read_recipes,
    render,
    write_recipes,
)
from wesep_py.simulation.acoustics import measure
from wesep_py.simulation.batch import relate
from wesep_py.simulation.recipe import RoomRecipe
from wesep_py.simulation.room_bank import BankRoomRecipe, RoomBank, open_bank
from wesep_py.simulation.rooms import SPEED_OF_SOUND_M_S, reverberate, room_responses
from wesep_py.simulation.rooms_bank_making import RecordedRooms, RoomBankConfig, make_bank
from wesep_py.simulation.rooms_bank_writer import lead_of
from wesep_py.simulation.rooms_geometric import SimulatedRooms, import_pyroomacoustics, simulate_room
from wesep_py.simulation.rooms_recorded import find_recorded_rooms

RATE = 8000
ROOMS = SimulatedRooms(count=6, method="fra", rt60_s=(0.1, 0.4), num_reflections=256, num_sources=3, num_microphones=2)
CONFIG = RoomBankConfig(sample_rate=RATE, simulated=ROOMS)

needs_pyroomacoustics = pytest.mark.skipif(
    importlib.util.find_spec("pyroomacoustics") is None, reason="pyroomacoustics is not installed"
)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> RoomBank:
    return make_bank(CONFIG, tmp_path_factory.mktemp("banks") / "rooms")


def _folder(bank: RoomBank) -> Path:
    return Path(bank.draw_recipe(np.random.default_rng(0), 1, (0.0, 9.0)).path)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_responses_are_those_of_the_rooms(bank: RoomBank) -> None:
    assert len(bank.rooms) == 6 and len(bank.responses) == 18
    for index, room in enumerate(bank.rooms):
        made = simulate_room(ROOMS, index, CONFIG.seed, RATE)
        for source, response in enumerate(made.responses):
            assert np.array_equal(bank.response(3 * index + source), response.samples)
        asked = room["rt60_asked_s"]
        assert room["method"] == "fra" and 0.8 * asked < room["rt60_s"] < 1.2 * asked
        assert 0 < room["absorption"] < 1 and len(room["microphones_m"]) == 2


def test_the_index_says_what_was_measured(bank: RoomBank) -> None:
    for index, entry in enumerate(bank.responses):
        measured = measure(bank.response(index)[0], RATE, entry["direct_taps"][0])
        assert entry["rt60_s"] == pytest.approx(measured.rt60_s, abs=1e-3)
        assert entry["c50_db"] == pytest.approx(measured.c50_db, abs=1e-3)
        assert entry["drr_db"] == pytest.approx(measured.drr_db, abs=1e-3)
        assert entry["direct_taps"][0] == bank.direct_tap == lead_of(RATE)
        for channel, tap, gain in zip(bank.response(index), entry["direct_taps"], entry["direct_gains"], strict=True):
            assert np.abs(channel[tap - 1 : tap + 2]).max() > 0.55 * gain


def test_a_draw_is_of_one_room_in_the_range(bank: RoomBank) -> None:
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


def test_what_a_bank_has_not_is_refused_with_what_it_has(bank: RoomBank) -> None:
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


def test_sources_in_a_room_of_a_bank(bank: RoomBank) -> None:
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


def test_a_recipe_goes_through_json_and_to_other_processes(bank: RoomBank) -> None:
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


def test_processes_change_nothing(bank: RoomBank, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    again = make_bank(CONFIG, tmp_path / "rooms", jobs=2, on_progress=lambda done, of: seen.append((done, of)))
    assert seen == [(n, 6) for n in range(1, 7)]
    assert _files(tmp_path / "rooms") == _files(_folder(bank))
    assert again.fingerprint == bank.fingerprint
    other = make_bank(dataclasses.replace(CONFIG, seed=1), tmp_path / "other")
    assert other.fingerprint != bank.fingerprint


def test_mixtures_are_drawn_from_a_bank_and_rendered_from_their_json(
    bank: RoomBank, utterances: list[Utterance], tmp_path: Path
) -> None:
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
    moved = relate(recipe, lambda path: Path("elsewhere") / path.name)
    assert isinstance(moved.room, BankRoomRecipe) and moved.room.path == f"elsewhere/{_folder(bank).name}"
    mixed = simulator(bank_share=0.5)
    kinds = {type(mixed.draw(0, index).room) for index in range(12)}
    assert kinds == {BankRoomRecipe, RoomRecipe}
    with pytest.raises(InputError, match="has no room with 2 responses and an RT60 of 2 to 3 s"):
        config = SimulationConfig(duration_s=1.0, room=RoomConfig(bank=str(_folder(bank)), rt60_s=(2.0, 3.0)))
        Simulator(config, utterances, [], FileReader(RATE))


class _Killed(Exception):
    pass


def _kill_after(rooms: int) -> Callable[[int, int], None]:
    def stop(done: int, _: int) -> None:
        if done == rooms:
            raise _Killed

    return stop


@pytest.mark.parametrize("damage", ["none", "half a line", "half a room", "header only"])
def test_an_interrupted_bank_goes_on(bank: RoomBank, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "rooms"
    with pytest.raises(_Killed):
        make_bank(CONFIG, folder, on_progress=_kill_after(3))
    with pytest.raises(InputError, match="holds no finished room bank"):
        RoomBank(folder)
    progress, samples = folder / "progress.jsonl", folder / "responses.float32"
    if damage == "half a line":
        progress.write_bytes(progress.read_bytes()[:-20])
    elif damage == "half a room":
        samples.write_bytes(samples.read_bytes()[:-1000])
    elif damage == "header only":
        progress.write_bytes(progress.read_bytes()[:30])
    seen: list[int] = []
    make_bank(CONFIG, folder, on_progress=lambda done, _: seen.append(done))
    assert seen[0] == {"none": 4, "header only": 1}.get(damage, 3)
    assert _files(folder) == _files(_folder(bank))


def test_a_bank_goes_on_after_every_interruption(bank: RoomBank, tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    for rooms in (2, 4):
        with pytest.raises(_Killed):
            make_bank(CONFIG, folder, on_progress=_kill_after(rooms))
        progress = folder / "progress.jsonl"
        progress.write_bytes(progress.read_bytes()[:-20])
    seen: list[int] = []
    make_bank(CONFIG, folder, on_progress=lambda done, _: seen.append(done))
    assert seen[0] == 4
    assert _files(folder) == _files(_folder(bank))


def test_a_bank_that_is_there_is_opened_or_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, simulated=dataclasses.replace(ROOMS, count=2))
    first = make_bank(config, tmp_path / "rooms")
    before = (tmp_path / "rooms" / "responses.float32").stat().st_mtime_ns
    assert make_bank(config, tmp_path / "rooms").fingerprint == first.fingerprint
    assert (tmp_path / "rooms" / "responses.float32").stat().st_mtime_ns == before
    other = dataclasses.replace(config, seed=7)
    with pytest.raises(OutputExistsError, match="holds another bank; name another folder, or pass --overwrite"):
        make_bank(other, tmp_path / "rooms")
    assert open_bank(tmp_path / "rooms").fingerprint == first.fingerprint
    replaced = make_bank(other, tmp_path / "rooms", overwrite=True)
    assert open_bank(tmp_path / "rooms").fingerprint == replaced.fingerprint != first.fingerprint


def test_another_bank_that_was_begun_is_kept(tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        make_bank(CONFIG, tmp_path / "rooms", on_progress=_kill_after(1))
    with pytest.raises(OutputExistsError, match="another bank was begun here"):
        make_bank(dataclasses.replace(CONFIG, seed=3), tmp_path / "rooms")


def test_damaged_and_strange_folders_are_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, simulated=dataclasses.replace(ROOMS, count=1))
    make_bank(config, tmp_path / "rooms")
    samples = tmp_path / "rooms" / "responses.float32"
    samples.write_bytes(samples.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"responses\.float32: is missing or cut short; make the bank anew"):
        open_bank(tmp_path / "rooms")
    (tmp_path / "rooms" / "index.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="is no room bank of format 1"):
        RoomBank(tmp_path / "rooms")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which is no room bank"):
        make_bank(config, tmp_path / "strange", overwrite=True)
    assert (tmp_path / "strange" / "thesis.txt").read_text() == "mine"
    with pytest.raises(InputError, match="create it first"):
        make_bank(config, tmp_path / "no" / "rooms")
    with pytest.raises(InputError, match="has no room"):
        make_bank(dataclasses.replace(CONFIG, simulated=None), tmp_path / "empty")


def _record(
    path: Path, rt60_s: float, delay: int, channels: int = 1, noise_db: float = -60.0, rate: int = 16000
) -> None:
    """A response with its direct path at `delay`, one sample later in each further channel."""
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
    config = RoomBankConfig(sample_rate=16000, simulated=None, recorded=(RecordedRooms(str(tmp_path / "wavs")),))
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
    recorded = RecordedRooms(str(tmp_path / "wavs"), max_s=0.2)
    bank = make_bank(RoomBankConfig(simulated=None, recorded=(recorded,)), tmp_path / "bank")
    assert [room["name"] for room in bank.rooms] == ["a"]
    assert len(bank.responses) == 1 and bank.responses[0]["taps"] <= 96 + 3200
    assert abs(int(np.abs(bank.response(0)[0]).argmax()) - 96) <= 0
    assert "a/bad.wav" in caplog.text and "b/bad.wav" in caplog.text


def test_rooms_are_told_by_a_pattern(tmp_path: Path) -> None:
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
def test_what_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        construct(RoomBankConfig, values)


def test_the_shipped_yaml_is_a_bank() -> None:
    path = Path(__file__).parents[2] / "simulation" / "room_bank.yaml"
    config = construct(RoomBankConfig, load_yaml(path))
    assert config.simulated is not None and config.simulated.method == "hybrid"


def test_without_pyroomacoustics_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    config = SimulatedRooms(
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
        assert 0.15 < measure(response.samples[0], 16000, 96).rt60_s < (0.35 if absorption == "eyring" else 1.2)
    assert ("materials" in room.about) == (absorption == "materials")


@needs_pyroomacoustics
def test_a_bank_of_pyroomacoustics_is_the_same_from_any_number_of_processes(tmp_path: Path) -> None:
    rooms = dataclasses.replace(ROOMS, count=3, method="hybrid", num_rays=500, hybrid_order=2)
    config = RoomBankConfig(sample_rate=RATE, simulated=rooms)
    assert make_bank(config, tmp_path / "1").fingerprint == make_bank(config, tmp_path / "2", jobs=2).fingerprint


@needs_pyroomacoustics
def test_unknown_materials_are_named() -> None:
    names = {"floor": ["carpet_hairy"], "ceiling": ["hard_surface"], "walls": ["carpet_hair"]}
    config = SimulatedRooms(absorption="materials", materials=names)
    import_pyroomacoustics()
    with pytest.raises(InputError, match=r"^materials\.walls: pyroomacoustics knows no 'carpet_hair'; did you mean"):
        simulate_room(config, 0, 0, RATE)
