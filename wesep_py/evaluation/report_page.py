"""Show a result as one HTML page that needs nothing else: no network, no scripts, no other files.

`build_report` collects what the template `report.html.jinja` shows. Everything that results say is escaped there as
text, and a Content-Security-Policy forbids scripts and loading. Only the markup of pictures and players, which is made
here and in `report_pictures` from numbers and fixed words, is inserted unescaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from wesep_py.common.errors import AudioError, InputError, WesepError, shorten
from wesep_py.evaluation.report_pictures import (
    data_uri,
    histogram_html,
    scatter_html,
    spectrogram_db,
    spectrogram_png,
)
from wesep_py.evaluation.results import AUDIO, EvaluationResults, TrialRecord, audio_folder, rank

TILE_METRICS = ("si_sdri", "si_sdr", "accuracy", "confusion", "pesq", "estoi", "timing_f1", "similarity", "wer")
BREAKDOWN_TITLES = {
    "sir_db": "SIR (dB)",
    "num_speakers": "Number of speakers",
    "gender_pair": "Genders",
    "age_group": "Age of the target",
    "overlap": "Overlap",
    "enrollment_s": "Length of the enrollment (s)",
    "level_db": "Level of the target (dB)",
}
PERCENT_METRICS = {"accuracy", "confusion"}
SIGNAL_TITLES = {"mixture": "mixture", "estimate": "estimate", "reference": "target alone"}
"""Signals with a spectrogram, and their titles."""
MAX_AUDIO_S = 30.0
"""Of longer recordings only the beginning is in the page."""
PEAK = 0.8
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates of MP3, which every browser plays; other rates become WAV."""


def build_report(results: EvaluationResults, count: int = 10) -> str:
    """Return the report of a result as one HTML page.

    Args:
        results: from `read_results`; audio that was saved with them is shown and can be played.
        count: number of worst and number of best trials that are shown.

    Raises:
        InputError: the results lack a value, or have a value of a wrong type.
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
    """Return the variables of the template: numbers as texts, everything else as it is in the results."""
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
            (f"{trial['mixture_id']} {trial['target_utterance_id']}", trial["error"] or "")
            for trial in summary["failed"]
        ],
        "speed": _speed(summary["speed"]),
        "charts": _charts(results.records),
        "absent": _absent(summary, results.records),
        "breakdown": [
            _section(BREAKDOWN_TITLES.get(key, key), groups, names)
            for key, groups in summary["breakdown"].items()
            if groups
        ],
        "worst": [_card(record, results.folder) for record in worst],
        "best": [_card(record, results.folder) for record in best],
        "protocol": json.dumps(protocol, indent=2, ensure_ascii=False),
    }


def _short(name: str) -> str:
    """Return the last part of a model's path; the whole path is in the protocol.

    >>> _short("exp/mine/"), _short("audio made elsewhere")
    ('mine', 'audio made elsewhere')
    """
    return PurePath(name).name or name


def _number(value: Any, digits: int) -> str:
    """Return a number with this many decimals; an empty text for `None`."""
    return "" if value is None else f"{float(value):.{digits}f}"


def _spread(interval: Mapping[str, Any], as_share: bool = False) -> str:
    """Return the two ends of an interval, or an empty text; shares in per cent."""
    if interval["low"] is None:
        return ""
    if as_share:
        return f"{100 * float(interval['low']):.1f} to {100 * float(interval['high']):.1f} %"
    return f"{_number(interval['low'], 2)} to {_number(interval['high'], 2)}"


def _interval_row(title: str, interval: Mapping[str, Any], none: str = "missing") -> tuple[Any, ...]:
    return title, _number(interval["mean"], 3) or none, _spread(interval), interval["count"]


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = []
    for name in TILE_METRICS:
        interval = summary.get(name)
        if interval and interval["mean"] is not None:
            share = name in PERCENT_METRICS
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
    """Return the table of one breakdown: the metrics of each group of trials, with the interval below the mean."""
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
    improved = [record.values for record in records if record.outcome == "scored" and "si_sdri" in record.values]
    if not improved:
        after = [record.values["si_sdr"] for record in records if "si_sdr" in record.values]
        return [{"picture": histogram_html(after, "SI-SDR"), "caption": ""}] if after else []
    after = [values["si_sdr"] for values in improved]
    before = [values["si_sdr"] - values["si_sdri"] for values in improved]
    return [
        {"picture": histogram_html([values["si_sdri"] for values in improved], "SI-SDRi"), "caption": ""},
        {
            "picture": scatter_html(before, after, "SI-SDR of the mixture", "SI-SDR of the estimate"),
            "caption": "Above the dashed line, extraction improved the trial.",
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
    return {"rows": rows, "picture": histogram_html(values, "Attenuation") if values else ""}


def _extremes(records: Sequence[TrialRecord], count: int) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Return the worst and the best trials, best first; no trial is in both."""
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
        "media": saved_audio_html(folder / AUDIO / audio_folder(record)),
    }


def _facts(record: TrialRecord) -> list[dict[str, Any]]:
    shown = ("si_sdri", "si_sdr", "pesq", "estoi")
    facts = [(f"{name} {_number(record.values[name], 2)}", False) for name in shown if name in record.values]
    if record.values.get("confusion") == 1.0:
        facts.append(("wrong speaker", True))
    if record.sir_db is not None:
        facts.append((f"SIR {_number(record.sir_db, 1)} dB", False))
    if record.gender_pair:
        facts.append((record.gender_pair, False))
    if record.overlap is not None:
        facts.append((f"overlap {_number(record.overlap, 2)}", False))
    return [{"text": text, "is_warning": is_warning} for text, is_warning in facts]


def saved_audio_html(folder: Path) -> str:
    """Return spectrograms and players of the saved audio of a trial as HTML; empty if there is none.

    Mixture, estimate and target share one gain and one scale of levels, so that they can be compared.

    Args:
        folder: with `mixture.wav`, `estimate.wav` and others, from `evaluate --save-audio`.

    Raises:
        AudioError: a file is damaged, or there is none of the three.
    """
    from wesep_py.audio import read

    if not folder.is_dir():
        return ""
    signals: dict[str, tuple[np.ndarray, int]] = {}
    for name in (*SIGNAL_TITLES, "enrollment"):
        path = folder / f"{name}.wav"
        if path.is_file():
            waveform, rate = read(path)
            signals[name] = waveform[0][: round(MAX_AUDIO_S * rate)], rate
    compared = {name: signal for name, signal in signals.items() if name in SIGNAL_TITLES}
    if not compared:
        raise AudioError(f"{folder}: holds no mixture.wav, estimate.wav or reference.wav")
    gain = _gain(*(waveform for waveform, _ in compared.values()))
    levels = {name: spectrogram_db(waveform, rate) for name, (waveform, rate) in compared.items()}
    loudest_db = max(float(np.percentile(level, 99.9)) for level in levels.values())
    figures = [
        _audio_figure(SIGNAL_TITLES[name], *signals[name], gain, spectrogram_png(level, loudest_db))
        for name, level in levels.items()
    ]
    if "enrollment" in signals:
        waveform, rate = signals["enrollment"]
        figures.append(_audio_figure("enrollment", waveform, rate, _gain(waveform), None))
    return "".join(figures)


def _gain(*waveforms: np.ndarray) -> float:
    """Return the gain with which the loudest of the waveforms peaks at `PEAK`."""
    return PEAK / max(1e-6, max(float(np.abs(waveform).max(initial=0.0)) for waveform in waveforms))


def _audio_figure(title: str, waveform: np.ndarray, rate: int, gain: float, picture: bytes | None) -> str:
    length = f"{len(waveform) / rate:.1f} s, 0 to {rate / 2000:g} kHz"
    image = ""
    if picture is not None:
        alternative = escape(f"Spectrogram of the {title}, {length}.")
        image = f'<img alt="{alternative}" src="{data_uri("image/png", picture)}">'
    media_type, encoded = encode_for_browser(waveform * np.float32(gain), rate)
    return (
        f"<figure><figcaption>{escape(title)}, {length}</figcaption>{image}"
        f'<audio controls preload="metadata" src="{data_uri(media_type, encoded)}"></audio></figure>'
    )


def encode_for_browser(waveform: np.ndarray, rate: int) -> tuple[str, bytes]:
    """Return the media type and bytes of a waveform `[samples]`: MP3 if it has the sample rate, else 16-bit WAV."""
    from wesep_py.audio import write

    name, media_type, subtype = "clip.wav", "audio/wav", "PCM_16"
    if rate in MP3_RATES:
        name, media_type, subtype = "clip.mp3", "audio/mpeg", None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, waveform, rate, subtype)
        return media_type, path.read_bytes()
