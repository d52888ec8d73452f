"""Small pictures for a page: histogram and scatter as SVG, a spectrogram as PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 46
RANGE_DB = 60.0
Place = Callable[[float], float]
# The colours of a perceptually uniform map, dark to light, at even distances.
COLOURS = (
    (0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122), (229, 80, 100), (251, 135, 97),
    (254, 194, 135), (252, 253, 191),
)  # fmt: skip


def histogram(values: Sequence[float], label: str, unit: str = "dB") -> str:
    """How many trials have which value, as SVG; a line marks the mean.

    Args:
        values: at least one.
        label: of the horizontal axis.
        unit: of the values.
    """
    low, high = np.floor(min(values)), np.ceil(max(values))
    step = next(step for step in (0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 1e9) if (high - low) / step <= 44)
    edges = np.arange(np.floor(low / step), np.ceil(high / step) + 1.5) * step
    counts, edges = np.histogram(values, edges)
    x, y = _scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT), _scale(0, max(counts), HEIGHT - BOTTOM, TOP)
    bars = []
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            kind = "bad" if right <= 0 else "bar"
            bars.append(
                f'<rect class="{kind}" x="{x(left) + 0.5:.1f}" y="{y(count):.1f}" '
                f'width="{max(1.0, x(right) - x(left) - 1):.1f}" height="{y(0) - y(count):.1f}">'
                f"<title>{left:g} to {right:g} {unit}: {count} trials</title></rect>"
            )
    mean = float(np.mean(values))
    mark = f'<line class="mark" x1="{x(mean):.1f}" x2="{x(mean):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    name = f'<text class="marked" x="{x(mean) + 4:.1f}" y="{TOP + 10}">mean {mean:.2f}</text>'
    axes = _x_axis(edges[0], edges[-1], x, f"{label} ({unit})") + _y_axis(0, max(counts), y, "trials", whole=True)
    return _svg(f"Histogram of {label}", axes + "".join(bars) + mark + name)


def scatter(across: Sequence[float], up: Sequence[float], label_across: str, label_up: str) -> str:
    """One dot a trial, as SVG; the line is where both values are the same.

    Args:
        across: horizontal values in dB, at least one.
        up: vertical values in dB, as many.
        label_across: of the horizontal axis.
        label_up: of the vertical axis.
    """
    ranges = [(float(np.floor(min(v)) - 1), float(np.ceil(max(v)) + 1)) for v in (across, up)]
    x, y = _scale(*ranges[0], LEFT, WIDTH - RIGHT), _scale(*ranges[1], HEIGHT - BOTTOM, TOP)
    dots = "".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in zip(across, up, strict=True))
    low, high = max(ranges[0][0], ranges[1][0]), min(ranges[0][1], ranges[1][1])
    same = ""
    if low < high:
        same = f'<line class="mark" x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}"/>'
    axes = _x_axis(*ranges[0], x, f"{label_across} (dB)") + _y_axis(*ranges[1], y, f"{label_up} (dB)")
    return _svg(f"{label_up} against {label_across}", f'{axes}{same}<path class="dots" d="{dots}"/>')


def level_db(waveform: np.ndarray, sample_rate: int, columns: int = 320, rows: int = 128) -> np.ndarray:
    """Level in dB, `[rows, columns]`, highest frequency first: for the eye, no feature of any network.

    Args:
        waveform: `[samples]`.
        sample_rate: Hz.
        columns: at most so many, over the whole of the waveform.
        rows: over 0 Hz to half the sample rate.
    """
    size = 2 * rows
    window = np.hanning(size)
    columns = max(1, min(columns, len(waveform) // (size // 4)))
    padded = np.pad(np.asarray(waveform, dtype=np.float64), size // 2)
    hop = max(size // 4, 1)
    starts = np.arange(0, len(padded) - size + 1, hop)
    power = np.empty((rows, columns))
    for column, block in enumerate(np.array_split(starts, columns)):
        frames = np.stack([padded[start : start + size] for start in block])
        power[:, column] = (np.abs(np.fft.rfft(frames * window, axis=1)) ** 2).mean(axis=0)[:rows]
    return 10 * np.log10(power[::-1] + 1e-14)


def png(level: np.ndarray, loudest_db: float) -> bytes:
    """A picture of levels, `RANGE_DB` of them from the loudest down, with a palette of 256 colours.

    Args:
        level: `[rows, columns]` in dB.
        loudest_db: the level that is drawn lightest.
    """
    index = np.clip((level - loudest_db) / RANGE_DB + 1.0, 0.0, 1.0) * 255
    rows, columns = index.shape
    scanlines = np.concatenate([np.zeros((rows, 1)), np.round(index)], axis=1).astype(np.uint8).tobytes()
    anchors = np.linspace(0, 255, len(COLOURS))
    palette = np.stack([np.interp(np.arange(256), anchors, channel) for channel in zip(*COLOURS, strict=True)], axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", np.round(palette).astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(scanlines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _scale(low: float, high: float, begin: float, end: float) -> Place:
    """Where a value lies on an axis of the picture."""
    span = (high - low) or 1.0
    return lambda value: begin + (float(value) - low) / span * (end - begin)


def _ticks(low: float, high: float, count: int, whole: bool = False) -> np.ndarray:
    rough = max((high - low) / count, 1e-9)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, step) if whole else step
    ticks = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
    return np.where(np.abs(ticks) < step / 2, 0.0, ticks)


def _x_axis(low: float, high: float, x: Place, label: str) -> str:
    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x(t):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{t:g}</text>'
        for t in _ticks(low, high, 8)
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(parts) + f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>'


def _y_axis(low: float, high: float, y: Place, label: str, whole: bool = False) -> str:
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in _ticks(low, high, 6, whole)
    ]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return "".join(parts) + (
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(label)}</text>'
    )


def _svg(title: str, inner: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{inner}</svg>'
