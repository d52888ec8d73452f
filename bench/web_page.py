"""Measure the static page of web/ in headless Chromium: bytes, times, and SI-SDR beside `wesep_py.runtime`.

    make web
    taskset -c 0,1 python bench/web_page.py --data ../shared/data

Prints what is downloaded, the time from opening the page in a fresh profile to the first result of a recording of 10 s,
the SI-SDR of the voices that are saved from the page and of those of Python for the same files, and the same for a
recording that the page makes of Chromium's fake microphone, which plays a mixture. The processor's load is printed too.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the browser is opened as by the tests

from tests.web.page_server import (  # noqa: E402
    FAKE_MICROPHONE,
    TIMEOUT_MS,
    choose_file,
    choose_files,
    download,
    extract,
    missing,
    open_browser,
    serve,
)
from wesep_py import audio, runtime  # noqa: E402
from wesep_py.data import read_trials  # noqa: E402
from wesep_py.export.benchmark import processor_name  # noqa: E402
from wesep_py.metrics.separation import si_sdr  # noqa: E402
from wesep_py.simulation.trial_audio import render_trial  # noqa: E402

RECORDING_S = 10.0
Samples = NDArray[np.float32]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "web" / "dist", help="the built page")
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "web_model", help="the exported model in it")
    parser.add_argument("--data", type=Path, required=True, help="folder with trials/dev_2mix.csv and its recordings")
    parser.add_argument("--limit", type=int, default=10, help="number of trials, evenly spread over the list")
    parser.add_argument("--runs", type=int, default=5, help="number of visits that are timed")
    options = parser.parse_args()
    if (reason := missing()) is not None:
        parser.error(reason)
    extractor = runtime.load(options.model, max_enrollment_s=10)
    trials = rendered_trials(options.data, options.limit, extractor.sample_rate)
    print(f"{processor_name()}, load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    sent: list[int] = []
    with tempfile.TemporaryDirectory() as temporary, serve(options.page, sent) as url:
        folder = Path(temporary)
        for number, trial in enumerate(trials):
            for name in ("mixture", "enrollment"):
                soundfile.write(folder / f"{name}{number}.wav", getattr(trial, name), extractor.sample_rate, "PCM_16")
        measure_size(options.page)
        measure_time(url, folder, extractor.sample_rate, options.runs, sent)
        measure_files(url, folder, trials, extractor)
        measure_microphone(url, folder, trials, extractor)


def rendered_trials(data: Path, limit: int, sample_rate: int) -> list[Any]:
    """Return mixtures of two voices with references and enrollments, evenly spread over the list `dev_2mix`."""
    lists = data / "trials"
    trials = read_trials(lists / "dev_2mix.csv", lists / "dev_2mix.map_mixture2enrollment", root=data)
    chosen = trials[:: max(1, len(trials) // limit)][:limit]
    return [render_trial(trial, "clean", sample_rate) for trial in chosen]


def measure_size(page: Path) -> None:
    """Print the bytes of the built page, as they are and compressed by a host, without and with the live mode."""
    files = [path for path in page.rglob("*") if path.is_file() and path.name not in ("README.md", "NOTICE.txt")]
    for label, skipped in (("page", "stream.onnx.gz"), ("page and live mode", None)):
        sizes = [
            (path.stat().st_size, min(path.stat().st_size, len(gzip.compress(path.read_bytes(), 9))))
            for path in files
            if path.name != skipped
        ]
        plain, compressed = (sum(column) / 1e6 for column in zip(*sizes, strict=True))
        print(f"{label}: {plain:.2f} MB as the files are, {compressed:.2f} MB where the host compresses")


def measure_time(url: str, folder: Path, sample_rate: int, runs: int, sent: list[int]) -> None:
    """Print seconds and bytes of visits: from opening the page to the result of a recording of 10 s."""
    mixture = soundfile.read(folder / "mixture0.wav", dtype="float32")[0]
    soundfile.write(folder / "ten.wav", np.resize(mixture, round(RECORDING_S * sample_rate)), sample_rate, "PCM_16")
    loading, total, received, processor = [], [], [], []
    for _ in range(runs):
        with open_browser() as browser:
            page = browser.new_page()
            sent.clear()
            began = time.monotonic()
            page.goto(url)
            page.wait_for_selector("#model.ready", timeout=TIMEOUT_MS)
            loading.append(time.monotonic() - began)
            choose_files(page, folder / "ten.wav", folder / "enrollment0.wav")
            extract(page)
            total.append(time.monotonic() - began)
            received.append(sum(sent))
            processor.append(processor_time_s(os.getpid()))
    for label, values in (("model loaded", loading), ("first result", total)):
        print(f"{label} after {np.median(values):.2f} s ({min(values):.2f} to {max(values):.2f}, {runs} visits)")
    print(f"processor time of all processes of the browser until then: {np.median(processor):.2f} s")
    print(f"received until then: {max(received) / 1e6:.2f} MB, as sent by a host that compresses nothing")


def processor_time_s(parent: int) -> float:
    """Return the processor time in seconds that the processes below another have used and that still run (Linux)."""
    fields = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:  # the process has ended
            continue
        values = text[text.rindex(")") + 2 :].split()  # after the name, which may hold anything
        fields[int(path.parent.name)] = int(values[1]), int(values[11]) + int(values[12])
    below, ticks, found = {parent}, 0, True
    while found:
        found = {pid for pid, (its_parent, _) in fields.items() if its_parent in below} - below
        below |= found
        ticks += sum(fields[pid][1] for pid in found)
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_files(url: str, folder: Path, trials: list[Any], extractor: runtime.RuntimeExtractor) -> None:
    """Print the SI-SDR of voices from the page and from Python."""
    scores = []
    with open_browser() as browser:
        page = browser.new_page()
        page.goto(url)
        for number, trial in enumerate(trials):
            paths = folder / f"mixture{number}.wav", folder / f"enrollment{number}.wav"
            choose_files(page, *paths)
            extract(page)
            found = soundfile.read(io.BytesIO(download(page, "Voice, wav")), dtype="float32")[0]
            expected = extractor.extract(paths[0], extractor.enroll(paths[1])).waveform[0]
            difference = float(np.abs(found - expected).max() / np.abs(expected).max())
            rows = (trial.mixture, found, expected)
            scores.append([*(float(si_sdr(row, trial.reference)) for row in rows), difference])
    mixture, found, expected, _ = np.mean(scores, axis=0)
    largest = np.abs(np.subtract(*np.transpose(scores)[1:3])).max()
    print(
        f"{len(trials)} files: SI-SDR {found:.3f} dB in the browser, {expected:.3f} dB in Python (mixture "
        f"{mixture:.3f} dB); largest difference of a trial {largest:.4f} dB, of samples {np.max(scores, axis=0)[3]:.1e}"
    )


def measure_microphone(url: str, folder: Path, trials: list[Any], extractor: runtime.RuntimeExtractor) -> None:
    """Print the SI-SDR of a voice in a recording that the page has made of a mixture."""
    trial, rate = trials[0], extractor.sample_rate
    capture = f"--use-file-for-fake-audio-capture={folder / 'mixture0.wav'}"
    with open_browser(*FAKE_MICROPHONE, capture) as browser:
        page = browser.new_context(permissions=["microphone"]).new_page()
        page.goto(url)
        page.wait_for_selector("#model.ready", timeout=TIMEOUT_MS)
        page.click('[data-source="mixture"] .record')
        seconds = 2 * len(trial.mixture) / rate + 1  # played again and again: once as a whole at least
        page.wait_for_timeout(1000 * seconds)
        page.click('[data-source="mixture"] .finish')
        choose_file(page, "enrollment", folder / "enrollment0.wav")
        page.wait_for_selector("#extract:enabled")
        extract(page)
        voice, recorded_rate = soundfile.read(io.BytesIO(download(page, "Voice, wav")), dtype="float32")
        heard = voice + soundfile.read(io.BytesIO(download(page, "Everything else")), dtype="float32")[0]
    recorded = heard
    voice, heard = (audio.resample(samples, recorded_rate, rate) for samples in (voice, heard))
    start = int(np.correlate(heard, trial.mixture, mode="valid").argmax())
    voice, heard = (samples[start : start + len(trial.mixture)] for samples in (voice, heard))
    # The same recording in Python, whole; 16 bits, since it is the sum of what was saved.
    again = extractor.extract((recorded, recorded_rate), extractor.enroll(folder / "enrollment0.wav")).waveform
    again = audio.resample(again, recorded_rate, rate)[start : start + len(trial.mixture)]
    print(
        f"microphone: SI-SDR {float(si_sdr(voice, trial.reference)):.2f} dB of the voice in the recording, "
        f"{float(si_sdr(again, trial.reference)):.2f} dB in Python from the same recording; mixture "
        f"{float(si_sdr(trial.mixture, trial.reference)):.2f} dB; recording against the file that was played "
        f"{float(si_sdr(heard, trial.mixture)):.1f} dB"
    )


if __name__ == "__main__":
    main()
