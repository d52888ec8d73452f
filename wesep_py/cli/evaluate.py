"""`wesep evaluate`: extract and score a list of trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wesep_py.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    progress_bar,
    set_threads,
)
from wesep_py.errors import WesepError


def evaluate(
    trials: Annotated[Path, typer.Option("--trials", help="LibriMix metadata CSV, or a rendered LibriMix tree.")],
    enrollment: Annotated[Path, typer.Option("--enrollment", help="Whose voice is wanted: a map_mixture2enrollment.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for summary.json and per_trial.jsonl.")],
    model: ModelOption = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Where paths of the list start; by default beside it.")
    ] = None,
    noise_root: Annotated[
        Path | None, typer.Option("--noise-root", help="Where paths of noise start; by default --root.")
    ] = None,
    speakers: Annotated[
        Path | None,
        typer.Option("--speakers", help="CSV with speaker_id, gender, age: results are broken down by them."),
    ] = None,
    condition: Annotated[
        Literal["clean", "noisy"], typer.Option("--condition", help="Speakers alone, or with the noise.")
    ] = "clean",
    metrics: Annotated[
        str, typer.Option("--metrics", help="Any of si_sdr,sdr,pesq,stoi,estoi, by commas; or all.")
    ] = "si_sdr",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many trials, the first ones.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=0, help="Processes that score; by default one a core where it pays."),
    ] = None,
    save_audio: Annotated[
        int, typer.Option("--save-audio", min=0, help="Save the audio of so many trials, the first ones.")
    ] = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json_output: JsonOption = False,
) -> None:
    """Extract and score the trials that stand in both the list and the map.

    Example: wesep evaluate --model exp/mine --trials dev_2mix.csv
    --enrollment dev_2mix.map_mixture2enrollment --root data -o results

    All trials count. A trial whose target is silent or absent is counted
    apart, with its attenuation. One that fails is named at the end, and does
    not stop the rest.
    """
    from wesep_py.corpus import read_speakers, read_trials
    from wesep_py.evaluation import evaluate as run
    from wesep_py.evaluation.run import check_output
    from wesep_py.inference import load
    from wesep_py.metrics import METRICS, check_metrics

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    chosen = tuple(METRICS) if names == ["all"] else check_metrics(names)
    check_output(out, overwrite)
    known = None if speakers is None else read_speakers(speakers)
    listed = read_trials(trials, enrollment, root, noise_root, speakers=known or ())[:limit]
    set_threads(threads)
    extractor = load(model, device)
    with progress_bar("trials") as bar:
        task = bar.add_task("evaluate", total=len(listed))
        summary = run(
            extractor,
            listed,
            out,
            condition,
            chosen,
            jobs,
            known,
            overwrite,
            save_audio,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _show(summary, out, json_output)
    _name_failures(summary, out)


def _show(summary: Mapping[str, Any], out: Path, as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    counts = summary["counts"]
    typer.echo(f"{summary['protocol']['condition']}; {counts['scored']} of {counts['trials']} trials scored")
    if counts["scored"]:
        typer.echo(f"{'metric':<12}{'mean':>9}   {'95 % interval':<19}{'trials':>6}")
    for name in summary["protocol"]["metrics"]:
        if name in summary and summary[name]["count"]:
            typer.echo(_row(name, summary[name]))
    for outcome in ("absent", "silent_reference"):
        if summary[outcome]["count"]:
            typer.echo(f"{outcome.replace('_', ' ')}, attenuation in dB:")
            typer.echo(_row("", summary[outcome]["attenuation_db"]))
    for name, reasons in summary["missing"].items():
        for reason, count in reasons.items():
            typer.echo(f"{name}: missing for {count} trials: {reason}")
    if counts["silent_estimate"]:
        typer.echo(f"{counts['silent_estimate']} estimates are silent (0 dB SI-SDR by definition)")
    if summary["speed"]["rtf"] is not None:
        speed = summary["speed"]
        typer.echo(f"real-time factor {speed['rtf']:.3f} on {speed['device']}, {speed['threads']} threads")
    typer.echo(f"written: {out}")


def _row(name: str, interval: Mapping[str, Any]) -> str:
    low, high = interval["low"], interval["high"]
    ends = "" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{name:<12}{interval['mean']:>9.3f}   {ends:<19}{interval['count']:>6}"


def _name_failures(summary: Mapping[str, Any], out: Path) -> None:
    """Name every trial that failed on stderr, and end with status 1 if there is one."""
    failed = summary["failed"]
    for trial in failed:
        typer.echo(f"{trial['mixture_id']} {trial['target_utterance_id']}: {trial['error']}", err=True)
    if failed:
        total = summary["counts"]["trials"]
        raise WesepError(f"{len(failed)} of {total} trials failed; see {out / 'per_trial.jsonl'}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("evaluate")
