"""Pictures of docs/ui.md: the page of `wesep ui` in each of its states, 1,280 and 390 pixels wide.

    python bench/ui_pictures.py -o docs/images

Writes `ui_STATE.png` and `ui_STATE_phone.png`, and `ui_results_dark.png`. Needs Chromium and playwright; the voices are
the synthetic ones of docs/assets and of the tests.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the page is driven as by the tests

from tests.conftest import SAMPLE_RATE, VOICES, make_voice  # noqa: E402
from tests.ui.page_driver import (  # noqa: E402
    TIMEOUT_MS,
    chromium_with_microphone,
    extract,
    give_enrollment,
    give_mixture,
    mark,
)
from wesep_py import audio  # noqa: E402
from wesep_py.ui import PageServer, UiSettings  # noqa: E402

ASSETS = ROOT / "docs" / "assets"
SIZES = {"": (1280, 900), "_phone": (390, 844)}
COLOURS = 128


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = make_recordings(Path(temporary))
        with (
            PageServer(UiSettings(device="cpu", grace_s=1.0)) as server,
            chromium_with_microphone(files["mixture"]) as browser,
        ):
            for suffix, size in SIZES.items():
                context = browser.new_context(
                    viewport={"width": size[0], "height": size[1]}, is_mobile=bool(suffix), has_touch=bool(suffix)
                )
                context.set_default_timeout(TIMEOUT_MS)
                take_all(context, server.url, files, options.output, suffix)
                context.close()
            context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
            context.set_default_timeout(TIMEOUT_MS)
            page = opened(context, server.url)
            give_mixture(page, files["mixture"])
            give_enrollment(page, files["alice"])
            extract(page)
            save(page, options.output / "ui_results_dark.png")


def make_recordings(folder: Path) -> dict[str, Path]:
    """Write the recordings: a mixture, an enrollment, both one after the other, that for minutes, and another voice."""
    mixture, rate = audio.read(ASSETS / "mixture.ogg")
    alice, _ = audio.read(ASSETS / "enrollment.ogg")
    meeting = np.concatenate([alice, np.zeros((1, rate // 2), np.float32), mixture], axis=1)
    waveforms = {
        "mixture": (mixture, rate),
        "alice": (alice, rate),
        "meeting": (meeting, rate),
        "interview": (np.tile(meeting, 90), rate),
        "somebody": (make_voice(*VOICES["bert"], 6.0, 0)[None], SAMPLE_RATE),
    }
    for name, (waveform, sample_rate) in waveforms.items():
        audio.write(folder / f"{name}.wav", waveform, sample_rate, "PCM_16")
    return {name: folder / f"{name}.wav" for name in waveforms}


def opened(context: Any, url: str) -> Any:
    """Open the page."""
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#extract")
    page.wait_for_timeout(500)
    return page


def take_all(context: Any, url: str, files: dict[str, Path], folder: Path, suffix: str) -> None:
    """Take a picture of each state."""
    page = opened(context, url)
    save(page, folder / f"ui_start{suffix}.png")
    page.locator("#extract").click()
    page.wait_for_selector("#status [role=alert]")
    page.wait_for_timeout(500)
    save(page, folder / f"ui_error{suffix}.png", "#status")

    give_mixture(page, files["meeting"])
    page.get_by_label("a segment of the mixture").check()
    page.locator("#suggest").wait_for()
    page.get_by_label("Name").fill("Alice")
    mark(page, 0.03, 0.38)
    page.wait_for_timeout(800)
    save(page, folder / f"ui_mark{suffix}.png")
    page.locator("#add-voice").click()
    page.wait_for_selector("#voices >> text=Alice")
    page.get_by_label("a recording of it").check()
    page.get_by_label("Name").fill("Somebody else")
    give_enrollment(page, files["somebody"])
    page.locator("#add-voice").click()
    page.wait_for_selector("#voices >> text=Somebody else")
    extract(page)
    page.locator("#results summary").first.click()
    page.wait_for_timeout(800)
    save(page, folder / f"ui_several{suffix}.png")
    page.close()

    page = opened(context, url)
    give_mixture(page, files["interview"])
    give_enrollment(page, files["alice"])
    page.locator("#extract").click()
    page.wait_for_selector("#status >> text=/extracting: [1-9]|extracting: 0:[1-9]/")
    save(page, folder / f"ui_progress{suffix}.png", "#status")
    page.locator("#stop").click()
    page.wait_for_selector("#status >> text=stopped")
    save(page, folder / f"ui_stopped{suffix}.png", "#status")
    page.close()

    page = opened(context, url)
    give_mixture(page, files["mixture"])
    give_enrollment(page, files["alice"])
    extract(page)
    page.wait_for_timeout(800)
    save(page, folder / f"ui_results{suffix}.png")
    page.close()

    page = opened(context, url)
    page.get_by_role("tab", name="Live").click()
    give_enrollment(page, files["alice"], "#live-enrollment")
    page.wait_for_selector("#live-stream .ws-start:enabled")
    page.locator("#live-stream .ws-start").click()
    page.wait_for_selector("#live-stream .ws-live-line >> text=/^[4-9] s/")
    save(page, folder / f"ui_live{suffix}.png")
    page.locator("#live-stream .ws-end").click()
    page.wait_for_selector("#live-results .ws-results")
    page.wait_for_timeout(800)
    save(page, folder / f"ui_live_results{suffix}.png")
    page.close()


def save(page: Any, path: Path, around: str | None = None) -> None:
    """Save the page as a PNG with a palette: the whole, or what the window shows around a place."""
    if around is not None:
        page.locator(around).scroll_into_view_if_needed()
    else:
        page.evaluate("window.scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=around is None))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
