"""Draw the pictures of a report with matplotlib: histogram, scatter plot, spectrogram.

A chart is drawn twice, in the colours of a light and of a dark page; the browser shows the one that fits the reader's
setting. Every picture has a text alternative with its main figures, and is part of the page as a data URI.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANGE_DB = 60.0
"""Range of levels of a spectrogram, from its loudest point down."""
CHART_SIZE_IN = (4.4, 2.7)
CHART_DPI = 200
BIN_WIDTHS = (0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 1e9)
MAX_BINS = 44


@dataclass(frozen=True)
class ChartColours:
    """Colours of a chart; they are those of the page (report.css)."""

    text: str
    soft: str
    line: str
    accent: str
    bad: str


LIGHT = ChartColours("#1c2330", "#5c6675", "#d9dee6", "#2563a8", "#b3402e")
DARK = ChartColours("#e6e9ee", "#9aa5b4", "#343d49", "#6aa9ec", "#ef8a76")


def histogram_html(values: Sequence[float], label: str, unit: str = "dB") -> str:
    """Return a histogram of the values of trials as HTML.

    Args:
        values: at least one.
        label: of the horizontal axis.
        unit: of the values.
    """
    return _histogram_html(tuple(values), label, unit)


@functools.lru_cache(maxsize=8)
def _histogram_html(values: tuple[float, ...], label: str, unit: str) -> str:
    light, dark = (histogram(values, label, unit, colours) for colours in (LIGHT, DARK))
    alternative = (
        f"Histogram of {label} of {len(values)} trials: mean {np.mean(values):.2f} {unit}, from {min(values):.2f} to "
        f"{max(values):.2f} {unit}."
    )
    return _picture(light, dark, alternative)


def scatter_html(x_values: Sequence[float], y_values: Sequence[float], x_label: str, y_label: str) -> str:
    """Return a scatter plot with one dot per trial as HTML.

    Args:
        x_values: in dB, at least one.
        y_values: in dB, as many.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
    """
    return _scatter_html(tuple(x_values), tuple(y_values), x_label, y_label)


@functools.lru_cache(maxsize=8)
def _scatter_html(x_values: tuple[float, ...], y_values: tuple[float, ...], x_label: str, y_label: str) -> str:
    light, dark = (scatter(x_values, y_values, x_label, y_label, colours) for colours in (LIGHT, DARK))
    above = int((np.array(y_values) > np.array(x_values)).sum())
    alternative = (
        f"Scatter plot of {y_label} against {x_label} of {len(x_values)} trials: {above} are above the line of equal "
        "values."
    )
    return _picture(light, dark, alternative)


def histogram(values: Sequence[float], label: str, unit: str = "dB", colours: ChartColours = LIGHT) -> Figure:
    """Draw how many trials have which value; a dashed line marks the mean, bars at or below 0 have another colour."""
    # Edges are multiples of a round width, so that 0 is an edge and no bar holds gains and losses together.
    low, high = np.floor(min(values)), np.ceil(max(values))
    width = next(width for width in BIN_WIDTHS if (high - low) / width <= MAX_BINS)
    edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1.5) * width
    counts, edges = np.histogram(values, edges)
    figure, axes = _chart(f"{label} ({unit})", "trials", colours)
    fills = [colours.bad if right <= 0 else colours.accent for right in edges[1:]]
    axes.bar(edges[:-1], counts, width=0.92 * width, align="edge", color=fills)
    mean = float(np.mean(values))
    axes.axvline(mean, color=colours.text, linestyle="--", linewidth=1)
    place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}  # above the axes
    axes.text(mean, 1.01, f"mean {mean:.2f}", color=colours.text, fontsize=9, **place)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return figure


def scatter(
    x_values: Sequence[float], y_values: Sequence[float], x_label: str, y_label: str, colours: ChartColours = LIGHT
) -> Figure:
    """Draw one dot per trial; on the dashed line both values are equal."""
    figure, axes = _chart(f"{x_label} (dB)", f"{y_label} (dB)", colours)
    axes.scatter(x_values, y_values, s=10, color=colours.accent, alpha=0.6, linewidths=0)
    x_range, y_range = ((np.floor(min(values)) - 1, np.ceil(max(values)) + 1) for values in (x_values, y_values))
    axes.set_xlim(*x_range)
    axes.set_ylim(*y_range)
    axes.axline((0, 0), slope=1, color=colours.text, linestyle="--", linewidth=1)
    return figure


def _chart(x_label: str, y_label: str, colours: ChartColours) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=CHART_SIZE_IN, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(color=colours.line, linewidth=0.8)
    axes.tick_params(colors=colours.soft, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    # Without parse_math a name with dollar signs would be read as a formula.
    axes.set_xlabel(x_label, color=colours.soft, fontsize=10, parse_math=False)
    axes.set_ylabel(y_label, color=colours.soft, fontsize=10, parse_math=False)
    return figure, axes


def _picture(light: Figure, dark: Figure, alternative: str) -> str:
    width, height = (round(100 * inches) for inches in CHART_SIZE_IN)
    light_uri, dark_uri = (data_uri("image/png", _png(figure)) for figure in (light, dark))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark_uri}">'
        f'<img alt="{escape(alternative)}" width="{width}" height="{height}" src="{light_uri}"></picture>'
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=CHART_DPI, transparent=True)
    return buffer.getvalue()


def spectrogram_db(waveform: np.ndarray, sample_rate: int, columns: int = 320, rows: int = 128) -> np.ndarray:
    """Return the levels of a spectrogram in dB, `[rows, columns]`, highest frequency first.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.
        columns: largest number of columns, over the whole waveform.
        rows: over 0 Hz to half the sample rate.
    """
    size = 2 * rows
    window = np.hanning(size)
    columns = max(1, min(columns, len(waveform) // (size // 4)))
    padded = np.pad(np.asarray(waveform, dtype=np.float64), size // 2)
    starts = np.arange(0, len(padded) - size + 1, max(size // 4, 1))
    power = np.empty((rows, columns))
    # A column is the mean power of its frames, so that no frame of a long recording is left out. Their numbers differ
    # by one, evenly spread: with the larger ones first (`np.array_split`), the time axis would be bent.
    ends = np.round(np.linspace(0, len(starts), columns + 1)[1:-1]).astype(int)
    for column, column_starts in enumerate(np.split(starts, ends)):
        frames = np.stack([padded[start : start + size] for start in column_starts])
        power[:, column] = (np.abs(np.fft.rfft(frames * window, axis=1)) ** 2).mean(axis=0)[:rows]
    return 10 * np.log10(power[::-1] + 1e-14)


def spectrogram_png(levels_db: np.ndarray, loudest_db: float) -> bytes:
    """Return a spectrogram as PNG, `RANGE_DB` from the loudest level down, in the colour map magma.

    Args:
        levels_db: `[rows, columns]`.
        loudest_db: the level that is drawn lightest.
    """
    from matplotlib import colormaps
    from PIL import Image

    # One byte per pixel and a palette: a quarter of the size of the RGBA pictures that matplotlib saves.
    index = np.clip((levels_db - loudest_db) / RANGE_DB + 1.0, 0.0, 1.0) * 255
    image = Image.fromarray(np.round(index).astype(np.uint8), mode="L")
    image.putpalette(colormaps["magma"](np.arange(256), bytes=True)[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(media_type: str, data: bytes) -> str:
    """Return data as a URI that is part of the page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
