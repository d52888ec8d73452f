"""`wesep verify`: how well a speaker encoder tells voices apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import DeviceOption, JsonOption, OverwriteOption, ThreadsOption, progress_bar, set_threads


def verify(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the recordings: .jsonl or .csv, see wesep prepare.")],
    model: Annotated[
        str, typer.Option("--model", help="Checkpoint or experiment folder of an encoder, or of an extractor with one.")
    ],
    root: Annotated[
        Path | None, typer.Option("--root", help="Where paths in manifests start; by default beside each.")
    ] = None,
    trials: Annotated[
        Path | None,
        typer.Option("--trials", help="Lines '1 ENROLLMENT TEST' or 'ENROLLMENT TEST target'; by default all pairs."),
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option("--cohort", help="Manifest of other speakers, to normalise scores by (AS-norm).")
    ] = None,
    top_n: Annotated[int, typer.Option("--top-n", min=2, help="So many of the cohort's nearest speakers.")] = 300,
    overlap: Annotated[
        int,
        typer.Option(
            "--overlap", min=0, help="Draw so many recordings of one voice, and of two, and verify these too."
        ),
    ] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for summary.json, scores.txt and det.png.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json_output: JsonOption = False,
) -> None:
    """Score trials of speaker verification: equal error rate and detection cost.

    Example: wesep verify DATA/speech/dev.csv --root DATA --model exp/ecapa -o results/verify

    Every recording becomes one embedding; a trial's score is the cosine of two,
    with --cohort how much it stands out from the nearest strangers.
    """
    from wesep_py.evaluation.verify import check_output, verify_manifest, write_results
    from wesep_py.inference.loading import pick_device

    if output is not None:
        inputs = [(manifest, "the manifest"), (trials, "the list of trials"), (cohort, "the cohort")]
        check_output(output, overwrite, inputs)
    set_threads(threads)
    with progress_bar("recordings") as bar:
        task = bar.add_task("embedding", total=None)
        result = verify_manifest(
            model,
            manifest,
            root,
            trials,
            cohort,
            top_n,
            pick_device(device),
            lambda done, total: bar.update(task, completed=done, total=total),
            overlap,
        )
    summary = result.summary()
    if output is not None:
        drawn = write_results(result, output, overwrite)
        if not drawn:
            typer.echo("warning: no det.png: it needs matplotlib; pip install 'wesep-py[demo]'", err=True)
    if json_output:
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo(f"{'metric':<10}{'value':>9}   95 % interval over speakers")
    for name, scale, unit in (("eer", 100, " %"), ("min_dcf", 1, "")):
        figure = summary[name]
        spread = "" if figure["low"] is None else f"{scale * figure['low']:.3f} to {scale * figure['high']:.3f}"
        typer.echo(f"{name:<10}{scale * figure['mean']:>9.3f}{unit:<2} {spread}")
    counts = summary["counts"]
    typer.echo(
        f"{counts['trials']} trials ({counts['target']} of one speaker) of {counts['utterances']} recordings, "
        f"{counts['speakers']} speakers; {summary['protocol']['score']}"
    )
    for line in result.overlap.lines() if result.overlap else ():
        typer.echo(line)
    if output is not None:
        typer.echo(f"written: {output}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("verify")
