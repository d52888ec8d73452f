"""The command `wesep`: find the command, run it, turn errors into one line and an exit status.

The module of a command is imported only when the command is run, so `wesep --help` answers at once. To add one, write
a function `NAME` into a module of `wesep_py.cli` (or, for a command with commands of its own, a `typer.Typer` named
`app`) and enter it in `COMMANDS`; a hyphen in the command's name is an underscore in the function's.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from wesep_py import __version__
from wesep_py.common.errors import LINE, InputError, WesepError, reason, shorten

# name -> (module of `wesep_py.cli`, panel of the help page, help line)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "extract": ("extract", "Use", "Extract one person's voice from recordings, given a few seconds of it."),
    "when": ("when", "Use", "Say when enrolled voices speak in a recording, without extracting them."),
    "find": ("find", "Use", "List segments in which one person seems to speak alone, to enroll them."),
    "enroll": ("enroll", "Use", "Make a reusable voice print from recordings of one voice."),
    "stream": ("live", "Use", "Extract one voice live: raw samples from stdin to stdout, for pipes."),
    "live": ("live", "Use", "Extract one voice live: from the microphone to a loudspeaker."),
    "ui": ("ui_command", "Use", "Open a page in the browser: record or drop recordings, extract, listen."),
    "models": ("model_commands", "Use", "List, install, check and remove models, or show the card of one."),
    "export": ("exporting", "Use", "Write a model as ONNX or TorchScript, for programs without this package."),
    "bench": ("bench", "Use", "Measure how fast an exported folder, or a model, is on this machine."),
    "demo": ("demo", "Use", "Show an extraction from nothing: speak, mix, extract, score, draw."),
    "doctor": ("doctor", "Use", "Check the installation, and say how to repair what is wrong."),
    "prepare": ("prepare", "Data", "Write the manifest of a corpus: folders, CSV, Kaldi, LibriMix, …"),
    "shard": ("pack", "Data", "Pack a corpus as tar shards, or check or index a folder of shards."),
    "lmdb": ("pack", "Data", "Pack noise, room responses or other recordings as one LMDB file."),
    "simulate": ("simulate", "Data", "Draw mixtures from a corpus, and render or only describe them."),
    "render": ("simulate", "Data", "Render mixtures from recipes or from LibriMix's metadata."),
    "train": ("train", "Experiments", "Train a network from one YAML file, or resume its training."),
    "import-checkpoint": (
        "convert",
        "Experiments",
        "Convert a checkpoint of WeSep, ESPnet, real-TSE or WeSpeaker.",
    ),
    "import-config": ("import_config", "Experiments", "Translate a training configuration of WeSep or ESPnet."),
    "average": ("convert", "Experiments", "Average the last or the best snapshots of a run into one model."),
    "evaluate": ("evaluate", "Experiments", "Extract and score a list of trials."),
    "calibrate": ("analyse", "Experiments", "Calibrate a model's probability that a voice is present."),
    "score": ("evaluate", "Experiments", "Score audio made elsewhere."),
    "compare": ("analyse", "Experiments", "Pair two results and test the difference."),
    "report": ("analyse", "Experiments", "Write one HTML page of a result, which works offline."),
    "verify": ("analyse", "Experiments", "Score speaker verification trials: EER, minDCF."),
}

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
_TOO_EARLY = "an input ends too early ({}); --debug shows where"
# Options of every command, before or after its name.
_COMMON = ("-v", "--verbose", "--debug", "--strict")

app = typer.Typer(
    name="wesep",
    help="Target speaker extraction: one voice out of a recording in which people talk over each other.",
    epilog="Example: wesep extract meeting.wav --enroll alice.wav -o alice_only.wav",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _Interrupted(WesepError):
    """Ctrl-C or SIGTERM inside a command, with the command's message."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM. A separate class, because Python ends by SIGINT after a plain `KeyboardInterrupt` has passed `exec`."""


class _Termination:
    """Handler of SIGTERM, which knows whether the signal was received.

    SIGTERM ends the command and its worker processes as Ctrl-C does: temporary files are removed, one line is printed.
    """

    def __init__(self) -> None:
        self.asked = False

    @property
    def exit_status(self) -> int:
        """Exit status of an interrupted command."""
        return EXIT_TERMINATED if self.asked else EXIT_INTERRUPTED

    @property
    def word(self) -> str:
        """Message of an interrupted command that has none of its own."""
        return "terminated" if self.asked else "interrupted"

    def __call__(self, signum: int, frame: object) -> None:
        """Handle the signal; ignore a second one, which would disturb the cleaning up."""
        if self.asked:
            return
        self.asked = True
        if multiprocessing := sys.modules.get("multiprocessing"):
            for child in multiprocessing.active_children():
                child.terminate()
        raise _Terminated(self.word)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch SIGTERM in the block, unless this is a thread or the process ignores the signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, self)
        self.asked = False
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


_termination = _Termination()


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"wesep {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log the progress on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse recordings that end early or disagree with their headers.")
    ] = False,
) -> None:
    """Apply the options of every command, which may also follow the name of the command."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("wesep_py").setLevel(level)
    # A warning is one line, without its place in the code.
    warnings.formatwarning = lambda message, *_, **__: f"wesep: warning: {shorten(message, LINE)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `wesep` with the given arguments (those of the process by default) and return the exit status.

    Returns:
        0 done; 1 a failure; 2 wrong input or usage; 3 every target asked for is absent; 130 interrupted (Ctrl-C);
        143 terminated (SIGTERM).

    >>> main(["--version"])  # doctest: +ELLIPSIS
    wesep ...
    0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _print_any_name()
    lifted = _lift_common(arguments)
    if "--strict" in _common(lifted):
        from wesep_py.audio.decoding import strict_reading

        with strict_reading():
            return _run(lifted)
    return _run(lifted)


def _run(lifted: Sequence[str]) -> int:
    with _termination.caught():
        return _guard(lambda: app(list(lifted), prog_name="wesep", standalone_mode=False), "wesep", lifted)


def run_module(name: str) -> None:
    """Run the command `wesep NAME` for `python -m wesep_py.cli.NAME`."""
    sys.exit(main([name, *sys.argv[1:]]))


def run_command(name: str, arguments: Sequence[str], debug: bool = False) -> int:
    """Import the module of a command, run it and return its exit status; print errors as one line."""
    program = f"wesep {name}"
    return _guard(
        lambda: _command_app(name)(list(arguments), prog_name=program, standalone_mode=False),
        program,
        ["--debug"] if debug else [],
    )


def _command_app(name: str) -> typer.Typer:
    module = importlib.import_module(f"wesep_py.cli.{COMMANDS[name][0]}")
    if isinstance(group := getattr(module, "app", None), typer.Typer):
        return group
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(_saying_goodbye(getattr(module, name.replace("-", "_"))))
    return single


def _saying_goodbye(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command: drop its return value, and turn its `KeyboardInterrupt` into an error with that message."""

    @functools.wraps(command)
    def run(*positional: Any, **named: Any) -> None:
        for name, value in named.items():  # the parser takes "nan" and "inf" for numbers
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"--{name.replace('_', '-')}: is {value}; a finite number is needed")
        try:
            command(*positional, **named)
        except KeyboardInterrupt as interrupt:
            error = _Interrupted(str(interrupt) or _termination.word)
            error.exit_status = _termination.exit_status
            raise error from interrupt

    return run


def _guard(run: Callable[[], Any], program: str, arguments: Sequence[str]) -> int:
    """Call `run`, print an error as one line, and return the exit status."""
    try:
        status = run()
        if status == EXIT_INTERRUPTED and program != "wesep":
            typer.echo(f"{program}: {_termination.word}", err=True)
            return _termination.exit_status
        return status if isinstance(status, int) else 0
    except typer.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, typer.Abort) as stop:
        if isinstance(stop.__cause__, EOFError):  # which the parser of the command line takes for Ctrl-D
            _say(program, _TOO_EARLY.format(reason(stop.__cause__)))
            return WesepError.exit_status
        typer.echo(f"{program}: {_termination.word}", err=True)
        return _termination.exit_status
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except WesepError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _say(program, error)
        return error.exit_status
    except _usage_error() as error:
        if message := " ".join(error.format_message().split()):
            _say(program, f"{shorten(message, LINE)} (see {program} --help)")
        return error.exit_code
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _say(program, explain(error))
        return 1


def _say(program: str, message: object) -> None:
    """Print a message on stderr as one line of bounded length without control characters."""
    typer.echo(f"{program}: {shorten(message, LINE)}", err=True)


def explain(error: Exception) -> str:
    """Return one line for an unexpected error: the file, if the system names one, and the problem.

    >>> explain(FileNotFoundError(2, "No such file or directory", "a.wav"))
    'a.wav: No such file or directory'
    >>> explain(KeyError("rate"))
    "KeyError: 'rate' (--debug shows where)"
    """
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, (str, bytes)):
        return f"{shorten(os.fsdecode(error.filename), LINE // 2)}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "there is not enough memory; close other programs, or give shorter or fewer files"
    return f"{shorten(reason(error), LINE - 30)} (--debug shows where)"


def _print_any_name() -> None:
    """Print names that are not UTF-8 with escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _usage_error() -> type[Any]:
    """Return the base class of typer's usage errors, whose place depends on the version of typer."""
    return next(base for base in reversed(typer.BadParameter.__mro__) if hasattr(base, "format_message"))


def _lift_common(arguments: Sequence[str]) -> list[str]:
    """Move the options of `_COMMON` before the name of the command; leave arguments after a `--`.

    The `--` is doubled: the parser that finds the command takes one, and the command receives the other.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    common = _common(arguments)
    rest = [word for word in arguments[:end] if word not in common]
    return [*common, *rest, *(["--"] if end < len(arguments) else []), *arguments[end:]]


def _common(arguments: Sequence[str]) -> list[str]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [word for word in arguments[:end] if word in _COMMON]


def _enter(name: str, panel: str, line: str) -> None:
    def dispatch(context: typer.Context) -> None:
        debug = bool(context.parent and context.parent.params.get("debug"))
        raise typer.Exit(run_command(name, context.args, debug))

    app.command(
        name,
        help=line,
        rich_help_panel=panel,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(dispatch)


for _name, (_module, _panel, _line) in COMMANDS.items():
    _enter(_name, _panel, _line)

if __name__ == "__main__":
    sys.exit(main())
