"""Noise under the speech: recordings cut or looped, coloured Gaussian noise, babble; its level may swing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wesep_py.corpus.reader import Reader
from wesep_py.simulation.recipe_parts import Modulation, NoiseRecipe, Stretch

# A spectrum that slopes forever would put all power of brown noise at the lowest frequencies, unheard: flat
# below.
COLOURED_CORNER_HZ = 50.0


def render_noise(recipe: NoiseRecipe, num_samples: int, reader: Reader) -> NDArray[np.float32]:
    """The noise of a mixture before its overall gain, `[num_samples]`.

    Args:
        recipe: what noise it is.
        num_samples: length of the mixture.
        reader: knows the recipe's recordings.
    """
    if recipe.kind == "coloured":
        noise = coloured_noise(num_samples, reader.sample_rate, recipe.slope_db, recipe.seed)
    else:
        noise = read_looped(recipe.stretches[0], reader)
    if recipe.kind == "babble":
        noise = noise * np.float32(recipe.stretches[0].gain)
        for stretch in recipe.stretches[1:]:
            noise += read_looped(stretch, reader) * np.float32(stretch.gain)
    if recipe.modulation is not None:
        noise = noise * modulation_gains(recipe.modulation, num_samples, reader.sample_rate)
    return noise


def modulation_gains(modulation: Modulation, num_samples: int, sample_rate: int) -> NDArray[np.float32]:
    """The linear gain of each sample of a noise whose level swings.

    >>> modulation_gains(Modulation(rate_hz=1.0, depth_db=20.0, phase=0.0), 4, 4).round(2)
    array([1.  , 3.16, 1.  , 0.32], dtype=float32)
    """
    angle = 2 * np.pi * modulation.rate_hz * np.arange(num_samples) / sample_rate + modulation.phase
    return (10.0 ** (modulation.depth_db / 2 * np.sin(angle) / 20)).astype(np.float32)


def read_looped(stretch: Stretch, reader: Reader) -> NDArray[np.float32]:
    """The samples of a stretch, without its gain; where the recording ends it begins again.

    Returns:
        `[stretch.num_samples]`.
    """
    available = reader.length(stretch.utterance)
    if stretch.stop <= available:
        return reader.read(stretch.utterance, stretch.start, stretch.stop)
    return loop(reader.read(stretch.utterance), stretch.start, stretch.num_samples)


def loop(recording: NDArray[np.float32], start: int, num_samples: int) -> NDArray[np.float32]:
    """`num_samples` of a recording from sample `start` on, which begins again where it ends.

    >>> loop(np.array([1, 2, 3], dtype=np.float32), 2, 5)
    array([3., 1., 2., 3., 1.], dtype=float32)
    """
    start %= recording.size
    repeats = -(-(start + num_samples) // recording.size)
    return np.tile(recording, repeats)[start : start + num_samples]


def coloured_noise(num_samples: int, sample_rate: int, slope_db: float, seed: int) -> NDArray[np.float32]:
    """Gaussian noise whose power falls or rises evenly per octave, with an RMS of about 0.1.

    Args:
        num_samples: length.
        sample_rate: in Hz.
        slope_db: in dB per octave above 50 Hz, flat below: 0 is white, -3 pink, -6 brown.
        seed: of the random numbers.

    Returns:
        float32 `[num_samples]`.
    """
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(num_samples, dtype=np.float32)
    if slope_db == 0.0:
        return white * np.float32(0.1)
    frequencies = np.fft.rfftfreq(num_samples, 1 / sample_rate)
    octaves = np.log2(np.maximum(frequencies, COLOURED_CORNER_HZ) / COLOURED_CORNER_HZ)
    shape = 10.0 ** (slope_db * octaves / 20)
    shape *= 0.1 / np.sqrt(np.mean(shape**2))
    return np.fft.irfft(np.fft.rfft(white) * shape, num_samples).astype(np.float32)
