"""The page in Chromium: by pointer, by keyboard, on a phone, in the dark, with a microphone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from tests.export.chromium import chromium
from tests.ui.conftest import Talk
from tests.ui.page_driver import (
    TIMEOUT_MS,
    aligned,
    chromium_with_microphone,
    download,
    extract,
    give,
    give_enrollment,
    give_mixture,
    mark,
    record_mixture,
)
from wesep_py import audio
from wesep_py.inference import load
from wesep_py.metrics import si_sdr

pytest.importorskip("gradio")
pytest.importorskip("playwright.sync_api")

if TYPE_CHECKING:
    from wesep_py.ui import PageServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
]
PHONE = {"width": 390, "height": 844}
NEW_RESULTS = "#results .ws-results"


@pytest.fixture(scope="module")
def browser(talk: Talk) -> Iterator[Any]:
    """Chromium, whose microphone repeats the mixture of `talk`."""
    with chromium_with_microphone(talk.mixture) as opened:
        yield opened


@pytest.fixture
def open_page(browser: Any, server: PageServer) -> Iterator[Callable[..., Any]]:
    """Open the page in a context of its own; at the end, nothing may have been asked of another host."""
    contexts: list[Any] = []
    addresses: list[str] = []
    errors: list[str] = []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: addresses.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#extract")
        return page

    yield opened
    for context in contexts:
        context.close()
    own = (server.url, server.url.replace("http", "ws"), "blob:", "data:")
    assert [address for address in addresses if not address.startswith(own)] == []
    assert errors == []


def marked(page: Any) -> list[float]:
    return [float(number.input_value()) for number in page.locator("#wave .ws-number").all()]


def is_scrolled_sideways(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_upload_extract_listen_and_download(open_page, talk: Talk, tmp_path: Path):
    page = open_page()
    give_mixture(page, talk.mixture)
    assert page.locator("#mixture-status").inner_text() == "anna_bert.wav: 0:04, 16000 Hz, mono"
    give_enrollment(page, talk.enrollments["anna"])
    page.get_by_label("Name").fill("Anna")
    extract(page)
    assert "is there: probability 0.9" in page.locator("#results .ws-badge").inner_text()
    players = page.locator("#results audio")
    assert players.count() == 3
    for k, title in enumerate(("Mixture", "Voice: Anna", "Residual")):
        assert players.nth(k).get_attribute("aria-label") == title
        players.nth(k).evaluate("async (audio) => { audio.muted = true; await audio.play(); }")
        page.wait_for_function("(audio) => audio.currentTime > 0.2", arg=players.nth(k).element_handle())
        assert players.nth(k).evaluate("(audio) => audio.duration") == pytest.approx(4.0, abs=0.05)
    assert players.nth(0).evaluate("(audio) => audio.paused"), "one plays at a time"
    pictures = page.locator("#results .ws-spectrogram img")
    assert pictures.evaluate_all("(all) => all.every((one) => one.naturalWidth > 200)") and pictures.count() == 3
    pictures.nth(1).click(position={"x": 1, "y": 20})
    assert players.nth(1).evaluate("(audio) => audio.currentTime") < 0.2, "a click on the spectrogram seeks"
    assert page.locator("#results .ws-segment").count() >= 1
    mixture = audio.read(talk.mixture)[0][0]
    voice, rate = download(page, "Voice", tmp_path)
    residual, _ = download(page, "Residual", tmp_path)
    assert rate == SAMPLE_RATE
    np.testing.assert_array_equal(voice + residual, mixture)
    assert si_sdr(voice, talk.references["anna"]) > si_sdr(mixture, talk.references["anna"]) + 6
    with page.expect_download() as timeline:
        page.locator("#results").get_by_role("link", name="RTTM").click()
    assert timeline.value.suggested_filename == "anna_bert_timeline.rttm"


def test_a_segment_is_marked_played_and_extracted(open_page, talk: Talk, tmp_path: Path):
    joined = np.concatenate([audio.read(talk.enrollments["bert"])[0], audio.read(talk.mixture)[0]], axis=1)
    path = tmp_path / "meeting.wav"
    audio.write(path, joined, SAMPLE_RATE, "PCM_16")
    page = open_page()
    give_mixture(page, path)
    page.get_by_label("a segment of the mixture").check()
    mark(page, 1 / 16, 7 / 16)
    assert marked(page) == pytest.approx([0.5, 3.5], abs=0.02)
    player = page.locator("#wave audio")
    page.get_by_role("button", name="Play segment").click()
    page.wait_for_function("(audio) => audio.currentTime > 1", arg=player.element_handle())
    page.wait_for_function("(audio) => audio.paused", arg=player.element_handle())
    assert player.evaluate("(audio) => audio.currentTime") == pytest.approx(3.5, abs=0.6)
    extract(page)
    voice, _ = download(page, "Voice", tmp_path)
    start, end = marked(page)
    extractor = load(device="cpu")
    expected = extractor.extract(path, extractor.enroll(f"{path}@{start}-{end}")).waveform[0]
    np.testing.assert_allclose(voice, expected, atol=2**-15)
    page.locator(".ws-handle[data-edge=end]").press("ArrowRight")
    assert marked(page) == pytest.approx([start, end + 0.1], abs=0.011)
    page.get_by_role("button", name="zoom in").click()
    assert page.locator(".ws-wave-right").inner_text() != "0:08" and page.locator(".ws-wave-scroll").is_visible()
    page.locator("#wave .ws-clear").click()
    assert marked(page) == [0, 0]


def test_several_voices_by_name(open_page, talk: Talk, tmp_path: Path):
    page = open_page()
    give_mixture(page, talk.mixture)
    page.get_by_label("Name").fill("Anna")
    give_enrollment(page, talk.enrollments["anna"])
    page.locator("#add-voice").click()
    page.wait_for_selector("#voices >> text=Anna")
    assert page.locator("#voice-players audio").count() == 1
    page.get_by_label("Name").fill("Bert")
    give_enrollment(page, talk.enrollments["bert"])
    extract(page)
    assert page.locator("#results h3").all_inner_texts()[0].startswith("Anna")
    assert page.locator("#results section").count() == 2 and page.locator("#results audio").count() == 6


def test_errors_are_lines_on_the_page(open_page, talk: Talk, tmp_path: Path):
    page = open_page()
    page.locator("#extract").click()
    page.wait_for_selector("#status [role=alert]")
    assert page.locator("#status").inner_text().startswith("no mixture is here; drop or record one")
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear Alice")
    give(page, "#mixture-file", letter)
    page.wait_for_selector("#mixture-status [role=alert]")
    assert page.locator("#mixture-status").inner_text().startswith("letter.wav: ")
    give_mixture(page, talk.mixture)
    page.locator("#extract").click()
    page.wait_for_selector("#status >> text=no voice was given; record or drop some seconds of it")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_only(open_page, talk: Talk, scheme: str):
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    assert not is_scrolled_sideways(page)
    give_mixture(page, talk.mixture)
    page.get_by_label("a segment of the mixture").check()
    page.locator("#suggest").wait_for()
    assert not is_scrolled_sideways(page)
    page.get_by_label("a recording of it").check()
    give_enrollment(page, talk.enrollments["anna"])
    page.get_by_label("Name").fill("A long name of a person, to be broken into several lines")
    extract(page)
    assert not is_scrolled_sideways(page)
    widths = page.locator("#results .ws-panel").evaluate_all("(all) => all.map((one) => one.clientWidth)")
    assert len(widths) == 3 and min(widths) > 300, "one below the other"
    small = "(all) => all.filter((one) => one.offsetParent && one.clientHeight < 24).length"
    assert page.locator("#results a, #wave button:not(.ws-handle), #extract").evaluate_all(small) == 0
    page.get_by_role("tab", name="Live").click()
    page.locator("#live-stream .ws-start").wait_for()
    assert not is_scrolled_sideways(page)


def test_texts_are_readable_in_light_and_dark(open_page, talk: Talk):
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        give_mixture(page, talk.mixture)
        give_enrollment(page, talk.enrollments["anna"])
        extract(page)
        for selector in ("#mixture-status p", "#results .ws-soft", "#results .ws-badge", "#results .ws-download"):
            ratio = page.locator(selector).first.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{scheme}: {selector}"


# Contrast of text to what is behind it (WCAG 2.1, "contrast ratio").
CONTRAST = """(element) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  let behind = element;
  while (behind.parentElement && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
  const pair = [light(rgba(getComputedStyle(element).color)), light(rgba(getComputedStyle(behind).backgroundColor))];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


NOTE_FILE_DIALOG = """document.querySelector("#mixture-file input[type=file]").addEventListener("click", (event) => {
  event.preventDefault();
  window.asksForFile = true;
})"""


def tab_to(page: Any, selector: str, most: int = 80) -> None:
    """Press Tab until an element has the focus, which must be visible there."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_everything_is_reached_by_keyboard(open_page, talk: Talk, tmp_path: Path):
    joined = np.concatenate([audio.read(talk.enrollments["anna"])[0], audio.read(talk.mixture)[0]], axis=1)
    path = tmp_path / "meeting.wav"
    audio.write(path, joined, SAMPLE_RATE, "PCM_16")
    page = open_page()
    page.evaluate(NOTE_FILE_DIALOG)
    tab_to(page, "#mixture-file button")
    page.keyboard.press("Enter")
    page.wait_for_function("window.asksForFile")
    give_mixture(page, path)
    tab_to(page, ".ws-number[data-edge=start]")
    page.keyboard.type("0.5")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("3.5")
    page.keyboard.press("Tab")
    assert marked(page) == [0.5, 3.5]
    tab_to(page, "#voice-name textarea, #voice-name input")
    page.keyboard.press("Control+A")
    page.keyboard.type("Anna")
    tab_to(page, "#voice-source input[value='a segment of the mixture']")
    page.keyboard.press("Space")
    page.locator("#suggest").wait_for()
    tab_to(page, "#extract")
    page.keyboard.press("Enter")
    page.wait_for_selector(NEW_RESULTS)
    assert "is there" in page.locator("#results .ws-badge").inner_text()
    tab_to(page, "#results a[download='meeting_Anna.wav']")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    with page.expect_download() as begun:
        page.keyboard.press("Enter")
    assert begun.value.suggested_filename == "meeting_Anna.wav"


def test_what_the_microphone_records_is_extracted(open_page, talk: Talk, tmp_path: Path):
    page = open_page()
    record_mixture(page, 11)  # the microphone repeats 4 s
    assert page.locator("#mixture-status").inner_text().startswith("recording.wav: 0:")
    give_enrollment(page, talk.enrollments["anna"])
    extract(page)
    voice, rate = download(page, "Voice", tmp_path)
    residual, _ = download(page, "Residual", tmp_path)
    mixture, reference = audio.read(talk.mixture)[0][0], talk.references["anna"]
    part, estimate = aligned(voice + residual, voice, rate, mixture, SAMPLE_RATE)
    assert si_sdr(part, mixture) > 20, "the recording is what was played, without the processing of the browser"
    assert si_sdr(estimate, reference) > si_sdr(part, reference) + 6


def test_the_live_tab_streams_the_microphone(open_page, talk: Talk, server: PageServer):
    page = open_page()
    page.get_by_role("tab", name="Live").click()
    start = page.locator("#live-stream .ws-start")
    assert start.is_disabled()
    give_enrollment(page, talk.enrollments["anna"], "#live-enrollment")
    page.wait_for_selector("#live-status >> text=enrolled 4.0 s")
    page.wait_for_selector("#live-stream .ws-start:enabled")
    start.click()
    page.wait_for_selector("#live-stream .ws-live-line >> text=/[1-9][0-9]* s, model 3[0-9] ms/")
    page.wait_for_function("document.querySelector('.ws-in-level').value > 0.2")
    page.wait_for_timeout(10_000)  # the microphone repeats 4 s: 8 s and more hold them whole
    page.locator("#live-stream .ws-end").click()
    page.wait_for_selector("#live-results .ws-results")
    assert page.locator("#live-results audio").count() == 2
    assert page.locator(".ws-live-line").inner_text() == "Ended."
    folder = max(server.sessions.folder.glob("*/live"), key=lambda path: path.stat().st_mtime)
    (microphone, rate), (voice, _) = (audio.read(folder / name) for name in ("microphone.wav", "voice.wav"))
    assert microphone.shape == voice.shape and microphone.shape[1] > 5 * rate
    mixture, reference = audio.read(talk.mixture)[0][0], talk.references["anna"]
    part, estimate = aligned(microphone[0], voice[0], rate, mixture, SAMPLE_RATE)
    assert si_sdr(part, mixture) > 20
    assert si_sdr(estimate, reference) > si_sdr(part, reference) + 4


def test_a_long_extraction_is_stopped_and_continued(open_page, tmp_path: Path, talk: Talk):
    path = tmp_path / "long.wav"
    voice = make_voice(*VOICES["anna"], 20.0, 3)
    audio.write(path, np.tile(voice, 6), SAMPLE_RATE, "PCM_16")
    page = open_page()
    give_mixture(page, path)
    give_enrollment(page, talk.enrollments["anna"])
    page.locator("#extract").click()
    page.wait_for_selector("#status progress[value]")
    page.locator("#stop").click()
    page.wait_for_selector("#status >> text=stopped; Extract again continues where it stopped")
    assert page.locator("#extract").is_enabled() and not page.locator("#stop").is_visible()
    extract(page)
    assert page.locator("#results .ws-axis").first.inner_text().endswith("2:00")


def test_too_large_an_upload_is_an_error_on_the_page(open_page, tmp_path: Path, talk: Talk):
    path = tmp_path / "large.wav"
    audio.write(path, np.zeros(5_000_000, np.float32), SAMPLE_RATE, "PCM_16")
    page = open_page()
    give(page, "#mixture-file", path)
    page.wait_for_selector("text=/exceed the maximum allowed size/")
    give_mixture(page, talk.mixture)


def test_closing_the_page_deletes_its_files(open_page, talk: Talk, server: PageServer):
    before = set(server.sessions.folder.iterdir())
    page = open_page()
    give_mixture(page, talk.mixture)
    (own,) = set(server.sessions.folder.iterdir()) - before
    page.close()
    until = time.monotonic() + 30
    while own.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not own.exists()
