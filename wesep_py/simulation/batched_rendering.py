"""Mixtures rendered in batch on a device: the same as on the CPU, to 1e-5 of their peak.

A worker draws a mixture and reads it (`draw.DrySimulator.dry`); its dry sources, responses and noises come
as padded tensors (`batch.collate_dry`); here they are convolved, brought to their levels, added, and sent
through the effects, all mixtures of a batch at once. Everything is float32, levels float64, whatever precision a
network is trained in.

The other design would keep the corpus itself in the device's memory and draw there. It would leave the workers nothing,
but needs a corpus that fits, random numbers of its own (so other mixtures than the CPU's), and a second version of all
the drawing.

Where it can differ by more: a frame of 20 ms whose level lies on the threshold of the active ones to about 1e-5 dB may
count on one side and not on the other; a level is then some hundredths of a dB off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wesep_py.common.errors import InputError
from wesep_py.simulation.batched_effects import (
    Packed,
    active_frames,
    active_levels_db,
    activity_at,
    apply_packed,
    finished_noises,
    gains_between,
    level_gains,
    levels_of,
    reverberate_packed,
)
from wesep_py.simulation.description.recipe import Recipe
from wesep_py.simulation.dry_batch import DryBatch
from wesep_py.simulation.rendering import ACTIVITY_RATE_HZ, MixtureSpeaker, Sample


class DeviceSample(Sample):
    """A `Sample` whose waveforms are tensors of a device, and whose recipe has levels but no gains."""

    def voice(self, source: int | None) -> MixtureSpeaker:
        """As `Sample.voice`."""
        if source is not None or self.recipe.absent is None or self.absent_enrollment is None:
            return super().voice(source)
        silent, inactive = torch.zeros_like(self.mixture), torch.zeros_like(self.activity[0])
        return MixtureSpeaker(self.recipe.absent.speaker_id, silent, self.absent_enrollment, inactive)


@dataclass(frozen=True)
class _Scaled:
    """The parts of all mixtures at their levels, `[rows, samples]` or `[rows, sources, samples]`."""

    images: Tensor
    targets: Tensor
    noise: Tensor
    mixture: Tensor
    activity: Tensor


@torch.no_grad()
def render_on_device(batch: DryBatch) -> list[DeviceSample]:
    """Render a batch where its tensors are.

    Args:
        batch: from `collate_dry`, on any device.

    Returns:
        A sample for each mixture; its parts are tensors, views of the batch's.

    Raises:
        InputError: a source is silent at the microphone.

    >>> dry = [simulator.dry(0, index) for index in range(16)]                      # doctest: +SKIP
    >>> samples = render_on_device(collate_dry(dry, 16000).to("cuda"))              # doctest: +SKIP
    """
    with torch.autocast(batch.mixtures["dry"].device.type, enabled=False):
        parts = _render_mixtures(batch)
        enrollments = _render_enrollments(batch)
    samples, next_voice = [], 0
    for row, plan in enumerate(batch.plans):
        count, length = len(plan.sources), plan.num_samples
        frames = -(-length * ACTIVITY_RATE_HZ // batch.sample_rate)
        own = enrollments[next_voice : next_voice + count + (plan.absent is not None)]
        next_voice += len(own)
        images, noise = parts.images[row, :count, :length], parts.noise[row, :length]
        mixture = parts.mixture[row, :length]
        samples.append(
            DeviceSample(
                plan,
                mixture,
                images,
                noise,
                mixture - (images.sum(dim=0) + noise) if plan.effects else torch.zeros_like(mixture),
                parts.targets[row, :count, :length],
                tuple(own[:count]),
                parts.activity[row, :count, :frames],
                own[count] if plan.absent is not None else None,
            )
        )
    return samples


def _render_mixtures(batch: DryBatch) -> _Scaled:
    given, rate = batch.mixtures, batch.sample_rate
    lengths, spoken = given["lengths"], given["spoken"]
    images, targets = reverberate_packed(given["dry"], lengths, given["rooms"], batch.plans[0].target_kind, rate)
    of_sources = lengths[:, None].expand(spoken.shape)
    frames = active_frames(images, of_sources, rate)
    levels_db = levels_of(*frames)
    _check_sound(images, levels_db, spoken, batch.plans)
    active, *_ = frames if targets is images else active_frames(targets, of_sources, rate)

    reference_db = levels_db.gather(1, given["reference"][:, None])
    gains = torch.where(spoken, 10 ** ((reference_db - levels_db - given["sir_db"]) / 20), 0.0)
    scaled = images * gains[..., None].float()
    mixture, peak = scaled.sum(dim=1), scaled.abs().amax(dim=(1, 2))
    noises, noise_gains = None, None
    if given["noises"] is not None:
        noises = finished_noises(given["noises"], rate)
        noise_gains = _noise_gains(noises, given["noises"], active_levels_db(mixture, lengths, rate), lengths, rate)
        louder = noises * noise_gains[..., None].float()
        mixture = mixture + louder.sum(dim=1)
        peak = torch.maximum(peak, louder.abs().amax(dim=(1, 2)))
    peak = torch.maximum(peak, mixture.abs().amax(dim=1)).double()
    level = 10 ** ((given["level_db"] - active_levels_db(mixture, lengths, rate)) / 20)
    level = torch.minimum(level, given["peak"] / peak)

    gains = (gains * level[:, None])[..., None].float()
    images, targets, same = images * gains, targets * gains, targets is images
    noise = torch.zeros_like(mixture)
    if noises is not None and noise_gains is not None:
        noise = (noises * (noise_gains * level[:, None])[..., None].float()).sum(dim=1)
    mixture = images.sum(dim=1) + noise
    activity = activity_at(active, lengths, mixture.shape[-1], rate, ACTIVITY_RATE_HZ)
    scaled_parts = _Scaled(images, images if same else targets, noise, mixture, activity)
    return _through_effects(scaled_parts, given, batch.plans, rate) if given["effects"] else scaled_parts


def _through_effects(parts: _Scaled, given: Packed, plans: Sequence[Recipe], rate: int) -> _Scaled:
    """As `simulation.render._through_effects`: what changes all parts alike, and the mixture after everything."""
    lengths, size = given["lengths"], parts.mixture.shape[-1]
    mixture = apply_packed(parts.mixture, lengths, given["effects"], rate)
    gains = level_gains(len(mixture), lengths, given["effects"], size)
    peak, limit = mixture.abs().amax(dim=1), given["peak"].float()
    changed = torch.tensor([bool(plan.effects) for plan in plans], device=mixture.device)
    down = torch.where(changed & (peak > limit), limit / peak.clamp_min(1e-30), torch.ones_like(peak))[:, None]
    gains, mixture = gains * down, mixture * down
    images, noise = parts.images * gains[:, None], parts.noise * gains
    targets = images if parts.targets is parts.images else parts.targets * gains[:, None]
    return _Scaled(images, targets, noise, mixture, parts.activity)


def _noise_gains(noises: Tensor, packed: Packed, speech_db: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """What brings each noise to its SNR, `[rows, most]`; 0 where a row has fewer, 1 for one that is silent."""
    given = packed["given"]
    levels_db = active_levels_db(noises, lengths[:, None].expand(given.shape), rate)
    return torch.where(given, gains_between(levels_db, speech_db[:, None] - packed["snr_db"]), 0.0)


def _render_enrollments(batch: DryBatch) -> list[Tensor]:
    """Every enrollment of the batch, `[samples of its own]`."""
    given, rate = batch.enrollments, batch.sample_rate
    pieces, wanted_db = given["pieces"], given["level_db"]
    if len(pieces):
        peaks = pieces.abs().amax(dim=1).double().clamp_min(1e-30)
        gains = 10 ** ((wanted_db - active_levels_db(pieces, given["piece_lengths"], rate)) / 20)
        gains = torch.minimum(gains, batch.mixtures["peak"][0] / peaks)
        pieces = pieces * torch.where(wanted_db.isnan(), 1.0, gains)[:, None].float()
    enrollments, first = [], 0
    for count in given["counts"]:
        own = [pieces[n, : given["sizes"][n]] for n in range(first, first + count)]
        first += count
        enrollments.append(own[0] if count == 1 else torch.cat([pieces.new_zeros(0), *own]))
    if (augmented := given["augmented"]) is not None:
        for row, waveform in zip(augmented["places"], _augment(enrollments, augmented, rate), strict=True):
            enrollments[row] = waveform
    return enrollments


def _augment(enrollments: Sequence[Tensor], given: Packed, rate: int) -> list[Tensor]:
    """As `enrollment.augment`: room, noise, effects, level."""
    own, lengths = [enrollments[row] for row in given["places"]], given["lengths"]
    joined = torch.nn.utils.rnn.pad_sequence(own, batch_first=True)
    waveforms = reverberate_packed(joined[:, None], lengths, given["rooms"], "full", rate)[0][:, 0]
    if given["noises"] is not None:
        noises = finished_noises(given["noises"], rate)
        gains = _noise_gains(noises, given["noises"], active_levels_db(waveforms, lengths, rate), lengths, rate)
        waveforms = waveforms + (noises * gains[..., None].float()).sum(dim=1)
    waveforms = apply_packed(waveforms, lengths, given["effects"], rate)
    gains = gains_between(active_levels_db(waveforms, lengths, rate), given["level_db"])
    peaks = waveforms.abs().amax(dim=1).double()
    gains = torch.where(peaks > 0, torch.minimum(gains, given["peak"] / peaks.clamp_min(1e-30)), gains)
    waveforms = waveforms * gains[:, None].float()
    return [waveform[: len(before)] for waveform, before in zip(waveforms, own, strict=True)]


def _check_sound(images: Tensor, levels_db: Tensor, spoken: Tensor, plans: Sequence[Recipe]) -> None:
    """Refuse silence: the one thing that a worker cannot know for certain; it draws anew where there is any doubt.

    What is not finite is not silent: a worker has named it, and the step will be skipped.
    """
    finite = images.abs().amax(dim=-1).isfinite()
    silent = ((levels_db == -torch.inf) & finite & spoken).any(dim=1).tolist()
    for plan, is_silent in zip(plans, silent, strict=True):
        if is_silent:
            raise InputError(
                f"mixture {plan.index} of epoch {plan.epoch}: a source is silent at the microphone; check the room "
                "bank, or set data.render to 'workers'"
            )
