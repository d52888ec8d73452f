"""The command `wesep`: finds the command asked for, runs it, turns errors into one line and a status.

A command module is imported only when its command is run, so `wesep --help` answers at once. To add one,
write `cli/NAME.py` with a function `NAME` (or, for a group, a `typer.Typer` named `app`) and enter
it in `COMMANDS`; a hyphen in the command's name is an underscore in both.
"""

from __future__ import annotations

import functools
import importlib
import io
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from wesep_py import __version__
from wesep_py.errors import WesepError, reason

# name -> (panel of the help page, help line)
COMMANDS: dict[str, tuple[str, str]] = {
    "extract": ("Use", "One person's voice out of recordings, given a few seconds of that voice."),
    "enroll": ("Use", "Recordings of one voice into a reusable voice print."),
    "models": ("Use", "The models that come with the package, and their cards."),
    "demo": ("Use", "Show it working: speak, mix, extract, score, draw."),
    "doctor": ("Use", "Check the installation, and say what to do about what is wrong."),
    "prepare": ("Data", "Write the manifest of a corpus: folders, CSV, Kaldi, LibriMix, …"),
    "shard": ("Data", "Pack a corpus as tar shards with an index, or check or index such a folder."),
    "lmdb": ("Data", "Pack noise, room responses or other recordings as one LMDB file."),
    "simulate": ("Data", "Render mixtures, or only their recipes."),
    "render": ("Data", "Render mixtures from recipes, to the bit as they were drawn."),
    "train": ("Experiments", "Train a network from one YAML file, or resume its training."),
    "import-checkpoint": ("Experiments", "A checkpoint of WeSep, real-TSE or WeSpeaker into a checkpoint folder."),
    "average": ("Experiments", "One model from the last or the best snapshots of a run."),
    "evaluate": ("Experiments", "Extract and score a list of trials."),
    "calibrate": ("Experiments", "Make the probability that a voice is there believable."),
    "score": ("Experiments", "Score audio that was made elsewhere."),
    "compare": ("Experiments", "Pair two results and test the difference."),
    "report": ("Experiments", "A result as one HTML page that works offline."),
    "verify": ("Experiments", "Score trials of speaker verification: EER, minDCF."),
}

EXIT_INTERRUPTED = 130
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
    """Ctrl-C inside a command, with what the command has to say about it."""

    exit_status = EXIT_INTERRUPTED


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `wesep` with the given arguments (those of the process by default) and return the exit status.

    Returns:
        0 done; 1 a failure; 2 wrong input or usage; 3 every target asked for is absent; 130 interrupted.

    >>> main(["--version"])  # doctest: +ELLIPSIS
    wesep ...
    0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    lifted = _lift_common(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file may be no UTF-8; stderr shows it in the same way
        sys.stdout.reconfigure(errors="backslashreplace")
    if "--strict" in _common(lifted):
        from wesep_py.audio.strictness import strict_reading

        with strict_reading():
            return _run(lifted)
    return _run(lifted)


def _run(lifted: Sequence[str]) -> int:
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
    file = name.replace("-", "_")
    module = importlib.import_module(f"wesep_py.cli.{file}")
    if isinstance(group := getattr(module, "app", None), typer.Typer):
        return group
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(_saying_goodbye(getattr(module, file)))
    return single


def _saying_goodbye(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command without its return value; the message of its `KeyboardInterrupt` becomes an error's."""

    @functools.wraps(command)
    def run(*positional: Any, **named: Any) -> None:
        try:
            command(*positional, **named)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted(str(interrupt) or "interrupted") from interrupt
        except EOFError as error:  # which the parser of the command line takes for Ctrl-C
            raise WesepError(
                f"something that was read ends too early ({reason(error)}); --debug shows where"
            ) from error

    return run


def _guard(run: Callable[[], Any], program: str, arguments: Sequence[str]) -> int:
    """Call `run`; print what goes wrong as one line, and return the exit status."""
    try:
        status = run()
        if status == EXIT_INTERRUPTED and program != "wesep":
            typer.echo(f"{program}: interrupted", err=True)
        return status if isinstance(status, int) else 0
    except typer.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, typer.Abort) as stop:
        if isinstance(stop.__cause__, EOFError):  # which the parser of the command line takes for Ctrl-C
            typer.echo(f"{program}: {_TOO_EARLY.format(reason(stop.__cause__))}", err=True)
            return WesepError.exit_status
        typer.echo(f"{program}: interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except WesepError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        typer.echo(f"{program}: {' '.join(str(error).split())}", err=True)
        return error.exit_status
    except _usage_error() as error:
        if message := " ".join(error.format_message().split()):
            typer.echo(f"{program}: {message} (see {program} --help)", err=True)
        return error.exit_code
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        message = " ".join(str(error).split()) or "no message"
        typer.echo(f"{program}: {type(error).__name__}: {message} (--debug shows where)", err=True)
        return 1


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


for _name, (_panel, _line) in COMMANDS.items():
    _enter(_name, _panel, _line)

if __name__ == "__main__":
    sys.exit(main())
