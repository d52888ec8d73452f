"""The parts of a mixture as data: stretches of recordings, speakers with what they say, noises, rooms, enrollments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from wesep_py.corpus.utterance import Utterance
from wesep_py.simulation.effects import Effect

Point = tuple[float, float, float]


@dataclass(frozen=True)
class BankRoomRecipe:
    """A room of a bank, with one of its responses for every source of the mixture.

    Args:
        path: the bank's folder, or tar.
        fingerprint: of the bank that it was drawn from.
        responses: index of the response of each source, in the order of the mixture's sources.
        channel: which of the room's microphones hears.
        early_ms: the early part reaches from 6 ms before the direct path to this long after it.
    """

    path: str
    fingerprint: str
    responses: tuple[int, ...]
    channel: int
    early_ms: float


@dataclass(frozen=True)
class Stretch:
    """A piece of an utterance: `num_samples` from sample `start` on, times `gain`."""

    utterance: Utterance
    start: int
    num_samples: int
    gain: float = 1.0

    @property
    def stop(self) -> int:
        """The sample after the last."""
        return self.start + self.num_samples


@dataclass(frozen=True)
class Modulation:
    """A level that swings as a sine in dB: `depth_db` from the lowest to the highest, `rate_hz` times a second."""

    rate_hz: float
    depth_db: float
    phase: float


@dataclass(frozen=True)
class NoiseRecipe:
    """A noise.

    Args:
        kind: `recording` (one stretch, whose utterance is looped where it ends), `babble` (one stretch a
            speaker, likewise looped, each brought to the same level by its own gain), or `coloured`.
        gain: linear factor of the whole noise.
        stretches: the recordings; none for `coloured`. Their `num_samples` is the mixture's.
        slope_db: spectral slope of coloured noise in dB per octave.
        seed: of coloured noise's random numbers.
        modulation: how its level swings, or `None`.
        snr_db: level of all speech to this noise, over active samples; of a mixture's first noise it is the
            recipe's `snr_db`.
    """

    kind: Literal["recording", "coloured", "babble"]
    gain: float = 1.0
    stretches: tuple[Stretch, ...] = ()
    slope_db: float = 0.0
    seed: int = 0
    modulation: Modulation | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class RoomRecipe:
    """A shoebox room, one microphone, and a place for every source of the mixture.

    Args:
        size_m: length, width, height.
        rt60_s: time in which the reverberation falls by 60 dB.
        microphone_m: position of the microphone.
        sources_m: position of each source, in the order of the mixture's sources.
        num_reflections: number of virtual sources of each response.
        early_ms: the early part reaches from 6 ms before the direct path to this long after it.
        seed: of the virtual sources' random numbers.
    """

    size_m: Point
    rt60_s: float
    microphone_m: Point
    sources_m: tuple[Point, ...]
    num_reflections: int
    early_ms: float
    seed: int

    @property
    def volume_m3(self) -> float:
        """Volume in cubic metres."""
        return self.size_m[0] * self.size_m[1] * self.size_m[2]

    @property
    def distances_m(self) -> tuple[float, ...]:
        """Distance of each source to the microphone."""
        return tuple(
            sum((s - m) ** 2 for s, m in zip(source, self.microphone_m, strict=True)) ** 0.5
            for source in self.sources_m
        )


@dataclass(frozen=True)
class Augmentation:
    """What happens to an enrollment, in this order, after its stretches are joined.

    Args:
        room: the room it was recorded in, or `None`.
        noises: each with an `snr_db`, from which its gain follows when it is rendered.
        effects: level, equalisation, codec and the like.
        level_db: level that it has at the end, over active samples, unless `peak` is lower.
        peak: its largest absolute sample at most.
    """

    room: RoomRecipe | BankRoomRecipe | None = None
    noises: tuple[NoiseRecipe, ...] = ()
    effects: tuple[Effect, ...] = ()
    level_db: float = -25.0
    peak: float = 0.9


@dataclass(frozen=True)
class Turn:
    """A further utterance of a speaker: `excerpt`, from sample `offset` of the mixture on.

    Its gain is relative to that of the speaker's first excerpt.
    """

    excerpt: Stretch
    offset: int


@dataclass(frozen=True)
class SourceRecipe:
    """One speaker of a mixture.

    Args:
        excerpt: what the speaker says, and how loud.
        offset: sample of the mixture at which the excerpt begins.
        enrollments: stretches of the same voice that share no sample with what it says; joined in time.
        turns: what the speaker says further on.
        effects: what happens to all that the speaker says, before the room.
        augmentation: what happens to the enrollment, or `None`.
    """

    excerpt: Stretch
    offset: int
    enrollments: tuple[Stretch, ...] = ()
    turns: tuple[Turn, ...] = ()
    effects: tuple[Effect, ...] = ()
    augmentation: Augmentation | None = None

    @property
    def speaker_id(self) -> str:
        """Who speaks."""
        return self.excerpt.utterance.speaker_id

    @property
    def placed(self) -> tuple[Turn, ...]:
        """All that the speaker says, with the first excerpt's gain left out."""
        return (Turn(replace(self.excerpt, gain=1.0), self.offset), *self.turns)


@dataclass(frozen=True)
class AbsentVoice:
    """Somebody who is asked for and is not in the mixture: enrollments, at least one, and what happens to them."""

    enrollments: tuple[Stretch, ...]
    augmentation: Augmentation | None = None

    @property
    def speaker_id(self) -> str:
        """Whose voice it is."""
        return self.enrollments[0].utterance.speaker_id
