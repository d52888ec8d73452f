"""Drawing noise: which kinds, how many, from which recordings or speakers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError
from wesep_py.simulation.gains import level_gain
from wesep_py.simulation.noise.config import NoiseConfig
from wesep_py.simulation.recipe_parts import Modulation, NoiseRecipe, Stretch
from wesep_py.simulation.speech.draw import Speech
from wesep_py.simulation.weights import choose

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

    def __init__(self, config: NoiseConfig | None, noises: Sequence[Utterance], speech: Speech) -> None:
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

    def draw_snr_db(self, noise: NoiseRecipe, rng: np.random.Generator) -> float:
        """An SNR from the range of the noise's group or kind."""
        assert self.config is not None
        return draw_snr_db(self.config, noise, rng)

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
            noise = NoiseRecipe(kind, stretches=(Stretch(recording, start, num_samples),))
        else:
            noise = NoiseRecipe(kind, stretches=self._draw_babble(config, speaker_ids, num_samples, rng))
        swing = config.modulation
        if swing is None or rng.random() >= swing.probability:
            return noise
        rate_hz, depth_db = float(rng.uniform(*swing.rate_hz)), float(rng.uniform(*swing.depth_db))
        return replace(noise, modulation=Modulation(rate_hz, depth_db, float(rng.uniform(0, 2 * np.pi))))

    def _draw_babble(
        self, config: NoiseConfig, speaker_ids: Collection[str], num_samples: int, rng: np.random.Generator
    ) -> tuple[Stretch, ...]:
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


def draw_snr_db(config: NoiseConfig, noise: NoiseRecipe, rng: np.random.Generator) -> float:
    """An SNR from the range of the noise's group or kind."""
    path = noise.stretches[0].utterance.path if noise.kind == "recording" else None
    return rng.uniform(*config.snr_range(noise.kind, path))
