"""Files of a corpus of simulated mixtures: a tree of folders in LibriMix's layout.

    DIR/mix_clean/ID.wav, mix_both/ID.wav     the mixture without and with noise
    DIR/s1/ID.wav, s2/ID.wav, …, noise/ID.wav the images and the noise: they sum to mix_both
    DIR/s1_early/ID.wav, … (or s1_dry)        the targets, if they are not the images
    DIR/distortion/ID.wav                     what effects on the mixture changed; only if any mixture has such effects
    DIR/enrollment/ID_s1.wav, …               an enrollment for each source (ID_absent.wav: of an absent target)
    DIR/activity/ID.rttm                      the active times of each speaker
    DIR/mixture_mix_clean.csv, …_mix_both.csv metadata, paths relative to DIR
    DIR/map_mixture2enrollment                a trial for each source of each mixture
    DIR/recipes.jsonl                         the recipes of the mixtures

All wav files are 32-bit float. If no mixture has noise or effects, there is no `mix_both` and no `noise`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.writing import write
from wesep_py.common.files import write_text
from wesep_py.common.names import file_name
from wesep_py.data.mixture_lists import RECIPES_NAME
from wesep_py.data.trials import ABSENT
from wesep_py.simulation.description.recipe import Recipe
from wesep_py.simulation.rendering import ACTIVITY_RATE_HZ, Sample, mix

__all__ = ["RECIPES_NAME", "TreeLayout", "activity_rttm", "is_written", "write_lists", "write_sample"]

MAP_NAME = "map_mixture2enrollment"
ENROLLMENT_FOLDER = "enrollment"
ACTIVITY_FOLDER = "activity"


@dataclass(frozen=True)
class TreeLayout:
    """Paths of the files of a tree.

    Args:
        folder: root of the tree.
        has_noise: whether any of its mixtures has noise.
        has_distortion: whether any of its mixtures has effects.
    """

    folder: Path
    has_noise: bool
    has_distortion: bool = False

    def conditions(self) -> list[str]:
        """Return the folders of mixtures."""
        return ["mix_clean", "mix_both"] if self.has_noise or self.has_distortion else ["mix_clean"]

    def metadata(self, condition: str) -> Path:
        """Return the metadata CSV of the mixtures in folder `condition`."""
        return self.folder / f"mixture_{condition}.csv"

    def waveforms(self, recipe: Recipe) -> dict[str, str]:
        """Return the path of the file of each part of a mixture, relative to the tree.

        >>> TreeLayout(Path("tree"), False).waveforms(recipe)["s1"]   # doctest: +SKIP
        's1/0000-0000000-seed0.wav'
        """
        stem = file_name(recipe.mixture_id)
        name = f"{stem}.wav"
        parts = self.conditions() + ["noise"] * self.has_noise + ["distortion"] * self.has_distortion
        for k in range(1, len(recipe.sources) + 1):
            parts.append(f"s{k}")
            if recipe.target_kind != "full":
                parts.append(f"s{k}_{recipe.target_kind}")
        paths = {part: f"{part}/{name}" for part in parts}
        for k in range(1, len(recipe.sources) + 1):
            paths[f"enrollment{k}"] = f"{ENROLLMENT_FOLDER}/{stem}_s{k}.wav"
        if recipe.absent is not None:
            paths["absent"] = f"{ENROLLMENT_FOLDER}/{stem}_absent.wav"
        return paths

    def activity(self, recipe: Recipe) -> Path:
        """Return the path of the RTTM file of a mixture."""
        return self.folder / ACTIVITY_FOLDER / f"{file_name(recipe.mixture_id)}.rttm"


def write_sample(sample: Sample, layout: TreeLayout, overwrite: bool = False) -> None:
    """Write the files of one mixture, each atomically.

    Args:
        sample: the mixture.
        layout: paths of the files; missing folders are created.
        overwrite: replace existing files; otherwise they are kept.
    """
    waveforms = _waveforms(sample, layout)
    for part, relative in layout.waveforms(sample.recipe).items():
        path = layout.folder / relative
        if path.exists() and not overwrite:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, waveforms[part], sample.recipe.sample_rate, overwrite=True)
    rttm = layout.activity(sample.recipe)
    if overwrite or not rttm.exists():
        rttm.parent.mkdir(parents=True, exist_ok=True)
        write_text(rttm, activity_rttm(sample))


def is_written(recipe: Recipe, layout: TreeLayout) -> bool:
    """Return whether all files of a mixture exist; they are written atomically, so each of them is complete."""
    waveforms = (layout.folder / relative for relative in layout.waveforms(recipe).values())
    return all(path.is_file() for path in (*waveforms, layout.activity(recipe)))


def activity_rttm(sample: Sample) -> str:
    """Return the activity as lines of Rich Transcription Time Marked: one per interval without pause, in order."""
    lines = []
    for source, active in zip(sample.recipe.sources, sample.activity, strict=True):
        # The changes from inactive to active and back alternate, so each pair of them is one interval.
        edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0)) / ACTIVITY_RATE_HZ
        for start_s, stop_s in edges.reshape(-1, 2):
            name, speaker_id = sample.recipe.mixture_id, source.speaker_id
            line = f"SPEAKER {name} 1 {start_s:.2f} {stop_s - start_s:.2f} <NA> <NA> {speaker_id} <NA> <NA>\n"
            lines.append((start_s, line))
    return "".join(line for _, line in sorted(lines))


def write_lists(recipes: Sequence[Recipe], layout: TreeLayout) -> None:
    """Write the metadata CSVs and the map of enrollments of rendered mixtures; existing ones are replaced.

    Args:
        recipes: of the rendered mixtures, in the order of the lists.
        layout: paths of the files.
    """
    for condition in layout.conditions():
        write_text(layout.metadata(condition), _metadata(recipes, layout, condition))
    lines = []
    for recipe in recipes:
        paths = layout.waveforms(recipe)
        for k, source in enumerate(recipe.sources, start=1):
            lines.append(f"{recipe.mixture_id} {source.excerpt.utterance.utterance_id} {paths[f'enrollment{k}']}\n")
        if recipe.absent is not None:
            lines.append(f"{recipe.mixture_id} {ABSENT} {paths['absent']}\n")
    write_text(layout.folder / MAP_NAME, "".join(lines))


def _waveforms(sample: Sample, layout: TreeLayout) -> dict[str, NDArray[np.float32]]:
    waveforms = {"mix_clean": mix(sample.images), "mix_both": sample.mixture}
    waveforms |= {"noise": sample.noise, "distortion": sample.distortion}
    if sample.absent_enrollment is not None:
        waveforms["absent"] = sample.absent_enrollment
    kind = sample.recipe.target_kind
    for k, (image, target) in enumerate(zip(sample.images, sample.targets, strict=True), start=1):
        waveforms[f"s{k}"] = image
        waveforms[f"s{k}_{kind}"] = target
        waveforms[f"enrollment{k}"] = sample.enrollments[k - 1]
    return waveforms


def _metadata(recipes: Sequence[Recipe], layout: TreeLayout, condition: str) -> str:
    """Return the CSV of one condition: LibriMix's columns, and the utterance and speaker of each source."""
    numbers = range(1, max((len(recipe.sources) for recipe in recipes), default=0) + 1)
    columns = ["mixture_ID", "mixture_path", *(f"source_{k}_path" for k in numbers)]
    columns += ["noise_path"] if condition == "mix_both" and layout.has_noise else []
    columns += ["length", *(f"source_{k}_utterance_id" for k in numbers), *(f"source_{k}_speaker_id" for k in numbers)]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    for recipe in recipes:
        paths = layout.waveforms(recipe)
        row = {
            "mixture_ID": recipe.mixture_id,
            "mixture_path": paths[condition],
            "noise_path": paths.get("noise", ""),
            "length": recipe.num_samples,
        }
        for k, source in enumerate(recipe.sources, start=1):
            row[f"source_{k}_path"] = paths[f"s{k}"]
            row[f"source_{k}_utterance_id"] = source.excerpt.utterance.utterance_id
            row[f"source_{k}_speaker_id"] = source.speaker_id
        table.writerow(row)
    return text.getvalue()
