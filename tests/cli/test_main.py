"""The command line: dispatch, exit statuses, one line per error."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from wesep_py import __version__
from wesep_py.audio.decoding import is_strict
from wesep_py.cli import main as cli
from wesep_py.common.errors import ConfigError, TargetAbsentError, WesepError


def install(monkeypatch: pytest.MonkeyPatch, command) -> None:
    """Replace the command `doctor` by a function."""
    module = ModuleType("wesep_py.cli.doctor")
    module.doctor = command
    monkeypatch.setitem(sys.modules, "wesep_py.cli.doctor", module)


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (WesepError("it broke"), 1, "wesep doctor: it broke"),
        (ConfigError("lr: is 'x';\n  a number is needed"), 2, "wesep doctor: lr: is 'x'; a number is needed"),
        (TargetAbsentError("alice is not there"), 3, "wesep doctor: alice is not there"),
        (RuntimeError("bad\nshape"), 1, "wesep doctor: RuntimeError: bad shape (--debug shows where)"),
        (PermissionError(13, "Permission denied", "a.wav"), 1, "wesep doctor: a.wav: Permission denied"),
        (WesepError("a\x1b[31m\ud800b"), 1, "wesep doctor: a?[31m?b"),
        (
            MemoryError(),
            1,
            "wesep doctor: there is not enough memory; close other programs, or give shorter or fewer files",
        ),
        (KeyboardInterrupt(), 130, "wesep doctor: interrupted"),
        (KeyboardInterrupt("3 of 5 are written"), 130, "wesep doctor: 3 of 5 are written"),
        (
            EOFError("no data"),
            1,
            "wesep doctor: an input ends too early (EOFError: no data); --debug shows where",
        ),
    ],
)
def test_an_error_gives_one_line_and_a_status(wesep, monkeypatch, error, status, message):
    install(monkeypatch, raising(error))
    ran = wesep("doctor")
    assert (ran.status, ran.message, ran.out) == (status, message, "")


@pytest.mark.parametrize(
    "error", [WesepError("x" * 20_000), RuntimeError("x" * 20_000), typer.BadParameter("x" * 20_000)]
)
def test_error_lines_have_a_limited_length(wesep, monkeypatch, error):
    install(monkeypatch, raising(error))
    assert len(wesep("doctor").message) < 1100
    assert len(wesep("y" * 20_000).message) < 1100


def test_end_of_file_in_a_command_group_is_not_an_interruption(wesep, monkeypatch):
    module = ModuleType("wesep_py.cli.doctor")
    module.app = typer.Typer()
    module.app.command("a")(raising(EOFError("no data")))
    module.app.command("b")(raising(KeyboardInterrupt()))
    monkeypatch.setitem(sys.modules, "wesep_py.cli.doctor", module)
    ran = wesep("doctor", "a")
    assert ran.status == 1 and "ends too early (EOFError: no data)" in ran.message
    assert wesep("doctor", "b").status == 130


@pytest.mark.parametrize("arguments", [["--strict", "doctor"], ["doctor", "--strict"]])
def test_strict_may_stand_before_or_after_the_command(wesep, monkeypatch, arguments):
    seen: list[bool] = []
    install(monkeypatch, lambda: seen.append(is_strict()))
    assert wesep(*arguments).status == wesep("doctor").status == 0
    assert seen == [True, False]


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX")
def test_a_name_that_is_not_utf8_can_be_printed():
    code = "import sys; from wesep_py.cli import main; print(main.main(['--version'])); print(sys.argv[1])"
    environment = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", code, b"caf\xe9.wav"], capture_output=True, env=environment)
    assert done.stdout.endswith(b"caf\\udce9.wav\n"), done


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_infinite_numbers_are_refused(wesep, monkeypatch, value: str):
    def command(block_s: float = typer.Option(1.0)) -> None:
        raise AssertionError

    install(monkeypatch, command)
    ran = wesep("doctor", "--block-s", value)
    assert ran.status == 2 and "--block-s: is" in ran.message and "a finite number is needed" in ran.message


def test_debug_may_stand_before_or_after_the_command(wesep, monkeypatch):
    install(monkeypatch, raising(WesepError("it broke")))
    for arguments in (["--debug", "doctor"], ["doctor", "--debug"]):
        ran = wesep(*arguments)
        assert ran.status == 1 and "Traceback" in ran.err and ran.err.endswith("wesep doctor: it broke\n")


def test_the_return_value_of_a_command_is_not_the_status(wesep, monkeypatch):
    install(monkeypatch, lambda: 7)
    assert wesep("doctor").status == 0


def test_a_command_can_set_the_exit_status(wesep, monkeypatch):
    install(monkeypatch, raising(typer.Exit(5)))
    assert wesep("doctor").status == 5


def test_arguments_reach_the_command_unchanged(wesep, monkeypatch):
    seen: list = []

    def command(words: list[str], output: str = typer.Option("", "-o")) -> None:
        seen.append((words, output))

    install(monkeypatch, command)
    assert wesep("doctor", "a", "-o", "out", "b=c", "--", "-v", "--", "d").status == 0
    assert seen == [(["a", "b=c", "-v", "--", "d"], "out")]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["extrct"], ["extrct", "Did you mean 'extract'", "wesep --help"]),
        (["--nonsense"], ["--nonsense"]),
        (["doctor", "--nonsense"], ["wesep doctor:", "--nonsense", "wesep doctor --help"]),
        (["extract"], ["wesep extract:", "MIXTURE"]),
        (["enroll"], ["wesep enroll:", "FILE"]),
    ],
)
def test_wrong_usage_gives_one_line_and_status_2(wesep, arguments, parts):
    ran = wesep(*arguments)
    assert ran.status == 2
    assert all(part in ran.message for part in parts), ran.message


def test_version_and_help(wesep):
    assert wesep("--version").out == f"wesep {__version__}\n"
    ran = wesep("--help")
    assert ran.status == 0
    assert all(name in ran.out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help_with_an_example(wesep, name):
    ran = wesep(name, "--help")
    assert ran.status == 0 and f"wesep {name}" in ran.out
    module = importlib.import_module(f"wesep_py.cli.{cli.COMMANDS[name][0]}")
    assert isinstance(getattr(module, "app", None), typer.Typer) or callable(getattr(module, name.replace("-", "_")))
    assert "Example" in ran.out


def test_a_command_runs_as_a_module():
    arguments = [sys.executable, "-m", "wesep_py.cli.extract", "missing.wav", "--enroll", "missing.wav"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("wesep extract: missing.wav: no such file") and done.stderr.count("\n") == 1


def test_the_application_object_gives_the_same_status():
    done = CliRunner().invoke(cli.app, ["extract", "missing.wav", "--enroll", "missing.wav"])
    assert done.exit_code == 2
