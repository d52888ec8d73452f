"""The card of a bundled model: the template `card.md`, filled with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from wesep_py.common.errors import InputError
from wesep_py.common.textfiles import COUNT, check_schema, read_json
from wesep_py.evaluation.summary import presence_threshold

TEMPLATE = Path(__file__).resolve().parent / "card.md"


@dataclass(frozen=True)
class Facts:
    """What no file of the run knows.

    Attributes:
        title: what the model is for.
        licence: of the weights.
        data: each corpus, with its licence.
        recipe: the YAML and the command that trained it.
        hardware: on which.
        limits: what it cannot do, or was not tried on.
    """

    title: str
    licence: str
    data: list[str]
    recipe: str
    hardware: str
    limits: list[str]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value or value == "???":
                raise ValueError(f"{name}: is not said, and a card says it; give {name}='…'")


@dataclass(frozen=True)
class Row:
    """One result of `wesep evaluate`.

    Attributes:
        name: its folder below that of the results: `dev_2mix/clean`.
        condition: `clean`, `noisy`.
        summary: what stands in its `summary.json`.
    """

    name: str
    condition: str
    summary: Mapping[str, Any]


def read_results(folder: Path, hashes: Sequence[str]) -> list[Row]:
    """Every result below a folder, by name.

    Args:
        folder: of folders that `wesep evaluate` wrote.
        hashes: of the model: those that its results may be of.

    Raises:
        InputError: there is none; one is of another model.
    """
    rows = []
    for path in sorted(folder.rglob("summary.json")):
        summary = read_json(path, "a summary of results", "evaluate again").values
        shape = {"protocol": {"model": {"hash": str}, "condition": str}, "counts": {"scored": COUNT}}
        check_schema(summary, shape, str(path), "evaluate again")
        of = summary["protocol"]["model"]["hash"]
        if of not in hashes:
            raise InputError(
                f"{path}: is of another model (hash {of[:12]}); evaluate this one, or move that result away"
            )
        name = path.parent.relative_to(folder).as_posix() if path.parent != folder else folder.name
        rows.append(Row(name, summary["protocol"]["condition"].partition(":")[0], summary))
    if not rows:
        raise InputError(f"{folder}: holds no summary.json; make results with `wesep evaluate`")
    return rows


def headline(rows: Sequence[Row]) -> str:
    """One line: clean mixtures of two speakers, or whatever comes first."""
    present = [row for row in rows if row.summary["counts"]["scored"]]
    chosen = [row for row in present if row.condition == "clean" and "2mix" in row.name] or present[:1]
    figures = (
        f"{row.summary['si_sdri']['mean']:.1f} dB SI-SDRi and {100 * row.summary['accuracy']['mean']:.0f} % accuracy "
        f"on {row.name}"
        for row in chosen
    )
    return "; ".join(figures)


def results_tables(rows: Sequence[Row], threshold: float | None = None) -> str:
    """The trials with a target, and those without, as Markdown.

    Args:
        rows: the results.
        threshold: from which probability on the bundle takes a voice to be there; `None`: it is not calibrated.
    """
    tables = []
    if present := [row for row in rows if row.summary["counts"]["scored"]]:
        head = ("list", "condition", "trials", "SI-SDRi", "accuracy", "confusion", "lost by level", "lost by presence")
        tables.append(_table([*head, "RTF"], [_present(row) for row in present]))
    if absent := [row for row in rows if row.summary["absent"]["count"]]:
        head = ("target absent", "condition", "trials", "dB below the mixture", "heard by level", "heard by presence")
        tables.append(_table(head, [_absent(row) for row in absent]))
    decision = rows[0].summary["protocol"].get("decision", {})
    thresholds = sorted({presence_threshold(row.summary["protocol"]) for row in rows})
    if threshold is not None and thresholds != [threshold]:
        before = ", ".join(f"{one:g}" for one in thresholds)
        tables.append(f"The columns by presence are from before the calibration below: a threshold of {before}.")
    tables += [f"By {rule.removeprefix('by_')}: {decision[rule]}." for rule in ("by_level", "by_presence") if decision]
    return "\n\n".join(tables)


def presence_text(presence: Mapping[str, Any] | None) -> str:
    """What the calibration in a provenance says."""
    if presence is None:
        return "The probability is not calibrated."
    lines = [f"Calibrated; a voice counts as present from a probability of {presence['threshold']:.3f} on."]
    rows = []
    for lists, figures in (("fitted_on", "there"), ("checked_on", "checked")):
        if figures in presence:
            found = presence[figures]
            rates = [_share(found["false_alarms"]), _share(found["lost"])]
            numbers = [str(found["absent"]), str(found["present"]), *rates, f"{found['ece']:.3f}"]
            rows.append([f"{lists.replace('_', ' ')} {', '.join(map(str, presence.get(lists, [])))}", *numbers])
    if rows:
        lines.append(_table(["lists", "absent", "present", "false alarms", "lost", "calibration error"], rows))
    return "\n\n".join(lines)


def training_text(facts: Facts, provenance: Mapping[str, Any]) -> str:
    """How it was trained, a line each."""
    lines = [f"recipe: {facts.recipe}", f"hardware: {facts.hardware}"]
    if corpus := provenance.get("corpus"):
        lines.append(f"from {corpus['utterances']} utterances of {corpus['speakers']} speakers, {corpus['hours']} h")
    runs = [run for run in (*provenance.get("went_on_from", []), provenance) if "mixtures" in run]
    for number, run in enumerate(runs, start=1):
        which = f"run {number}, from the weights of the one before: " if number > 1 else "run 1: " if runs[1:] else ""
        lines.append(which + _run_text(run))
    if commit := (provenance.get("git") or {}).get("commit"):
        lines.append(f"code: commit {commit}")
    return _list(lines)


def _run_text(run: Mapping[str, Any]) -> str:
    """What one run did, and what its weights are the mean of."""
    steps = max(run.get("steps") or [run.get("step")])
    text = f"{steps} steps, {run['mixtures']} simulated mixtures, {run.get('hours_trained')} h"
    if (averaged := run.get("snapshots_averaged", 1)) > 1:
        text += f"; the mean of {averaged} snapshots"
    if mixed_in := run.get("mixed_in"):
        text += f", with {mixed_in['share']:.0%} of the weights {mixed_in['hash'][:12]}"
    return text


def speed_text(rows: Sequence[Row], measured: str | None) -> str:
    """RTF as evaluated, by device; and what `bench/extract.py` printed, if it was kept."""
    found: dict[str, list[float]] = {}
    for row in rows:
        speed = row.summary["speed"]
        if speed["rtf"] is not None:
            found.setdefault(f"{speed['device']}, {speed['threads']} thread(s)", []).append(speed["rtf"])
    lines = [
        f"RTF on {where}: {min(rtf):.3f} to {max(rtf):.3f} in the evaluations above" for where, rtf in found.items()
    ]
    return "\n\n".join([_list(lines), *([measured.strip()] if measured else [])])


def fill(values: Mapping[str, str], facts: Facts, template: str | None = None) -> str:
    """The card.

    Raises:
        InputError: the template names something that is not there.
    """
    text = TEMPLATE.read_text(encoding="utf-8") if template is None else template
    given = {"title": facts.title, "licence": facts.licence, "data": _list(facts.data), "limits": _list(facts.limits)}
    try:
        return Template(text).substitute({**given, **values})
    except (KeyError, ValueError) as error:
        raise InputError(f"the template of the card: {error} is not known; $name, $results, … are") from error


def _present(row: Row) -> list[str]:
    summary = row.summary
    shown = [_interval(summary["si_sdri"], 2), _interval(summary["accuracy"], 3), _interval(summary["confusion"], 3)]
    kept = summary["absent"].get("retention", {})
    lost = [_share(None if (mean := _mean(kept, rule)) is None else 1 - mean) for rule in ("by_level", "by_presence")]
    rtf = summary["speed"]["rtf"]
    speed = "-" if rtf is None else f"{rtf:.3f}"
    return [row.name, row.condition, str(summary["counts"]["scored"]), *shown, *lost, speed]


def _absent(row: Row) -> list[str]:
    absent = row.summary["absent"]
    alarms = absent.get("false_alarm_rate", {})
    heard = [_share(_mean(alarms, rule)) for rule in ("by_level", "by_presence")]
    return [row.name, row.condition, str(absent["count"]), _interval(absent["attenuation_db"], 1), *heard]


def _mean(figures: Mapping[str, Any], rule: str) -> float | None:
    return figures[rule]["mean"] if rule in figures else None


def _interval(figure: Mapping[str, Any], digits: int) -> str:
    mean, low, high = (figure[key] for key in ("mean", "low", "high"))
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if low is None else f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
