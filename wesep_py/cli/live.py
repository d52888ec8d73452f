"""`wesep stream` and `wesep live`: one voice out of a live signal, in a pipe or from microphone to loudspeaker."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from wesep_py.cli.options import (
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    EnrollNotOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    check_threads,
    set_threads,
)
from wesep_py.common.errors import ConfigError, InputError

if TYPE_CHECKING:
    from wesep_py.cli.targets import Target
    from wesep_py.inference import Extractor, Stream, Voice
    from wesep_py.inference.live_stream.live_session import LiveSession, Recorder
    from wesep_py.inference.live_stream.pcm_stream import Pumped
    from wesep_py.runtime import RuntimeExtractor

log = logging.getLogger(__name__)
PRESENCE_EVERY_S = 0.1
STATUS_EVERY_S = 0.2
STATUS_LINE_EVERY_S = 10.0
"""Seconds between the lines of the status if stderr is no terminal."""

EnrollOption = Annotated[
    list[str] | None,
    typer.Option(
        "--enroll",
        metavar="FILE",
        help="A recording of the voice alone, FILE@12.3-17.8 for a part of it, a folder, a .voice, or a .npy.",
    ),
]
ChannelsOption = Annotated[
    int, typer.Option("--channels", min=1, max=64, help="Number of channels; each is extracted by itself.")
]


def stream(
    enrollments: EnrollOption = None,
    negatives: EnrollNotOption = None,
    model: ModelOption = None,
    rate: Annotated[
        int, typer.Option("--rate", metavar="HZ", min=1000, max=768_000, help="Sample rate of input and output.")
    ] = 16000,
    channels: ChannelsOption = 1,
    sample_format: Annotated[
        str, typer.Option("--format", help="Format of the samples: s16le or f32le, interleaved, without a header.")
    ] = "s16le",
    block_ms: Annotated[
        float, typer.Option("--block-ms", min=1.0, max=1000.0, help="Longest piece to read and process at once.")
    ] = 20.0,
    presence: Annotated[
        Path | None,
        typer.Option(
            "--presence",
            metavar="FILE",
            help="Write the probability that the voice speaks, ten lines of JSON per second.",
        ),
    ] = None,
    skip_backlog: Annotated[
        bool,
        typer.Option(
            "--skip-backlog", help="Leave out what arrives while the model is loading, which would delay the output."
        ),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    overwrite: OverwriteOption = False,
) -> None:
    """Extract one person's voice from raw samples on stdin, and write it to stdout.

    Example: arecord -t raw -f S16_LE -r 16000 | wesep stream --enroll alice.wav
    --skip-backlog | aplay -t raw -f S16_LE -r 16000

    Samples are processed as they arrive and written at once. As many come out as
    went in; the voice is late by the latency of the model. Nothing but samples is
    written to stdout.

    Repeat --enroll to add audio of the same voice. The model has to be causal or
    have a live mode, or be a folder that `wesep export --stream` wrote, which
    starts faster and needs less than half of the time.
    """
    from wesep_py.inference.live_stream.pcm_stream import Pumped, pump, sample_type
    from wesep_py.inference.live_stream.pcm_stream import skip_backlog as discard

    began_s = time.monotonic()
    frame_bytes = sample_type(sample_format).itemsize * channels
    source, sink = _descriptor(sys.stdin, "stdin"), _descriptor(sys.stdout, "stdout")
    target = _target(enrollments or [], negatives or [])
    if presence is not None:
        _check_presence_file(presence, target, overwrite)
        block_ms = min(block_ms, 1000 * PRESENCE_EVERY_S)
    with _stdout_to_stderr(sink) as sink:
        extractor, voice = _load(model, device, threads, enroll_max_s, target)
        extraction = extractor.stream(voice, rate, channels)
        if presence is not None:
            _require_presence(extractor)
        milliseconds = 1000 / rate
        log.info(
            "latency %.1f ms, delay at most %.1f ms",
            *(x * milliseconds for x in (extraction.latency, extraction.delay)),
        )
        pumped = Pumped()
        with _presence_log(presence, extraction) as on_block:
            if skip_backlog:
                most_bytes = round((time.monotonic() - began_s) * rate) * frame_bytes
                num_skipped = discard(source, most_bytes, frame_bytes)
                typer.echo(f"skipped {num_skipped / rate:.1f} s that arrived while the model was loading", err=True)
            try:
                pump(extraction, source, sink, sample_format, max(1, round(rate * block_ms / 1000)), on_block, pumped)
            except BrokenPipeError:
                log.info("nobody reads the output any more")
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"stopped after {pumped.num_samples / rate:.1f} s") from None
            finally:
                _report_stream(extraction, pumped, frame_bytes)


def live(
    enrollments: EnrollOption = None,
    negatives: EnrollNotOption = None,
    model: ModelOption = None,
    input_device: Annotated[
        str | None,
        typer.Option("--input", metavar="DEVICE", help="Microphone: a number, or a part of its name."),
    ] = None,
    output_device: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="DEVICE", help="Loudspeaker or virtual device: a number, or a part of its name."
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate",
            metavar="HZ",
            min=1000,
            max=768_000,
            help="Sample rate of the devices; that of the model, or else of a device, by default.",
            show_default=False,
        ),
    ] = None,
    channels: ChannelsOption = 1,
    block_ms: Annotated[
        float, typer.Option("--block-ms", min=1.0, max=1000.0, help="Length of the blocks of the sound card.")
    ] = 16.0,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="DIR", help="Keep both sides: microphone.wav and voice.wav in this folder."),
    ] = None,
    show_devices: Annotated[bool, typer.Option("--list-devices", help="List the sound devices, and end.")] = False,
    duration_s: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="SECONDS",
            min=0.1,
            help="End after this time; Ctrl-C does at any.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    overwrite: OverwriteOption = False,
) -> None:
    """Extract one person's voice live, from the microphone to a loudspeaker or a virtual device.

    Example: wesep live --enroll alice.wav --record talk

    A line on stderr shows the levels, the latency (model + buffers + devices),
    the probability that the voice speaks, and the number of blocks that were
    dropped. Use headphones: a loudspeaker would be heard by the microphone.

    The model has to be causal or have a live mode, or be a folder that
    `wesep export --stream` wrote. Needs the extra `live`:
    pip install 'wesep-py[live]'
    """
    from wesep_py.inference.live_stream.sound_card import choose_rate, find_device, import_sounddevice, list_devices

    sounddevice = import_sounddevice()
    if show_devices:
        # Without any, `find_device` says so.
        for sound_device in list_devices(sounddevice) or [find_device(sounddevice, None, "input")]:
            typer.echo(sound_device.line())
        return
    target = _target(enrollments or [], negatives or [])
    microphone = find_device(sounddevice, input_device, "input")
    loudspeaker = find_device(sounddevice, output_device, "output")
    _check_folder(record, overwrite)
    extractor, voice = _load(model, device, threads, enroll_max_s, target)
    rate = choose_rate(sounddevice, microphone, loudspeaker, channels, rate, extractor.sample_rate)
    extraction = extractor.stream(voice, rate, channels, constant_delay=True)

    from wesep_py.inference.live_stream.live_session import LiveSession, Recorder

    block = max(1, round(rate * block_ms / 1000))
    recorder = None if record is None else Recorder(_created(record), rate, channels, overwrite)
    session = LiveSession(sounddevice, extraction, microphone, loudspeaker, block, recorder)
    try:
        try:
            with session:
                names = microphone.name, target.name, loudspeaker.name
                typer.echo(f"{' → '.join(names)}, {rate} Hz; Ctrl-C ends it", err=True)
                _follow(session, duration_s)
        finally:
            if session.status().duration_s:
                typer.echo(session.status().line(), err=True)
            _report_replaced(extraction)
            _finish(recorder, rate)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped after {session.status().duration_s:.1f} s") from None


# What both need.


def _target(enrollments: Sequence[str], negatives: Sequence[str]) -> Target:
    """Return the one voice to extract."""
    from wesep_py.cli.targets import parse_targets

    targets = parse_targets(enrollments, negatives=negatives)
    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise InputError(
            f"--enroll names {len(targets)} voices ({names}); one is possible here: start one command for each"
        )
    return targets[0]


def _load(
    model: str | None, device: str, threads: int | None, enroll_max_s: float, target: Target
) -> tuple[Extractor | RuntimeExtractor, Voice]:
    """Return the model, checked to be one that streams, and the voice. An exported folder is run without torch."""
    from wesep_py.cli.extract import report_enrollment, voice_of
    from wesep_py.runtime.model_folder import DESCRIPTION

    if model is not None and (Path(model) / DESCRIPTION).is_file():
        exported, voice = _load_exported(Path(model), device, threads, enroll_max_s, target)
        report_enrollment(target.name, voice)
        return exported, voice

    from wesep_py.inference import load
    from wesep_py.network.streaming_network import require_streaming

    set_threads(threads)
    extractor = load(model, device, verify="none")  # the live mode has no verifier
    try:
        require_streaming(extractor.network)
    except ConfigError as error:
        raise ConfigError(
            f"{extractor.name}: {error}; choose another with --model, or extract a file with `wesep extract`"
        ) from error
    extractor.max_enrollment_s = enroll_max_s
    voice = voice_of(extractor, target)
    report_enrollment(target.name, voice)
    return extractor, voice


def _load_exported(
    folder: Path, device: str, threads: int | None, enroll_max_s: float, target: Target
) -> tuple[RuntimeExtractor, Voice]:
    """Return an exported model with the graph of a stream, and the voice."""
    from wesep_py.runtime import Voice, load

    if device not in ("auto", "cpu"):
        raise InputError(f"--device {device}: an exported model runs on the CPU; leave the option out")
    check_threads(threads)
    extractor = load(folder, enroll_max_s, threads)
    if extractor.latency is None:
        raise InputError(f"{folder}: has no graph of a stream; export the model again with `wesep export --stream`")
    if target.negatives:
        raise InputError(f"{folder}: an exported model takes no --enroll-not; leave it out, or use the model itself")
    print_file = target.voice_print
    return extractor, extractor.enroll(*target.files) if print_file is None else Voice.load(print_file)


def _report_replaced(extraction: Stream) -> None:
    if extraction.num_replaced:
        typer.echo(f"warning: {extraction.num_replaced} samples were NaN or infinite and became 0", err=True)


# `wesep stream`.


def _descriptor(file: TextIO | None, name: str) -> int:
    """Return the descriptor of stdin or stdout, which has to be a pipe or a file."""
    try:
        if file is None:  # it was closed before this process started
            raise ValueError
        descriptor = file.fileno()
        os.fstat(descriptor)
    except (OSError, ValueError):
        raise InputError(f"{name} is closed; connect it to a pipe or a file of raw samples") from None
    if os.isatty(descriptor):
        example = "arecord -t raw -f S16_LE -r 16000 |" if name == "stdin" else "| aplay -t raw -f S16_LE -r 16000"
        raise InputError(f"{name} is a terminal; connect it to a pipe or a file of raw samples ({example})")
    return descriptor


@contextmanager
def _stdout_to_stderr(sink: int) -> Iterator[int]:
    """Yield a new descriptor of stdout, and send what anything else prints there to stderr."""
    own = os.dup(sink)
    try:
        os.dup2(2, sink)
        yield own
    finally:
        sys.stdout.flush()
        os.dup2(own, sink)
        os.close(own)


def _check_presence_file(path: Path, target: Target, overwrite: bool) -> None:
    """Check that the file may be written; a pipe or device may exist."""
    from wesep_py.common.files import check_writable, refuse_inputs

    if str(path) == "-":
        raise InputError("--presence -: stdout carries the voice; name a file, or /dev/stderr")
    refuse_inputs([path], [(file, "an enrollment") for file in target.files])
    if not _is_special(path):
        check_writable(path, overwrite)


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _require_presence(extractor: Extractor | RuntimeExtractor) -> None:
    if not extractor.has_live_presence:
        raise InputError(f"--presence: {extractor.name} has no presence head for live use; leave the option out")


@contextmanager
def _presence_log(path: Path | None, extraction: Stream) -> Iterator[Any]:
    """Yield a function that is called after each block, and writes a line when a tenth of a second has passed."""
    if path is None:
        yield lambda pumped: None
        return
    next_s = PRESENCE_EVERY_S
    with path.open("w", encoding="utf-8", buffering=1) as file:

        def on_block(pumped: Pumped) -> None:
            nonlocal next_s
            time_s = pumped.num_samples / extraction.sample_rate
            if time_s >= next_s:
                value = extraction.presence
                shown = round(value, 4) if isinstance(value, float) else None
                file.write(json.dumps({"time_s": round(time_s, 3), "presence": shown}) + "\n")
                next_s += PRESENCE_EVERY_S

        yield on_block


def _report_stream(extraction: Stream, pumped: Pumped, frame_bytes: int) -> None:
    """Print warnings about the input; with -v, the speed."""
    _report_replaced(extraction)
    if pumped.num_dropped_bytes:
        typer.echo(
            f"warning: the input ended inside a frame: {pumped.num_dropped_bytes} of {frame_bytes} bytes, which were "
            "left out; check --format and --channels",
            err=True,
        )
    duration_s = pumped.num_samples / extraction.sample_rate
    if duration_s:
        log.info("%.1f s in %.1f s (RTF %.3f)", duration_s, pumped.computing_s, pumped.computing_s / duration_s)


# `wesep live`.


def _check_folder(folder: Path | None, overwrite: bool) -> None:
    """Check that the recordings can be written, before the model is loaded."""
    from wesep_py.common.files import check_writable, is_folder, path_exists
    from wesep_py.inference.live_stream.live_session import RECORDED

    if folder is None:
        return
    if is_folder(folder):
        for name in RECORDED:
            check_writable(folder / name, overwrite)
    elif path_exists(folder):
        raise InputError(f"{folder}: is a file; --record needs a folder")
    elif not is_folder(folder.parent):
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")


def _created(folder: Path) -> Path:
    from wesep_py.cli.outputs import make_folder

    if not folder.is_dir():
        make_folder(folder)
    return folder


def _follow(session: LiveSession, duration_s: float | None) -> None:
    """Show the status until the duration is over, or the session fails or is interrupted."""
    is_terminal = sys.stderr.isatty()
    every_s = STATUS_EVERY_S if is_terminal else STATUS_LINE_EVERY_S
    shown_s = time.monotonic()
    try:
        while duration_s is None or session.status().duration_s < duration_s:
            session.wait(min(STATUS_EVERY_S, duration_s or STATUS_EVERY_S))
            if time.monotonic() - shown_s >= every_s:
                shown_s = time.monotonic()
                # In a terminal the line is written over the last one, and cleared to its end.
                typer.echo(
                    f"\r{session.status().line()}\x1b[K" if is_terminal else session.status().line(),
                    err=True,
                    nl=not is_terminal,
                )
    finally:
        if is_terminal:
            typer.echo("\r\x1b[K", err=True, nl=False)


def _finish(recorder: Recorder | None, rate: int) -> None:
    """Finish the recordings, and say where they are."""
    if recorder is None:
        return
    paths = recorder.close()
    if recorder.is_full:
        typer.echo("warning: the recordings have reached 4 GiB, and end there", err=True)
    if paths:
        listing = " and ".join(map(str, paths))
        typer.echo(f"recorded {recorder.num_samples / rate:.1f} s: {listing}", err=True)
