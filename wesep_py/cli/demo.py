"""`wesep demo`: show an extraction from nothing: speak, (train,) mix, extract, score, draw."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    progress_bar,
    set_threads,
)
from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.common.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wesep_py.data import Utterance
    from wesep_py.inference import Extractor
    from wesep_py.simulation import Sample, SimulationConfig, Simulator


log = logging.getLogger(__name__)
NUM_SPEAKERS = 4
SENTENCES = 32
HELD_OUT_SENTENCES = 4  # of each speaker; the mixtures are made of these, the training uses none of them
NUM_MIXTURES = 20
MIXTURE_S = 4.0
RANGE_DB = 60.0  # of the picture
# Files of the synthetic voices as `_speak` writes them, and as a killed process leaves them.
VOICES = re.compile(r"toy\d{3}/(\d{3}|\.\d{3}\.\w{8})\.wav|(manifest|train|\.(manifest|train)\.\w{8})\.jsonl")
# The order of pictures and files.
PARTS = ("mixture", "enrollment", "extracted", "reference")


def draw_spectrograms(
    path: str | PathLike[str],
    waveforms: Mapping[str, NDArray[np.float32]],
    sample_rate: int,
    title: str = "",
    max_hz: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw waveforms as spectrograms with one time axis and one scale of levels.

    Args:
        path: the PNG to write.
        waveforms: title of each panel, from top to bottom, and its waveform, float32 `[samples]`.
        sample_rate: in Hz.
        title: above all panels.
        max_hz: highest frequency drawn; half the sample rate by default.
        overwrite: replace an existing file.

    Raises:
        WesepError: the disk is full.
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    from matplotlib.figure import Figure

    spectrograms = {name: _level_db(waveform, sample_rate) for name, waveform in waveforms.items()}
    import numpy as np

    loudest_db = max(float(np.percentile(level, 99.9)) for level in spectrograms.values())
    longest_s = max(len(waveform) for waveform in waveforms.values()) / sample_rate
    figure = Figure(figsize=(9, 0.6 + 1.9 * len(waveforms)), layout="constrained")
    axes = figure.subplots(len(waveforms), 1, sharex=True, squeeze=False)[:, 0]
    image: Any = None
    for axis, (name, level) in zip(axes, spectrograms.items(), strict=True):
        extent = (0.0, len(waveforms[name]) / sample_rate, 0.0, sample_rate / 2000)
        image = axis.imshow(
            level - loudest_db,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0.0,
            interpolation="nearest",
        )
        axis.set_facecolor("black")
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_ylabel("kHz")
        axis.set_xlim(0.0, longest_s)
        axis.set_ylim(0.0, (max_hz or sample_rate / 2) / 1000)
    axes[-1].set_xlabel("s")
    figure.colorbar(image, ax=list(axes), label="dB below the loudest", pad=0.01)
    figure.suptitle(title, fontsize=12)
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)
    return Path(path)


def _level_db(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Return the level in dB, `[bins, frames]`, of windows of 32 ms every 8 ms."""
    import numpy as np
    import torch

    from wesep_py.features import STFT

    window = max(2, round(0.032 * sample_rate) // 2 * 2)
    spectrum = STFT(window, window // 4)(torch.as_tensor(np.ascontiguousarray(waveform, dtype=np.float32)))
    return (20 * spectrum.abs().clamp_min(1e-7).log10()).numpy()


@dataclass(frozen=True)
class DemoTrial:
    """One voice extracted from one mixture, with its SI-SDR in dB before and after."""

    sample: Sample
    extracted: NDArray[np.float32]
    before_db: float
    after_db: float

    @property
    def improvement_db(self) -> float:
        """Return the SI-SDRi in dB."""
        return self.after_db - self.before_db

    def waveforms(self) -> dict[str, NDArray[np.float32]]:
        """Return mixture, enrollment, extracted voice and reference, each `[samples]`."""
        voice = self.sample.speaker(self.sample.recipe.target)
        return dict(zip(PARTS, (self.sample.mixture, voice.enrollment, self.extracted, voice.target), strict=True))


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    model: ModelOption = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train a very small model first, and use it.", show_default=False)
    ] = False,
    minutes: Annotated[float, typer.Option("--minutes", help="Maximum training time in minutes.", min=0.01)] = 3.25,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show an extraction on synthetic voices: speak, mix in a noisy room, extract one voice, score, draw.

    Example: wesep demo -o demo

    The model is the bundled one (see `wesep models`), or that of --model.

    With --train, or if no model is bundled, a very small model is first
    trained on the synthetic voices, in a few minutes. It knows only these
    voices. The same command with --overwrite uses it again.

    Other files in the folder are kept. If it holds a folder voices/ that is
    not from a demo, nothing is written.
    """
    from wesep_py.common.files import check_writable
    from wesep_py.common.folders import created_folder
    from wesep_py.models import DEFAULT_MODEL, bundled_models

    if train and model is not None:
        raise InputError("--train and --model exclude each other; give one of them")
    trained = train or (model is None and DEFAULT_MODEL not in bundled_models())
    started = time.monotonic()
    files = {part: output / f"{part}.wav" for part in PARTS} | {"picture": output / "picture.png"}
    with created_folder(output):
        for file in files.values():
            check_writable(file, overwrite)
        check_voices(output / "voices", overwrite)
        set_threads(threads)
        steps = _steps(4 if trained else 3)
        extractor, trials = _extract_from(output, model, trained, minutes, device, threads, steps)
        shown = sorted(trials, key=lambda trial: trial.improvement_db)[len(trials) // 2]
        mean_db = sum(trial.improvement_db for trial in trials) / len(trials)
        _write(shown, extractor, files, steps)
    report = {
        "mean_si_sdri_db": round(mean_db, 2),
        "num_mixtures": len(trials),
        "shown_si_sdr_before_db": round(shown.before_db, 2),
        "shown_si_sdr_after_db": round(shown.after_db, 2),
        "model": extractor.name,
        "seconds": round(time.monotonic() - started, 1),
        **{name: str(file) for name, file in files.items()},
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print_report(report, trained, is_default=model is None and not trained)


def check_voices(folder: Path, overwrite: bool) -> None:
    """Check that the synthetic voices replace no other recordings.

    Raises:
        InputError: the folder holds files that are not from a demo.
        OutputExistsError: it holds voices of a demo, and `overwrite` is false.
    """
    from wesep_py.common.files import path_exists
    from wesep_py.common.folders import JUNK
    from wesep_py.common.names import listing

    if not path_exists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder}: is not a folder of a demo; name another output")
    paths = [path for path in folder.rglob("*") if path.name not in JUNK]
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir())
    if foreign := [name for name in names if not VOICES.fullmatch(name) or not _is_of_demo(folder / name)]:
        raise InputError(f"{folder}: holds files that are not from a demo ({listing(foreign)}); name another output")
    if names and not overwrite:
        raise OutputExistsError(f"{folder}: exists already; name another output, or pass --overwrite")


def _is_of_demo(path: Path) -> bool:
    """Return whether a file can be of a demo: a manifest must name its synthetic voices."""
    if path.suffix != ".jsonl" or path.name.startswith("."):
        return True
    with path.open("rb") as file:
        begin = file.read(1000)
    return not begin or b"toy000" in begin


def _extract_from(
    output: Path,
    model: str | None,
    trained: bool,
    minutes: float,
    device: str,
    threads: int | None,
    steps: Callable[[str], None],
) -> tuple[Extractor, list[DemoTrial]]:
    """Return the extractor (trained first if `trained`) and its trials."""
    from wesep_py.data import FileReader
    from wesep_py.inference import load
    from wesep_py.simulation import Simulator

    extractor = None if trained else load(model, device)
    held_out = _speak(output / "voices", steps)
    if extractor is None:
        _train(output / "model", output / "voices", minutes, device, threads, steps)
        extractor = load(output / "model", device)
    mixing = replace(_simulation(), duration_s=MIXTURE_S)
    simulator = Simulator(mixing, held_out, [], FileReader(extractor.sample_rate), seed=1)
    return extractor, _extract_all(extractor, simulator, steps)


def _steps(total: int) -> Callable[[str], None]:
    """Return a function that prints the next step with its number on stderr."""
    numbers = iter(range(1, total + 1))
    return lambda text: typer.echo(f"{next(numbers)}/{total}  {text}", err=True)


def _speak(folder: Path, say: Callable[[str], None]) -> list[Utterance]:
    """Speak the corpus, write the training sentences as `train.jsonl`, and return the held-out sentences."""
    from wesep_py.data import make_toy_corpus, write_manifest

    say(f"{NUM_SPEAKERS} synthetic voices speak {SENTENCES} sentences each (espeak-ng)")
    with progress_bar("voices") as bar:
        task = bar.add_task("speaking", total=NUM_SPEAKERS)
        utterances = make_toy_corpus(
            folder,
            NUM_SPEAKERS,
            SENTENCES,
            overwrite=True,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    training: list[Utterance] = []
    held_out: list[Utterance] = []
    for index, utterance in enumerate(utterances):
        is_held_out = index % SENTENCES >= SENTENCES - HELD_OUT_SENTENCES
        (held_out if is_held_out else training).append(utterance)
    write_manifest(training, folder / "train.jsonl", overwrite=True)
    return held_out


def _train(
    experiment: Path, voices: Path, minutes: float, device: str, threads: int | None, say: Callable[[str], None]
) -> None:
    from wesep_py.common.config import conf_folder
    from wesep_py.training import train

    say(f"training a very small model on them, for at most {minutes:g} minutes")
    overrides = [f"experiment={experiment}", f"data.root={voices}", f"train.max_minutes={minutes}"]
    if device in ("cpu", "cuda"):
        overrides.append(f"train.device={device}")
    if threads is not None:
        overrides.append(f"train.threads={threads}")
    train(conf_folder() / "train" / "demo.yaml", overrides)


def _simulation() -> SimulationConfig:
    """Return the simulation of the demo's training configuration, which is also that of its mixtures."""
    from wesep_py.common.config import conf_folder, construct, load_yaml
    from wesep_py.simulation import SimulationConfig

    settings = load_yaml(conf_folder() / "train" / "demo.yaml", ["experiment=-", "data.root=-"])
    return construct(SimulationConfig, settings["simulation"], "simulation")


def _extract_all(extractor: Extractor, simulator: Simulator, say: Callable[[str], None]) -> list[DemoTrial]:
    from wesep_py.metrics import si_sdr

    say(f"extracting the target from {NUM_MIXTURES} mixtures of unseen sentences")
    trials = []
    with progress_bar("mixtures") as bar:
        task = bar.add_task("extracting", total=NUM_MIXTURES)
        for index in range(NUM_MIXTURES):
            sample = simulator.sample(epoch=0, index=index)
            target = sample.speaker(sample.recipe.target)
            voice = extractor.enroll((target.enrollment, simulator.sample_rate))
            extracted = extractor.extract((sample.mixture, simulator.sample_rate), voice).waveform
            before_db, after_db = (float(si_sdr(signal, target.target)) for signal in (sample.mixture, extracted))
            trials.append(DemoTrial(sample, extracted, before_db, after_db))
            bar.advance(task)
    return trials


def _write(shown: DemoTrial, extractor: Extractor, files: dict[str, Path], say: Callable[[str], None]) -> None:
    """Write the parts of a trial as wav files, and draw their spectrograms."""
    from wesep_py import audio
    from wesep_py.common.files import write_together

    say("writing and drawing the median mixture")
    waveforms = shown.waveforms()
    same_level = audio.rms(waveforms["mixture"]) / audio.rms(waveforms["enrollment"])
    panels = {
        f"mixture: two voices and noise in a room (SI-SDR {shown.before_db:.1f} dB)": waveforms["mixture"],
        "enrollment: another sentence of the target speaker": waveforms["enrollment"] * same_level,
        f"extracted from the mixture (SI-SDR {shown.after_db:.1f} dB)": waveforms["extracted"],
        "reference: the target alone, as in the mixture": waveforms["reference"],
    }
    title = f"Target speaker extraction: {shown.improvement_db:+.1f} dB"
    with write_together():
        for part, waveform in waveforms.items():
            audio.write(files[part], waveform, extractor.sample_rate, overwrite=True)
        draw_spectrograms(files["picture"], panels, extractor.sample_rate, title, max_hz=5000.0, overwrite=True)


def _print_report(report: dict[str, Any], trained: bool, is_default: bool) -> None:
    typer.echo(
        f"\nSI-SDRi {report['mean_si_sdri_db']:+.1f} dB, mean of {report['num_mixtures']} mixtures. The median mixture "
        f"improves from {report['shown_si_sdr_before_db']:.1f} to {report['shown_si_sdr_after_db']:.1f} dB:\n"
    )
    for name in ("picture", *PARTS):
        typer.echo(f"  {name:<11} {report[name]}")
    model = f"The model is {report['model']}."
    if trained:
        model = f"The model is trained on these {NUM_SPEAKERS} synthetic voices and knows no others."
    elif is_default:
        model = f"The model is {report['model']}; its training had no such voices (`wesep models {report['model']}`)."
    named = "" if is_default else f"--model {report['model']} "
    typer.echo(
        f"\n{model} To repeat it by hand:\n\n"
        f"  wesep extract {report['mixture']} --enroll {report['enrollment']} {named}-o out.wav\n\n"
        f"({report['seconds']:.0f} s)"
    )


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("demo")
