"""Effects on many waveforms at once, on a device; `simulation/effects.py` has them for one, on the CPU.

Codecs, and the resampling that is an effect or makes a speed, do not run here: the one is a program of the CPU, the
other would be a further implementation of a filter that everything else uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from wesep_py.errors import ConfigError
from wesep_py.simulation.config import SimulationConfig
from wesep_py.simulation.effects import (
    BAND_ORDER,
    BAND_PADDING_S,
    BandLimit,
    Clip,
    Code,
    Effect,
    Equalise,
    Level,
    LosePackets,
    Resample,
    Speed,
)

ORDER = (Level, Equalise, BandLimit, Clip, LosePackets)
"""Kinds that run on a device, in the order in which a configuration draws them."""
NOT_ON_DEVICE = (Code, Resample, Speed)
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


def _pack_level(effects: Sequence[Level], lengths: Sequence[int], sample_rate: int) -> Packed:
    nepers = float(np.log(10.0) / 20)
    begin, end = [e.begin_db * nepers for e in effects], [e.end_db * nepers for e in effects]
    return {"begin": torch.tensor(begin), "end": torch.tensor(end)}


def _pack_equalise(effects: Sequence[Equalise], lengths: Sequence[int], sample_rate: int) -> Packed:
    return {"sections": torch.from_numpy(np.stack([effect.sections(sample_rate) for effect in effects]))}


def _pack_band_limit(effects: Sequence[BandLimit], lengths: Sequence[int], sample_rate: int) -> Packed:
    low, high = [e.low_hz for e in effects], [e.high_hz for e in effects]
    return {"low": torch.tensor(low), "high": torch.tensor(high), "groups": by_length(lengths)}


def _pack_clip(effects: Sequence[Clip], lengths: Sequence[int], sample_rate: int) -> Packed:
    return {"fraction": torch.tensor([effect.fraction for effect in effects])}


def _pack_loss(effects: Sequence[LosePackets], lengths: Sequence[int], sample_rate: int) -> Packed:
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
    Level: _pack_level,
    Equalise: _pack_equalise,
    BandLimit: _pack_band_limit,
    Clip: _pack_clip,
    LosePackets: _pack_loss,
}
_APPLY: dict[type, Callable[..., Tensor]] = {
    Level: _level,
    Equalise: _equalise,
    BandLimit: _band_limit,
    Clip: _clip,
    LosePackets: _lose,
}
