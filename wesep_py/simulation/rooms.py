"""Room impulse responses in a few milliseconds, by fast random approximation of the image-source method.

After FRA-RIR (Luo & Yu, "Fast random approximation of multi-channel room impulse response", Interspeech 2023,
arXiv 2304.08052): the direct path comes from the geometry, everything else from virtual sources at random
distances. What stands here was derived anew so that the decay keeps its word:

- In a shoebox of volume V, image sources fill space with a density of 1/V, so their number within distance d
  is (4π/3) d³ / V and grows with the square of d per metre.
- An image at distance d arrives after d / c, weakened by 1/d for the way and by 10^(-3 d / (c·RT60)) for the
  walls: energy per metre is density · amplitude² ∝ 10^(-6 d / (c·RT60)), an exponential that falls by 60 dB
      in RT60.
- Walls, people and furniture turn the sign of some reflections: random signs, which also keep the sum free of
  DC.
- A room at RT60 0.6 s has half a million images. Up to the distance that half of `num_reflections` fill, each
  is placed. Beyond it the other half stands for all the rest, spread evenly over the distance with a random
  shift each, the height raised by sqrt(number of images for which it stands). (Spreading these, too, by the
  square of the distance would leave the loud start of the tail to a few dozen impulses, each louder than the
  direct path.)

Impulses are placed between samples by a windowed sinc, at the output rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.simulation.config import RoomConfig
from wesep_py.simulation.recipe import Point, RoomRecipe

SPEED_OF_SOUND_M_S = 343.0
HIGH_PASS_HZ = 80.0
EARLY_BEFORE_MS = 6.0
WALL_DISTANCE_M = 0.3
# Half width of the interpolating sinc in samples, and the number of positions between two samples that it is
# tabulated for: 1/128 sample at most off, an error below -45 dB at the highest frequencies and less
# elsewhere.
SINC_HALF_WIDTH = 12
SINC_PHASES = 64

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class RoomResponses:
    """The responses of a room's sources, aligned so that every direct path arrives at tap `direct_tap`.

    Attributes:
        full: `[sources, taps]`: direct path and all reflections.
        early: `[sources, taps]`: what arrives from 6 ms before to `early_ms` after the direct path, the rest
            zero.
        direct_gains: `[sources]`: height of the direct path, 1 / distance in metres.
        direct_tap: where the direct path arrives.
    """

    full: Waveform
    early: Waveform
    direct_gains: Waveform
    direct_tap: int


def draw_room(rng: np.random.Generator, config: RoomConfig, num_sources: int) -> RoomRecipe:
    """A room, a microphone in it, and a place for each source.

    Args:
        rng: what is drawn comes from here.
        config: ranges of size, reverberation time and distance.
        num_sources: 1 or more.

    >>> room = draw_room(np.random.default_rng(0), RoomConfig(), 2)
    >>> len(room.sources_m)
    2
    """
    ranges = (config.length_m, config.width_m, config.height_m)
    size = np.array([rng.uniform(*bounds) for bounds in ranges])
    rt60_s = float(rng.uniform(*config.rt60_s))
    microphone = rng.uniform(WALL_DISTANCE_M, size - WALL_DISTANCE_M)
    sources = tuple(_draw_place(rng, config, size, microphone) for _ in range(num_sources))
    return RoomRecipe(
        size_m=_point(size),
        rt60_s=rt60_s,
        microphone_m=_point(microphone),
        sources_m=sources,
        num_reflections=config.num_reflections,
        early_ms=config.early_ms,
        seed=int(rng.integers(2**31)),
    )


def room_responses(room: RoomRecipe, sample_rate: int) -> RoomResponses:
    """The impulse responses of a room.

    Args:
        room: from `draw_room`, or a recipe.
        sample_rate: in Hz, 1000 or more.

    Returns:
        One response a source, RT60 long after the direct path. The same room gives the same samples.
    """
    samples_per_metre = sample_rate / SPEED_OF_SOUND_M_S
    lead = max(round(EARLY_BEFORE_MS * sample_rate / 1000), SINC_HALF_WIDTH)
    taps = lead + round(room.rt60_s * sample_rate) + SINC_HALF_WIDTH + 1
    seeds = np.random.SeedSequence(room.seed).spawn(len(room.sources_m))
    full = np.zeros((len(room.sources_m), taps), dtype=np.float64)
    gains = np.array([1 / max(distance, 0.01) for distance in room.distances_m])
    for row, distance, gain, seed in zip(full, room.distances_m, gains, seeds, strict=True):
        distances, heights = _draw_reflections(np.random.default_rng(seed), room, distance)
        positions = lead + (distances - distance) * samples_per_metre
        _place_impulses(row, positions, heights)
        row[lead] += gain
    full = _high_pass(full, sample_rate)
    early = full.copy()
    early[:, : max(lead - round(EARLY_BEFORE_MS * sample_rate / 1000), 0)] = 0.0
    early[:, lead + round(room.early_ms * sample_rate / 1000) :] = 0.0
    return RoomResponses(full.astype(np.float32), early.astype(np.float32), gains.astype(np.float32), lead)


def reverberate(
    dry: Waveform, room: RoomRecipe, sample_rate: int, target: Literal["dry", "early", "full"] = "full"
) -> tuple[Waveform, Waveform]:
    """Sources as they arrive at the microphone, in time with the dry ones: the direct path's delay is taken
    out.

    Args:
        dry: `[sources, samples]`, in the order of the room's sources.
        room: the room.
        sample_rate: in Hz.
        target: what the second result is.

    Returns:
        The images `[sources, samples]`, cut to the length of the dry sources, and the targets: `dry`: the
        source times the direct path's gain; `early`: through the early part; `full`: the images.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    responses = room_responses(room, sample_rate)
    num_samples = dry.shape[-1]
    size = next_fast_len(num_samples + responses.full.shape[-1] - 1, real=True)
    spectrum = rfft(dry, size)

    def convolve(response: Waveform) -> Waveform:
        wet = irfft(spectrum * rfft(response, size), size)
        return np.ascontiguousarray(wet[:, responses.direct_tap : responses.direct_tap + num_samples])

    images = convolve(responses.full)
    if target == "full":
        return images, images
    if target == "early":
        return images, convolve(responses.early)
    return images, dry * responses.direct_gains[:, None]


def _draw_place(
    rng: np.random.Generator, config: RoomConfig, size: NDArray[np.float64], microphone: NDArray[np.float64]
) -> Point:
    """A place in the room at a drawn distance from the microphone, in a random direction."""
    distance = rng.uniform(*config.distance_m)
    while True:
        directions = rng.standard_normal((16, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        places = microphone + distance * directions
        inside = np.all((places > 0) & (places < size), axis=1)
        if inside.any():
            return _point(places[inside.argmax()])
        distance *= 0.9  # no direction tried leaves so much space: nearer


def _draw_reflections(
    rng: np.random.Generator, room: RoomRecipe, direct_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in metres and heights of the virtual sources beyond the direct path."""
    reach_m = SPEED_OF_SOUND_M_S * room.rt60_s  # on this way the decay falls by 60 dB
    end_m = direct_m + reach_m
    per_volume = 4 * np.pi / 3 / room.volume_m3
    num_near = room.num_reflections // 2
    near_m = min((direct_m**3 + num_near / per_volume) ** (1 / 3), end_m)
    num_near = min(num_near, round((near_m**3 - direct_m**3) * per_volume))
    near = (direct_m**3 + rng.random(num_near) * (near_m**3 - direct_m**3)) ** (1 / 3)
    num_far = room.num_reflections - num_near if near_m < end_m else 0
    spacing_m = (end_m - near_m) / max(num_far, 1)
    far = near_m + (np.arange(num_far) + rng.random(num_far)) * spacing_m
    images_per_far = 3 * per_volume * far**2 * spacing_m
    distances = np.concatenate([near, far])
    heights = 10.0 ** (-3 * distances / reach_m) / distances
    heights[num_near:] *= np.sqrt(images_per_far)
    return distances, heights * rng.choice([-1.0, 1.0], size=distances.size)


def _place_impulses(row: NDArray[np.float64], positions: NDArray[np.float64], heights: NDArray[np.float64]) -> None:
    """Add band-limited impulses at fractional `positions` (in samples) to `row`; those beyond its end are left out."""
    steps = np.rint(positions * SINC_PHASES).astype(np.int64)
    whole, phase = steps // SINC_PHASES, steps % SINC_PHASES
    inside = whole + SINC_HALF_WIDTH < row.size
    whole, phase, heights = whole[inside], phase[inside], heights[inside]
    offsets = np.arange(-SINC_HALF_WIDTH + 1, SINC_HALF_WIDTH + 1)
    taps = (whole[:, None] + offsets).ravel()
    values = (heights[:, None] * _sinc_table()[phase]).ravel()
    row += np.bincount(taps, weights=values, minlength=row.size)


@lru_cache(maxsize=1)
def _sinc_table() -> NDArray[np.float64]:
    """A Hann-windowed sinc for each position between two samples: `[phases, taps]`."""
    offsets = np.arange(-SINC_HALF_WIDTH + 1, SINC_HALF_WIDTH + 1)
    distance = offsets - np.arange(SINC_PHASES)[:, None] / SINC_PHASES
    return np.sinc(distance) * np.cos(np.pi * distance / (2 * SINC_HALF_WIDTH)) ** 2


def _high_pass(responses: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """Butterworth high-pass of order 2 at 80 Hz along the last axis: below, geometry does not describe a room."""
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(2, HIGH_PASS_HZ, "highpass", fs=sample_rate, output="sos"), responses)


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
