"""Rooms and noises of many waveforms at once, on a device; `rooms/` and `noise/` have them for one mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from wesep_py.audio.level import ACTIVE_FLOOR_DB, ACTIVE_FRAME_S, ACTIVE_RANGE_DB
from wesep_py.common.errors import ConfigError
from wesep_py.simulation.description.effects import (
    BAND_ORDER,
    BAND_PADDING_S,
    BandLimit,
    Clipping,
    CodecRoundTrip,
    Effect,
    Equalisation,
    LevelDrift,
    PacketLoss,
    ResampleRoundTrip,
    SpeedChange,
)
from wesep_py.simulation.description.simulation_config import SimulationConfig
from wesep_py.simulation.noise import COLOURED_CORNER_HZ
from wesep_py.simulation.rooms.acoustics import DIRECT_MS
from wesep_py.simulation.rooms.reverberation import Target
from wesep_py.simulation.rooms.room_bank import EARLY_BEFORE_MS

# ----------------------------------------
# Active levels and activity of many waveforms at once, as `audio.level` has them for one.
#
# Energies of frames are summed in float64: whether a frame counts as active hangs on its distance to a threshold, and
# should be decided as on the CPU.


def frame_length(sample_rate: int) -> int:
    """Samples in a frame of activity."""
    return max(1, round(ACTIVE_FRAME_S * sample_rate))


def active_frames(waveforms: Tensor, lengths: Tensor, sample_rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """In which frames each waveform is active.

    Args:
        waveforms: `[..., samples]`, zero beyond their lengths.
        lengths: `[...]`, in samples.
        sample_rate: in Hz.

    Returns:
        Whether each frame is active, its energy, and how many samples it has; each `[..., frames]`.
    """
    frame = frame_length(sample_rate)
    num_frames = -(-waveforms.shape[-1] // frame)
    padded = torch.nn.functional.pad(waveforms, (0, num_frames * frame - waveforms.shape[-1]))
    energies = padded.unflatten(-1, (num_frames, frame)).double().square().sum(dim=-1)
    starts = torch.arange(num_frames, device=waveforms.device) * frame
    counts = (lengths[..., None] - starts).clamp(0, frame)
    # As a root and decibels, as on the CPU: a threshold in energies rounds otherwise.
    levels_db = 20 * torch.log10((energies / counts.clamp_min(1)).sqrt())
    limits_db = (levels_db.amax(dim=-1, keepdim=True) - ACTIVE_RANGE_DB).clamp_min(ACTIVE_FLOOR_DB)
    return (levels_db >= limits_db) & (counts > 0), energies, counts


def active_levels_db(waveforms: Tensor, lengths: Tensor, sample_rate: int) -> Tensor:
    """The RMS level in dB over active samples: `[..., samples]` → float64 `[...]`; -inf for silence.

    >>> waveforms = torch.cat([torch.zeros(1, 320), torch.full((1, 320), 0.1)], dim=1)
    >>> round(float(active_levels_db(waveforms, torch.tensor([640]), 16000)), 6)
    -20.0
    """
    return levels_of(*active_frames(waveforms, lengths, sample_rate))


def levels_of(active: Tensor, energies: Tensor, counts: Tensor) -> Tensor:
    """The same of what `active_frames` returned: `[..., frames]` each → float64 `[...]`."""
    energy = torch.where(active, energies, 0.0).sum(dim=-1)
    count = torch.where(active, counts, 0).sum(dim=-1)
    return 10 * torch.log10(energy / count.clamp_min(1))


def activity_at(active: Tensor, lengths: Tensor, longest: int, sample_rate: int, rate_hz: int) -> Tensor:
    """The activity at the middle of each frame of another rate.

    Args:
        active: `[rows, ..., frames]`, from `active_frames`.
        lengths: `[rows]`, in samples.
        longest: of these.
        sample_rate: in Hz.
        rate_hz: frames a second of the result.

    Returns:
        bool `[rows, ..., frames at that rate]`, of the longest.
    """
    num_frames = -(-longest * rate_hz // sample_rate)
    middles = (torch.arange(num_frames, dtype=torch.float64, device=active.device) + 0.5) * sample_rate / rate_hz
    samples = torch.minimum(middles.long(), lengths[:, None] - 1)
    frames = samples // frame_length(sample_rate)
    shape = (len(active), *(1,) * (active.ndim - 2), num_frames)
    return active.gather(-1, frames.view(shape).expand(*active.shape[:-1], num_frames))


def gains_between(from_db: Tensor, to_db: Tensor) -> Tensor:
    """Linear gains that bring levels to others; 1 where there is no level to start from, as `gains.gain_between`."""
    return torch.where(from_db.isinf(), torch.ones_like(from_db), 10 ** ((to_db - from_db) / 20))


# ----------------------------------------
# Effects on many waveforms at once, on a device; `simulation/effects.py` has them for one, on the CPU.
#
# Codecs, and the resampling that is an effect or makes a speed, do not run here: the one is a program of the CPU, the
# other would be a further implementation of a filter that everything else uses.

ORDER = (LevelDrift, Equalisation, BandLimit, Clipping, PacketLoss)
"""Kinds that run on a device, in the order in which a configuration draws them."""
NOT_ON_DEVICE = (CodecRoundTrip, ResampleRoundTrip, SpeedChange)
# The filters' slowest pole, that of a shelf at 10 Hz, has fallen by 380 dB in that time.
FILTER_TAIL_S = 1.0
Packed = dict[str, Any]


def runs_on_device(effect: Effect) -> bool:
    """Whether an effect can happen on a device."""
    return not isinstance(effect, NOT_ON_DEVICE)


def check_renders_on_device(config: SimulationConfig) -> None:
    """Refuse what happens to mixtures and can happen on the CPU only.

    What happens to sources and to enrollments is not refused: the workers do it.

    Raises:
        ConfigError: names the key.
    """
    effects = config.mixture_effects
    for name in ("codec", "resample"):
        if effects is not None and getattr(effects, name) is not None:
            raise ConfigError(
                f"simulation.mixture_effects.{name}: cannot run on a device; leave it out, or set data.render to "
                "'workers'"
            )
    if config.loudness is not None:
        raise ConfigError(
            "simulation.loudness: cannot be drawn on a device; leave it out, or set data.render to 'workers'"
        )


def pack_effects(effects: Sequence[Sequence[Effect]], lengths: Sequence[int], sample_rate: int) -> Packed:
    """What `apply_packed` needs of the effects of several waveforms: rows and parameters of each kind.

    Args:
        effects: of each waveform, in the order of `ORDER`, each kind once at most.
        lengths: of each waveform, in samples.
        sample_rate: in Hz.
    """
    found: dict[type, list[tuple[int, Any]]] = {kind: [] for kind in ORDER}
    for row, own in enumerate(effects):
        for effect in own:
            found[type(effect)].append((row, effect))
    packed: Packed = {}
    for kind, items in found.items():
        if items:
            rows = [row for row, _ in items]
            parameters = _PACK[kind]([effect for _, effect in items], [lengths[row] for row in rows], sample_rate)
            packed[kind.__name__] = {"rows": torch.tensor(rows), **parameters}
    return packed


def apply_packed(waveforms: Tensor, lengths: Tensor, packed: Packed, sample_rate: int) -> Tensor:
    """Waveforms `[rows, samples]`, zero beyond their lengths, through their effects."""
    for kind in ORDER:
        if (own := packed.get(kind.__name__)) is not None:
            rows = own["rows"]
            waveforms = waveforms.index_copy(0, rows, _APPLY[kind](waveforms[rows], lengths[rows], own, sample_rate))
    return waveforms


def level_gains(num_rows: int, lengths: Tensor, packed: Packed, size: int) -> Tensor:
    """The gains of drifting levels, `[rows, size]`; 1 where a row has none."""
    gains = torch.ones(num_rows, size, device=lengths.device)
    if (own := packed.get("Level")) is not None:
        gains = gains.index_copy(0, own["rows"], _drift(lengths[own["rows"]], own, size))
    return gains


def _drift(lengths: Tensor, own: Mapping[str, Tensor], size: int) -> Tensor:
    begin, end = own["begin"][:, None], own["end"][:, None]
    # Beyond a row's end the gain stays: going on, it could overflow, and infinity times zero is not zero.
    at = (torch.arange(size, device=lengths.device) / (lengths[:, None] - 1).clamp_min(1)).clamp_max(1)
    return torch.exp(begin + (end - begin) * at)


def _level(waveforms: Tensor, lengths: Tensor, own: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    return waveforms * _drift(lengths, own, waveforms.shape[-1])


def _equalise(waveforms: Tensor, lengths: Tensor, own: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    """The recursive filter by its frequency response: its impulse response has died away within the padding."""
    size = next_fast_len(waveforms.shape[-1] + round(FILTER_TAIL_S * sample_rate), real=True)
    angle = torch.arange(size // 2 + 1, dtype=torch.float64, device=waveforms.device) * (2 * np.pi / size)
    delay = torch.polar(torch.ones_like(angle), -angle)
    powers = torch.stack([torch.ones_like(delay), delay, delay * delay])
    sections = own["sections"].to(powers.dtype)  # [rows, 3, 6]
    response = ((sections[..., :3] @ powers) / (sections[..., 3:] @ powers)).prod(dim=1)
    filtered = torch.fft.irfft(torch.fft.rfft(waveforms, size) * response.to(torch.complex64), size)
    return _cut(filtered[..., : waveforms.shape[-1]], lengths)


def _band_limit(waveforms: Tensor, lengths: Tensor, own: Mapping[str, Any], sample_rate: int) -> Tensor:
    made = torch.zeros_like(waveforms)
    for length, rows in own["groups"].items():
        size = next_fast_len(length + round(BAND_PADDING_S * sample_rate), real=True)
        frequencies = torch.arange(size // 2 + 1, device=waveforms.device) * (sample_rate / size)
        low, high = own["low"][rows][:, None], own["high"][rows][:, None]
        falling = 1 / (1 + (frequencies / high) ** (2 * BAND_ORDER))
        power = torch.where(high < sample_rate / 2, falling, 1.0)
        rising = (frequencies / low.clamp_min(1e-3)) ** (2 * BAND_ORDER)
        power = power * torch.where(low > 0, 1 - 1 / (1 + rising), 1.0)
        filtered = torch.fft.irfft(torch.fft.rfft(waveforms[rows, :length], size) * power.sqrt(), size)
        made[rows, :length] = filtered[:, :length]
    return made


def _clip(waveforms: Tensor, lengths: Tensor, own: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    limit = own["fraction"][:, None] * waveforms.abs().amax(dim=-1, keepdim=True)
    return torch.clamp(waveforms, -limit, limit)


def _lose(waveforms: Tensor, lengths: Tensor, own: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    packets = torch.arange(waveforms.shape[-1], device=waveforms.device) // own["length"][:, None]
    return waveforms * own["kept"].gather(1, packets.clamp_max(own["kept"].shape[1] - 1))


def _cut(waveforms: Tensor, lengths: Tensor) -> Tensor:
    return waveforms * (torch.arange(waveforms.shape[-1], device=waveforms.device) < lengths[:, None])


def _pack_level(effects: Sequence[LevelDrift], lengths: Sequence[int], sample_rate: int) -> Packed:
    nepers = float(np.log(10.0) / 20)
    begin, end = [e.begin_db * nepers for e in effects], [e.end_db * nepers for e in effects]
    return {"begin": torch.tensor(begin), "end": torch.tensor(end)}


def _pack_equalise(effects: Sequence[Equalisation], lengths: Sequence[int], sample_rate: int) -> Packed:
    return {"sections": torch.from_numpy(np.stack([effect.sections(sample_rate) for effect in effects]))}


def _pack_band_limit(effects: Sequence[BandLimit], lengths: Sequence[int], sample_rate: int) -> Packed:
    low, high = [e.low_hz for e in effects], [e.high_hz for e in effects]
    return {"low": torch.tensor(low), "high": torch.tensor(high), "groups": by_length(lengths)}


def _pack_clip(effects: Sequence[Clipping], lengths: Sequence[int], sample_rate: int) -> Packed:
    return {"fraction": torch.tensor([effect.fraction for effect in effects])}


def _pack_loss(effects: Sequence[PacketLoss], lengths: Sequence[int], sample_rate: int) -> Packed:
    packet = [max(1, round(effect.packet_ms * sample_rate / 1000)) for effect in effects]
    # The waveform of ones with its gaps, looked at once a packet.
    kept = [e.apply(np.ones(n, np.float32), sample_rate)[::p] for e, n, p in zip(effects, lengths, packet, strict=True)]
    padded = torch.zeros(len(kept), max(len(row) for row in kept))
    for into, row in zip(padded, kept, strict=True):
        into[: len(row)] = torch.from_numpy(np.ascontiguousarray(row))
    return {"length": torch.tensor(packet), "kept": padded}


def by_length(lengths: Sequence[int]) -> dict[int, Tensor]:
    """The rows of each length, for what is computed over a whole waveform and depends on its length.

    >>> by_length([5, 7, 5])
    {5: tensor([0, 2]), 7: tensor([1])}
    """
    rows = {length: [row for row, own in enumerate(lengths) if own == length] for length in dict.fromkeys(lengths)}
    return {length: torch.tensor(own) for length, own in rows.items()}


_PACK: dict[type, Callable[..., Packed]] = {
    LevelDrift: _pack_level,
    Equalisation: _pack_equalise,
    BandLimit: _pack_band_limit,
    Clipping: _pack_clip,
    PacketLoss: _pack_loss,
}
_APPLY: dict[type, Callable[..., Tensor]] = {
    LevelDrift: _level,
    Equalisation: _equalise,
    BandLimit: _band_limit,
    Clipping: _clip,
    PacketLoss: _lose,
}


def reverberate_packed(
    dry: Tensor, lengths: Tensor, rooms: Packed | None, target: Target, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """Sources as they arrive at the microphone, and the targets; see `rooms.responses.reverberate`.

    Args:
        dry: `[rows, sources, samples]`, zero beyond the lengths.
        lengths: `[rows]`, in samples.
        rooms: packed responses of the rows that are in a room; the others stay as they are.
        target: what the second result is.
        sample_rate: in Hz.
    """
    if rooms is None:
        return dry, dry
    rows, full, tap = rooms["rows"], rooms["full"], rooms["direct_tap"]
    inside, num_samples = dry[rows], dry.shape[-1]
    size = next_fast_len(num_samples + full.shape[-1] - 1, real=True)
    spectrum = torch.fft.rfft(inside, size)
    valid = torch.arange(num_samples, device=dry.device) < lengths[rows][:, None, None]

    def convolve(responses: Tensor) -> Tensor:
        wet = torch.fft.irfft(spectrum * torch.fft.rfft(responses, size), size)
        return wet[..., tap : tap + num_samples] * valid

    images = convolve(full)
    if target == "full":
        targets = images
    elif target == "dry":
        targets = inside * rooms["direct_gains"][..., None]
    else:
        targets = convolve(full * _part(target, rooms, sample_rate).to(full.device))
    all_images = dry.index_copy(0, rows, images)
    return all_images, all_images if target == "full" else dry.index_copy(0, rows, targets)


def _part(target: Target, rooms: Packed, sample_rate: int) -> Tensor:
    """Which taps belong to the direct path, or to the early part: `[rows, 1, taps]`, on the CPU."""
    taps = torch.arange(rooms["full"].shape[-1])
    masks = []
    for early_ms in rooms["early_ms"]:
        before_ms, after_ms = (EARLY_BEFORE_MS, early_ms) if target == "early" else (DIRECT_MS, DIRECT_MS)
        begin = rooms["direct_tap"] - round(before_ms * sample_rate / 1000)
        end = rooms["direct_tap"] + round(after_ms * sample_rate / 1000)
        masks.append((taps >= begin) & (taps < end))
    return torch.stack(masks)[:, None]


def finished_noises(noises: Packed, sample_rate: int) -> Tensor:
    """The noises with their colour and swing, before their gains: `[rows, most, samples]`."""
    waveforms = noises["waveforms"].clone()
    flat = waveforms.view(-1, waveforms.shape[-1])
    if (coloured := noises["coloured"]) is not None:
        for length, members in coloured["groups"].items():
            places = coloured["places"][members]
            flat[places, :length] = _coloured(flat[places, :length], coloured["slope_db"][members], sample_rate)
    if (swinging := noises["swinging"]) is not None:
        places, (rate_hz, depth_db, phase) = swinging["places"], swinging["parameters"].unsqueeze(-1)
        times = torch.arange(flat.shape[-1], dtype=torch.float64, device=flat.device)
        swing_db = depth_db / 2 * torch.sin(2 * math.pi * rate_hz * times / sample_rate + phase)
        flat[places] = flat[places] * (10 ** (swing_db / 20)).float()
    return waveforms


def _coloured(white: Tensor, slope_db: Tensor, sample_rate: int) -> Tensor:
    """White noise `[rows, samples]` with the slope of each row; its power stays."""
    length = white.shape[-1]
    frequencies = torch.fft.rfftfreq(length, 1 / sample_rate, dtype=torch.float64, device=white.device)
    octaves = torch.log2(frequencies.clamp_min(COLOURED_CORNER_HZ) / COLOURED_CORNER_HZ)
    shape = 10 ** (slope_db[:, None] * octaves / 20)
    shape = shape / shape.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.fft.irfft(torch.fft.rfft(white) * shape.float(), length)
