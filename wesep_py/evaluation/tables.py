"""Tables of a page, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], text: Sequence[int] = ()) -> str:
    """A table that scrolls by itself where it is too wide.

    Args:
        header: titles of the columns.
        rows: cells, HTML already.
        text: the columns that hold sentences.
    """
    heads = "".join(f"<th>{escape(title)}</th>" for title in header)
    lines = []
    for row in rows:
        cells = "".join(f'<td class="text">{c}</td>' if i in text else f"<td>{c}</td>" for i, c in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def spread(interval: Mapping[str, Any], as_share: bool = False) -> str:
    """The two ends of an interval, or nothing; shares in per cent."""
    if interval["low"] is None:
        return ""
    if as_share:
        return f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f} %"
    return f"{interval['low']:.2f} to {interval['high']:.2f}"


def metric_table(summary: Mapping[str, Any], names: Sequence[str]) -> str:
    """Every metric with its interval, and the definitions below."""
    definitions = summary["protocol"]["metrics"]
    rows = [
        (
            escape(name),
            "missing" if summary[name]["mean"] is None else f"{summary[name]['mean']:.3f}",
            spread(summary[name]),
            summary[name]["count"],
        )
        for name in names
    ]
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(definitions[name])}</dd>" for name in names)
    return table(("metric", "mean", "95 % interval", "trials"), rows) + (
        f'<details class="card"><summary>Definitions</summary><dl>{terms}</dl></details>'
    )


def breakdown_table(title: str, groups: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """The metrics of each group; the interval stands under the mean."""
    rows = []
    for group, members in groups.items():
        cells = [f"{_mean(members[name])}<br><small>{spread(members[name])}</small>" for name in names]
        rows.append((escape(group), members["trials"], *cells))
    return f"<h3>{escape(title)}</h3>" + table(("", "trials", *names), rows)


def _mean(interval: Mapping[str, Any]) -> str:
    return "" if interval["mean"] is None else f"{interval['mean']:.2f}"
