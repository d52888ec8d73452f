"""Make the screenshots of docs/web.md: every state of the static page at 1,280 and 390 pixels, light and dark.

    make web
    python bench/web_screenshots.py                     # those of the documentation, into docs/images
    python bench/web_screenshots.py --all -o shots      # every state, width and colour scheme

The recordings are those of docs/assets. Pictures have at most 256 colours, so that they stay small.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the browser is opened as by the tests

from tests.web.page_server import (  # noqa: E402
    FAKE_MICROPHONE,
    TIMEOUT_MS,
    choose_file,
    missing,
    open_browser,
    serve,
    wait_until,
)

ASSETS = ROOT / "docs" / "assets"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
IN_THE_DOCUMENTATION = [
    ("start", "desktop", "light"),
    ("marked", "desktop", "light"),
    ("result", "desktop", "light"),
    ("result", "desktop", "dark"),
    ("result", "phone", "light"),
    ("absent", "phone", "dark"),
    ("live", "desktop", "dark"),
    ("error", "phone", "light"),
]


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "web" / "dist", help="the built page")
    parser.add_argument("--all", action="store_true", help="every state, width and colour scheme")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    options = parser.parse_args()
    if (reason := missing()) is not None:
        parser.error(reason)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, serve(options.page) as url:
        folder = Path(temporary)
        mixture, rate = soundfile.read(ASSETS / "mixture.ogg", dtype="float32")
        soundfile.write(folder / "meeting.wav", mixture, rate, subtype="PCM_16")
        soundfile.write(folder / "long.wav", np.tile(mixture, 60), rate, subtype="PCM_16")
        rng = np.random.default_rng(0)
        hum = 0.02 * np.sin(2 * np.pi * 700 * np.arange(4 * rate) / rate) + 1e-3 * rng.standard_normal(4 * rate)
        soundfile.write(folder / "hum.wav", hum, rate, subtype="PCM_16")
        (folder / "notes.txt").write_text("no sound in here\n" * 50, encoding="utf-8")
        with open_browser(
            *FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={folder / 'meeting.wav'}", "--hide-scrollbars"
        ) as browser:
            for width, scheme in product(WIDTHS, SCHEMES):
                wanted = {state for state, *look in IN_THE_DOCUMENTATION if look == [width, scheme]}
                for state, picture in states(browser, url, folder, width, scheme):
                    if options.all or state in wanted:
                        path = options.output / f"web_{state}_{width}_{scheme}.png"
                        write(picture(), path)
                        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)
                    wanted.discard(state)
                    if not options.all and not wanted:
                        break


def states(browser: Any, url: str, folder: Path, width: str, scheme: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Bring the page into one state after another; yield the name of each, and a function that takes its picture."""
    width_px, height_px = WIDTHS[width]
    page = browser.new_context(
        viewport={"width": width_px, "height": height_px},
        color_scheme=scheme,
        permissions=["microphone"],
        has_touch=width == "phone",
        is_mobile=width == "phone",
        reduced_motion="reduce",
    ).new_page()

    def picture() -> bytes:
        page.wait_for_timeout(300)
        return page.screenshot(full_page=True)

    page.goto(url)
    page.wait_for_selector("#model.ready", timeout=TIMEOUT_MS)
    yield "start", picture
    choose_file(page, "mixture", folder / "notes.txt")
    page.wait_for_selector("#error:not([hidden])")
    yield "error", picture
    page.click('[data-source="mixture"] .record')
    page.wait_for_selector(".recording:visible")
    page.wait_for_timeout(1500)
    yield "recording", picture
    page.click('[data-source="mixture"] .finish')
    choose_file(page, "mixture", folder / "meeting.wav")
    page.locator('[value="part"]').check(force=True)
    page.locator("#voice-part input").nth(0).fill("0.2")
    page.locator("#voice-part input").nth(1).fill("1.6")
    page.locator("#voice-part .handle").nth(1).focus()
    yield "marked", picture
    page.locator('[value="file"]').check(force=True)
    choose_file(page, "enrollment", ASSETS / "enrollment.ogg")
    page.wait_for_selector("#extract:enabled")
    yield "ready", picture
    choose_file(page, "mixture", folder / "long.wav")
    page.click("#extract")
    wait_until(page, "document.querySelector('#status').textContent.includes('part 2')")
    yield "extracting", picture
    page.click("#stop")
    choose_file(page, "mixture", folder / "hum.wav")
    extract_and_wait(page)
    yield "absent", picture
    choose_file(page, "mixture", folder / "meeting.wav")
    extract_and_wait(page)
    page.locator("#tracks .picture").nth(1).click(position={"x": 150, "y": 20})
    page.evaluate("scrollTo(0, 0)")
    yield "result", picture
    page.click("#live-start")
    wait_until(page, "document.querySelector('#live-presence').textContent.endsWith('%')")
    page.wait_for_timeout(2000)
    yield "live", lambda: page.locator("#live").screenshot()
    page.context.close()


def extract_and_wait(page: Any) -> None:
    """Extract, and wait for the result."""
    page.click("#extract")
    page.wait_for_selector("#result:not([hidden])", timeout=TIMEOUT_MS)
    page.wait_for_timeout(300)


def write(content: bytes, path: Path) -> None:
    """Write a picture with a palette."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
