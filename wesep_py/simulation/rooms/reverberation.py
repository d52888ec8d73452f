"""Reverberation of sources: their images at the microphone, and the part of it that is the target.

A room is a `RoomRecipe`, whose responses are computed (`fra`), or a `BankRoomRecipe`, whose responses are read
(`room_bank`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import InputError
from wesep_py.simulation.description.recipe import BankRoomRecipe, RoomRecipe
from wesep_py.simulation.rooms.acoustics import DIRECT_MS
from wesep_py.simulation.rooms.bank_opening import open_bank
from wesep_py.simulation.rooms.fra import SINC_HALF_WIDTH, SPEED_OF_SOUND_M_S, fra_responses
from wesep_py.simulation.rooms.room_bank import EARLY_BEFORE_MS

Target = Literal["dry", "direct", "early", "full"]
Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class RoomResponses:
    """Responses of a room's sources, aligned so that every direct path is at tap `direct_tap`.

    With several microphones there is an axis for them after that of the sources, and direct paths to the room's
    microphone would be at `direct_tap`.

    Attributes:
        full: `[sources, taps]` or `[sources, microphones, taps]`: direct path and all reflections.
        direct_gains: `[sources]` or `[sources, microphones]`: amplitude of the direct path; 1 / distance in metres if
            it was simulated.
        direct_tap: tap of the direct path.
        sample_rate: in Hz.
        early_ms: end of the early part, after the direct path.
    """

    full: Waveform
    direct_gains: Waveform
    direct_tap: int
    sample_rate: int
    early_ms: float

    @property
    def early(self) -> Waveform:
        """The responses from 6 ms before to `early_ms` after the direct path, zero elsewhere."""
        return self._between(EARLY_BEFORE_MS, self.early_ms)

    @property
    def direct(self) -> Waveform:
        """The responses within 2.5 ms of the direct path, zero elsewhere."""
        return self._between(DIRECT_MS, DIRECT_MS)

    def _between(self, before_ms: float, after_ms: float) -> Waveform:
        part = self.full.copy()
        part[..., : max(self.direct_tap - round(before_ms * self.sample_rate / 1000), 0)] = 0.0
        part[..., self.direct_tap + round(after_ms * self.sample_rate / 1000) :] = 0.0
        return part


def room_responses(
    room: RoomRecipe | BankRoomRecipe, sample_rate: int, microphones_m: ArrayLike | None = None
) -> RoomResponses:
    """Return the impulse responses of a room.

    Args:
        room: from `fra.draw_room`, `RoomBank.draw_recipe`, or a recipe.
        sample_rate: in Hz, 1000 or more.
        microphones_m: `[microphones, 3]`: positions of an array, all within a few metres of the room's microphone,
            which remains the reference of the alignment; `None`: the room's microphone alone, without an axis for it.

    Returns:
        One response per source, RT60 long after the direct path. The same room gives the same samples, and the room's
        own microphone the same ones in every array.

    Raises:
        InputError: positions outside the room, or positions for a bank's room; a bank that is missing, has other
            content than when the recipe was drawn, or has another sample rate.
    """
    if isinstance(room, BankRoomRecipe):
        if microphones_m is not None:
            raise InputError(
                "microphones_m: a bank's room has the microphones that it was made with; read its channels"
            )
        full, gains, tap = open_bank(room.path).read(room, sample_rate)
        return RoomResponses(full, gains, tap, sample_rate, room.early_ms)
    lead = max(round(EARLY_BEFORE_MS * sample_rate / 1000), SINC_HALF_WIDTH)
    if microphones_m is None:
        microphones = np.array([room.microphone_m])
    else:
        microphones = _checked_array(np.asarray(microphones_m, dtype=np.float64), room)
        reach_m = np.linalg.norm(microphones - np.array(room.microphone_m), axis=-1).max()
        lead += int(np.ceil(reach_m * sample_rate / SPEED_OF_SOUND_M_S))
    full, gains = fra_responses(room, microphones, sample_rate, lead)
    if microphones_m is None:
        full, gains = full[:, 0], gains[:, 0]
    return RoomResponses(full.astype(np.float32), gains.astype(np.float32), lead, sample_rate, room.early_ms)


def reverberate(
    dry: Waveform,
    room: RoomRecipe | BankRoomRecipe,
    sample_rate: int,
    target: Target = "full",
    microphones_m: ArrayLike | None = None,
) -> tuple[Waveform, Waveform]:
    """Reverberate sources; the delay of the direct path is removed, so that images are aligned with the dry sources.

    Args:
        dry: `[sources, samples]`, in the order of the room's sources.
        room: the room.
        sample_rate: in Hz.
        target: kind of the targets.
        microphones_m: as for `room_responses`.

    Returns:
        The images `[sources, samples]`, or `[sources, microphones, samples]`, cut to the length of the dry sources,
        and the targets: `dry`: the source times the gain of the direct path; `direct` and `early`: the source
        convolved with that part of the response; `full`: the images.

    Raises:
        InputError: as `room_responses`.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    responses = room_responses(room, sample_rate, microphones_m)
    num_samples = dry.shape[-1]
    size = next_fast_len(num_samples + responses.full.shape[-1] - 1, real=True)
    spectrum = rfft(dry, size)
    if responses.full.ndim == 3:
        dry, spectrum = dry[:, None], spectrum[:, None]

    def convolve(response: Waveform) -> Waveform:
        wet = irfft(spectrum * rfft(response, size), size)
        return np.ascontiguousarray(wet[..., responses.direct_tap : responses.direct_tap + num_samples])

    images = convolve(responses.full)
    if target == "full":
        return images, images
    if target == "dry":
        return images, dry * responses.direct_gains[..., None]
    return images, convolve(responses.early if target == "early" else responses.direct)


def _checked_array(microphones: NDArray[np.float64], room: RoomRecipe) -> NDArray[np.float64]:
    if microphones.ndim != 2 or microphones.shape[1] != 3 or not len(microphones):
        raise InputError(f"microphones_m: has shape {list(microphones.shape)}; give [microphones, 3]")
    if not np.all((microphones > 0) & (microphones < np.array(room.size_m))):
        raise InputError(f"microphones_m: not all are in the room of {[round(x, 2) for x in room.size_m]} m; move them")
    return microphones
