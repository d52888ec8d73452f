"""`wesep stream` in real pipes: bytes in, bytes out; ends, signals, and bad input."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.inference.networks import BSRNN, noise
from wesep_py.cli.main import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked")


@pytest.fixture(scope="module")
def live_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    backbone = {**BSRNN, "live": True, "norm": "frame"}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "live_presence": {}})
    return checkpoint.save(tmp_path_factory.mktemp("live") / "model", network.config, network.state_dict())


class Forked:
    """A command in a forked process, so that nothing is imported again, with pipes at its three streams."""

    def __init__(self, *arguments: object) -> None:
        pipes = [os.pipe() for _ in range(3)]
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                for number, end in enumerate((pipes[0][0], pipes[1][1], pipes[2][1])):
                    os.dup2(end, number)
                os.closerange(3, 1000)
                sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
                status = main([str(argument) for argument in arguments])
                sys.stderr.flush()
            finally:
                os._exit(status)
        for end in (pipes[0][0], pipes[1][1], pipes[2][1]):
            os.close(end)
        self.feed, self.drain = pipes[0][1], pipes[1][0]
        self._errors = os.fdopen(pipes[2][0])

    def read(self, size: int) -> bytes:
        """Read that number of bytes, or up to the end."""
        parts = []
        while size and (part := os.read(self.drain, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def end(self) -> tuple[int, list[str]]:
        """Return the exit status, and the lines on stderr."""
        lines = self._errors.read().splitlines()
        self._errors.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), lines


@pytest.fixture(scope="module")
def enrollment(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that is long enough for no warning."""
    path = tmp_path_factory.mktemp("enrollment") / "anna.wav"
    takes = [soundfile.read(tiny_speech / "anna" / f"anna-{number}.wav")[0] for number in range(4)]
    soundfile.write(path, np.concatenate(takes), 16000)
    return path


@pytest.fixture
def stream(live_model: Path, enrollment: Path) -> Iterator:
    """Start `wesep stream` with further arguments."""
    started: list[Forked] = []

    def start(*arguments: object) -> Forked:
        forked = Forked("stream", "--enroll", enrollment, "--model", live_model, "--device", "cpu", *arguments)
        started.append(forked)
        return forked

    yield start
    for forked in started:
        for descriptor in (forked.feed, forked.drain):
            try:
                os.close(descriptor)
            except OSError:
                continue


def through(forked: Forked, data: bytes) -> tuple[bytes, int, list[str]]:
    """Feed all bytes; return what comes out, the exit status and the lines on stderr."""

    def feed() -> None:
        with os.fdopen(forked.feed, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    output = forked.read(1 << 30)
    thread.join()
    return output, *forked.end()


def test_the_voice_in_a_pipe_equals_that_of_the_recording(stream, live_model: Path, enrollment: Path):
    import wesep_py

    mixture = noise(12345)
    output, status, lines = through(stream("--format", "f32le"), mixture.astype("<f4").tobytes())
    assert (status, lines) == (0, [])
    extractor = wesep_py.load(live_model, device="cpu", live=True)
    expected = extractor.extract((mixture[0], 16000), extractor.enroll(enrollment)).waveform
    np.testing.assert_allclose(np.frombuffer(output, "<f4"), expected, atol=1e-5)


def test_sixteen_bits_two_channels_another_rate_and_half_a_frame(stream):
    data = np.rint(3000 * noise(24000, 2).T).astype("<i2").tobytes()
    output, status, lines = through(stream("--rate", 48000, "--channels", 2), data + b"abc")
    assert len(output) == len(data) and status == 0
    assert lines == [
        "warning: the input ended inside a frame: 3 of 4 bytes, which were left out; check --format and --channels"
    ]


def test_what_is_finished_comes_out_before_the_input_ends(stream, tmp_path: Path):
    forked = stream("--presence", tmp_path / "presence.jsonl")
    os.write(forked.feed, bytes(2 * 3200))
    # All but the 32 ms of the model's window are there while the pipe is open.
    assert len(forked.read(2 * (3200 - 512))) == 2 * (3200 - 512)
    rows = [json.loads(line) for line in (tmp_path / "presence.jsonl").read_text().splitlines()]
    os.close(forked.feed)
    assert len(forked.read(1 << 20)) == 2 * 512
    assert forked.end() == (0, [])
    assert [row["time_s"] for row in rows] == [0.1] or [row["time_s"] for row in rows] == [0.1, 0.2]
    assert all(0 <= row["presence"] <= 1 for row in rows)


def test_nan_is_counted_and_a_reader_that_leaves_is_no_error(stream):
    samples = noise(16000)[0].astype("<f4")
    samples[:300] = np.nan
    forked = stream("--format", "f32le")
    os.write(forked.feed, samples[:8000].tobytes())
    assert np.isfinite(np.frombuffer(forked.read(4000), "<f4")).all()
    os.close(forked.drain)
    os.write(forked.feed, samples[8000:].tobytes())
    status, lines = forked.end()
    assert (status, lines) == (0, ["warning: 300 samples were NaN or infinite and became 0"])


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_one_line(stream, number: int, expected: int):
    forked = stream()
    os.write(forked.feed, bytes(2 * 1600))
    forked.read(2 * (1600 - 512))
    os.kill(forked.pid, number)
    status, lines = forked.end()
    assert (status, lines) == (expected, ["wesep stream: stopped after 0.1 s"])


def test_what_came_while_loading_can_be_left_out(stream):
    forked = stream("--skip-backlog")
    os.write(forked.feed, bytes(2 * 800))
    time.sleep(0.05)
    line = forked._errors.readline()
    assert line.startswith("skipped 0.") and line.endswith(" s that arrived while the model was loading\n")
    os.write(forked.feed, bytes(2 * 1000))
    os.close(forked.feed)
    assert len(forked.read(1 << 20)) in (2 * 1000, 2 * 1800)


# Bad input, in this process.


class Standard(io.StringIO):
    """A stream with a descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor


@pytest.fixture
def piped(wesep, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Run `wesep stream` with stdin connected to a pipe that has ended, and stdout to the null device."""
    source, feed = os.pipe()
    os.close(feed)
    with Path(os.devnull).open("wb") as nowhere:

        def run(*arguments: object, stdin: object = Standard(source)):
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdin", stdin)
                patch.setattr(sys, "stdout", Standard(nowhere.fileno()))
                return wesep("stream", *arguments)

        yield run
    os.close(source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no enrollment was given"),
        (["--enroll", "a=ENROLLMENT", "--enroll", "b=ENROLLMENT"], "--enroll names 2 voices (a, b); one is possible"),
        (["--enroll", "ENROLLMENT", "--format", "mp3"], "the sample format is 'mp3'"),
        (["--enroll", "ENROLLMENT", "--presence", "-"], "--presence -: stdout carries the voice; name a file"),
        (["--enroll", "ENROLLMENT", "--presence", "ENROLLMENT", "--overwrite"], "is an enrollment, which is read"),
        (["--enroll", "ENROLLMENT", "--presence", "OLD"], "old.jsonl: exists already"),
        (["--enroll", "ENROLLMENT", "--model", "OFFLINE"], "backbone 'bsrnn' looks ahead; a model trained with"),
        (["--enroll", "missing.wav"], "missing.wav: no such file"),
        (["--enroll", "ENROLLMENT", "--rate", "10"], "Invalid value for '--rate'"),
    ],
)
def test_bad_input_is_one_line(
    piped, arguments: list[str], message: str, enrollment: Path, tiny_model: Path, tmp_path: Path
):
    (tmp_path / "old.jsonl").write_text("mine")
    words = {"ENROLLMENT": str(enrollment), "OFFLINE": str(tiny_model), "OLD": str(tmp_path / "old.jsonl")}
    for word, value in words.items():
        arguments = [argument.replace(word, value) for argument in arguments]
    ran = piped(*arguments)
    assert (ran.status, message in ran.message) == (2, True), ran.err
    assert (tmp_path / "old.jsonl").read_text() == "mine"


def test_a_model_without_presence_says_so(piped, enrollment: Path, tmp_path: Path):
    import torch

    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    network = build_network({"backbone": {**BSRNN, "causal": True}, "cues": [{"name": "tf_map"}], "normalise": "none"})
    model = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    ran = piped("--enroll", enrollment, "--model", model, "--presence", tmp_path / "p.jsonl")
    assert ran.status == 2 and "has no presence head for live use; leave the option out" in ran.message
    assert not (tmp_path / "p.jsonl").exists()


def test_stdin_closed_or_a_terminal_is_one_line(piped, enrollment: Path):
    other_end, terminal = os.openpty()
    ran = piped("--enroll", enrollment, stdin=Standard(terminal))
    assert ran.status == 2 and "stdin is a terminal; connect it to a pipe" in ran.message
    os.close(other_end)
    os.close(terminal)
    assert "stdin is closed" in piped("--enroll", enrollment, stdin=Standard(terminal)).message
    assert "stdin is closed" in piped("--enroll", enrollment, stdin=None).message


def test_a_voice_print_is_an_enrollment(live_model: Path, wesep, enrollment: Path, tmp_path: Path):
    assert wesep("enroll", enrollment, "-o", tmp_path / "a.voice", "--model", live_model).status == 0
    output, status, lines = through(
        Forked("stream", "--enroll", tmp_path / "a.voice", "--model", live_model), bytes(2000)
    )
    assert (len(output), status, lines) == (2000, 0, [])


@pytest.fixture(scope="module")
def exported_model(live_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    import wesep_py
    from wesep_py.export import export

    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(wesep_py.load(live_model, device="cpu"), folder, stream=True)
    return folder


def test_an_exported_folder_streams_as_its_model(exported_model: Path, live_model: Path, enrollment: Path, tmp_path):
    import wesep_py

    mixture = noise(12345)
    extractor = wesep_py.load(live_model, device="cpu", live=True)
    voice = extractor.enroll(enrollment)
    voice.save(tmp_path / "anna.voice")
    expected = extractor.extract((mixture[0], 16000), voice).waveform
    presence = tmp_path / "presence.jsonl"
    for arguments in ((enrollment, "--presence", presence), (tmp_path / "anna.voice", "--threads", 1)):
        forked = Forked("stream", "--model", exported_model, "--format", "f32le", "--enroll", *arguments)
        output, status, lines = through(forked, mixture.astype("<f4").tobytes())
        os.close(forked.drain)
        assert (status, lines) == (0, [])
        np.testing.assert_allclose(np.frombuffer(output, "<f4"), expected, atol=1e-4)
    assert len(presence.read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "an exported model runs on the CPU; leave the option out"),
        (["--threads", 99999], "are allowed on this machine"),
    ],
)
def test_options_that_an_exported_folder_does_not_take(piped, exported_model, enrollment, arguments, message):
    ran = piped("--enroll", enrollment, "--model", exported_model, *arguments)
    assert (ran.status, message in ran.message) == (2, True), ran.err


def test_an_exported_folder_without_a_stream_says_how_to_get_one(piped, live_model, enrollment, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    import wesep_py
    from wesep_py.export import export

    export(wesep_py.load(live_model, device="cpu"), tmp_path / "offline")
    ran = piped("--enroll", enrollment, "--model", tmp_path / "offline")
    assert ran.status == 2 and "export the model again with `wesep export --stream`" in ran.message
