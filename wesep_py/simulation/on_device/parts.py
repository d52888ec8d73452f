"""Rooms and noises of many waveforms at once, on a device; `rooms/` and `noise/` have them for one mixture."""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from wesep_py.simulation.noise.render import COLOURED_CORNER_HZ
from wesep_py.simulation.on_device.effects import Packed
from wesep_py.simulation.rooms.acoustics import DIRECT_MS
from wesep_py.simulation.rooms.bank import EARLY_BEFORE_MS
from wesep_py.simulation.rooms.responses import Target


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
