"""Extract from what the page of `wesep ui` records from a microphone, and compare with the extraction from the file.

    python bench/ui_microphone.py mixture.wav --reference voice.wav --enroll alice.wav

Chromium's microphone repeats the mixture (wav, 16 bits); the page records it, and extracts the voice. Prints the SI-SDR
of the mixture and of both estimates against the reference, and of the recording against the mixture. Needs Chromium
and playwright.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the page is driven as by the tests

from tests.ui.page_driver import (  # noqa: E402
    TIMEOUT_MS,
    aligned,
    chromium_with_microphone,
    download,
    extract,
    give_enrollment,
    record_mixture,
)
from wesep_py import audio, load  # noqa: E402
from wesep_py.metrics import si_sdr  # noqa: E402
from wesep_py.ui import PageServer, UiSettings  # noqa: E402


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixture", type=Path)
    parser.add_argument("--reference", type=Path, required=True, help="the voice in the mixture, of its length")
    parser.add_argument("--enroll", type=Path, required=True, help="another recording of the voice")
    options = parser.parse_args()
    (mixture,), rate = audio.read(options.mixture)
    (reference,), _ = audio.read(options.reference)
    extractor = load(device="cpu")
    from_file = extractor.extract(options.mixture, extractor.enroll(options.enroll)).waveform[0]
    settings = UiSettings(device="cpu", grace_s=1.0)
    with (
        tempfile.TemporaryDirectory() as temporary,
        PageServer(settings) as server,
        chromium_with_microphone(options.mixture) as browser,
    ):
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(server.url)
        page.wait_for_selector("#extract")
        record_mixture(page, 2 * len(mixture) / rate + 3)
        give_enrollment(page, options.enroll)
        extract(page)
        voice, voice_rate = download(page, "Voice", Path(temporary))
        residual, _ = download(page, "Residual", Path(temporary))
    part, estimate = aligned(voice + residual, voice, voice_rate, mixture, rate)
    print(f"recording against mixture   {si_sdr(part, mixture):6.2f} dB")
    print(f"mixture against voice       {si_sdr(mixture, reference):6.2f} dB")
    print(f"extracted from the file     {si_sdr(from_file, reference):6.2f} dB")
    print(f"recorded, then extracted    {si_sdr(estimate, reference):6.2f} dB")


if __name__ == "__main__":
    main()
