"""Levels, effects, rooms and noise of many waveforms at once, in torch, on any device.

The definitions are those for one mixture on the CPU: `audio.level`, `description.effects`, `rooms.reverberation` and
`noise`. Here waveforms are rows of a padded tensor, zero beyond their lengths, and the parameters of each effect are
packed into tensors by the data workers (`pack_effects`, `dry_batch`). Not on a device run codecs, which are programs of
the CPU, and resampling, for which torch would need a second implementation of a filter that everything else uses.
"""

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

BATCHED_EFFECTS = (LevelDrift, Equalisation, BandLimit, Clipping, PacketLoss)
"""Kinds of effects that run on a device, in the order in which a configuration draws them."""
CPU_ONLY_EFFECTS = (CodecRoundTrip, ResampleRoundTrip, SpeedChange)
# In this time the slowest pole of the filters, that of a shelf at 10 Hz, has decayed by 380 dB.
FILTER_TAIL_S = 1.0
Packed = dict[str, Any]


# Levels. Energies of frames are summed in float64: whether a frame is active depends on its distance to a threshold,
# and must be decided as on the CPU.


def frame_length(sample_rate: int) -> int:
    """Return the number of samples in a frame of activity."""
    return max(1, round(ACTIVE_FRAME_S * sample_rate))


def active_frames(waveforms: Tensor, lengths: Tensor, sample_rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the active frames of each waveform.

    Args:
        waveforms: `[..., samples]`, zero beyond their lengths.
        lengths: `[...]`, in samples.
        sample_rate: in Hz.

    Returns:
        Whether each frame is active, its energy, and its number of samples (fewer at the end); each `[..., frames]`.
    """
    frame = frame_length(sample_rate)
    num_frames = -(-waveforms.shape[-1] // frame)
    padded = torch.nn.functional.pad(waveforms, (0, num_frames * frame - waveforms.shape[-1]))
    energies = padded.unflatten(-1, (num_frames, frame)).double().square().sum(dim=-1)
    starts = torch.arange(num_frames, device=waveforms.device) * frame
    counts = (lengths[..., None] - starts).clamp(0, frame)
    # The root and the decibels are those of the CPU: a threshold in energies would round differently.
    levels_db = 20 * torch.log10((energies / counts.clamp_min(1)).sqrt())
    limits_db = (levels_db.amax(dim=-1, keepdim=True) - ACTIVE_RANGE_DB).clamp_min(ACTIVE_FLOOR_DB)
    return (levels_db >= limits_db) & (counts > 0), energies, counts


def active_levels_db(waveforms: Tensor, lengths: Tensor, sample_rate: int) -> Tensor:
    """Return the RMS level in dB over active samples: `[..., samples]` → float64 `[...]`; -inf for silence.

    >>> waveforms = torch.cat([torch.zeros(1, 320), torch.full((1, 320), 0.1)], dim=1)
    >>> round(float(active_levels_db(waveforms, torch.tensor([640]), 16000)), 6)
    -20.0
    """
    return levels_of(*active_frames(waveforms, lengths, sample_rate))


def levels_of(active: Tensor, energies: Tensor, counts: Tensor) -> Tensor:
    """Return the level of what `active_frames` returned: `[..., frames]` each → float64 `[...]`."""
    energy = torch.where(active, energies, 0.0).sum(dim=-1)
    count = torch.where(active, counts, 0).sum(dim=-1)
    return 10 * torch.log10(energy / count.clamp_min(1))


def activity_at(active: Tensor, lengths: Tensor, longest: int, sample_rate: int, rate_hz: int) -> Tensor:
    """Return the activity at the middle of each frame of another frame rate.

    Args:
        active: `[rows, ..., frames]`, from `active_frames`.
        lengths: `[rows]`, in samples.
        longest: largest of the lengths.
        sample_rate: in Hz.
        rate_hz: frames per second of the result.

    Returns:
        bool `[rows, ..., frames at that rate]`, for the longest.
    """
    num_frames = -(-longest * rate_hz // sample_rate)
    middles = (torch.arange(num_frames, dtype=torch.float64, device=active.device) + 0.5) * sample_rate / rate_hz
    samples = torch.minimum(middles.long(), lengths[:, None] - 1)
    frames = samples // frame_length(sample_rate)
    shape = (len(active), *(1,) * (active.ndim - 2), num_frames)
    return active.gather(-1, frames.view(shape).expand(*active.shape[:-1], num_frames))


def gains_between(from_db: Tensor, to_db: Tensor) -> Tensor:
    """Return linear gains that change levels in dB to others; 1 for silence, as `description.recipe.gain_between`."""
    return torch.where(from_db.isinf(), torch.ones_like(from_db), 10 ** ((to_db - from_db) / 20))


# Effects.


def runs_on_device(effect: Effect) -> bool:
    """Return whether an effect can run on a device."""
    return not isinstance(effect, CPU_ONLY_EFFECTS)


def check_renders_on_device(config: SimulationConfig) -> None:
    """Raise an error if a configuration needs the CPU to render its mixtures.

    Effects on sources and enrollments are allowed: the data workers apply them.

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
    """Pack the effects of several waveforms for `apply_packed`: rows and parameters of each kind.

    Args:
        effects: of each waveform, in the order of `BATCHED_EFFECTS`, at most one of each kind.
        lengths: of each waveform, in samples.
        sample_rate: in Hz.
    """
    by_kind: dict[type, list[tuple[int, Any]]] = {kind: [] for kind in BATCHED_EFFECTS}
    for row, row_effects in enumerate(effects):
        for effect in row_effects:
            by_kind[type(effect)].append((row, effect))
    packed: Packed = {}
    for kind, items in by_kind.items():
        if items:
            rows = [row for row, _ in items]
            parameters = _PACK[kind]([effect for _, effect in items], [lengths[row] for row in rows], sample_rate)
            packed[kind.__name__] = {"rows": torch.tensor(rows), **parameters}
    return packed


def apply_packed(waveforms: Tensor, lengths: Tensor, packed: Packed, sample_rate: int) -> Tensor:
    """Apply their effects to waveforms `[rows, samples]`, zero beyond their lengths.

    Each kind runs once, on the rows that have it: the order of kinds is the same for all rows.
    """
    for kind in BATCHED_EFFECTS:
        if (parameters := packed.get(kind.__name__)) is not None:
            rows = parameters["rows"]
            processed = _APPLY[kind](waveforms[rows], lengths[rows], parameters, sample_rate)
            waveforms = waveforms.index_copy(0, rows, processed)
    return waveforms


def level_gains(num_rows: int, lengths: Tensor, packed: Packed, size: int) -> Tensor:
    """Return the gains of level drifts, `[rows, size]`; 1 for rows without one."""
    gains = torch.ones(num_rows, size, device=lengths.device)
    if (drift := packed.get(LevelDrift.__name__)) is not None:
        gains = gains.index_copy(0, drift["rows"], _drift_gains(lengths[drift["rows"]], drift, size))
    return gains


def _drift_gains(lengths: Tensor, drift: Mapping[str, Tensor], size: int) -> Tensor:
    begin, end = drift["begin"][:, None], drift["end"][:, None]
    # Beyond the end of a row the gain stays constant: it could overflow, and infinity times zero is not zero.
    position = (torch.arange(size, device=lengths.device) / (lengths[:, None] - 1).clamp_min(1)).clamp_max(1)
    return torch.exp(begin + (end - begin) * position)


def _level(waveforms: Tensor, lengths: Tensor, drift: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    return waveforms * _drift_gains(lengths, drift, waveforms.shape[-1])


def _equalise(waveforms: Tensor, lengths: Tensor, filters: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    """Apply recursive filters by their frequency responses; the impulse responses have decayed within the padding.

    A recursion over samples would be sequential; here all rows and samples are filtered at once.
    """
    size = next_fast_len(waveforms.shape[-1] + round(FILTER_TAIL_S * sample_rate), real=True)
    angle = torch.arange(size // 2 + 1, dtype=torch.float64, device=waveforms.device) * (2 * np.pi / size)
    delay = torch.polar(torch.ones_like(angle), -angle)
    powers = torch.stack([torch.ones_like(delay), delay, delay * delay])
    sections = filters["sections"].to(powers.dtype)  # [rows, 3, 6]
    response = ((sections[..., :3] @ powers) / (sections[..., 3:] @ powers)).prod(dim=1)
    filtered = torch.fft.irfft(torch.fft.rfft(waveforms, size) * response.to(torch.complex64), size)
    return _cut(filtered[..., : waveforms.shape[-1]], lengths)


def _band_limit(waveforms: Tensor, lengths: Tensor, bands: Mapping[str, Any], sample_rate: int) -> Tensor:
    # By length: the FFT size depends on it, and with it, slightly, the filter.
    limited = torch.zeros_like(waveforms)
    for length, rows in bands["groups"].items():
        size = next_fast_len(length + round(BAND_PADDING_S * sample_rate), real=True)
        frequencies = torch.arange(size // 2 + 1, device=waveforms.device) * (sample_rate / size)
        low, high = bands["low"][rows][:, None], bands["high"][rows][:, None]
        falling = 1 / (1 + (frequencies / high) ** (2 * BAND_ORDER))
        power = torch.where(high < sample_rate / 2, falling, 1.0)
        rising = (frequencies / low.clamp_min(1e-3)) ** (2 * BAND_ORDER)
        power = power * torch.where(low > 0, 1 - 1 / (1 + rising), 1.0)
        filtered = torch.fft.irfft(torch.fft.rfft(waveforms[rows, :length], size) * power.sqrt(), size)
        limited[rows, :length] = filtered[:, :length]
    return limited


def _clip(waveforms: Tensor, lengths: Tensor, clipping: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    limit = clipping["fraction"][:, None] * waveforms.abs().amax(dim=-1, keepdim=True)
    return torch.clamp(waveforms, -limit, limit)


def _lose_packets(waveforms: Tensor, lengths: Tensor, loss: Mapping[str, Tensor], sample_rate: int) -> Tensor:
    packets = torch.arange(waveforms.shape[-1], device=waveforms.device) // loss["length"][:, None]
    return waveforms * loss["received"].gather(1, packets.clamp_max(loss["received"].shape[1] - 1))


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
    packets = [max(1, round(effect.packet_ms * sample_rate / 1000)) for effect in effects]
    # Which packets are lost is read from a waveform of ones after the effect, one sample per packet.
    received = [
        effect.apply(np.ones(length, np.float32), sample_rate)[::packet]
        for effect, length, packet in zip(effects, lengths, packets, strict=True)
    ]
    padded = torch.zeros(len(received), max(len(row) for row in received))
    for padded_row, row in zip(padded, received, strict=True):
        padded_row[: len(row)] = torch.from_numpy(np.ascontiguousarray(row))
    return {"length": torch.tensor(packets), "received": padded}


def by_length(lengths: Sequence[int]) -> dict[int, Tensor]:
    """Return the rows of each length, for computations that depend on the length of a whole waveform.

    >>> by_length([5, 7, 5])
    {5: tensor([0, 2]), 7: tensor([1])}
    """
    return {
        length: torch.tensor([row for row, row_length in enumerate(lengths) if row_length == length])
        for length in dict.fromkeys(lengths)
    }


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
    PacketLoss: _lose_packets,
}


# Rooms.


def reverberate_packed(
    dry: Tensor, lengths: Tensor, rooms: Packed | None, target: Target, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """Return the sources as they arrive at the microphone, and the targets; see `rooms.reverberation.reverberate`.

    Args:
        dry: `[rows, sources, samples]`, zero beyond the lengths.
        lengths: `[rows]`, in samples.
        rooms: packed responses of the rows that are in a room; the other rows are returned unchanged.
        target: kind of the targets.
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
        targets = convolve(full * _part_of_response(target, rooms, sample_rate).to(full.device))
    all_images = dry.index_copy(0, rows, images)
    return all_images, all_images if target == "full" else dry.index_copy(0, rows, targets)


def _part_of_response(target: Target, rooms: Packed, sample_rate: int) -> Tensor:
    """Return whether each tap belongs to the direct path, or to the early part: `[rows, 1, taps]`, on the CPU."""
    taps = torch.arange(rooms["full"].shape[-1])
    masks = []
    for early_ms in rooms["early_ms"]:
        before_ms, after_ms = (EARLY_BEFORE_MS, early_ms) if target == "early" else (DIRECT_MS, DIRECT_MS)
        begin = rooms["direct_tap"] - round(before_ms * sample_rate / 1000)
        end = rooms["direct_tap"] + round(after_ms * sample_rate / 1000)
        masks.append((taps >= begin) & (taps < end))
    return torch.stack(masks)[:, None]


# Noise.


def finished_noises(noises: Packed, sample_rate: int) -> Tensor:
    """Return the noises with their spectral slope and modulation, before their gains: `[rows, noises, samples]`."""
    waveforms = noises["waveforms"].clone()
    flat = waveforms.view(-1, waveforms.shape[-1])
    if (coloured := noises["coloured"]) is not None:
        for length, members in coloured["groups"].items():
            places = coloured["places"][members]
            flat[places, :length] = _coloured(flat[places, :length], coloured["slope_db"][members], sample_rate)
    if (modulated := noises["modulated"]) is not None:
        places, (rate_hz, depth_db, phase) = modulated["places"], modulated["parameters"].unsqueeze(-1)
        times = torch.arange(flat.shape[-1], dtype=torch.float64, device=flat.device)
        change_db = depth_db / 2 * torch.sin(2 * math.pi * rate_hz * times / sample_rate + phase)
        flat[places] = flat[places] * (10 ** (change_db / 20)).float()
    return waveforms


def _coloured(white: Tensor, slope_db: Tensor, sample_rate: int) -> Tensor:
    """Apply the spectral slope of each row to white noise `[rows, samples]`; its power is unchanged."""
    length = white.shape[-1]
    frequencies = torch.fft.rfftfreq(length, 1 / sample_rate, dtype=torch.float64, device=white.device)
    octaves = torch.log2(frequencies.clamp_min(COLOURED_CORNER_HZ) / COLOURED_CORNER_HZ)
    shape = 10 ** (slope_db[:, None] * octaves / 20)
    shape = shape / shape.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.fft.irfft(torch.fft.rfft(white) * shape.float(), length)
