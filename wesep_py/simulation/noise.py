"""Noise: recordings (cut or looped), coloured Gaussian noise and babble, with an optional modulation of the level.

`NoiseDrawer` draws the recipes of noises; `render_noise` computes the samples of one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.data.manifest import Utterance
from wesep_py.data.reader import Reader
from wesep_py.simulation.description.ranges import choose
from wesep_py.simulation.description.recipe import Modulation, NoiseRecipe, UtteranceSegment, recipe_gain
from wesep_py.simulation.description.simulation_config import NoiseConfig
from wesep_py.simulation.speech.placement import SpeechDrawer

# Level of each speaker in babble. Only that they are equal matters: the SNR determines the level of the sum.
BABBLE_DB = -25.0
# Coloured noise is flat below this frequency. With a slope down to 0 Hz, nearly all power of brown noise would be at
# inaudible frequencies.
COLOURED_CORNER_HZ = 50.0


class NoiseDrawer:
    """Draws the noises of a mixture, or of an enrollment.

    Args:
        config: kinds, weights and ranges; `None`: no noise.
        noises: noise recordings, in any order.
        speech: draws the speakers of babble, and reads recordings.

    Raises:
        InputError: noise of kind `recording` is configured and there is no recording, or none in the folder of a group.
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
        """True if other speakers may be part of the noise."""
        return self.config is not None and bool(self.config.kinds.get("babble"))

    def draw(self, speaker_ids: Collection[str], num_samples: int, rng: np.random.Generator) -> tuple[NoiseRecipe, ...]:
        """Draw the noises, without gains; with probability 1 - `config.probability` there are none.

        Args:
            speaker_ids: speakers who must not be in babble.
            num_samples: length of each noise.
            rng: random numbers.
        """
        config = self.config
        if config is None or rng.random() >= config.probability:
            return ()
        counts = config.count_weights
        count = choose(counts, rng) if len(counts) > 1 else next(iter(counts))
        return tuple(self._draw_noise(config, speaker_ids, num_samples, rng) for _ in range(count))

    def draw_snr_db(self, noise: NoiseRecipe, rng: np.random.Generator) -> float:
        """Draw an SNR from the range of the noise's group or kind."""
        assert self.config is not None
        return draw_noise_snr_db(self.config, noise, rng)

    def _draw_noise(
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
        modulation = config.modulation
        if modulation is None or rng.random() >= modulation.probability:
            return noise
        rate_hz, depth_db = float(rng.uniform(*modulation.rate_hz)), float(rng.uniform(*modulation.depth_db))
        return replace(noise, modulation=Modulation(rate_hz, depth_db, float(rng.uniform(0, 2 * np.pi))))

    def _draw_babble(
        self, config: NoiseConfig, speaker_ids: Collection[str], num_samples: int, rng: np.random.Generator
    ) -> tuple[UtteranceSegment, ...]:
        """Draw segments of speakers who are not in the mixture, with gains that bring them to the same level."""
        speakers = self._speech.speakers
        low, high = config.babble_speakers
        count = min(int(rng.integers(low, high + 1)), len(speakers.speaker_ids) - len(speaker_ids))
        # As many more are drawn as there are speakers in the mixture, so that enough remain when these are left out.
        candidates = speakers.draw_speakers(count + len(speaker_ids), rng)
        others = [speaker_id for speaker_id in candidates if speaker_id not in speaker_ids][:count]
        segments = []
        for speaker_id in others:
            segment = speakers.draw_segment(speaker_id, num_samples, self._speech.reader, rng)
            level_db = self._speech.level_db(segment.utterance)
            gain = 0.0 if level_db == -np.inf else recipe_gain(BABBLE_DB - level_db)
            segments.append(replace(segment, gain=gain))
        return tuple(segments)

    def _find_recordings(self, config: NoiseConfig) -> None:
        if not self._noises:
            raise InputError(
                "noise of kind 'recording' is configured, but there are no noise recordings: give some, or change kinds"
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
    """Draw an SNR from the range of the noise's group or kind."""
    path = noise.stretches[0].utterance.path if noise.kind == "recording" else None
    return rng.uniform(*config.snr_range(noise.kind, path))


def render_noise(recipe: NoiseRecipe, num_samples: int, reader: Reader) -> NDArray[np.float32]:
    """Render a noise before its overall gain, float32 `[num_samples]`.

    Args:
        recipe: the noise.
        num_samples: length of the mixture.
        reader: reads the recordings of the recipe.
    """
    if recipe.kind == "coloured":
        noise = coloured_noise(num_samples, reader.sample_rate, recipe.slope_db, recipe.seed)
    else:
        noise = read_looped(recipe.stretches[0], reader)
    if recipe.kind == "babble":
        noise = noise * np.float32(recipe.stretches[0].gain)
        for segment in recipe.stretches[1:]:
            noise += read_looped(segment, reader) * np.float32(segment.gain)
    if recipe.modulation is not None:
        noise = noise * modulation_gains(recipe.modulation, num_samples, reader.sample_rate)
    return noise


def modulation_gains(modulation: Modulation, num_samples: int, sample_rate: int) -> NDArray[np.float32]:
    """Return the linear gain of each sample of a modulated noise.

    >>> modulation_gains(Modulation(rate_hz=1.0, depth_db=20.0, phase=0.0), 4, 4).round(2)
    array([1.  , 3.16, 1.  , 0.32], dtype=float32)
    """
    angle = 2 * np.pi * modulation.rate_hz * np.arange(num_samples) / sample_rate + modulation.phase
    return (10.0 ** (modulation.depth_db / 2 * np.sin(angle) / 20)).astype(np.float32)


def read_looped(segment: UtteranceSegment, reader: Reader) -> NDArray[np.float32]:
    """Read `[segment.num_samples]` of a looped recording, without the segment's gain."""
    available = reader.length(segment.utterance)
    if segment.stop <= available:
        return reader.read(segment.utterance, segment.start, segment.stop)
    return loop_recording(reader.read(segment.utterance), segment.start, segment.num_samples)


def loop_recording(recording: NDArray[np.float32], start: int, num_samples: int) -> NDArray[np.float32]:
    """Return `num_samples` of a looped recording from sample `start` on.

    >>> loop_recording(np.array([1, 2, 3], dtype=np.float32), 2, 5)
    array([3., 1., 2., 3., 1.], dtype=float32)
    """
    start %= recording.size
    repeats = -(-(start + num_samples) // recording.size)
    return np.tile(recording, repeats)[start : start + num_samples]


def coloured_noise(num_samples: int, sample_rate: int, slope_db: float, seed: int) -> NDArray[np.float32]:
    """Generate Gaussian noise with a constant spectral slope in dB per octave and an RMS of about 0.1.

    Args:
        num_samples: length.
        sample_rate: in Hz.
        slope_db: slope above 50 Hz, flat below: 0 is white, -3 pink, -6 brown.
        seed: seed of the random numbers.

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
