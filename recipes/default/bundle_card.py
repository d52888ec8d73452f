"""Write the card of a bundled model: fill the template `card.md` with facts, results and provenance.

`Facts` holds what no file of the run knows. `read_results` reads what was measured. Each `…_text` function and
`results_tables` returns the text of one place of the template, and `fill` puts them in.
"""

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
    """Facts for the card that are in no file of the run.

    Attributes:
        title: purpose of the model.
        licence: licence of the weights.
        data: each corpus, with its licence.
        recipe: the YAML file and the command of the training.
        hardware: the machine of the training.
        limits: what the model cannot do, or was not tried on.

    Raises:
        ValueError: a fact is empty or `???`.
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
                raise ValueError(f"{name} is missing, and the card needs it; give {name}='…'")


@dataclass(frozen=True)
class ResultRow:
    """Result of `wesep evaluate` on one list in one condition: one row of the card's tables.

    Attributes:
        name: its folder below the folder of results, such as `dev_2mix/clean`.
        condition: `clean` or `noisy`.
        summary: content of its `summary.json`.
    """

    name: str
    condition: str
    summary: Mapping[str, Any]


def read_results(folder: Path, hashes: Sequence[str]) -> list[ResultRow]:
    """Read all results below a folder, sorted by name.

    Args:
        folder: holds folders that `wesep evaluate` wrote.
        hashes: the hashes of the model's weights that the results may be of.

    Raises:
        InputError: there is no result; one is of another model.
    """
    rows = []
    for path in sorted(folder.rglob("summary.json")):
        summary = read_json(path, "a summary of results", "evaluate again").values
        schema = {"protocol": {"model": {"hash": str}, "condition": str}, "counts": {"scored": COUNT}}
        check_schema(summary, schema, str(path), "evaluate again")
        result_hash = summary["protocol"]["model"]["hash"]
        if result_hash not in hashes:
            raise InputError(
                f"{path}: is of another model (hash {result_hash[:12]}); evaluate this one, or move that result away"
            )
        name = path.parent.relative_to(folder).as_posix() if path.parent != folder else folder.name
        rows.append(ResultRow(name, summary["protocol"]["condition"].partition(":")[0], summary))
    if not rows:
        raise InputError(f"{folder}: holds no summary.json; make results with `wesep evaluate`")
    return rows


def headline(rows: Sequence[ResultRow]) -> str:
    """Return one line with the results on clean mixtures of two speakers, or on the first list if there are none."""
    present = [row for row in rows if row.summary["counts"]["scored"]]
    two_speakers = [row for row in present if row.condition == "clean" and "2mix" in row.name] or present[:1]
    results = (
        f"{row.summary['si_sdri']['mean']:.1f} dB SI-SDRi and {100 * row.summary['accuracy']['mean']:.0f} % accuracy "
        f"on {row.name}"
        for row in two_speakers
    )
    return "; ".join(results)


def results_tables(rows: Sequence[ResultRow], threshold: float | None = None) -> str:
    """Return Markdown tables of the trials with a target and of those without, and the rules of their decisions.

    Args:
        rows: the results.
        threshold: probability from which the bundle takes a target to be present; `None`: it is not calibrated.
    """
    tables = []
    if present := [row for row in rows if row.summary["counts"]["scored"]]:
        head = (
            "list",
            "condition",
            "trials",
            "SI-SDRi",
            "accuracy",
            "confusion",
            "missed by level",
            "missed by presence",
        )
        tables.append(_table([*head, "RTF"], [_present(row) for row in present]))
    if absent := [row for row in rows if row.summary["absent"]["count"]]:
        alarms = ("false alarms by level", "false alarms by presence")
        head = ("target absent", "condition", "trials", "dB below the mixture", *alarms)
        tables.append(_table(head, [_absent(row) for row in absent]))
    decision = rows[0].summary["protocol"].get("decision", {})
    thresholds = sorted({presence_threshold(row.summary["protocol"]) for row in rows})
    if threshold is not None and thresholds != [threshold]:
        earlier = ", ".join(f"{value:g}" for value in thresholds)
        tables.append(f"The columns by presence are from before the calibration below: a threshold of {earlier}.")
    tables += [f"By {rule.removeprefix('by_')}: {decision[rule]}." for rule in ("by_level", "by_presence") if decision]
    return "\n\n".join(tables)


def presence_text(presence: Mapping[str, Any] | None) -> str:
    """Return the sentences and the table about the calibration of presence in a provenance."""
    if presence is None:
        return "The probability is not calibrated."
    lines = [f"Calibrated; a target counts as present from a probability of {presence['threshold']:.3f} on."]
    rows = []
    for lists, key in (("fitted_on", "there"), ("checked_on", "checked")):
        if key in presence:
            reliability = presence[key]
            rates = [_share(reliability["false_alarms"]), _share(reliability["lost"])]
            counts = [str(reliability["absent"]), str(reliability["present"])]
            numbers = [*counts, *rates, f"{reliability['ece']:.3f}"]
            rows.append([f"{lists.replace('_', ' ')} {', '.join(map(str, presence.get(lists, [])))}", *numbers])
    if rows:
        lines.append(_table(["lists", "absent", "present", "false alarms", "missed", "calibration error"], rows))
    return "\n\n".join(lines)


def training_text(facts: Facts, provenance: Mapping[str, Any]) -> str:
    """Return the list of how the model was trained: recipe, hardware, corpus, each run, commit."""
    lines = [f"recipe: {facts.recipe}", f"hardware: {facts.hardware}"]
    if corpus := provenance.get("corpus"):
        lines.append(f"from {corpus['utterances']} utterances of {corpus['speakers']} speakers, {corpus['hours']} h")
    runs = [run for run in (*provenance.get("went_on_from", []), provenance) if "mixtures" in run]
    for number, run in enumerate(runs, start=1):
        if len(runs) == 1:
            title = ""
        else:
            title = "run 1: " if number == 1 else f"run {number}, from the weights of the run before: "
        lines.append(title + _run_text(run))
    if commit := (provenance.get("git") or {}).get("commit"):
        lines.append(f"code: commit {commit}")
    return _list(lines)


def _run_text(run: Mapping[str, Any]) -> str:
    """Return the size of one run, and how its weights were averaged."""
    steps = max(run.get("steps") or [run.get("step")])
    text = f"{steps} steps, {run['mixtures']} simulated mixtures, {run.get('hours_trained')} h"
    if (averaged := run.get("snapshots_averaged", 1)) > 1:
        text += f"; the mean of {averaged} snapshots"
    if mixed_in := run.get("mixed_in"):
        text += f", with {mixed_in['share']:.0%} of the weights {mixed_in['hash'][:12]}"
    return text


def speed_text(rows: Sequence[ResultRow], measured: str | None) -> str:
    """Return the RTF of the evaluations per device, and the output of `bench/extract.py` if there is one."""
    rtf_by_device: dict[str, list[float]] = {}
    for row in rows:
        speed = row.summary["speed"]
        if speed["rtf"] is not None:
            rtf_by_device.setdefault(f"{speed['device']}, {speed['threads']} thread(s)", []).append(speed["rtf"])
    lines = [
        f"RTF on {device}: {min(rtf):.3f} to {max(rtf):.3f} in the evaluations above"
        for device, rtf in rtf_by_device.items()
    ]
    return "\n\n".join([_list(lines), *([measured.strip()] if measured else [])])


def fill(values: Mapping[str, str], facts: Facts, template: str | None = None) -> str:
    """Fill the template of the card.

    Args:
        values: text of each place `$name`, except those that the facts fill.
        facts: fill `$title`, `$licence`, `$data` and `$limits`.
        template: by default `card.md` beside this file.

    Raises:
        InputError: the template has a place without a value.
    """
    text = TEMPLATE.read_text(encoding="utf-8") if template is None else template
    from_facts = {
        "title": facts.title,
        "licence": facts.licence,
        "data": _list(facts.data),
        "limits": _list(facts.limits),
    }
    try:
        return Template(text).substitute({**from_facts, **values})
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the template of the card: the place {error} is unknown; $name, $results, … are allowed"
        ) from error


def _present(row: ResultRow) -> list[str]:
    """Return the cells of a list's trials with a target."""
    summary = row.summary
    metrics = [_interval(summary["si_sdri"], 2), _interval(summary["accuracy"], 3), _interval(summary["confusion"], 3)]
    retention = summary["absent"].get("retention", {})
    retained = [_mean(retention, rule) for rule in ("by_level", "by_presence")]
    missed = [_share(None if share is None else 1 - share) for share in retained]
    rtf = summary["speed"]["rtf"]
    speed = "-" if rtf is None else f"{rtf:.3f}"
    return [row.name, row.condition, str(summary["counts"]["scored"]), *metrics, *missed, speed]


def _absent(row: ResultRow) -> list[str]:
    """Return the cells of a list's trials without a target."""
    absent = row.summary["absent"]
    rates = absent.get("false_alarm_rate", {})
    alarms = [_share(_mean(rates, rule)) for rule in ("by_level", "by_presence")]
    return [row.name, row.condition, str(absent["count"]), _interval(absent["attenuation_db"], 1), *alarms]


def _mean(rates: Mapping[str, Any], rule: str) -> float | None:
    return rates[rule]["mean"] if rule in rates else None


def _interval(metric: Mapping[str, Any], digits: int) -> str:
    """Return `mean (low to high)` as far as they are known."""
    mean, low, high = (metric[key] for key in ("mean", "low", "high"))
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
