"""Noise under the speech: recordings cut or looped, coloured Gaussian noise, babble; its level may swing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.data.manifest import Utterance
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.ranges import choose, level_gain
from wesep_py.simulation.description.recipe import Modulation, NoiseRecipe, UtteranceSegment
from wesep_py.simulation.description.simulation_config import NoiseConfig
from wesep_py.simulation.speech.placement import SpeechDrawer

# ----------------------------------------
# Drawing noise: which kinds, how many, from which recordings or speakers.

# Each voice in babble is brought to this level; only their equality matters, the SNR sets the sum's.
BABBLE_DB = -25.0


class NoiseDrawer:
    """Draws the noises of a mixture, or of an enrollment.

    Args:
        config: kinds, weights and ranges; `None`: there is none.
        noises: noise recordings, in any order.
        speech: gives the voices of babble, and reads recordings.

    Raises:
        InputError: recordings are asked for and there are none, or none in the folder of a group.
    """

    def __init__(self, config: NoiseConfig | None, noises: Sequence[Utterance], speech: SpeechDrawer) -> None:
        self.config = config if config is not None and config.probability > 0 else None
        self._speech = speech
        self._noises = sorted(noises, key=lambda noise: noise.utterance_id)
        self._groups: dict[int, list[Utterance]] = {}
        if self.config is not None and self.config.kinds.get("recording"):
            self._find_recordings(self.config)

    @property
    def babbles(self) -> bool:
        """Whether other speakers may be part of the noise."""
        return self.config is not None and bool(self.config.kinds.get("babble"))

    def draw(self, speaker_ids: Collection[str], num_samples: int, rng: np.random.Generator) -> tuple[NoiseRecipe, ...]:
        """The noises, without gains; none as often as the configuration says.

        Args:
            speaker_ids: who is not in babble.
            num_samples: length of each noise.
            rng: what is drawn comes from here.
        """
        config = self.config
        if config is None or rng.random() >= config.probability:
            return ()
        counts = config.count_weights
        count = choose(counts, rng) if len(counts) > 1 else next(iter(counts))
        return tuple(self._draw_one(config, speaker_ids, num_samples, rng) for _ in range(count))

    def draw_noise_snr_db(self, noise: NoiseRecipe, rng: np.random.Generator) -> float:
        """An SNR from the range of the noise's group or kind."""
        assert self.config is not None
        return draw_noise_snr_db(self.config, noise, rng)

    def _draw_one(
        self, config: NoiseConfig, speaker_ids: Collection[str], num_samples: int, rng: np.random.Generator
    ) -> NoiseRecipe:
        kind = choose(config.kinds, rng)
        if kind == "coloured":
            noise = NoiseRecipe(kind, slope_db=rng.uniform(*config.slope_db), seed=int(rng.integers(2**31)))
        elif kind == "recording":
            recordings = self._noises
            if self._groups:
                weights = {number: config.groups[number].weight for number in self._groups}
                recordings = self._groups[choose(weights, rng)]
            recording = recordings[rng.integers(len(recordings))]
            start = int(rng.integers(self._speech.reader.length(recording)))
            noise = NoiseRecipe(kind, stretches=(UtteranceSegment(recording, start, num_samples),))
        else:
            noise = NoiseRecipe(kind, stretches=self._draw_babble(config, speaker_ids, num_samples, rng))
        swing = config.modulation
        if swing is None or rng.random() >= swing.probability:
            return noise
        rate_hz, depth_db = float(rng.uniform(*swing.rate_hz)), float(rng.uniform(*swing.depth_db))
        return replace(noise, modulation=Modulation(rate_hz, depth_db, float(rng.uniform(0, 2 * np.pi))))

    def _draw_babble(
        self, config: NoiseConfig, speaker_ids: Collection[str], num_samples: int, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, ...]:
        """Stretches of speakers who are not in the mixture, with gains that make their voices equally loud."""
        voices = self._speech.voices
        low, high = config.babble_speakers
        count = min(int(rng.integers(low, high + 1)), len(voices.speaker_ids) - len(speaker_ids))
        candidates = voices.draw_speakers(count + len(speaker_ids), rng)
        others = [speaker_id for speaker_id in candidates if speaker_id not in speaker_ids][:count]
        stretches = []
        for speaker_id in others:
            stretch = voices.draw_stretch(speaker_id, num_samples, self._speech.reader, rng)
            level_db = self._speech.level_db(stretch.utterance)
            gain = 0.0 if level_db == -np.inf else level_gain(BABBLE_DB - level_db)
            stretches.append(replace(stretch, gain=gain))
        return tuple(stretches)

    def _find_recordings(self, config: NoiseConfig) -> None:
        if not self._noises:
            raise InputError(
                "noise of kind 'recording' is asked for, and there are no noise recordings: give some, or set kinds"
            )
        if not config.groups:
            return
        for noise in self._noises:
            number = config.group_of(noise.path)
            if number is not None:
                self._groups.setdefault(number, []).append(noise)
        for number, group in enumerate(config.groups):
            if number not in self._groups:
                raise InputError(
                    f"noise.groups[{number}].folder: no noise recording lies in a folder {group.folder!r}, or all that "
                    f"do belong to an earlier group; the first recording there is: {self._noises[0].path}"
                )


def draw_noise_snr_db(config: NoiseConfig, noise: NoiseRecipe, rng: np.random.Generator) -> float:
    """An SNR from the range of the noise's group or kind."""
    path = noise.stretches[0].utterance.path if noise.kind == "recording" else None
    return rng.uniform(*config.snr_range(noise.kind, path))


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


def read_looped(stretch: UtteranceSegment, reader: Reader) -> NDArray[np.float32]:
    """The samples of a stretch, without its gain; where the recording ends it begins again.

    Returns:
        `[stretch.num_samples]`.
    """
    available = reader.length(stretch.utterance)
    if stretch.stop <= available:
        return reader.read(stretch.utterance, stretch.start, stretch.stop)
    return loop_recording(reader.read(stretch.utterance), stretch.start, stretch.num_samples)


def loop_recording(recording: NDArray[np.float32], start: int, num_samples: int) -> NDArray[np.float32]:
    """`num_samples` of a recording from sample `start` on, which begins again where it ends.

    >>> loop_recording(np.array([1, 2, 3], dtype=np.float32), 2, 5)
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
