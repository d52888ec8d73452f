"""How long a room takes, and how well its decay keeps to the RT60 asked.

    python bench/rooms.py [--rooms 100] [--compare 10]

For each RT60, rooms of random size with two sources: milliseconds a room (one thread), the median of the measured RT60
(Schroeder integration, line fit from -5 to -35 dB), and the direct-to-reverberant ratio (DRR) beside that of
pyroomacoustics' image-source method for the same rooms (absorption by Sabine's formula, so its RT60 is measured, too).
`--compare 0` does without pyroomacoustics.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from wesep_py.simulation.config import RoomConfig
from wesep_py.simulation.recipe import RoomRecipe
from wesep_py.simulation.rooms import draw_room, room_responses

SAMPLE_RATE = 16000


def measure_rt60_s(response: NDArray[np.floating], sample_rate: int) -> float:
    """RT60 in seconds by Schroeder's backward integration (1965), from the slope between -5 and -35 dB (T30)."""
    energy = np.cumsum(np.asarray(response, dtype=np.float64)[::-1] ** 2)[::-1]
    decay_db = 10 * np.log10(energy[energy > 0] / energy[0])
    fitted = np.flatnonzero((decay_db <= -5) & (decay_db >= -35))
    slope_db, _ = np.polyfit(fitted / sample_rate, decay_db[fitted], 1)
    return -60 / slope_db


def direct_to_reverberant_db(response: NDArray[np.floating], direct_tap: int, sample_rate: int) -> float:
    """Energy within 2.5 ms of the direct path over all later energy, in dB."""
    half = round(0.0025 * sample_rate)
    squared = np.asarray(response, dtype=np.float64) ** 2
    return float(
        10 * np.log10(squared[max(direct_tap - half, 0) : direct_tap + half].sum() / squared[direct_tap + half :].sum())
    )


def image_source_response(room: RoomRecipe, sample_rate: int) -> NDArray[np.floating] | None:
    """The first source's response by pyroomacoustics; `None` where absorption cannot give the RT60 (Sabine)."""
    import pyroomacoustics as pra

    try:
        absorption, order = pra.inverse_sabine(room.rt60_s, room.size_m)
    except ValueError:
        return None
    shoebox = pra.ShoeBox(room.size_m, fs=sample_rate, materials=pra.Material(absorption), max_order=min(order, 60))
    shoebox.add_source(room.sources_m[0])
    shoebox.add_microphone(room.microphone_m)
    shoebox.compute_rir()
    return shoebox.rir[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=100, help="rooms for each RT60 (default 100)")
    parser.add_argument(
        "--compare", type=int, default=10, help="of these, how many against pyroomacoustics (default 10)"
    )
    arguments = parser.parse_args()
    print("| RT60 asked (s) | ms a room | measured (5 % to 95 %) | DRR (dB) | image sources: DRR (dB) | RT60 (s) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rt60_s in (0.2, 0.4, 0.6, 0.9):
        rng = np.random.default_rng(0)
        config = RoomConfig(rt60_s=(rt60_s, rt60_s))
        rooms = [draw_room(rng, config, 2) for _ in range(arguments.rooms)]
        room_responses(rooms[0], SAMPLE_RATE)
        began = time.perf_counter()
        responses = [room_responses(room, SAMPLE_RATE) for room in rooms]
        took_ms = (time.perf_counter() - began) / len(rooms) * 1000
        measured = [measure_rt60_s(response.full[0], SAMPLE_RATE) for response in responses]
        low, median, high = np.percentile(measured, [5, 50, 95])
        ours, theirs, their_rt60_s = [], [], []
        for room, response in list(zip(rooms, responses, strict=True))[: arguments.compare]:
            reference = image_source_response(room, SAMPLE_RATE)
            if reference is not None:
                peak = 40 + room.distances_m[0] / 343.0 * SAMPLE_RATE  # pyroomacoustics delays by half its 81-tap sinc
                their_rt60_s.append(measure_rt60_s(reference[round(peak) :], SAMPLE_RATE))
                theirs.append(direct_to_reverberant_db(reference, round(peak), SAMPLE_RATE))
                ours.append(direct_to_reverberant_db(response.full[0], response.direct_tap, SAMPLE_RATE))
        drr = "- | - | -"
        if ours:
            drr = f"{np.mean(ours):.1f} | {np.mean(theirs):.1f} | {np.median(their_rt60_s):.2f}"
        print(f"| {rt60_s} | {took_ms:.1f} | {median:.2f} ({low:.2f} to {high:.2f}) | {drr} |", flush=True)


if __name__ == "__main__":
    main()
