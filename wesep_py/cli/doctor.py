"""`wesep doctor`: report what is installed, whether it fits together, and how to repair what does not."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

from wesep_py.cli.options import JsonOption
from wesep_py.common.errors import WesepError

NEEDED = (
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "soundfile",
    "soxr",
    "safetensors",
    "omegaconf",
    "typer",
    "rich",
    "matplotlib",
)
TRAINING = ("lightning-fabric", "tensorboard")
METRICS = ("pesq", "pystoi", "fast_bss_eval", "jiwer")
INSTRUCTION_SETS = {
    "avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "AVX-512 bfloat16", "amx_bf16": "AMX bfloat16",
    "neon": "NEON", "sve": "SVE", "bf16": "bfloat16",
}  # fmt: skip
"""Keys of `torch.cpu.get_capabilities()` that matter to speed, and their names."""
LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Environment variables that limit the instruction sets of torch."""
OPTIONAL = {
    "espeakng-loader": ("`wesep demo`", "demo"),
    "onnxruntime": ("exported models", "onnx"),
    "av": ("m4a, mp4, mov, webm and other media", "media"),
    "sounddevice": ("`wesep live`", "live"),
    "gradio": ("`wesep ui`", "ui"),
}
"""Packages of extras: what needs each, and the extra."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: `ok`; `note`: works, but something is limited; `wrong`: something will fail.
        subject: what was checked.
        found: the result.
        advice: what to do; empty if nothing has to be done.
    """

    status: Literal["ok", "note", "wrong"]
    subject: str
    found: str
    advice: str = ""


def doctor(as_json: JsonOption = False) -> None:
    """Check the installation, and say how to repair what is wrong.

    Example: wesep doctor

    The exit status is 1 if something is wrong that will make a command fail.
    """
    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.status == "wrong" for finding in findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Run all checks, and return their findings."""
    findings = [
        check_python(sys.version_info[:2]),
        *(check_package(name, "wrong", "reinstall wesep-py") for name in NEEDED),
        check_pair(_build("torch"), _build("torchaudio")),
        *(check_package(name, "wrong", "`wesep train` needs it: reinstall wesep-py") for name in TRAINING),
        *(check_package(name, "note", "its metric is reported as missing: reinstall wesep-py") for name in METRICS),
        *(
            check_package(name, "note", f"only for {use}: pip install 'wesep-py[{extra}]'")
            for name, (use, extra) in OPTIONAL.items()
        ),
    ]
    findings += [
        _finding_of("torch computes", check_torch_works),
        _finding_of("torchaudio computes", check_torchaudio_works),
        _finding_of("sound formats", check_sound_formats),
    ]
    if _version("sounddevice"):
        findings.append(_finding_of("sound devices", check_sound_devices))
    if _version("torch"):
        findings += check_devices()
        findings.append(_finding_of("instruction sets", check_instruction_sets))
        findings.append(_finding_of("threads", check_threads))
        findings.append(_finding_of("half precision", check_half_precision))
    findings.append(check_command(shutil.which("wesep"), sys.prefix, _owners_of_the_command()))
    findings.append(check_temporary_space())
    return findings


def check_python(version: tuple[int, ...]) -> Finding:
    """Check that Python is 3.10 or later."""
    found = ".".join(map(str, version))
    if tuple(version) < (3, 10):
        return Finding("wrong", "python", found, "install Python 3.10 or later")
    return Finding("ok", "python", found)


def check_package(name: str, if_missing: Literal["note", "wrong"], advice: str) -> Finding:
    """Check that a package is installed."""
    version = _version(name)
    return Finding("ok", name, version) if version else Finding(if_missing, name, "not installed", advice)


def check_pair(torch_version: str, torchaudio_version: str) -> Finding:
    """Check that torch and torchaudio are of one release and one build (`2.11.0+cu130` with `2.11.0+cu130`)."""
    subject = "torch and torchaudio"
    if not torch_version or not torchaudio_version:
        return Finding("wrong", subject, "not both installed", "pip install -c constraints.txt torch torchaudio")
    (torch_release, _, torch_build), (audio_release, _, audio_build) = (
        version.partition("+") for version in (torch_version, torchaudio_version)
    )
    found = f"{torch_version} and {torchaudio_version}"
    if torch_release.split(".")[:2] != audio_release.split(".")[:2]:
        return Finding("wrong", subject, found, f"they must be of one release: pip install torchaudio=={torch_release}")
    if torch_build != audio_build:
        return Finding("wrong", subject, found, "they must be of one build: install both from the same index")
    return Finding("ok", subject, f"{found}: a pair")


def check_torch_works() -> Finding:
    """Check that torch computes a product and a Fourier transform of known result."""
    import torch

    spectrum = torch.fft.rfft(torch.ones(8))
    if not torch.allclose(torch.eye(3) @ torch.ones(3), torch.ones(3)) or abs(spectrum[0].item() - 8) > 1e-5:
        return Finding("wrong", "torch computes", "wrong results", "reinstall torch")
    return Finding("ok", "torch computes", "matrix products and Fourier transforms are right")


def check_torchaudio_works() -> Finding:
    """Check that the compiled part of torchaudio loads, which fails with another build of torch."""
    import torch
    import torchaudio.functional

    torchaudio.functional.resample(torch.zeros(1, 100), 16000, 8000)
    return Finding("ok", "torchaudio computes", "resampling runs")


def check_sound_formats() -> Finding:
    """Check that libsndfile reads and writes the formats that wesep offers."""
    import soundfile

    formats = soundfile.available_formats()
    lacking = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    if "OGG" in formats and "OPUS" not in soundfile.available_subtypes("OGG"):
        lacking.append("Opus")
    found = f"libsndfile {soundfile.__libsndfile_version__}"
    if lacking:
        return Finding(
            "note", "sound formats", f"{found} without {', '.join(lacking)}", "pip install -U soundfile (1.1 is needed)"
        )
    return Finding("ok", "sound formats", f"{found}: wav, flac, ogg, opus, mp3")


def check_sound_devices() -> Finding:
    """Report the microphone and the loudspeaker that `wesep live` uses if none is named."""
    from wesep_py.inference.live_stream.sound_card import find_device, import_sounddevice

    subject = "sound devices"
    try:
        sounddevice = import_sounddevice()
        microphone, loudspeaker = (find_device(sounddevice, None, kind) for kind in ("input", "output"))
    except WesepError as error:
        return Finding("note", subject, "`wesep live` has none to use", str(error))
    return Finding("ok", subject, f"microphone {microphone.name}, loudspeaker {loudspeaker.name}")


def check_devices() -> list[Finding]:
    """List the devices that networks can run on."""
    import torch

    findings = [Finding("ok", "device cpu", f"{os.cpu_count()} processors")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        findings.append(Finding("ok", f"device cuda:{index}", f"{properties.name}, {memory}"))
    if torch.backends.mps.is_available():
        findings.append(Finding("ok", "device mps", "Apple GPU"))
    if len(findings) == 1:
        if torch.version.cuda and Path("/proc/driver/nvidia").exists():
            advice = f"the driver is too old for CUDA {torch.version.cuda}, or the GPU is hidden: run nvidia-smi"
            findings.append(Finding("note", "device cuda", "an NVIDIA driver, but torch sees no GPU", advice))
        else:
            findings.append(Finding("ok", "device cuda", "none; the CPU is used"))
    return findings


def check_instruction_sets() -> Finding:
    """List the vector instructions of the processor, and those that torch uses."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    present = [name for key, name in INSTRUCTION_SETS.items() if capabilities.get(key) is True]
    parts = [", ".join(present) or platform.machine(), f"torch computes with {torch.backends.cpu.get_cpu_capability()}"]
    parts += [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    return Finding("ok", "instruction sets", "; ".join(parts))


def check_threads() -> Finding:
    """Compare the number of torch's threads with the processors that this process may use."""
    import torch

    threads = torch.get_num_threads()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{threads} in torch, {usable} processors for this process"
    if threads > usable:
        return Finding(
            "note", "threads", found, f"more threads than processors are slower: set OMP_NUM_THREADS={usable}"
        )
    return Finding("ok", "threads", found)


def check_half_precision() -> Finding:
    """Report what `train.precision: auto` selects on the default device of a training."""
    import torch

    from wesep_py.common.half_precision import OPERATION_NAMES, OPERATIONS, problem_with

    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    failing = [OPERATION_NAMES[operation] for operation in OPERATIONS if problem_with(operation, device_type)]
    if failing:
        found = f"{device_type} cannot run {' and '.join(failing)} in bfloat16: precision auto trains in float32"
        return Finding("ok", "half precision", found)
    return Finding("ok", "half precision", f"bfloat16 runs on {device_type}: precision auto trains in it")


def check_command(on_path: str | None, prefix: str, owners: list[str]) -> Finding:
    """Check that the command `wesep` is this one; the research toolkit WeSep can own the name, too."""
    others = [owner for owner in owners if owner != "wesep-py"]
    if others:
        advice = f"`python -m wesep_py.cli.main` always is this one; or pip uninstall {' '.join(others)}"
        return Finding("wrong", "command wesep", f"also claimed by {', '.join(others)}", advice)
    if on_path is None:
        return Finding("note", "command wesep", "not on PATH", f"activate {prefix}, or run {prefix}/bin/wesep")
    if Path(prefix).resolve() not in Path(on_path).absolute().parents:
        return Finding("note", "command wesep", f"{on_path}, of another Python", f"this one's is {prefix}/bin/wesep")
    return Finding("ok", "command wesep", on_path)


def check_temporary_space() -> Finding:
    """Check that there is space for temporary files."""
    import tempfile

    folder = tempfile.gettempdir()
    free_gib = shutil.disk_usage(folder).free / 2**30
    if free_gib < 1:
        return Finding("note", "disk", f"{free_gib:.1f} GiB free in {folder}", "make room, or set TMPDIR")
    return Finding("ok", "disk", f"{free_gib:.0f} GiB free in {folder}")


def _finding_of(subject: str, check: Callable[[], Finding]) -> Finding:
    """Run a check; its failure is a finding, because a broken package must not end the command."""
    try:
        return check()
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Finding(
            "wrong", subject, message, "reinstall: pip install --force-reinstall -c constraints.txt wesep-py"
        )


def _owners_of_the_command() -> list[str]:
    entries = metadata.entry_points(group="console_scripts", name="wesep")
    return sorted({entry.dist.name for entry in entries if entry.dist is not None})


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _build(name: str) -> str:
    """Return the version with its build (`2.11.0+cu130`), which the metadata of the package may leave out."""
    try:
        return str(importlib.import_module(name).__version__)
    except Exception:  # the check that computes with it reports this
        return _version(name)


def _show(findings: list[Finding]) -> None:
    from wesep_py import __version__

    marks = {
        "ok": ("ok   ", typer.colors.GREEN),
        "note": ("note ", typer.colors.YELLOW),
        "wrong": ("WRONG", typer.colors.RED),
    }
    typer.echo(f"wesep {__version__}")
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark, colour = marks[finding.status]
        typer.echo(f"{typer.style(mark, fg=colour)} {finding.subject:<{width}}  {finding.found}")
        if finding.advice:
            typer.echo(f"      {'':<{width}}  -> {finding.advice}")
    wrong = sum(finding.status == "wrong" for finding in findings)
    notes = sum(finding.status == "note" for finding in findings)
    typer.echo(f"{wrong} wrong, {notes} to note, {len(findings) - wrong - notes} ok")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("doctor")
