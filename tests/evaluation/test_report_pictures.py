from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import image

from wesep_py.evaluation.report_pictures import (
    DARK,
    histogram,
    histogram_html,
    scatter,
    scatter_html,
    spectrogram_db,
    spectrogram_png,
)


def bars(figure) -> np.ndarray:
    """Return left edge, right edge and height of each bar."""
    return np.array(
        [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in figure.axes[0].containers[0]]
    )


def test_a_histogram_counts_every_value_once():
    values = list(np.random.default_rng(0).normal(5, 3, 200))
    figure = histogram(values, "SI-SDRi")
    counted = bars(figure)
    assert counted[:, 2].sum() == 200
    width = counted[1, 0] - counted[0, 0]
    for left, _, height in counted:
        assert height == np.sum((np.array(values) >= left) & (np.array(values) < left + width))
    assert figure.axes[0].texts[0].get_text() == f"mean {np.mean(values):.2f}"
    assert figure.axes[0].lines[0].get_xdata()[0] == pytest.approx(np.mean(values))


def test_losses_have_another_colour_than_gains():
    colours = {}
    for bar in histogram([-2.0, -1.5, 1.5, 2.5], "SI-SDRi", colours=DARK).axes[0].containers[0]:
        colours.setdefault(bar.get_x() >= 0, set()).add(bar.get_facecolor())
    assert len(colours[True]) == len(colours[False]) == 1 and colours[True] != colours[False]


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [-80.0, 45.0], [0.001, 0.002]])
def test_few_or_far_values_are_drawn_too(values):
    assert bars(histogram(values, "x"))[:, 2].sum() == len(values)
    assert "nan" not in re.sub("base64,[A-Za-z0-9+/=]+", "", histogram_html(values, "x"))


def test_a_scatter_plot_has_one_dot_per_trial_at_its_place():
    dots = scatter([-5.0, 0.0, 5.0], [5.0, 0.0, -5.0], "in", "out").axes[0].collections[0].get_offsets()
    np.testing.assert_array_equal(dots, [(-5.0, 5.0), (0.0, 0.0), (5.0, -5.0)])


class Pictures(HTMLParser):
    """Collect the attributes of all elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))


def test_charts_have_text_alternatives_and_two_colour_schemes():
    html = scatter_html([-5.0, 0.0], [5.0, -1.0], "in $x", "out <dB>")
    (_, _), (source, dark), (img, light) = Pictures(html).elements
    assert light["alt"] == "Scatter plot of out <dB> against in $x of 2 trials: 1 are above the line of equal values."
    assert (source, img) == ("source", "img") and dark["media"] == "(prefers-color-scheme: dark)"
    pictures = [
        image.imread(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
        for uri in (light["src"], dark["srcset"])
    ]
    assert pictures[0].shape == pictures[1].shape == (540, 880, 4)
    assert pictures[0][0, 0, 3] == 0 and not np.array_equal(*pictures)
    alternative = Pictures(histogram_html([1.0, 3.0], "SI-SDRi")).elements[2][1]["alt"]
    assert alternative == "Histogram of SI-SDRi of 2 trials: mean 2.00 dB, from 1.00 to 3.00 dB."


def test_a_tone_is_light_at_its_frequency():
    time_s = np.arange(16000) / 16000
    levels_db = spectrogram_db(np.sin(2 * np.pi * 2000 * time_s), 16000, columns=50, rows=128)
    assert levels_db.shape == (128, 50)
    assert int(levels_db.mean(axis=1).argmax()) == pytest.approx(128 - 1 - 128 * 2000 / 8000, abs=1)


@pytest.mark.parametrize("columns", [320, 560])
def test_the_time_axis_of_a_spectrogram_is_straight(columns: int):
    levels = spectrogram_db(np.repeat([0.0, 0.5, 0.0, 0.5], 8000) * np.sin(np.arange(32000)), 16000, columns)
    loud = levels.max(axis=0) > -20
    edges = np.flatnonzero(np.diff(loud.astype(int))) / levels.shape[1]
    np.testing.assert_allclose(edges, [0.25, 0.5, 0.75], atol=0.01)


def test_the_png_of_a_spectrogram_has_a_pixel_per_level():
    levels_db = np.linspace(-60, 0, 12).reshape(3, 4)
    pixels = image.imread(io.BytesIO(spectrogram_png(levels_db, 0.0)))
    assert pixels.shape[:2] == (3, 4)
    brightness = pixels[..., :3].sum(axis=2).ravel()
    assert (np.diff(brightness) > 0).all()
    np.testing.assert_allclose(pixels[0, 0, :3], np.array([0, 0, 3]) / 255, atol=0.003)


def test_short_waveforms_have_a_spectrogram():
    assert spectrogram_db(np.ones(10), 16000).shape == (128, 1)
