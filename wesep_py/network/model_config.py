"""Configuration of an extraction network: the section `model` of a YAML file, and of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from wesep_py.features.array_high_pass import DEFAULT_HIGHPASS_HZ
from wesep_py.network.presence_head import PresenceConfig

MAX_HIGHPASS_HZ = 200.0
"""Highest cutoff that a configuration may ask for."""
MAX_SHIFTS = 16
"""Highest number of shifted copies of a mixture that are averaged."""


@dataclass
class ModelConfig:
    """Configuration of a network, the section `model` of a YAML file.

    Attributes:
        backbone: `{name: bsrnn, …}`.
        speaker: a `speaker.SpeakerConfig`, or `null` where no cue needs an encoder.
        cues: a list of `{name: embedding, …}`.
        presence: a `PresenceConfig`, or `null` for none.
        live_presence: the same for the live mode of a backbone with `live: true`, which has a head of its own: `latent`
            and `similarity` are the inputs that need no later frames.
        sample_rate: Hz at which the network works; at least 8000.
        normalise: level by which mixture and enrollment are divided: their `rms`, their standard deviation (`std`), or
            `none`. The estimate is multiplied by the mixture's level again. A causal network does not know the level
            of the whole recording: it needs `none`, or `tracked`, the RMS until now (`features.LevelTracker`; the
            enrollment is divided by its RMS). The live mode of a network with `rms` or `std` uses `tracked`.
        level: how the level of an extracted voice is set. `fitted`: to fit the mixture best (`inference.result`), for
            networks trained with scale-invariant losses. `learned`: nearly as the network returns it, for networks
            trained with losses that depend on the level, so that the estimate of an absent voice may be quiet.
            `kept`: exactly as the network returns it, as some imported networks are used.
        highpass_hz: cutoff below which mixture and enrollment are removed before anything else, in Hz, so that the
            estimate holds nothing below it either; 0 switches the filter off. With a causal backbone the mixture
            loses what is below an eighth of it: a constant, and slow changes.
        shifts: number of shifted copies of a mixture that an extractor averages (`Extractor.extract`); 1 to 16, and at
            most the backbone's stride. Each costs the time of one extraction. Training and its validation use one.

    Raises:
        ValueError: a value that is out of range, or no cue.
    """

    backbone: dict[str, Any]
    speaker: dict[str, Any] | None = None
    cues: list[dict[str, Any]] = field(default_factory=list)
    presence: PresenceConfig | None = None
    live_presence: PresenceConfig | None = None
    sample_rate: int = 16000
    normalise: Literal["none", "rms", "std", "tracked"] = "rms"
    level: Literal["fitted", "learned", "kept"] = "fitted"
    highpass_hz: float = DEFAULT_HIGHPASS_HZ
    shifts: int = 1

    def __post_init__(self) -> None:
        if self.sample_rate < 8000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; 8000 Hz or more is allowed")
        if not self.cues:
            raise ValueError("cues: is empty; a model needs at least one cue to know whom to extract")
        if not 0 <= self.highpass_hz <= MAX_HIGHPASS_HZ:
            raise ValueError(
                f"highpass_hz: is {self.highpass_hz}; 0 (nothing is removed) to {MAX_HIGHPASS_HZ:g} Hz is allowed"
            )
        if not 1 <= self.shifts <= MAX_SHIFTS:
            raise ValueError(f"shifts: is {self.shifts}; 1 (no averaging) to {MAX_SHIFTS} is allowed")
