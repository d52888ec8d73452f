from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from wesep_py.evaluation.report_page import histogram, scatter, spectrogram_db, spectrogram_png


def test_a_histogram_counts_every_value_once():
    values = list(np.random.default_rng(0).normal(5, 3, 200))
    tree = ElementTree.fromstring(histogram(values, "SI-SDRi"))
    counts = [int(bar[0].text.split(": ")[1].split()[0]) for bar in tree.iter("rect")]
    assert sum(counts) == 200
    heights = [float(bar.get("height")) for bar in tree.iter("rect")]
    np.testing.assert_allclose(np.array(heights) / max(heights), np.array(counts) / max(counts), atol=0.01)
    assert any("mean" in (text.text or "") for text in tree.iter("text"))


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [-80.0, 45.0], [0.001, 0.002]])
def test_few_or_far_values_are_drawn_too(values):
    tree = ElementTree.fromstring(histogram(values, "x"))
    assert sum(int(bar[0].text.split(": ")[1].split()[0]) for bar in tree.iter("rect")) == len(values)
    assert "nan" not in histogram(values, "x")


def test_a_scatter_has_a_dot_a_trial_at_its_place():
    tree = ElementTree.fromstring(scatter([-5.0, 0.0, 5.0], [5.0, 0.0, -5.0], "in", "out <dB>"))
    path = next(tree.iter("path")).get("d")
    places = np.array([dot.split("h")[0].split() for dot in path.split("M")[1:]], dtype=float)
    assert len(places) == 3
    np.testing.assert_allclose(np.diff(places[:, 0]), np.diff(places[:, 0])[0], atol=0.11)
    assert (np.diff(places[:, 1]) > 0).all()  # downwards


def test_a_tone_is_light_where_it_is():
    time_s = np.arange(16000) / 16000
    level = spectrogram_db(np.sin(2 * np.pi * 2000 * time_s), 16000, columns=50, rows=128)
    assert level.shape == (128, 50)
    assert int(level.mean(axis=1).argmax()) == pytest.approx(128 - 1 - 128 * 2000 / 8000, abs=1)


def test_the_png_is_what_a_reader_of_pngs_reads():
    image = pytest.importorskip("matplotlib.image")
    level = np.linspace(-60, 0, 12).reshape(3, 4)
    pixels = image.imread(io.BytesIO(spectrogram_png(level, 0.0)))
    assert pixels.shape[:2] == (3, 4)
    brightness = pixels[..., :3].sum(axis=2).ravel()
    assert (np.diff(brightness) > 0).all()
    np.testing.assert_allclose(pixels[0, 0, :3], np.array([0, 0, 4]) / 255, atol=0.003)


def test_short_waveforms_have_a_picture():
    assert spectrogram_db(np.ones(10), 16000).shape == (128, 1)
