"""Active levels and activity of many waveforms at once, as `audio.level` has them for one.

Energies of frames are summed in float64: whether a frame counts as active hangs on its distance to a threshold, and
should be decided as on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wesep_py.audio.level import ACTIVE_FLOOR_DB, ACTIVE_FRAME_S, ACTIVE_RANGE_DB


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
