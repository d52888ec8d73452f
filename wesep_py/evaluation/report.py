"""A result as one HTML page that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any

from wesep_py.evaluation.clips import clips
from wesep_py.evaluation.journal import AUDIO
from wesep_py.evaluation.keeping import audio_folder, rank
from wesep_py.evaluation.pictures import histogram, scatter
from wesep_py.evaluation.record import TrialRecord
from wesep_py.evaluation.results import Results
from wesep_py.evaluation.tables import breakdown_table, metric_table, spread, table

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
    """The page.

    Args:
        results: from `read_results`; audio that was saved with them is shown and can be played.
        count: how many of the worst and of the best trials are shown.

    Returns:
        HTML.
    """
    summary = results.summary
    protocol = summary["protocol"]
    model = _short(protocol["model"]["name"])
    counts = summary["counts"]
    date = protocol["date"].replace("T", " ").replace("+00:00", " UTC")
    worst, best = _extremes(results.records, count)
    head = (
        f"<h1>{escape(model)}</h1><p>{escape(protocol['condition'])}</p>"
        f'<p class="soft">{counts["scored"]} of {counts["trials"]} trials scored, {escape(date)}</p>'
    )
    parts = [
        head,
        _tiles(summary),
        "<h2>Metrics</h2>",
        metric_table(summary, results.metrics),
        _notes(summary),
        _charts(results.records),
        _absent(summary, results.records),
        "<h2>By condition</h2>",
        *(
            breakdown_table(TITLES.get(key, key), groups, results.metrics)
            for key, groups in summary["breakdown"].items()
            if groups
        ),
        _trials("Worst trials", worst, results.folder),
        _trials("Best trials", best, results.folder),
        "<h2>Protocol</h2>",
        f'<details class="card"><summary>How every number was measured</summary><pre>'
        f"{escape(json.dumps(protocol, indent=2, ensure_ascii=False))}</pre></details>",
    ]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(model)}: target speaker extraction</title><style>{style}</style></head>"
        f"<body><main>{''.join(part for part in parts if part)}</main></body></html>\n"
    )


def _short(name: str) -> str:
    """The last part of a model's path, which the protocol has whole.

    >>> _short("exp/mine/"), _short("audio made elsewhere")
    ('mine', 'audio made elsewhere')
    """
    return PurePath(name).name or name


def _tiles(summary: Mapping[str, Any]) -> str:
    tiles = []
    for name in TILES:
        interval = summary.get(name)
        if interval and interval["mean"] is not None:
            mean = f"{100 * interval['mean']:.1f} %" if name in SHARES else f"{interval['mean']:.2f}"
            tiles.append(
                f'<div class="card">{escape(name)}<b>{mean}</b><small>{spread(interval, name in SHARES)}</small></div>'
            )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _notes(summary: Mapping[str, Any]) -> str:
    """What did not get a value, and why; how fast it was."""
    rows = [
        (escape(name), reason_count, escape(reason))
        for name, reasons in summary["missing"].items()
        for reason, reason_count in reasons.items()
    ]
    html = ""
    if rows:
        html += "<h2>Missing values</h2>" + table(("metric", "trials", "reason"), rows, text=(2,))
    if failed := summary["failed"]:
        lines = [
            (escape(f"{one['mixture_id']} {one['target_utterance_id']}"), escape(one["error"] or "")) for one in failed
        ]
        html += "<h2>Failed trials</h2>" + table(("trial", "error"), lines, text=(1,))
    if silent := summary["counts"]["silent_estimate"]:
        html += f"<p>{silent} estimates are silent; their SI-SDR is 0 dB by definition.</p>"
    speed = summary["speed"]
    if speed["rtf"] is not None:
        html += (
            f'<p class="soft">Real-time factor {speed["rtf"]:.3f} on {escape(str(speed["device"]))}, '
            f"{speed['threads']} threads, {speed['audio_s'] / 60:.1f} min of audio.</p>"
        )
    return html


def _charts(records: Sequence[TrialRecord]) -> str:
    having = [record.values for record in records if record.outcome == "scored" and "si_sdri" in record.values]
    if not having:
        plain = [record.values["si_sdr"] for record in records if "si_sdr" in record.values]
        return f'<h2>Distribution</h2><div class="charts">{_card(histogram(plain, "SI-SDR"))}</div>' if plain else ""
    after = [values["si_sdr"] for values in having]
    before = [values["si_sdr"] - values["si_sdri"] for values in having]
    first = histogram([values["si_sdri"] for values in having], "SI-SDRi")
    second = scatter(before, after, "SI-SDR of the mixture", "SI-SDR of the estimate")
    caption = '<p class="soft">Above the dashed line extraction helped.</p>'
    return f'<h2>Distribution</h2><div class="charts">{_card(first)}{_card(second + caption)}</div>'


def _absent(summary: Mapping[str, Any], records: Sequence[TrialRecord]) -> str:
    absent = summary["absent"]
    silent = summary["silent_reference"]
    if not absent["count"] and not silent["count"]:
        return ""
    rows = []
    sections = (("absent target", absent), ("silent reference", silent))
    for title, section in sections:
        if section["count"]:
            rows.append(_interval_row(f"{title}: attenuation (dB)", section["attenuation_db"]))
    rates = [(f"{title}: false alarms", section.get("false_alarm_rate", {})) for title, section in sections]
    for title, rules in (*rates, ("retention", absent.get("retention", {}))):
        for rule, interval in rules.items():
            if interval["count"]:
                rows.append(_interval_row(f"{title}, {rule.replace('_', ' ')}", interval))
    values = [r.attenuation_db for r in records if r.outcome in ("absent", "silent_reference") and r.attenuation_db]
    chart = f'<div class="charts">{_card(histogram(values, "Attenuation"))}</div>' if values else ""
    return "<h2>Nothing to extract</h2>" + table(("", "mean", "95 % interval", "trials"), rows) + chart


def _interval_row(title: str, interval: Mapping[str, Any]) -> tuple[str, ...]:
    mean = "" if interval["mean"] is None else f"{interval['mean']:.3f}"
    return title, mean, spread(interval), str(interval["count"])


def _extremes(records: Sequence[TrialRecord], count: int) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """The worst and the best trials; none is in both."""
    ranked = sorted(
        ((value, record.number or 0, record) for record in records if (value := rank(record)) is not None),
        key=lambda entry: entry[:2],
    )
    ordered = [record for _, _, record in ranked]
    worst = ordered[:count]
    return worst, ordered[max(len(worst), len(ordered) - count) :][::-1]


def _trials(title: str, records: Sequence[TrialRecord], folder: Path) -> str:
    if not records:
        return ""
    cards, unheard = [], 0
    for record in records:
        media = clips(folder / AUDIO / audio_folder(record))
        unheard += not media
        facts = " · ".join(f"<span>{fact}</span>" for fact in _facts(record))
        name = f"{record.mixture_id} · {record.target_utterance_id}"
        cards.append(f'<div class="card"><h3>{escape(name)}</h3><p class="soft">{facts}</p>{media}</div>')
    note = ""
    if unheard:
        note = (
            f'<p class="soft">Audio of {unheard} of these {len(records)} was not saved; --save-extremes '
            f"{len(records)} keeps it.</p>"
        )
    return f'<h2>{title}</h2>{note}<div class="trials">{"".join(cards)}</div>'


def _facts(record: TrialRecord) -> list[str]:
    facts = [
        f"{name} {record.values[name]:.2f}" for name in ("si_sdri", "si_sdr", "pesq", "estoi") if name in record.values
    ]
    if record.values.get("confusion") == 1.0:
        facts.append("<b>wrong voice</b>")
    if record.sir_db is not None:
        facts.append(f"SIR {record.sir_db:.1f} dB")
    if record.gender_pair:
        facts.append(escape(record.gender_pair))
    if record.overlap is not None:
        facts.append(f"overlap {record.overlap:.2f}")
    return facts


def _card(inner: str) -> str:
    return f'<div class="card">{inner}</div>'
