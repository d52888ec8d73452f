"""Rendering of mixtures in batches on a device: equal to the CPU's to 1e-5 of their peak.

    worker: DrySimulator.dry (draw, read) ─► collate_dry (padded tensors) ─► device: render_on_device ─► DeviceSample

The device convolves the dry sources with their responses, sets the levels, mixes, and applies the effects, for all
mixtures of a batch at once. Everything is float32, and levels float64, whatever the precision of the training.

An alternative design would keep the corpus in the memory of the device and draw there. It would leave nothing to the
workers, but needs a corpus that fits, its own random numbers (and so other mixtures than the CPU's), and a second
implementation of all the drawing.

A larger difference is possible in one case: a frame of 20 ms whose level is within about 1e-5 dB of the threshold of
activity may be active on one side and not on the other. A level then differs by some hundredths of a dB.
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
from wesep_py.simulation.rendering import ACTIVITY_RATE_HZ, MixtureSpeaker, Sample, mix


class DeviceSample(Sample):
    """`Sample` whose waveforms are tensors on a device, and whose recipe has levels but no gains."""

    def speaker(self, source: int | None) -> MixtureSpeaker:
        """Return one speaker, as `Sample.speaker`."""
        if source is not None or self.recipe.absent is None or self.absent_enrollment is None:
            return super().speaker(source)
        silent, inactive = torch.zeros_like(self.mixture), torch.zeros_like(self.activity[0])
        return MixtureSpeaker(self.recipe.absent.speaker_id, silent, self.absent_enrollment, inactive)


@dataclass(frozen=True)
class _BatchParts:
    """Parts of all mixtures of a batch at their levels, `[rows, samples]` or `[rows, sources, samples]`."""

    images: Tensor
    targets: Tensor
    noise: Tensor
    mixture: Tensor
    activity: Tensor


@torch.no_grad()
def render_on_device(batch: DryBatch) -> list[DeviceSample]:
    """Render a batch on the device of its tensors.

    Args:
        batch: from `collate_dry`, on any device.

    Returns:
        A sample for each mixture; its parts are views of the tensors of the batch.

    Raises:
        InputError: a source is silent at the microphone.

    >>> dry = [simulator.dry(0, index) for index in range(16)]                      # doctest: +SKIP
    >>> samples = render_on_device(collate_dry(dry, 16000).to("cuda"))              # doctest: +SKIP
    """
    with torch.autocast(batch.mixtures["dry"].device.type, enabled=False):
        parts = _render_mixtures(batch)
        enrollments = _render_enrollments(batch)
    samples, next_enrollment = [], 0
    for row, plan in enumerate(batch.plans):
        count, length = len(plan.sources), plan.num_samples
        frames = -(-length * ACTIVITY_RATE_HZ // batch.sample_rate)
        # Enrollments of all mixtures are in one list: of each source, then of an absent speaker, then of a bystander.
        row_enrollments = enrollments[next_enrollment : next_enrollment + len(plan.enrolled)]
        next_enrollment += len(row_enrollments)
        images, noise = parts.images[row, :count, :length], parts.noise[row, :length]
        mixture = parts.mixture[row, :length]
        samples.append(
            DeviceSample(
                plan,
                mixture,
                images,
                noise,
                mixture - mix(images, noise) if plan.effects else torch.zeros_like(mixture),
                parts.targets[row, :count, :length],
                tuple(row_enrollments[:count]),
                parts.activity[row, :count, :frames],
                row_enrollments[count] if plan.absent is not None else None,
                bystander_enrollment=row_enrollments[-1] if plan.bystander is not None else None,
            )
        )
    return samples


def _render_mixtures(batch: DryBatch) -> _BatchParts:
    """Render the mixtures of a batch; the levels are set as in `level_setting.set_levels`."""
    packed, rate = batch.mixtures, batch.sample_rate
    lengths, has_source = packed["lengths"], packed["has_source"]
    images, targets = reverberate_packed(packed["dry"], lengths, packed["rooms"], batch.plans[0].target_kind, rate)
    source_lengths = lengths[:, None].expand(has_source.shape)
    frames = active_frames(images, source_lengths, rate)
    levels_db = levels_of(*frames)
    _check_sound(images, levels_db, has_source, batch.plans)
    active, *_ = frames if targets is images else active_frames(targets, source_lengths, rate)

    # Gains relative to the reference source, and relative to all speech for the noises.
    reference_db = levels_db.gather(1, packed["reference"][:, None])
    gains = torch.where(has_source, 10 ** ((reference_db - levels_db - packed["sir_db"]) / 20), 0.0)
    scaled = images * gains[..., None].float()
    mixture, peak = mix(scaled), scaled.abs().amax(dim=(1, 2))
    noises, noise_gains = None, None
    if packed["noises"] is not None:
        noises = finished_noises(packed["noises"], rate)
        noise_gains = _noise_gains(noises, packed["noises"], active_levels_db(mixture, lengths, rate), lengths, rate)
        scaled_noises = noises * noise_gains[..., None].float()
        mixture = mix(scaled, scaled_noises.sum(dim=1))
        peak = torch.maximum(peak, scaled_noises.abs().amax(dim=(1, 2)))
    # One gain for all parts: from the level of the mixture, limited by the peak.
    peak = torch.maximum(peak, mixture.abs().amax(dim=1)).double()
    common_gain = 10 ** ((packed["level_db"] - active_levels_db(mixture, lengths, rate)) / 20)
    common_gain = torch.minimum(common_gain, packed["peak"] / peak)

    gains = (gains * common_gain[:, None])[..., None].float()
    images, targets, targets_are_images = images * gains, targets * gains, targets is images
    noise = torch.zeros_like(mixture)
    if noises is not None and noise_gains is not None:
        noise = (noises * (noise_gains * common_gain[:, None])[..., None].float()).sum(dim=1)
    mixture = mix(images, noise)
    activity = activity_at(active, lengths, mixture.shape[-1], rate, ACTIVITY_RATE_HZ)
    parts = _BatchParts(images, images if targets_are_images else targets, noise, mixture, activity)
    return _apply_mixture_effects(parts, packed, batch.plans, rate) if packed["effects"] else parts


def _apply_mixture_effects(parts: _BatchParts, packed: Packed, plans: Sequence[Recipe], rate: int) -> _BatchParts:
    """Apply the effects on mixtures, and their changes of level to all parts, as `rendering.apply_gains` does."""
    lengths, size = packed["lengths"], parts.mixture.shape[-1]
    mixture = apply_packed(parts.mixture, lengths, packed["effects"], rate)
    gains = level_gains(len(mixture), lengths, packed["effects"], size)
    peak, limit = mixture.abs().amax(dim=1), packed["peak"].float()
    has_effects = torch.tensor([bool(plan.effects) for plan in plans], device=mixture.device)
    down = torch.where(has_effects & (peak > limit), limit / peak.clamp_min(1e-30), torch.ones_like(peak))[:, None]
    gains, mixture = gains * down, mixture * down
    images, noise = parts.images * gains[:, None], parts.noise * gains
    targets = images if parts.targets is parts.images else parts.targets * gains[:, None]
    return _BatchParts(images, targets, noise, mixture, parts.activity)


def _noise_gains(noises: Tensor, packed: Packed, speech_db: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """Return the gains for the SNRs, `[rows, noises]`; 0 if a row has fewer noises, 1 for a silent noise."""
    exists = packed["exists"]
    levels_db = active_levels_db(noises, lengths[:, None].expand(exists.shape), rate)
    return torch.where(exists, gains_between(levels_db, speech_db[:, None] - packed["snr_db"]), 0.0)


def _render_enrollments(batch: DryBatch) -> list[Tensor]:
    """Render all enrollments of the batch, each `[its own samples]`."""
    packed, rate = batch.enrollments, batch.sample_rate
    segments, desired_db = packed["segments"], packed["level_db"]
    if len(segments):
        peaks = segments.abs().amax(dim=1).double().clamp_min(1e-30)
        gains = 10 ** ((desired_db - active_levels_db(segments, packed["segment_lengths"], rate)) / 20)
        gains = torch.minimum(gains, batch.mixtures["peak"][0] / peaks)
        # A level of nan marks an enrollment that a worker has rendered: its gain is 1.
        segments = segments * torch.where(desired_db.isnan(), 1.0, gains)[:, None].float()
    enrollments, first = [], 0
    for count in packed["counts"]:
        joined = [segments[n, : packed["sizes"][n]] for n in range(first, first + count)]
        first += count
        enrollments.append(joined[0] if count == 1 else torch.cat([segments.new_zeros(0), *joined]))
    if (augmented := packed["augmented"]) is not None:
        for row, waveform in zip(augmented["rows"], _augment(enrollments, augmented, rate), strict=True):
            enrollments[row] = waveform
    return enrollments


def _augment(enrollments: Sequence[Tensor], packed: Packed, rate: int) -> list[Tensor]:
    """Apply room, noise, effects and level to the enrollments that have them, as `rendering.augment_enrollment`."""
    before, lengths = [enrollments[row] for row in packed["rows"]], packed["lengths"]
    padded = torch.nn.utils.rnn.pad_sequence(before, batch_first=True)
    waveforms = reverberate_packed(padded[:, None], lengths, packed["rooms"], "full", rate)[0][:, 0]
    if packed["noises"] is not None:
        noises = finished_noises(packed["noises"], rate)
        gains = _noise_gains(noises, packed["noises"], active_levels_db(waveforms, lengths, rate), lengths, rate)
        waveforms = waveforms + (noises * gains[..., None].float()).sum(dim=1)
    waveforms = apply_packed(waveforms, lengths, packed["effects"], rate)
    gains = gains_between(active_levels_db(waveforms, lengths, rate), packed["level_db"])
    peaks = waveforms.abs().amax(dim=1).double()
    gains = torch.where(peaks > 0, torch.minimum(gains, packed["peak"] / peaks.clamp_min(1e-30)), gains)
    waveforms = waveforms * gains[:, None].float()
    return [waveform[: len(enrollment)] for waveform, enrollment in zip(waveforms, before, strict=True)]


def _check_sound(images: Tensor, levels_db: Tensor, has_source: Tensor, plans: Sequence[Recipe]) -> None:
    """Raise an error if a source is silent at the microphone.

    Workers draw again if there is any doubt, but they cannot be certain. A source that is not finite is not silent: a
    worker has reported it, and the training skips the step.
    """
    finite = images.abs().amax(dim=-1).isfinite()
    silent = ((levels_db == -torch.inf) & finite & has_source).any(dim=1).tolist()
    for plan, is_silent in zip(plans, silent, strict=True):
        if is_silent:
            raise InputError(
                f"mixture {plan.index} of epoch {plan.epoch}: a source is silent at the microphone; check the room "
                "bank, or set data.render to 'workers'"
            )
