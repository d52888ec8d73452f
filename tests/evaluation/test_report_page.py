from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from tests.evaluation.conftest import Oracle
from wesep_py.common.errors import InputError
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.evaluation.report_page import build_report, encode_for_browser, saved_audio_html
from wesep_py.evaluation.results import read_results

VOID = {"meta", "img", "br", "source"}


class Page(HTMLParser):
    """Check that tags are closed, and collect the references of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for key, value in attributes if key in ("src", "srcset", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def page(trials, tmp_path) -> str:
    evaluate(Oracle(trials), trials, tmp_path / "out", EvaluationOptions(save_extremes=2, metrics=("si_sdr", "timing")))
    return build_report(read_results(tmp_path / "out"), 2)


def test_the_page_needs_nothing_else(page):
    parsed = Page(page)
    assert parsed.references and all(reference.startswith("data:") for reference in parsed.references)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "http" not in re.sub("base64,[A-Za-z0-9+/=]+", "", page).replace("http-equiv", "").replace(
        "https://github", ""
    )
    assert "url(" not in page and "@import" not in page


def test_numbers_charts_and_protocol_are_there(page, tmp_path):
    summary = read_results(tmp_path / "out").summary
    assert f"{summary['si_sdri']['mean']:.3f}" in page
    assert page.count("<picture>") == 2
    for text in ("oracle", "Worst trials", "Best trials", "SIR (dB)", "Overlap", "sha256", "prefers-color-scheme"):
        assert text in page
    assert '<meta name="viewport" content="width=device-width' in page


def test_worst_and_best_trials_have_spectrograms_and_players(page):
    tags = Page(page).tags
    assert tags.count("audio") == 4 * 4  # mixture, estimate, target, enrollment of two worst and two best
    assert tags.count("img") == 4 * 3 + 2  # and the two charts
    assert "was not saved" not in page


def test_players_play_what_was_saved(page, trials, tmp_path):
    first = sorted((tmp_path / "out" / "audio").iterdir())[0]
    expected, rate = soundfile.read(first / "mixture.wav", dtype="float32")
    sounds = re.findall(r'<audio [^>]*src="data:audio/mpeg;base64,([^"]+)"', saved_audio_html(first))
    heard, heard_rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert heard_rate == rate
    length = min(len(heard), len(expected))
    assert abs(len(heard) - len(expected)) < 3000
    spectra = [np.abs(np.fft.rfft(x[:length])) for x in (heard, expected)]
    assert np.corrcoef(*spectra)[0, 1] > 0.95


def test_a_rate_that_mp3_lacks_becomes_wav():
    kind, data = encode_for_browser(np.zeros(7000, np.float32), 7000)
    assert kind == "audio/wav"
    assert soundfile.info(io.BytesIO(data)).samplerate == 7000


def test_without_audio_it_says_how_to_save_it(trials, tmp_path):
    evaluate(Oracle(trials), trials, tmp_path / "out")
    page = build_report(read_results(tmp_path / "out"), 2)
    assert "Audio of 2 of these 2 was not saved; --save-extremes 2 saves it" in page
    assert "audio" not in Page(page).tags


def test_odd_trials_and_names_are_shown_as_text(odd_trials, tmp_path):
    class Named(Oracle):
        name = "<script>alert(1)</script>"

    evaluate(
        Named(odd_trials, name=Named.name),
        odd_trials,
        tmp_path / "out",
        EvaluationOptions(metrics=("si_sdr", "timing"), jobs=0),
    )
    page = build_report(read_results(tmp_path / "out"))
    assert "script" not in Page(page).tags
    assert "Absent targets" in page and "Failed trials" in page and "text.wav" in page
    assert "absent target: false alarms, by level" in page
    assert "silent reference: false alarms, by level" in page


def test_the_headline_is_the_model_name_the_protocol_has_its_path(trials, tmp_path):
    evaluate(Oracle(trials, name="/srv/exp/long/path/mine"), trials, tmp_path / "out")
    page = build_report(read_results(tmp_path / "out"))
    assert "<h1>mine</h1>" in page and "<title>mine: " in page
    assert page.count("/srv/exp/long/path/mine") == 1


# A window of chromium may have a least width (500 px); a frame in it has any, and its page knows no other.
PROBE = """<script>addEventListener("load", () => {
  const whole = document.documentElement, first = document.querySelector(".scroll");
  parent.postMessage([innerWidth, whole.scrollWidth, first.scrollWidth - first.clientWidth].join(" "), "*");
});</script>"""
PHONE = """<!doctype html><body><script>addEventListener("message", (said) => {
  const out = document.createElement("output");
  out.textContent = said.data;
  document.body.append(out);
});</script><iframe src="copy.html" style="width: 390px; height: 2000px; border: 0"></iframe></body>"""


def test_a_phone_shows_the_page_and_its_first_table_whole(trials, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    metrics = ("si_sdr", "sdr", "stoi", "timing")
    evaluate(
        Oracle(trials, name="/srv/exp/a_long_name_of_a_model" * 3),
        trials[:2],
        tmp_path / "out",
        EvaluationOptions(metrics=metrics),
    )
    page = build_report(read_results(tmp_path / "out"), 1)
    allowed = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page
    )  # which stops the probe, as it should
    (tmp_path / "copy.html").write_text(allowed.replace("</body>", PROBE + "</body>"))
    (tmp_path / "phone.html").write_text(PHONE)
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=390,2000",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        (tmp_path / "phone.html").as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    result = re.search(r"<output>(\d+) (\d+) (\d+)</output>", ran.stdout)
    assert result is not None, ran.stderr[-500:]
    width, page_width, hidden_by_scrolling = map(int, result.groups())
    assert width == 390 and page_width <= 390
    assert hidden_by_scrolling == 0


def test_nothing_scored_is_a_page_still(odd_trials, tmp_path):
    evaluate(Oracle(odd_trials), odd_trials[1:], tmp_path / "out")
    Page(build_report(read_results(tmp_path / "out")))


def test_a_policy_allows_the_pages_own_style_pictures_and_sounds_alone(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1)
    style = re.search("<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "img-src data:; media-src data:" in policy and "script" not in policy
    assert " style=" not in page and page.index("Content-Security-Policy") < page.index("<style>")


EVIL = "<script>alert(1)</script>"


def _places(value, path=()):
    """Yield the path of every leaf of the results."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))
    else:
        yield path


def _changed(value, path, new):
    if not path:
        return new
    if isinstance(value, dict):
        return {key: _changed(item, path[1:], new) if key == path[0] else item for key, item in value.items()}
    return [_changed(item, path[1:], new) if index == path[0] else item for index, item in enumerate(value)]


def test_any_content_of_results_is_text_or_refused_in_one_line(odd_trials, tmp_path):
    evaluate(Oracle(odd_trials), odd_trials, tmp_path / "out", EvaluationOptions(metrics=("si_sdr",), jobs=0))
    results = read_results(tmp_path / "out")
    shown = 0
    for path in _places(results.summary):
        tampered = replace(results, summary=_changed(results.summary, path, EVIL))
        try:
            page = build_report(tampered, 1)
        except InputError as error:
            assert "are damaged" in str(error) and str(tmp_path) in str(error) and len(str(error)) < 500
            continue
        assert EVIL not in page, path
        shown += html.escape(EVIL) in page
    assert shown > 20
    tampered = replace(results, records=[replace(record, gender_pair=EVIL) for record in results.records])
    assert EVIL not in build_report(tampered)
