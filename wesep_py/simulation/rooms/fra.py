"""Rooms that are drawn for a mixture, and their impulse responses in a few milliseconds (FRA-RIR).

`draw_room` draws a shoebox room with a microphone and sources; `fra_responses` computes its responses: the nearest
image sources are exact, all others are a fast random approximation.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wesep_py.simulation.description.recipe import Point, RoomRecipe
from wesep_py.simulation.description.simulation_config import RoomConfig

# Derivation
#
# FRA-RIR (Luo & Yu, "Fast random approximation of room impulse response", Interspeech 2023; multi-channel: Luo & Gu,
# arXiv 2304.08052) takes the direct path from the geometry and all reflections from virtual sources at random
# positions. The version here was derived anew, so that decay and level are accurate:
#
# - A shoebox of volume V has one image source in each mirrored copy of the room (Allen & Berkley, J. Acoust. Soc.
#   Am. 65, 1979), a density of 1/V: the number of images within distance d is (4π/3) d³ / V.
# - An image at distance d arrives after d / c, attenuated by 1/d for the distance and by 10^(-3 d / (c·RT60)) for the
#   walls. The energy per metre, density · area 4πd² · amplitude², is ∝ 10^(-6 d / (c·RT60)): an exponential that
#   decays by 60 dB in RT60.
# - The copy that is the room itself contains only the source, and the first reflections determine the
#   direct-to-reverberant ratio. Therefore the 26 images in the copies that touch the room are at their exact
#   positions, attenuated once per reflection by sqrt(1 - α), with α from Eyring's formula (J. Acoust. Soc. Am. 1,
#   1930), RT60 = 24 ln 10 / c · V / (-S ln(1 - α)). With random positions from the direct path on, as published, the
#   ratio differs from that of image sources in the same room by 1.4 to 1.8 dB (median of the absolute difference);
#   with the exact ones, by 0.3 to 0.4 dB (bench/simulation.md). Of these, 0.2 to 0.3 dB are a bias; more than half of
#   it (0.15 dB) exists because waves along a shoebox meet its walls less often: the decay of a shoebox has several
#   slopes, and more energy than one slope of the same mean rate.
# - Walls, people and furniture invert some reflections: signs are random, which also keeps the sum free of DC.
# - A room with RT60 0.6 s has half a million images. Half of `num_reflections` are single images, up to the distance
#   that they fill. The other half represents all images beyond: evenly spaced over the distance with a random shift
#   each, the amplitude multiplied by sqrt(number of images represented). (With a density by the square of the
#   distance here too, the loud start of the tail would consist of a few dozen impulses, each louder than the direct
#   path.)
#
#       distance   0 ─ direct path ─ exact images, single images ─ near_m ─ evenly spaced, for many images each ─ end
#
# Every virtual source has one position for all microphones, so that an array receives each from its direction.
# Impulses are placed between samples with a windowed sinc, at the output rate.

SPEED_OF_SOUND_M_S = 343.0
HIGH_PASS_HZ = 80.0
NEAREST_M = 0.01
# Half width of the interpolating sinc in samples, and the number of tabulated positions between two samples: the error
# of a position is at most 1/128 sample, which is an error below -45 dB at the highest frequencies and less elsewhere.
SINC_HALF_WIDTH = 12
SINC_PHASES = 64
_OFFSETS = np.arange(-SINC_HALF_WIDTH + 1, SINC_HALF_WIDTH + 1)
WALL_DISTANCE_M = 0.3  # of the microphone, at least
# The copies of the room that touch it, as steps along each axis.
_NEIGHBOURS = np.array([steps for steps in product((-1, 0, 1), repeat=3) if any(steps)])
Array = NDArray[np.float64]


def fra_responses(room: RoomRecipe, microphones_m: Array, sample_rate: int, lead: int) -> tuple[Array, Array]:
    """Compute the responses from every source of a room to every microphone.

    Args:
        room: its microphone is the reference that the responses are aligned to.
        microphones_m: `[microphones, 3]`.
        sample_rate: in Hz.
        lead: tap of the direct path at the reference.

    Returns:
        Responses `[sources, microphones, taps]`, RT60 long after the direct path, and the amplitudes of the direct
        paths `[sources, microphones]`.
    """
    sources = np.array(room.sources_m)
    direct = np.linalg.norm(sources - np.array(room.microphone_m), axis=-1)
    is_alone = len(microphones_m) == 1 and tuple(microphones_m[0]) == room.microphone_m
    places, strengths = _virtual_sources(room, sample_rate, is_alone)
    places = np.concatenate([sources[:, None], places], axis=1)
    strengths = np.concatenate([np.ones((len(sources), 1)), strengths], axis=1)
    distances = np.linalg.norm(places[:, None] - microphones_m[:, None], axis=-1)  # [sources, microphones, places]
    distances = np.maximum(distances, NEAREST_M)
    heights = strengths[:, None] / distances
    delays = (distances - np.maximum(direct, NEAREST_M)[:, None, None]) * (sample_rate / SPEED_OF_SOUND_M_S)
    taps = lead + round(room.rt60_s * sample_rate) + SINC_HALF_WIDTH + 1
    responses = place_impulses(lead + delays, heights, taps)
    return high_pass(responses, sample_rate), heights[..., 0]


def eyring_absorption(rt60_s: float, size_m: tuple[float, float, float]) -> float:
    """Return the share of the energy that each reflection absorbs if a diffuse field decays by 60 dB in RT60.

    Eyring, "Reverberation time in 'dead' rooms", J. Acoust. Soc. Am. 1 (1930).

    >>> round(eyring_absorption(0.5, (5.0, 4.0, 3.0)), 3)
    0.186
    """
    length, width, height = size_m
    surface = 2 * (length * width + width * height + height * length)
    return float(-np.expm1(-24 * np.log(10) * length * width * height / (SPEED_OF_SOUND_M_S * surface * rt60_s)))


def place_impulses(positions: Array, heights: Array, taps: int) -> Array:
    """Place band-limited impulses at fractional positions: `[..., impulses]` → `[..., taps]`.

    Impulses of height zero, and those that reach beyond the ends, are left out.

    Args:
        positions: in samples, `[..., impulses]`.
        heights: amplitudes, `[..., impulses]`.
        taps: length of the result.
    """
    # All rows are added by one bincount: impulse i of row r is at r · taps + its whole position.
    steps = np.rint(positions * SINC_PHASES).astype(np.int64)
    whole, phase = steps // SINC_PHASES, steps % SINC_PHASES
    rows = np.prod(positions.shape[:-1], dtype=int)
    starts = whole + taps * np.arange(rows).reshape(*positions.shape[:-1], 1)
    inside = (heights != 0) & (whole >= SINC_HALF_WIDTH - 1) & (whole + SINC_HALF_WIDTH < taps)
    between = inside & (phase != 0)
    exact = inside & (phase == 0)
    wide = (starts[between][:, None] + _OFFSETS).ravel()
    values = (heights[between][:, None] * _sinc_table()[phase[between]]).ravel()
    out = np.bincount(wide, weights=values, minlength=rows * taps)
    out += np.bincount(starts[exact], weights=heights[exact], minlength=rows * taps)
    return out.reshape(*positions.shape[:-1], taps)


def high_pass(responses: Array, sample_rate: int) -> Array:
    """Apply a Butterworth high-pass of order 2 at 80 Hz along the last axis.

    Below that frequency, geometric acoustics does not describe a room.
    """
    from scipy.signal import sosfilt

    return sosfilt(_high_pass_sections(sample_rate), responses)


def _virtual_sources(room: RoomRecipe, sample_rate: int, is_alone: bool) -> tuple[Array, Array]:
    """Return the positions `[sources, places, 3]` of all reflections, and their amplitudes at a distance of 1 m.

    Amplitudes are `[sources, places]`. For the reference microphone alone only distances matter: the far positions are
    then all in one direction.
    """
    rng = np.random.default_rng(room.seed)
    size, microphone, sources = np.array(room.size_m), np.array(room.microphone_m), np.array(room.sources_m)
    count = len(sources)
    direct = np.linalg.norm(sources - microphone, axis=-1)[:, None]
    reach_m = SPEED_OF_SOUND_M_S * room.rt60_s  # on this way the decay falls by 60 dB
    end = direct + reach_m

    exact = np.where(_NEIGHBOURS % 2 == 0, sources[:, None], (_NEIGHBOURS + 1) * size - sources[:, None])
    wall = np.sqrt(1 - eyring_absorption(room.rt60_s, room.size_m))
    exact_strengths = np.broadcast_to(wall ** np.abs(_NEIGHBOURS).sum(axis=1), exact.shape[:2])

    num_near = room.num_reflections // 2
    near_m = (num_near * room.volume_m3 * 3 / (4 * np.pi)) ** (1 / 3)
    distances = near_m * rng.random((count, num_near)) ** (1 / 3)
    near = microphone + distances[..., None] * _directions(rng, (count, num_near))
    known = np.all((near > -size) & (near < 2 * size), axis=-1)  # these copies have their exact image
    excluded = known | (distances <= direct) | (distances > end)
    near_strengths = np.where(excluded, 0.0, 10.0 ** (-3 * distances / reach_m))

    num_far = room.num_reflections - num_near
    spacing = np.maximum(end - near_m, 0.0) / num_far
    distances = near_m + (np.arange(num_far) + rng.random((count, num_far))) * spacing
    # On whole samples at the reference microphone: this is inaudible, and placing them takes a 24th of the time.
    samples_per_metre = sample_rate / SPEED_OF_SOUND_M_S
    distances = direct + np.rint((distances - direct) * samples_per_metre) / samples_per_metre
    images = 4 * np.pi * distances**2 * spacing / room.volume_m3  # number that each of them represents
    far_strengths = 10.0 ** (-3 * distances / reach_m) * np.sqrt(images)

    strengths = np.concatenate([exact_strengths, near_strengths, far_strengths], axis=1)
    strengths *= rng.choice([-1.0, 1.0], size=strengths.shape)
    directions = np.array([1.0, 0.0, 0.0]) if is_alone else _directions(rng, (count, num_far))
    far = microphone + distances[..., None] * directions
    return np.concatenate([exact, near, far], axis=1), strengths


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw unit vectors, uniformly on the sphere: `[*shape, 3]`."""
    height = rng.uniform(-1.0, 1.0, shape)
    angle = rng.uniform(0.0, 2 * np.pi, shape)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)


@lru_cache(maxsize=1)
def _sinc_table() -> Array:
    """Return a Hann-windowed sinc for each position between two samples: `[phases, taps]`."""
    distance = _OFFSETS - np.arange(SINC_PHASES)[:, None] / SINC_PHASES
    return np.sinc(distance) * np.cos(np.pi * distance / (2 * SINC_HALF_WIDTH)) ** 2


@lru_cache(maxsize=8)
def _high_pass_sections(sample_rate: int) -> Array:
    from scipy.signal import butter

    return butter(2, HIGH_PASS_HZ, "highpass", fs=sample_rate, output="sos")


def draw_room(rng: np.random.Generator, config: RoomConfig, num_sources: int) -> RoomRecipe:
    """Draw a room with a microphone and a position for each source.

    Args:
        rng: random numbers.
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


def _draw_place(
    rng: np.random.Generator, config: RoomConfig, size: NDArray[np.float64], microphone: NDArray[np.float64]
) -> Point:
    """Draw a position in the room at a drawn distance from the microphone, in a random direction."""
    distance = rng.uniform(*config.distance_m)
    while True:
        directions = rng.standard_normal((16, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        places = microphone + distance * directions
        inside = np.all((places > 0) & (places < size), axis=1)
        if inside.any():
            return _point(places[inside.argmax()])
        distance *= 0.9  # the room is too small for this distance in every direction tried


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
