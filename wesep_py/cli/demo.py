"""`wesep demo`: the main job shown from nothing: speak, (train,) mix, extract, score, draw."""

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

import numpy as np
import typer
from numpy.typing import NDArray

from wesep_py.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    progress_bar,
    set_threads,
)
from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.common.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wesep_py.data import Utterance
    from wesep_py.inference import Extractor
    from wesep_py.simulation import Sample, SimulationConfig, Simulator


# ----------------------------------------
# Spectrograms of an extraction, one above the other, as a PNG.

RANGE_DB = 60.0


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
        waveforms: float32 [samples] under the title of each panel, drawn from top to bottom.
        sample_rate: in Hz.
        title: above all of them.
        max_hz: highest frequency drawn; half the sample rate by default.
        overwrite: replace an existing file.

    Raises:
        WesepError: matplotlib is not installed, or the disk is full.
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise WesepError("pictures need matplotlib; pip install 'wesep-py[demo]'") from error

    spectrograms = {name: _level_db(waveform, sample_rate) for name, waveform in waveforms.items()}
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
    """Level in dB, [bins, frames], of windows of 32 ms every 8 ms."""
    import torch

    from wesep_py.features import STFT

    window = max(2, round(0.032 * sample_rate) // 2 * 2)
    spectrum = STFT(window, window // 4)(torch.as_tensor(np.ascontiguousarray(waveform, dtype=np.float32)))
    return (20 * spectrum.abs().clamp_min(1e-7).log10()).numpy()


log = logging.getLogger(__name__)
NUM_SPEAKERS = 4
SENTENCES = 32
HELD_OUT_SENTENCES = 4  # of each speaker; mixtures are made of these, training sees none of them
NUM_MIXTURES = 20
MIXTURE_S = 4.0
# The files of the synthetic voices, as `_speak` makes them, and as a process that was killed leaves them.
VOICES = re.compile(r"toy\d{3}/(\d{3}|\.\d{3}\.\w{8})\.wav|(manifest|train|\.(manifest|train)\.\w{8})\.jsonl")
# The order in which pictures and files are shown.
PARTS = ("mixture", "enrollment", "extracted", "reference")


@dataclass(frozen=True)
class Trial:
    """One voice extracted from one mixture. SI-SDR in dB against the reference, before and after."""

    sample: Sample
    extracted: NDArray[np.float32]
    before_db: float
    after_db: float

    @property
    def improvement_db(self) -> float:
        """SI-SDRi."""
        return self.after_db - self.before_db

    def waveforms(self) -> dict[str, NDArray[np.float32]]:
        """Mixture, enrollment, extracted and reference, each [samples]."""
        voice = self.sample.voice(self.sample.recipe.target)
        return dict(zip(PARTS, (self.sample.mixture, voice.enrollment, self.extracted, voice.target), strict=True))


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    model: ModelOption = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train a very small model on the spot, and use that.", show_default=False)
    ] = False,
    minutes: Annotated[float, typer.Option("--minutes", help="Longest time to train.", min=0.01)] = 3.25,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show it working on synthetic voices: speak, mix in a noisy room, extract one voice, score, draw.

    Example: wesep demo -o demo

    The model is the bundled one (see `wesep models`), or that of --model.

    With --train, or where no model is bundled, a very small one is first
    trained on the synthetic voices, in a few minutes. It knows these voices
    only. The same command again, with --overwrite, finds it trained.

    Other things in the folder are left; where another's voices/ is in the
    way, nothing is written.
    """
    from wesep_py.common.files import check_writable, created_folder
    from wesep_py.models import DEFAULT, bundled

    if train and model is not None:
        raise InputError("--train makes a model and --model names one; give one of the two")
    trained = train or (model is None and DEFAULT not in bundled())
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
        _tell(report, trained, is_default=model is None and not trained)


def check_voices(folder: Path, overwrite: bool) -> None:
    """Refuse a folder whose recordings the synthetic voices would replace.

    Raises:
        InputError: it holds other things than voices of an earlier demo.
        OutputExistsError: it holds such voices, and `overwrite` is false.
    """
    from wesep_py.common.files import JUNK, path_exists, listing

    if not path_exists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder}: is no folder of a demo; name another output")
    found = [path for path in folder.rglob("*") if path.name not in JUNK]
    names = sorted(path.relative_to(folder).as_posix() for path in found if path.is_symlink() or not path.is_dir())
    if others := [name for name in names if not VOICES.fullmatch(name) or not _tells_of_toys(folder / name)]:
        raise InputError(
            f"{folder}: holds other things than the voices of a demo ({listing(others)}); name another output"
        )
    if names and not overwrite:
        raise OutputExistsError(f"{folder}: holds voices already; name another output, or pass --overwrite")


def _tells_of_toys(path: Path) -> bool:
    """False for a manifest of other voices."""
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
) -> tuple[Extractor, list[Trial]]:
    """The model, made if need be, and what it extracts."""
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
    """Says what is done next, on stderr, numbered."""
    numbers = iter(range(1, total + 1))
    return lambda text: typer.echo(f"{next(numbers)}/{total}  {text}", err=True)


def _speak(folder: Path, say: Callable[[str], None]) -> list[Utterance]:
    """The synthetic voices: writes sentences for training (`train.jsonl`), and returns sentences held out."""
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

    say(f"a very small model is trained on them, for at most {minutes:g} minutes")
    overrides = [f"experiment={experiment}", f"data.root={voices}", f"train.max_minutes={minutes}"]
    if device in ("cpu", "cuda"):
        overrides.append(f"train.device={device}")
    if threads is not None:
        overrides.append(f"train.threads={threads}")
    train(conf_folder() / "train" / "demo.yaml", overrides)


def _simulation() -> SimulationConfig:
    """How the demo mixes, in training and after: the simulation of its configuration."""
    from wesep_py.common.config import conf_folder, construct, load_yaml
    from wesep_py.simulation import SimulationConfig

    settings = load_yaml(conf_folder() / "train" / "demo.yaml", ["experiment=-", "data.root=-"])
    return construct(SimulationConfig, settings["simulation"], "simulation")


def _extract_all(extractor: Extractor, simulator: Simulator, say: Callable[[str], None]) -> list[Trial]:
    from wesep_py.metrics import si_sdr

    say(f"{NUM_MIXTURES} mixtures of sentences that it has not heard: the target is extracted")
    trials = []
    with progress_bar("mixtures") as bar:
        task = bar.add_task("extracting", total=NUM_MIXTURES)
        for index in range(NUM_MIXTURES):
            sample = simulator.sample(epoch=0, index=index)
            wanted = sample.voice(sample.recipe.target)
            voice = extractor.enroll((wanted.enrollment, simulator.sample_rate))
            extracted = extractor.extract((sample.mixture, simulator.sample_rate), voice).waveform
            before_db, after_db = (float(si_sdr(signal, wanted.target)) for signal in (sample.mixture, extracted))
            trials.append(Trial(sample, extracted, before_db, after_db))
            bar.advance(task)
    return trials


def _write(shown: Trial, extractor: Extractor, files: dict[str, Path], say: Callable[[str], None]) -> None:
    """The parts of a trial as wav files, and their spectrograms."""
    from wesep_py import audio

    pass
    from wesep_py.common.files import write_together

    say("the median mixture is written and drawn")
    waveforms = shown.waveforms()
    same_level = audio.rms(waveforms["mixture"]) / audio.rms(waveforms["enrollment"])
    panels = {
        f"mixture: two voices and noise in a room (SI-SDR {shown.before_db:.1f} dB)": waveforms["mixture"],
        "enrollment: another sentence of the voice that is wanted": waveforms["enrollment"] * same_level,
        f"extracted from the mixture (SI-SDR {shown.after_db:.1f} dB)": waveforms["extracted"],
        "reference: the wanted voice alone, as it was mixed": waveforms["reference"],
    }
    title = f"Target speaker extraction: {shown.improvement_db:+.1f} dB"
    with write_together():
        for part, waveform in waveforms.items():
            audio.write(files[part], waveform, extractor.sample_rate, overwrite=True)
        draw_spectrograms(files["picture"], panels, extractor.sample_rate, title, max_hz=5000.0, overwrite=True)


def _tell(report: dict[str, Any], trained: bool, is_default: bool) -> None:
    typer.echo(
        f"\nSI-SDRi {report['mean_si_sdri_db']:+.1f} dB, the mean of {report['num_mixtures']} mixtures. The median one "
        f"went from {report['shown_si_sdr_before_db']:.1f} to {report['shown_si_sdr_after_db']:.1f} dB:\n"
    )
    for name in ("picture", *PARTS):
        typer.echo(f"  {name:<11} {report[name]}")
    model = f"The model is {report['model']}."
    if trained:
        model = f"The model is tuned to these {NUM_SPEAKERS} synthetic voices and knows no others."
    elif is_default:
        model = f"The model is {report['model']}, which has not heard such voices (`wesep models {report['model']}`)."
    named = "" if is_default else f"--model {report['model']} "
    typer.echo(
        f"\n{model} By hand:\n\n"
        f"  wesep extract {report['mixture']} --enroll {report['enrollment']} {named}-o out.wav\n\n"
        f"({report['seconds']:.0f} s)"
    )


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("demo")
