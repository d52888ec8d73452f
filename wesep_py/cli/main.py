"""The command `wesep`: finds the command asked for, runs it, turns errors into one line and a status.

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
    "extract": ("extract", "Use", "One person's voice out of recordings, given a few seconds of that voice."),
    "enroll": ("enroll", "Use", "Recordings of one voice into a reusable voice print."),
    "models": ("convert", "Use", "The models that come with the package, and their cards."),
    "demo": ("demo", "Use", "Show it working: speak, mix, extract, score, draw."),
    "doctor": ("doctor", "Use", "Check the installation, and say what to do about what is wrong."),
    "prepare": ("prepare", "Data", "Write the manifest of a corpus: folders, CSV, Kaldi, LibriMix, …"),
    "shard": ("pack", "Data", "Pack a corpus as tar shards with an index, or check or index such a folder."),
    "lmdb": ("pack", "Data", "Pack noise, room responses or other recordings as one LMDB file."),
    "simulate": ("simulate", "Data", "Render mixtures, or only their recipes."),
    "render": ("simulate", "Data", "Render mixtures from recipes, to the bit as they were drawn."),
    "train": ("train", "Experiments", "Train a network from one YAML file, or resume its training."),
    "import-checkpoint": (
        "convert",
        "Experiments",
        "A checkpoint of WeSep, real-TSE or WeSpeaker into a checkpoint folder.",
    ),
    "average": ("convert", "Experiments", "One model from the last or the best snapshots of a run."),
    "evaluate": ("evaluate", "Experiments", "Extract and score a list of trials."),
    "calibrate": ("analyse", "Experiments", "Make the probability that a voice is there believable."),
    "score": ("evaluate", "Experiments", "Score audio that was made elsewhere."),
    "compare": ("analyse", "Experiments", "Pair two results and test the difference."),
    "report": ("analyse", "Experiments", "A result as one HTML page that works offline."),
    "verify": ("analyse", "Experiments", "Score trials of speaker verification: EER, minDCF."),
}

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
_TOO_EARLY = "something that was read ends too early ({}); --debug shows where"
# Options that hold for every command, and may stand before or after its name.
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
    """Ctrl-C or SIGTERM inside a command, with what the command has to say about it."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM. A class of its own: Python ends by SIGINT once a plain `KeyboardInterrupt` has passed through `exec`."""


class _Termination:
    """Whether SIGTERM asked this process to end, and what it does then.

    It ends the command as Ctrl-C does, so that temporary files go and one line is said; and the processes that work
    for it.
    """

    def __init__(self) -> None:
        self.asked = False

    @property
    def exit_status(self) -> int:
        """Of a command that was interrupted."""
        return EXIT_TERMINATED if self.asked else EXIT_INTERRUPTED

    @property
    def word(self) -> str:
        """What a command that has nothing else to say has been."""
        return "terminated" if self.asked else "interrupted"

    def __call__(self, signum: int, frame: object) -> None:
        """The signal handler; a second signal does not disturb the first one's cleaning up."""
        if self.asked:
            return
        self.asked = True
        if multiprocessing := sys.modules.get("multiprocessing"):
            for child in multiprocessing.active_children():
                child.terminate()
        raise _Terminated(self.word)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """While the block runs, SIGTERM is caught; not in a thread, nor where the process was told to ignore it."""
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
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what is being done, on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse recordings that end early or are not as their headers say.")
    ] = False,
) -> None:
    """Settle what holds for every command (all of these may also stand after the command's name)."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("wesep_py").setLevel(level)
    # A warning is one line, without the place in the code that gives it.
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
    """What `python -m wesep_py.cli.NAME` does: the command `wesep NAME`."""
    sys.exit(main([name, *sys.argv[1:]]))


def run_command(name: str, arguments: Sequence[str], debug: bool = False) -> int:
    """Import the module of one command, run it, return its exit status; errors become one line."""
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
    """The command without its return value; the message of its `KeyboardInterrupt` becomes an error's."""

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
    """Call `run`; print what goes wrong as one line, and return the exit status."""
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
    """One line on stderr, of bounded length and without control characters, whatever the message holds."""
    typer.echo(f"{program}: {shorten(message, LINE)}", err=True)


def explain(error: Exception) -> str:
    """An error that no part of the program foresaw, in a line: the file, where the system names one, and what it was.

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
    """Let a name whose bytes are no UTF-8 be printed with escapes, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _usage_error() -> type[Any]:
    """The base class of typer's errors about usage, wherever this version of typer keeps it."""
    return next(base for base in reversed(typer.BadParameter.__mro__) if hasattr(base, "format_message"))


def _lift_common(arguments: Sequence[str]) -> list[str]:
    """The arguments with those of `_COMMON` moved before the command's name, up to a `--`.

    The `--` itself is doubled: one is taken by the parser that finds the command, one reaches the command.
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
