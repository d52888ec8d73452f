"""Drive the page of `wesep ui` in Chromium through Playwright, as a visitor would: for tests, pictures and figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.export.chromium import chromium
from wesep_py import audio

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"]
TIMEOUT_MS = 90_000


@contextmanager
def chromium_with_microphone(recording: Path) -> Iterator[Any]:
    """Run Chromium with a microphone that repeats a recording (wav, 16 bits)."""
    from playwright.sync_api import sync_playwright

    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    microphone.append(f"--use-file-for-fake-audio-capture={recording}")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=[*OPTIONS, *microphone])
        yield opened
        opened.close()


def give(page: Any, place: str, path: Path) -> None:
    """Give a file to the component at a selector."""
    page.locator(f"{place} input[type=file]").set_input_files(path)


def give_mixture(page: Any, path: Path) -> None:
    """Give a file as the mixture, and wait for its waveform."""
    give(page, "#mixture-file", path)
    page.wait_for_selector(".ws-wave:not([hidden])")
    page.wait_for_function(
        "(name) => document.querySelector('#mixture-status').innerText.startsWith(name)", arg=path.name
    )


def record_mixture(page: Any, duration_s: float) -> None:
    """Record the microphone as the mixture, and wait for its waveform."""
    recorder = page.locator("#mixture-microphone")
    recorder.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1000 * duration_s)
    recorder.locator(".stop-button").click()
    page.wait_for_selector("#mixture-status >> text=recording.wav")


def give_enrollment(page: Any, path: Path, place: str = "#enrollment") -> None:
    """Give a file as the enrollment, and wait for its player."""
    give(page, place, path)
    page.wait_for_selector(f"{place} .timestamps")


def mark(page: Any, start: float, end: float) -> None:
    """Mark a part of the waveform with the pointer; `start` and `end` are shares of its width."""
    page.locator(".ws-wave-box").scroll_into_view_if_needed()
    place = page.locator(".ws-wave-box").bounding_box()
    page.mouse.move(place["x"] + place["width"] * start, place["y"] + 40)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * end, place["y"] + 60, steps=6)
    page.mouse.up()


def extract(page: Any) -> None:
    """Click Extract, and wait for the results."""
    page.locator("#extract").click()
    page.wait_for_selector("#results .ws-results")


def download(page: Any, label: str, folder: Path) -> tuple[np.ndarray, int]:
    """Click a link of the results; return the waveform of what is downloaded, and its sample rate."""
    with page.expect_download() as begun:
        page.locator("#results").get_by_role("link", name=label, exact=True).click()
    path = folder / begun.value.suggested_filename
    begun.value.save_as(path)
    waveform, rate = audio.read(path)
    return waveform[0], rate


def aligned(recorded: Any, voice: Any, rate: int, mixture: Any, mixture_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a recording that holds the mixture, which is repeated in it, and the same part of the voice.

    Args:
        recorded, voice: `[samples]` at `rate` Hz.
        mixture: `[samples]` at `mixture_rate` Hz, to whose length and rate both are brought.
    """
    fine = 12 * mixture_rate  # so that less than a sample of the mixture is left between the two
    recorded, voice, played = (
        audio.resample(np.asarray(w)[None], r, fine)[0]
        for w, r in ((recorded, rate), (voice, rate), (mixture, mixture_rate))
    )
    size = len(recorded) + len(played)
    product = np.fft.irfft(np.fft.rfft(recorded, size) * np.conj(np.fft.rfft(played, size)), size)
    lag = int(product[: len(recorded) - len(played)].argmax())
    parts = (audio.resample(w[None, lag : lag + len(played)], fine, mixture_rate)[0] for w in (recorded, voice))
    part, estimate = parts
    return part, estimate
