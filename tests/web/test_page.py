"""The page in headless Chromium: what a person does, and that the results are those of `wesep_py.runtime`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from tests.web.page_server import (
    FAKE_MICROPHONE,
    TIMEOUT_MS,
    build_page,
    choose_file,
    choose_files,
    download,
    extract,
    extract_in_worker,
    missing,
    open_browser,
    serve,
    wait_until,
)
from wesep_py import audio, runtime
from wesep_py.inference.inputs_outputs.timeline import as_csv, as_srt, timeline_from_energies, timeline_from_presence

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
TOLERANCE = 1e-3
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser(recordings: Path) -> Iterator[Any]:
    """Chromium, whose microphone plays the mixture again and again."""
    with open_browser(*FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={recordings / 'mixture.wav'}") as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """`open_page()`: the page in a fresh profile, once the model is loaded; its errors fail the test."""
    contexts, problems = [], []

    def open_(url: str = address, wait: bool = True, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, "permissions": ["microphone"], **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        if wait:
            page.wait_for_selector("#model.ready", timeout=TIMEOUT_MS)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture(scope="module")
def shared_page(browser: Any, address: str) -> Iterator[Any]:
    """The page, loaded once: compiling the WebAssembly takes longer than most tests."""
    context = browser.new_context(viewport=DESKTOP, permissions=["microphone"])
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#model.ready", timeout=TIMEOUT_MS)
    yield page
    context.close()
    assert not problems


@pytest.fixture
def page(shared_page: Any) -> Any:
    """The page of other tests before, whose recordings are replaced by those that a test chooses."""
    shared_page.check('[value="file"]', force=True)
    return shared_page


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


def in_python(model: Path, mixture: Any, enrollment: Any) -> Any:
    """Return the result of the runtime in Python."""
    extractor = runtime.load(model, max_enrollment_s=10.0)
    return extractor.extract(mixture, extractor.enroll(enrollment))


def segments_of(result: Any, duration_s: float) -> Any:
    """Return the segments in which the voice speaks, as `wesep extract --timeline` does."""
    assert result.detection.is_present
    return timeline_from_presence("voice", result.detection.track, result.detection.frame_s, duration_s).segments


def samples_of(content: bytes) -> np.ndarray:
    """Return the samples of a wav file."""
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


# Extraction from files.


def test_chosen_files_give_the_result_of_python(page: Any, exported_model: Callable[[str], Path], recordings: Path):
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    extract(page)
    expected = in_python(exported_model("base"), recordings / "mixture.wav", recordings / "enrollment.wav")
    voice, residual = samples_of(download(page, "Voice, wav")), samples_of(download(page, "Everything else"))
    assert relative_difference(voice, expected.waveform[0]) <= TOLERANCE
    mixture = audio.read(recordings / "mixture.wav")[0][0]
    assert np.abs(voice + residual - mixture).max() <= 1 / 32768  # Chromium's own rounding of 16 bits
    text = page.inner_text("#presence")
    assert f"probability {100 * expected.presence:.0f} %; at least 20 %" in text
    segments = [("voice", segment) for segment in segments_of(expected, 6.0)]
    assert len(segments) >= 1
    assert download(page, "Timeline, csv").decode() == as_csv(segments)
    assert download(page, "Timeline, srt").decode() == as_srt(segments)
    assert page.locator("#segments button").count() == len(segments)


CASES = {
    "stereo": ("base", 48000, 2, 4.0),
    "one channel is silent": ("base", 16000, 2, 3.0),
    "long": ("base", 16000, 1, 33.0),
    "no presence head": ("plain", 16000, 1, 31.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_worker_gives_the_result_of_python(
    open_page: Callable[..., Any], exported_model: Callable[[str], Path], tmp_path: Path, name: str
):
    model, rate, num_channels, duration_s = CASES[name]
    rows = [make_voice(*VOICES[voice], duration_s, seed=channel) for channel, voice in enumerate(("anna", "bert"))]
    rows = [rows[0] + rows[1], rows[0] - 0.5 * rows[1]][:num_channels]
    if name == "one channel is silent":
        rows[1][:] = 0.0
    mixture = audio.resample(np.stack(rows) / 2, SAMPLE_RATE, rate)
    enrollment = make_voice(*VOICES["anna"], 14.0 if name == "long" else 2.0, seed=9)[None]
    expected = in_python(exported_model(model), (mixture, rate), (enrollment, SAMPLE_RATE))
    with serve(build_page(exported_model(model), tmp_path / "dist")) as url:
        found = extract_in_worker(open_page(url), (mixture, rate), (enrollment, SAMPLE_RATE))
    assert relative_difference(found["channels"], expected.waveform) <= TOLERANCE
    if model == "base":
        assert found["presence"]["probability"] == pytest.approx(expected.presence, abs=TOLERANCE)
        np.testing.assert_allclose(found["presence"]["track"], expected.detection.track, atol=TOLERANCE)
        segments = segments_of(expected, duration_s)
    else:
        from wesep_py.features.array_high_pass import ArrayHighPass
        from wesep_py.inference.inputs_outputs.timeline import frame_energies

        assert found["presence"] is None
        energies = [frame_energies(ArrayHighPass(rate, 40.0)(x), 320) for x in (expected.waveform, mixture)]
        segments = timeline_from_energies("voice", *energies, 0.02, duration_s).segments
    assert [round(s["startS"], 3) for s in found["segments"]] == [round(s.start_s, 3) for s in segments]


def test_nothing_leaves_the_browser(page: Any, address: str, recordings: Path):
    requests = []
    page.context.on("request", lambda request: requests.append((request.method, request.url)))
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    extract(page)
    assert [request for request in requests if not request[1].startswith("blob:")] == []


def test_a_dropped_file_is_taken(page: Any, recordings: Path):
    page.evaluate(
        """([bytes, selector]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], "dropped.wav"));
          const place = document.querySelector(selector);
          place.dispatchEvent(new DragEvent("dragover", { bubbles: true, dataTransfer: data, cancelable: true }));
          place.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: data, cancelable: true }));
        }""",
        [list((recordings / "enrollment.wav").read_bytes()), '[data-source="mixture"] .drop'],
    )
    page.wait_for_selector('[data-source="mixture"] .loaded:visible')
    assert "dropped.wav" in page.inner_text('[data-source="mixture"]')
    assert "/ 0:03.0" in page.inner_text('[data-source="mixture"]')


def test_the_example_is_extracted(open_page: Callable[..., Any]):
    page = open_page()
    page.click("#example")
    page.wait_for_selector("#extract:enabled")
    extract(page)
    assert "4.0 s of sound" in page.inner_text("#status") and "most speech" not in page.inner_text("#status")


# The marked part.


def marked(page: Any) -> tuple[float, float]:
    """Return the times in the number fields."""
    start, end = (page.locator("#voice-part input").nth(n).input_value() for n in (0, 1))
    return float(start), float(end)


def test_a_part_is_marked_by_numbers_keys_and_pointer(page: Any, recordings: Path):
    choose_file(page, "mixture", recordings / "mixture.wav")
    page.check('[value="part"]', force=True)
    assert marked(page) == (0.0, 3.0)
    page.locator("#voice-part input").nth(0).fill("1.5")
    page.locator("#voice-part input").nth(1).fill("4")
    page.keyboard.press("Tab")
    assert marked(page) == (1.5, 4.0)
    page.locator("#voice-part .handle").nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert marked(page) == (2.6, 4.0)
    page.locator("#voice-part .handle").nth(1).focus()
    page.keyboard.press("End")
    assert marked(page) == (2.6, 6.0)
    page.locator("#voice-part .handle").nth(0).focus()
    page.keyboard.press("End")  # not beyond the other
    assert marked(page) == (5.9, 6.0)
    box = page.locator("#voice-part .picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=5)
    page.mouse.up()
    assert marked(page) == pytest.approx((1.0, 3.0), abs=0.03)
    handle = page.locator("#voice-part .handle").nth(1).bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 5 * box["width"] / 6, box["y"] + 20, steps=5)
    page.mouse.up()
    assert marked(page) == pytest.approx((1.0, 5.0), abs=0.03)
    assert "4.0 s are marked" in page.inner_text("#voice-part")


def test_the_marked_part_is_the_enrollment(page: Any, exported_model: Callable[[str], Path], recordings: Path):
    choose_file(page, "mixture", recordings / "mixture.wav")
    page.check('[value="part"]', force=True)
    page.locator("#voice-part input").nth(0).fill("1.2")
    page.locator("#voice-part input").nth(1).fill("3.7")
    page.keyboard.press("Tab")
    extract(page)
    expected = in_python(exported_model("base"), recordings / "mixture.wav", f"{recordings / 'mixture.wav'}@1.2-3.7")
    assert relative_difference(samples_of(download(page, "Voice, wav")), expected.waveform[0]) <= TOLERANCE


# Playing.


def test_one_recording_plays_at_a_time_from_the_same_position(page: Any, recordings: Path):
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    extract(page)
    sliders = page.locator("#tracks .picture")

    def position(n: int) -> float:
        return float(sliders.nth(n).get_attribute("aria-valuenow"))

    buttons = page.locator("#tracks .track button")
    box = sliders.nth(0).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert position(0) == pytest.approx(3.0, abs=0.1)
    buttons.nth(0).click()
    wait_until(page, "document.querySelector('#tracks .picture').ariaValueNow > 3.2")
    buttons.nth(1).click()
    wait_until(page, "document.querySelectorAll('#tracks .picture')[1].ariaValueNow > 3.3")
    assert [buttons.nth(n).get_attribute("data-playing") for n in range(3)] == ["false", "true", "false"]
    sliders.nth(1).focus()
    page.keyboard.press("Space")
    wait_until(page, "document.querySelectorAll('#tracks .track button')[1].ariaLabel === 'Play: Voice'")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert position(1) == pytest.approx(1.0, abs=0.05)
    page.locator("#segments button").first.click()
    wait_until(page, "document.querySelectorAll('#tracks .track button')[1].dataset.playing === 'true'")


# Stopping, errors, and what is not there.


def test_an_extraction_is_stopped(open_page: Callable[..., Any], recordings: Path, tmp_path: Path):
    page = open_page()
    long = np.tile(audio.read(recordings / "mixture.wav")[0][0], 100)
    soundfile.write(tmp_path / "long.wav", long, SAMPLE_RATE, subtype="PCM_16")
    choose_files(page, tmp_path / "long.wav", recordings / "enrollment.wav")
    page.click("#extract")
    wait_until(page, "document.querySelector('#status').textContent.includes('part ')")
    page.keyboard.press("Enter")  # the button has the focus
    page.wait_for_selector("#stop", state="hidden")
    assert page.inner_text("#status") == "Stopped."
    assert page.is_hidden("#result") and page.is_enabled("#extract")
    choose_file(page, "mixture", recordings / "mixture.wav")
    extract(page)


def test_a_file_that_is_no_recording_is_one_line(open_page: Callable[..., Any], recordings: Path, tmp_path: Path):
    page = open_page()
    (tmp_path / "notes.txt").write_text("no sound in here\n" * 50, encoding="utf-8")
    choose_file(page, "mixture", tmp_path / "notes.txt")
    page.wait_for_selector("#error:not([hidden])")
    error = page.inner_text("#error")
    assert error.startswith("notes.txt: is no recording that this browser can decode") and "\n" not in error
    assert page.is_disabled("#extract")
    choose_file(page, "mixture", recordings / "mixture.wav")
    page.wait_for_selector("#error", state="hidden")


@pytest.mark.parametrize(
    ("samples", "message"),
    [(np.zeros(16000), "The voice sample is silent"), (0.1 * np.ones(800), "lasts 0.050 s; at least 0.1 s")],
)
def test_a_voice_that_cannot_be_enrolled_is_one_line(
    page: Any, recordings: Path, tmp_path: Path, samples: np.ndarray, message: str
):
    soundfile.write(tmp_path / "voice.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    choose_files(page, recordings / "mixture.wav", tmp_path / "voice.wav")
    page.click("#extract")
    page.wait_for_selector("#error:not([hidden])")
    assert message in page.inner_text("#error")
    assert page.is_enabled("#extract")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model/extract.onnx.gz", None, "model/extract.onnx.gz: is missing on the server (HTTP 404)"),
        ("model/extract.onnx.gz", b"other", "model/extract.onnx: is not the file that belongs to this page"),
        ("model/wesep.json", b'{"format": "other"}', "wesep-export 1 (onnx) is needed"),
    ],
)
def test_a_damaged_page_says_what_is_wrong(
    open_page: Callable[..., Any],
    exported_model: Callable[[str], Path],
    tmp_path: Path,
    file: str,
    content: bytes | None,
    message: str,
):
    folder = build_page(exported_model("base"), tmp_path / "dist")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with serve(folder) as url:
        page = open_page(url, wait=False)
        page.wait_for_selector("#model.failed", timeout=TIMEOUT_MS)
        assert message in page.inner_text("#error")


def test_a_host_that_undoes_the_compression_works(
    open_page: Callable[..., Any], exported_model: Callable[[str], Path], tmp_path: Path
):
    import gzip

    folder = build_page(exported_model("base"), tmp_path / "dist")
    for path in folder.glob("*/*.gz"):
        path.write_bytes(gzip.decompress(path.read_bytes()))
    with serve(folder) as url:
        open_page(url)


def test_a_model_without_a_stream_has_no_live_mode(
    open_page: Callable[..., Any], exported_model: Callable[[str], Path], tmp_path: Path, recordings: Path
):
    with serve(build_page(exported_model("plain"), tmp_path / "dist")) as url:
        page = open_page(url)
        assert page.is_hidden("#live")
        choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
        extract(page)
        assert page.is_hidden("#presence")


# The second visit.


def test_the_page_works_without_a_connection_the_second_time(
    open_page: Callable[..., Any], exported_model: Callable[[str], Path], tmp_path: Path, recordings: Path
):
    with serve(build_page(exported_model("base"), tmp_path / "dist")) as url:
        page = open_page(url)
        wait_until(page, "navigator.serviceWorker.controller !== null")
    # The server has ended.
    page.reload()
    page.wait_for_selector("#model.ready", timeout=TIMEOUT_MS)
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    extract(page)
    expected = in_python(exported_model("base"), recordings / "mixture.wav", recordings / "enrollment.wav")
    assert relative_difference(samples_of(download(page, "Voice, wav")), expected.waveform[0]) <= TOLERANCE


# The microphone.


def test_a_recording_of_the_microphone_holds_what_it_heard(open_page: Callable[..., Any], recordings: Path):
    page = open_page()
    page.click('[data-source="mixture"] .record')
    wait_until(page, "parseFloat(document.querySelector('.time').textContent.split(':')[1]) >= 8", 30)
    page.keyboard.press("Enter")  # the button to finish has the focus
    page.wait_for_selector('[data-source="mixture"] .loaded:visible')
    choose_file(page, "enrollment", recordings / "enrollment.wav")
    page.wait_for_selector("#extract:enabled")
    extract(page)
    heard = samples_of(download(page, "Voice, wav")) + samples_of(download(page, "Everything else"))
    rate = soundfile.info(io.BytesIO(download(page, "Voice, wav"))).samplerate
    heard = audio.resample(heard[: 8 * rate], rate, SAMPLE_RATE)
    played = audio.read(recordings / "mixture.wav")[0][0][: 2 * SAMPLE_RATE]
    # The file plays again and again, so the recording holds its first two seconds somewhere.
    products = np.correlate(heard, played, mode="valid")
    start = int(products.argmax())
    part = heard[start : start + len(played)]
    cosine = float(part @ played / np.sqrt((part @ part) * (played @ played)))
    assert cosine > 0.99


def test_the_live_mode_plays_and_shows_its_delay(open_page: Callable[..., Any], recordings: Path):
    page = open_page()
    choose_file(page, "enrollment", recordings / "enrollment.wav")
    page.wait_for_selector("#live-start:enabled")
    page.click("#live-start")
    wait_until(page, "document.querySelector('#live-delay').textContent.endsWith('ms')", 30)
    page.wait_for_timeout(2000)
    delay_ms = float(page.inner_text("#live-delay").removesuffix(" ms"))
    assert 32 <= delay_ms < 3000  # more than half a second waits nowhere, however slow the computer is
    assert page.inner_text("#live-presence").endswith("%")
    assert "needs 32 ms of the delay" in page.inner_text("#live-status")
    page.click("#live-stop")
    assert page.is_hidden("#live-figures") and page.is_visible("#live-start")


@pytest.mark.parametrize(
    ("name", "message"),
    [("NotAllowedError", "The microphone is not allowed"), ("NotFoundError", "There is no microphone")],
)
@pytest.mark.parametrize("button", ['[data-source="enrollment"] .record', "#live-start"])
def test_a_microphone_that_cannot_be_opened_is_one_line(
    open_page: Callable[..., Any], recordings: Path, button: str, name: str, message: str
):
    page = open_page()
    choose_file(page, "enrollment", recordings / "enrollment.wav")
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }", name
    )
    page.wait_for_selector("#live-start:enabled")
    page.click(button)
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith(message)
    assert page.is_visible(button) and page.is_hidden("#live-stop")


# Looks and access.


def test_the_page_works_with_the_keyboard_alone(open_page: Callable[..., Any]):
    page = open_page()
    focused = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"

    def tab_to(name: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate(focused) == name:
                return
        raise AssertionError(f"{name} is not reached")

    tab_to("skip")
    tab_to("example")
    page.keyboard.press("Enter")
    wait_until(page, "document.activeElement.id === 'extract'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])", timeout=TIMEOUT_MS)
    assert page.evaluate(focused) == "result"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Play: Recording"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_control_has_a_name(page: Any, recordings: Path):
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    extract(page)
    names = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, progress, meter, [role=slider]")].map((e) =>
          (e.ariaLabel || e.textContent || e.labels?.[0]?.textContent || "").trim())"""
    )
    assert len(names) > 20 and all(names)
    assert page.get_attribute("#status", "role") == "status" and page.get_attribute("#error", "role") == "alert"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_every_state_without_scrolling_sideways(
    open_page: Callable[..., Any], recordings: Path, scheme: str
):
    page = open_page(viewport=PHONE, color_scheme=scheme, has_touch=True)

    def width() -> int:
        return page.evaluate("document.documentElement.scrollWidth")

    assert width() == 390
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    assert width() == 390
    page.tap('label:has([value="part"])')
    assert page.is_visible("#voice-part .picture") and width() == 390
    extract(page)
    assert width() == 390
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, .button")].filter((e) => e.offsetParent)
          .filter((e) => e.offsetHeight < 36 || e.offsetWidth < 36).map((e) => e.textContent)"""
    )
    assert small == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(245, 246, 249)", "dark": "rgb(18, 20, 26)"}[scheme]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(open_page: Callable[..., Any], recordings: Path, scheme: str):
    """At least 4.5 : 1, as WCAG 2.2, 1.4.3, asks for."""
    page = open_page(color_scheme=scheme)
    choose_files(page, recordings / "mixture.wav", recordings / "enrollment.wav")
    extract(page)
    ratios = page.evaluate(
        """() => {
          const parse = (text) => text.match(/[\\d.]+/g).map(Number);
          const luminance = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
          const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
            if (c[3] !== 0) return c; } };
          return [...document.querySelectorAll("p, h1, h2, h3, button, a, span, dt, dd, li")]
            .filter((e) => e.offsetParent && e.textContent.trim() && !e.disabled && !e.closest(".hidden"))
            .map((e) => { const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))];
              return [e.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; });
        }"""
    )
    assert len(ratios) > 30
    assert [text for text, ratio in ratios if ratio < 4.5] == []
