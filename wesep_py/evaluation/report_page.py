"""A result as one HTML page that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from wesep_py.common.errors import AudioError, InputError, WesepError, shorten
from wesep_py.evaluation.results import AUDIO, EvaluationResults, TrialRecord, audio_folder, rank

# ----------------------------------------
# Small pictures for a page: histogram and scatter as SVG, a spectrogram as PNG.

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


def spectrogram_db(waveform: np.ndarray, sample_rate: int, columns: int = 320, rows: int = 128) -> np.ndarray:
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


def spectrogram_png(level: np.ndarray, loudest_db: float) -> bytes:
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


# ----------------------------------------
# One trial to look at and listen to: spectrograms and players, inside the page itself.

SHOWN = {"mixture": "mixture", "estimate": "estimate", "reference": "target alone"}
LONGEST_S = 30.0
"""Of longer recordings only the beginning is in the page."""
PEAK = 0.8
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Every browser plays MP3; other rates become WAV."""


def saved_audio_figures(folder: Path) -> str:
    """Figures of what is saved of a trial, as HTML; empty if nothing is.

    Mixture, estimate and target have one gain and one scale of levels, so that they can be compared.

    Args:
        folder: with `mixture.wav`, `estimate.wav` and others, as `evaluate --save-audio` writes them.

    Raises:
        AudioError: a file is damaged.
    """
    from wesep_py.audio import read

    if not folder.is_dir():
        return ""
    found = {}
    for name in (*SHOWN, "enrollment"):
        path = folder / f"{name}.wav"
        if path.is_file():
            waveform, rate = read(path)
            found[name] = waveform[0][: round(LONGEST_S * rate)], rate
    together = [waveform for name, (waveform, _) in found.items() if name in SHOWN]
    if not together:
        raise AudioError(f"{folder}: holds no mixture.wav, estimate.wav or reference.wav")
    gain = PEAK / max(1e-6, max(float(np.abs(waveform).max(initial=0.0)) for waveform in together))
    levels = {name: spectrogram_db(found[name][0], found[name][1]) for name in SHOWN if name in found}
    loudest_db = max(float(np.percentile(level, 99.9)) for level in levels.values())
    figures = [
        _figure(SHOWN[name], *found[name], gain, spectrogram_png(level, loudest_db)) for name, level in levels.items()
    ]
    if "enrollment" in found:
        waveform, rate = found["enrollment"]
        own_gain = PEAK / max(1e-6, float(np.abs(waveform).max(initial=0.0)))
        figures.append(_figure("enrollment", waveform, rate, own_gain, None))
    return "".join(figures)


def _figure(title: str, waveform: np.ndarray, rate: int, gain: float, picture: bytes | None) -> str:
    image = ""
    if picture is not None:
        image = f'<img alt="spectrogram, {escape(title)}" src="{_uri("image/png", picture)}">'
    kind, encoded = encode_audio(waveform * np.float32(gain), rate)
    length = f"{len(waveform) / rate:.1f} s, 0 to {rate / 2000:g} kHz"
    return (
        f"<figure><figcaption>{escape(title)}, {length}</figcaption>{image}"
        f'<audio controls preload="metadata" src="{_uri(kind, encoded)}"></audio></figure>'
    )


def encode_audio(waveform: np.ndarray, rate: int) -> tuple[str, bytes]:
    """The media type and bytes of a waveform `[samples]`: MP3 where it can be, else 16-bit WAV."""
    from wesep_py.audio import write

    name, kind, subtype = ("clip.mp3", "audio/mpeg", None) if rate in MP3_RATES else ("clip.wav", "audio/wav", "PCM_16")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, waveform, rate, subtype)
        return kind, path.read_bytes()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


TILES = ("si_sdri", "si_sdr", "accuracy", "confusion", "pesq", "estoi", "timing_f1", "similarity", "wer")
TITLES = {
    "sir_db": "SIR (dB)",
    "num_speakers": "Number of speakers",
    "gender_pair": "Genders",
    "age_group": "Age of the target",
    "overlap": "Overlap",
    "enrollment_s": "Length of the enrollment (s)",
    "level_db": "Level of the target (dB)",
}
SHARES = {"accuracy", "confusion"}


def build_report(results: EvaluationResults, count: int = 10) -> str:
    """Return the page.

    Args:
        results: from `read_results`; audio that was saved with them is shown and can be played.
        count: how many of the worst and of the best trials are shown.

    Returns:
        HTML. Whatever the results say is text in it, and a Content-Security-Policy forbids scripts and loading.

    Raises:
        InputError: the results lack a value, or have one of a wrong type.
        AudioError: saved audio is damaged.
    """
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    try:
        return _template().render(
            style=style,
            style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
            **_content(results, count),
        )
    except WesepError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, StopIteration) as error:
        raise InputError(
            f"{results.folder}: its results are damaged ({type(error).__name__}: {shorten(error)}); "
            "copy the folder again, or repeat the evaluation"
        ) from error


@functools.cache
def _template() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.jinja")


def _content(results: EvaluationResults, count: int) -> dict[str, Any]:
    """What the template shows: numbers as texts, and everything else as it stands in the results."""
    summary, names = results.summary, results.metrics
    protocol = summary["protocol"]
    worst, best = _extremes(results.records, count)
    return {
        "model": _short(str(protocol["model"]["name"])),
        "condition": protocol["condition"],
        "date": str(protocol["date"]).replace("T", " ").replace("+00:00", " UTC"),
        "counts": summary["counts"],
        "tiles": _tiles(summary),
        "metrics": [_interval_row(name, summary[name]) for name in names],
        "definitions": [(name, protocol["metrics"][name]) for name in names],
        "missing": [
            (name, reason_count, reason)
            for name, reasons in summary["missing"].items()
            for reason, reason_count in reasons.items()
        ],
        "failed": [
            (f"{one['mixture_id']} {one['target_utterance_id']}", one["error"] or "") for one in summary["failed"]
        ],
        "speed": _speed(summary["speed"]),
        "charts": _charts(results.records),
        "absent": _absent(summary, results.records),
        "breakdown": [
            _section(TITLES.get(key, key), groups, names) for key, groups in summary["breakdown"].items() if groups
        ],
        "worst": [_card(record, results.folder) for record in worst],
        "best": [_card(record, results.folder) for record in best],
        "protocol": json.dumps(protocol, indent=2, ensure_ascii=False),
    }


def _short(name: str) -> str:
    """The last part of a model's path, which the protocol has whole.

    >>> _short("exp/mine/"), _short("audio made elsewhere")
    ('mine', 'audio made elsewhere')
    """
    return PurePath(name).name or name


def _number(value: Any, digits: int) -> str:
    """The number with so many digits; nothing for `None`."""
    return "" if value is None else f"{float(value):.{digits}f}"


def _spread(interval: Mapping[str, Any], as_share: bool = False) -> str:
    """The two ends of an interval, or nothing; shares in per cent."""
    if interval["low"] is None:
        return ""
    if as_share:
        return f"{100 * float(interval['low']):.1f} to {100 * float(interval['high']):.1f} %"
    return f"{_number(interval['low'], 2)} to {_number(interval['high'], 2)}"


def _interval_row(title: str, interval: Mapping[str, Any], none: str = "missing") -> tuple[Any, ...]:
    return title, _number(interval["mean"], 3) or none, _spread(interval), interval["count"]


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = []
    for name in TILES:
        interval = summary.get(name)
        if interval and interval["mean"] is not None:
            share = name in SHARES
            mean = f"{100 * float(interval['mean']):.1f} %" if share else _number(interval["mean"], 2)
            tiles.append({"name": name, "mean": mean, "spread": _spread(interval, share)})
    return tiles


def _speed(speed: Mapping[str, Any]) -> dict[str, Any] | None:
    if speed["rtf"] is None:
        return None
    return {
        "rtf": _number(speed["rtf"], 3),
        "device": speed["device"],
        "threads": speed["threads"],
        "minutes": _number(float(speed["audio_s"]) / 60, 1),
    }


def _section(title: str, groups: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The metrics of each group of trials; the interval stands under the mean."""
    return {
        "title": title,
        "header": ("", "trials", *names),
        "groups": [
            {
                "name": group,
                "trials": members["trials"],
                "cells": [
                    {"mean": _number(members[name]["mean"], 2), "spread": _spread(members[name])} for name in names
                ],
            }
            for group, members in groups.items()
        ],
    }


def _charts(records: Sequence[TrialRecord]) -> list[dict[str, str]]:
    having = [record.values for record in records if record.outcome == "scored" and "si_sdri" in record.values]
    if not having:
        plain = [record.values["si_sdr"] for record in records if "si_sdr" in record.values]
        return [{"svg": histogram(plain, "SI-SDR"), "caption": ""}] if plain else []
    after = [values["si_sdr"] for values in having]
    before = [values["si_sdr"] - values["si_sdri"] for values in having]
    return [
        {"svg": histogram([values["si_sdri"] for values in having], "SI-SDRi"), "caption": ""},
        {
            "svg": scatter(before, after, "SI-SDR of the mixture", "SI-SDR of the estimate"),
            "caption": "Above the dashed line extraction helped.",
        },
    ]


def _absent(summary: Mapping[str, Any], records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    absent = summary["absent"]
    silent = summary["silent_reference"]
    if not absent["count"] and not silent["count"]:
        return None
    sections = (("absent target", absent), ("silent reference", silent))
    rows = [
        _interval_row(f"{title}: attenuation (dB)", section["attenuation_db"], "")
        for title, section in sections
        if section["count"]
    ]
    rates = [(f"{title}: false alarms", section.get("false_alarm_rate", {})) for title, section in sections]
    for title, rules in (*rates, ("retention", absent.get("retention", {}))):
        for rule, interval in rules.items():
            if interval["count"]:
                rows.append(_interval_row(f"{title}, {rule.replace('_', ' ')}", interval, ""))
    values = [
        float(record.attenuation_db)
        for record in records
        if record.outcome in ("absent", "silent_reference") and record.attenuation_db
    ]
    return {"rows": rows, "svg": histogram(values, "Attenuation") if values else ""}


def _extremes(records: Sequence[TrialRecord], count: int) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """The worst and the best trials; none is in both."""
    ranked = sorted(
        ((value, record.number or 0, record) for record in records if (value := rank(record)) is not None),
        key=lambda entry: entry[:2],
    )
    ordered = [record for _, _, record in ranked]
    worst = ordered[:count]
    return worst, ordered[max(len(worst), len(ordered) - count) :][::-1]


def _card(record: TrialRecord, folder: Path) -> dict[str, Any]:
    return {
        "name": f"{record.mixture_id} · {record.target_utterance_id}",
        "facts": _facts(record),
        "media": saved_audio_figures(folder / AUDIO / audio_folder(record)),
    }


def _facts(record: TrialRecord) -> list[dict[str, Any]]:
    shown = ("si_sdri", "si_sdr", "pesq", "estoi")
    facts = [(f"{name} {_number(record.values[name], 2)}", False) for name in shown if name in record.values]
    if record.values.get("confusion") == 1.0:
        facts.append(("wrong voice", True))
    if record.sir_db is not None:
        facts.append((f"SIR {_number(record.sir_db, 1)} dB", False))
    if record.gender_pair:
        facts.append((record.gender_pair, False))
    if record.overlap is not None:
        facts.append((f"overlap {_number(record.overlap, 2)}", False))
    return [{"text": text, "is_warning": is_warning} for text, is_warning in facts]
