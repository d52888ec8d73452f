"""Placement of speech: the segment of each speaker and its offset in the mixture, for every kind of overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from wesep_py.simulation.description.recipe import SourceRecipe, UnusableDraw, UtteranceSegment, read_segment
from wesep_py.simulation.speech.conversation import (
    frame_samples,
    frames_of,
    partial_layout,
    place_conversation,
    whole_frames,
)
from wesep_py.simulation.speech.speaker_pool import SpeakerPool


class Slot(NamedTuple):
    """Interval of a mixture: `num_samples` from sample `offset` on."""

    offset: int
    num_samples: int


def fixed_layout(
    overlap: str,
    count: int,
    num_samples: int,
    overlap_ratio: float,
    min_samples: int,
    rng: np.random.Generator,
) -> list[Slot]:
    """Draw slots for `count` sources in a mixture of a given length.

    Args:
        overlap: `full`: each fills the mixture; `longest`: one, which is drawn, fills it, and the others have a drawn
            length from `min_samples` to `num_samples` and a drawn offset; `partial`: equally long slots, one
            after the other.
        count: number of sources.
        num_samples: length of the mixture.
        overlap_ratio: for `partial`: overlapped length / length of a slot, 0 to 1.
        min_samples: shortest slot for `longest`.
        rng: random numbers.

    >>> fixed_layout("partial", 2, 300, 0.5, 1, np.random.default_rng(0))
    [Slot(offset=0, num_samples=200), Slot(offset=100, num_samples=200)]
    """
    if count == 1 or overlap == "full":
        return [Slot(0, num_samples)] * count
    if overlap == "longest":
        longest = int(rng.integers(count))
        slots = []
        for source in range(count):
            length = num_samples if source == longest else int(rng.integers(min_samples, num_samples + 1))
            slots.append(Slot(int(rng.integers(num_samples - length + 1)), length))
        return slots
    # Slots of length L whose neighbours share r L, as here for count = 3, fill the mixture:
    #   |---- L ----|
    #           |---- L ----|         L (count - (count - 1) r) = num_samples
    #                   |---- L ----|
    length = num_samples / (count - (count - 1) * overlap_ratio)
    starts = [round(source * length * (1 - overlap_ratio)) for source in range(count)]
    return [Slot(start, min(round(length), num_samples - start)) for start in starts]


def whole_layout(overlap: str, lengths: Sequence[int], overlap_ratio: float) -> tuple[list[Slot], int]:
    """Return slots for sources of given lengths, and the length of their mixture.

    Args:
        overlap: `full`: all are cut to the shortest; `longest`: all begin together, and the mixture ends with the
            longest; `partial`: each begins before the previous one ends.
        lengths: number of samples of each source.
        overlap_ratio: for `partial`: overlapped length / length of the shorter of two neighbours.

    >>> whole_layout("longest", [50, 80], 0.0)
    ([Slot(offset=0, num_samples=50), Slot(offset=0, num_samples=80)], 80)
    """
    if overlap == "full":
        return [Slot(0, min(lengths))] * len(lengths), min(lengths)
    if overlap == "longest":
        return [Slot(0, length) for length in lengths], max(lengths)
    slots = [Slot(0, lengths[0])]
    for before, length in pairwise(lengths):
        end = slots[-1].offset + before
        slots.append(Slot(end - round(overlap_ratio * min(before, length)), length))
    return slots, max(slot.offset + slot.num_samples for slot in slots)


class SpeechDrawer(SpeakerPool):
    """Draws the sources of mixtures; arguments as for `SpeakerPool`."""

    def place(
        self,
        speaker_ids: Sequence[str],
        overlap: str,
        ratio: float,
        rng: np.random.Generator,
        more: np.random.Generator,
    ) -> tuple[tuple[SourceRecipe, ...], int]:
        """Draw the sources of a mixture, and its length in samples.

        Args:
            speaker_ids: the speakers.
            overlap: kind of overlap.
            ratio: overlap ratio, for the kinds that have one.
            rng: random numbers.
            more: random numbers of edges, overlap by activity, and conversations.

        Raises:
            UnusableDraw: a segment is silent, or the ratio cannot be reached.
        """
        # Edges are whole frames, so that the frames of activity of the speech between them stay aligned.
        frame = frame_samples(self.reader.sample_rate)
        low, high = self.config.edge_s
        edges_s = more.uniform(low, high, 2) if high > 0 else np.zeros(2)
        before, after = (round(edge_s * self.reader.sample_rate / frame) * frame for edge_s in edges_s)
        duration_s = self.config.duration_s
        inner = None if duration_s is None else round(duration_s * self.reader.sample_rate) - before - after
        if overlap == "conversation":
            sources, length = place_conversation(self, speaker_ids, ratio, inner, more)
        elif overlap == "partial" and self.config.overlap_measure == "activity":
            sources, length = self._place_by_activity(speaker_ids, ratio, inner, rng, more)
        else:
            sources, length = self._place_by_excerpt(speaker_ids, overlap, ratio, inner, rng)
        return tuple(_delayed(source, before) for source in sources), before + length + after

    def _place_by_excerpt(
        self, speaker_ids: Sequence[str], overlap: str, ratio: float, duration: int | None, rng: np.random.Generator
    ) -> tuple[list[SourceRecipe], int]:
        """Place sources by the lengths of their excerpts; `duration`: samples between the edges, if given."""
        slots, drawn = self._draw_slots(speaker_ids, overlap, ratio, duration, rng)
        num_samples = duration or 0
        if slots is None:
            slots, num_samples = whole_layout(overlap, [excerpt.num_samples for excerpt, _ in drawn], ratio)
        sources = []
        for slot, (excerpt, enrollments) in zip(slots, drawn, strict=True):
            if excerpt.num_samples > slot.num_samples:
                excerpt = replace(excerpt, num_samples=slot.num_samples)
                self.check_speech(excerpt)
            spare = slot.num_samples - excerpt.num_samples
            sources.append(SourceRecipe(excerpt, slot.offset + int(rng.integers(spare + 1)), enrollments))
        return sources, num_samples

    def _place_by_activity(
        self,
        speaker_ids: Sequence[str],
        ratio: float,
        duration: int | None,
        rng: np.random.Generator,
        more: np.random.Generator,
    ) -> tuple[list[SourceRecipe], int]:
        """Place sources so that their active frames overlap by the ratio (`overlap_measure: activity`)."""
        frame = frame_samples(self.reader.sample_rate)
        _, drawn = self._draw_slots(speaker_ids, "partial", ratio, duration, rng)
        excerpts = [whole_frames(excerpt, frame) for excerpt, _ in drawn]
        active = [frames_of(read_segment(excerpt, self.reader), self.reader.sample_rate) for excerpt in excerpts]
        starts = partial_layout(active, ratio)
        if starts is None:
            raise UnusableDraw(f"because of pauses, the overlap of {ratio:.2f} is not reached")
        length = max(start * frame + excerpt.num_samples for start, excerpt in zip(starts, excerpts, strict=True))
        if duration is not None and length > duration:
            raise UnusableDraw(f"with an overlap of {ratio:.2f}, the speakers take longer than the mixture")
        spare = 0 if duration is None else (duration - length) // frame
        first = int(more.integers(spare + 1))
        sources = [
            SourceRecipe(excerpt, (first + start) * frame, enrollments)
            for excerpt, start, (_, enrollments) in zip(excerpts, starts, drawn, strict=True)
        ]
        return sources, length if duration is None else duration

    def _draw_slots(
        self, speaker_ids: Sequence[str], overlap: str, ratio: float, duration: int | None, rng: np.random.Generator
    ) -> tuple[list[Slot] | None, list[tuple[UtteranceSegment, tuple[UtteranceSegment, ...]]]]:
        """Draw slots, if the mixture has a given length, and the excerpt and enrollments of each speaker."""
        slots: list[Slot] | None = None
        if duration is not None:
            shortest = round(self.config.min_source_s * self.reader.sample_rate)
            slots = fixed_layout(overlap, len(speaker_ids), duration, ratio, shortest, rng)
        drawn = []
        for position, speaker_id in enumerate(speaker_ids):
            drawn.append(self.draw_excerpt(speaker_id, None if slots is None else slots[position].num_samples, rng))
        return slots, drawn


def _delayed(source: SourceRecipe, samples: int) -> SourceRecipe:
    """Return the source with everything it says `samples` later."""
    if samples == 0:
        return source
    turns = tuple(replace(turn, offset=turn.offset + samples) for turn in source.turns)
    return replace(source, offset=source.offset + samples, turns=turns)
