"""A result as one HTML page that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from wesep_py.errors import InputError, WesepError, shorten
from wesep_py.evaluation.clips import clips
from wesep_py.evaluation.journal import AUDIO
from wesep_py.evaluation.keeping import audio_folder, rank
from wesep_py.evaluation.pictures import histogram, scatter
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.results import Results

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


def build_report(results: Results, count: int = 10) -> str:
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


def _content(results: Results, count: int) -> dict[str, Any]:
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
        "media": clips(folder / AUDIO / audio_folder(record)),
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
