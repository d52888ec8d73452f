"""Computed rooms: time per room, accuracy of the RT60, and direct-to-reverberant ratio.

    python bench/rooms.py [--rooms 500] [--compare 50]

For each RT60, rooms of random size with two sources: milliseconds per room (one thread; with one microphone, and with
an array of four), the median of measured over desired RT60 (Schroeder integration, T30), and the direct-to-reverberant
ratio (DRR) compared with that of pyroomacoustics' image sources for the same geometry, with absorption from the RT60 by
Eyring's formula, after the same 80 Hz high-pass. A shoebox of image sources decays with several slopes, so its own T30,
in the last column, is longer than the RT60 of its walls. `--compare 0` does not need pyroomacoustics.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wesep_py.simulation.description.recipe import RoomRecipe
from wesep_py.simulation.description.simulation_config import RoomConfig
from wesep_py.simulation.rooms.acoustics import direct_to_reverberant_db, rt60_s
from wesep_py.simulation.rooms.fra import SPEED_OF_SOUND_M_S, draw_room, eyring_absorption, high_pass
from wesep_py.simulation.rooms.reverberation import room_responses
from wesep_py.simulation.rooms.simulated_rooms import image_source_order, import_pyroomacoustics

SAMPLE_RATE = 16000


def image_source_response(room: RoomRecipe) -> tuple[NDArray[np.float64], int]:
    """Return the response of the first source by pyroomacoustics, and the tap of its direct path."""
    pra = import_pyroomacoustics()
    shoebox = pra.ShoeBox(
        room.size_m,
        fs=SAMPLE_RATE,
        materials=pra.Material(eyring_absorption(room.rt60_s, room.size_m)),
        max_order=min(image_source_order(room.rt60_s, room.size_m), 100),
    )
    shoebox.add_source(room.sources_m[0])
    shoebox.add_microphone(room.microphone_m)
    shoebox.compute_rir()
    lead = pra.constants.get("frac_delay_length") // 2
    direct_tap = round(lead + room.distances_m[0] / SPEED_OF_SOUND_M_S * SAMPLE_RATE)
    return high_pass(shoebox.rir[0][0], SAMPLE_RATE), direct_tap


def milliseconds(work: Callable[[RoomRecipe], object], rooms: list[RoomRecipe]) -> float:
    """Return the median time of the work on a room."""
    work(rooms[0])
    took = []
    for room in rooms:
        began = time.perf_counter()
        work(room)
        took.append(time.perf_counter() - began)
    return float(np.median(took)) * 1000


def with_array(room: RoomRecipe) -> object:
    """Compute the responses at four microphones on a line of 15 cm, towards the middle of the room."""
    step = 0.05 * np.where(np.array(room.microphone_m) * 2 < np.array(room.size_m), 1, -1) * [1, 0, 0]
    return room_responses(room, SAMPLE_RATE, np.array(room.microphone_m) + np.arange(4)[:, None] * step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=500, help="rooms for each RT60 (default 500)")
    parser.add_argument("--compare", type=int, default=50, help="how many against pyroomacoustics (default 50)")
    arguments = parser.parse_args()
    print(
        "| RT60 asked (s) | ms a room | ms, 4 microphones | measured / asked: median (5 % to 95 %) "
        "| DRR, image sources (dB) | our DRR - theirs: median | median of the difference's size | their T30 (s) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for asked_s in (0.2, 0.4, 0.6, 0.9):
        rng = np.random.default_rng(0)
        config = RoomConfig(rt60_s=(asked_s, asked_s))
        rooms = [draw_room(rng, config, 2) for _ in range(arguments.rooms)]
        took_ms = milliseconds(lambda room: room_responses(room, SAMPLE_RATE), rooms[:100])
        array_ms = milliseconds(with_array, rooms[:20])
        ratios, ours, theirs, their_rt60_s = [], [], [], []
        for place, room in enumerate(rooms):
            response = room_responses(room, SAMPLE_RATE)
            ratios.append(rt60_s(response.full[0, response.direct_tap :], SAMPLE_RATE) / asked_s)
            if place < arguments.compare:
                reference, direct_tap = image_source_response(room)
                their_rt60_s.append(rt60_s(reference[direct_tap:], SAMPLE_RATE))
                theirs.append(direct_to_reverberant_db(reference, direct_tap, SAMPLE_RATE))
                ours.append(direct_to_reverberant_db(response.full[0], response.direct_tap, SAMPLE_RATE))
        low, median, high = np.percentile(ratios, [5, 50, 95])
        drr = "- | - | - | -"
        if ours:
            errors = np.array(ours) - np.array(theirs)
            drr = f"{np.median(theirs):.1f} | {np.median(errors):+.2f} | {np.median(np.abs(errors)):.2f} | "
            drr += f"{np.nanmedian(their_rt60_s):.2f}"
        measured = f"{median:.3f} ({low:.2f} to {high:.2f})"
        print(f"| {asked_s} | {took_ms:.1f} | {array_ms:.1f} | {measured} | {drr} |", flush=True)


if __name__ == "__main__":
    main()
