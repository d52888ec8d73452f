"""`wesep compare`, `report`, `calibrate`, `verify`: what is done with results, and speaker verification.

| command | input | output |
| --- | --- | --- |
| `compare` | two results of `wesep evaluate` or `score` | the difference per metric, with its significance |
| `report` | one result | an HTML page |
| `calibrate` | results with present and with absent targets | the calibration in the checkpoint |
| `verify` | a manifest and a speaker encoder | EER and minDCF |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.options import DeviceOption, JsonOption, OverwriteOption, ThreadsOption, progress, set_threads

if TYPE_CHECKING:
    from wesep_py.evaluation.verifier import VerificationResult


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a result: the baseline.")],
    second: Annotated[Path, typer.Argument(help="Folder of the result to compare with it.")],
    common: Annotated[
        bool, typer.Option("--common", help="If the lists of trials differ, compare the trials in both.")
    ] = False,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric by which changed trials are listed; by default si_sdri.")
    ] = None,
    moved: Annotated[
        int,
        typer.Option("--moved", metavar="N", min=0, help="List the N trials that fell most and the N that rose most."),
    ] = 10,
    json_output: JsonOption = False,
) -> None:
    """Pair the trials of two results and test the difference.

    Example: wesep compare results/base results/mine

    Differences are SECOND minus FIRST, with a 95 % bootstrap interval over
    mixtures and the p value of a sign-flip permutation test.
    """
    from wesep_py.evaluation.comparison import compare as run
    from wesep_py.evaluation.results import read_results

    result = run(read_results(first), read_results(second), common, metric, moved)
    if json_output:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _show_comparison(result)


def _show_comparison(result: Mapping[str, Any]) -> None:
    """Print the metrics as a table, then the trials that changed most."""
    counts = result["counts"]
    alone = counts["only_first"] + counts["only_second"]
    typer.echo(f"{counts['pairs']} trials paired" + (f"; {alone} are in one result only" if alone else ""))
    typer.echo(f"{'metric':<17}{'first':>9}{'second':>9}{'difference':>12}   {'95 % interval':<19}{'p':>8}{'pairs':>7}")
    for name, row in result["metrics"].items():
        if not row["pairs"]:
            continue
        difference = row["difference"]
        interval = "" if difference["low"] is None else f"{difference['low']:+.3f} to {difference['high']:+.3f}"
        typer.echo(
            f"{name:<17}{row['first']:>9.3f}{row['second']:>9.3f}{difference['mean']:>+12.3f}   {interval:<19}"
            f"{row['p_value']:>8.4f}{row['pairs']:>7}"
        )
    moved = result["moved"]
    for key, title in (("lowest", "fell"), ("highest", "rose")):
        if moved[key]:
            typer.echo(f"\n{moved['metric']} {title} most:")
        for trial in moved[key]:
            typer.echo(
                f"{trial['difference']:>+9.2f}  {trial['first']:>8.2f} to {trial['second']:<8.2f}"
                f"{trial['mixture_id']} {trial['target_utterance_id']}"
            )


def report(
    result: Annotated[Path, typer.Argument(help="Folder that wesep evaluate or wesep score wrote.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Page to write; by default report.html in the result's folder."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=0, help="Show the N worst and the N best trials.")
    ] = 10,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a result as one HTML page: tables, distributions, worst and best trials, protocol.

    Example: wesep evaluate … -o results --save-extremes 10, then wesep report results

    The page works offline and needs no other file. Trials whose audio was saved
    have spectrograms and players.
    """
    from wesep_py.common.files import check_writable, refuse_inputs, write_text
    from wesep_py.evaluation.report_page import build_report
    from wesep_py.evaluation.results import AUDIO, PER_TRIAL, SUMMARY, check_reportable, read_results

    page = out or result / "report.html"
    results = read_results(result)
    check_reportable(results)
    result_files = [*(result / name for name in (SUMMARY, PER_TRIAL)), *(result / AUDIO).rglob("*")]
    refuse_inputs([page], ((path, "a part of the result") for path in result_files))
    check_writable(page, overwrite)
    html = build_report(results, count)
    write_text(page, html, overwrite)
    typer.echo(f"written: {page} ({len(html) / 1e6:.1f} MB)")


def calibrate(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS", help="Folders that wesep evaluate wrote, with present and with absent targets."
        ),
    ],
    model: Annotated[Path, typer.Option("--model", help="Checkpoint or experiment folder.", show_default=False)],
    check: Annotated[
        list[Path] | None,
        typer.Option("--check", metavar="RESULTS", help="Folder of other results, to check the calibration on."),
    ] = None,
    max_lost: Annotated[
        float,
        typer.Option(
            "--max-lost", metavar="SHARE", min=0, max=1, help="Share of the present targets that may be missed."
        ),
    ] = 0.02,
    verify: Annotated[
        str | None,
        typer.Option(
            "--verify",
            metavar="NAME",
            help="Fit the presence verifier with this speaker encoder instead, to results of evaluate --verify NAME.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the calibration; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate a model's probability that a target is present, and the threshold for it.

    Example: wesep calibrate results/present results/absent --model exp/mine --check results/other

    The calibration is written into the checkpoint; existing voice
    prints stay valid. The command may be repeated: the calibration with which
    the results were made is removed from them first.

    With --verify dvector, the weights of the presence verifier are fitted
    instead, to results of wesep evaluate --verify dvector.
    """
    if verify is not None:
        _calibrate_verifier(model, verify, results, check or [], max_lost, dry_run, as_json)
        return
    from wesep_py.evaluation.calibration import calibrate_model

    calibration, fitted, checked = calibrate_model(model, results, check or [], max_lost, dry_run)
    if as_json:
        values = {
            "calibration": asdict(calibration),
            "there": fitted.as_dict(),
            "checked": None if checked is None else checked.as_dict(),
        }
        typer.echo(json.dumps(values))
        return
    typer.echo(
        f"scale {calibration.scale:.4g}, offset {calibration.offset:.4g}, threshold {calibration.threshold:.4g}, "
        f"length correction {calibration.growth:.4g} for twice the length"
    )
    typer.echo(f"frames: scale {calibration.frame_scale:.4g}, offset {calibration.frame_offset:.4g}")
    typer.echo(fitted.table())
    if checked is not None:
        typer.echo(f"checked on {', '.join(map(str, check or []))}\n{checked.table()}")


def _calibrate_verifier(
    model: Path, encoder: str, results: list[Path], check: list[Path], max_lost: float, dry_run: bool, as_json: bool
) -> None:
    from wesep_py.evaluation.verifier_calibration import calibrate_verifier

    fitted = calibrate_verifier(model, encoder, results, check, max_lost, dry_run)
    if as_json:
        typer.echo(json.dumps(fitted.as_dict()))
        return
    calibration = fitted.calibration
    weights = ", ".join(f"{name} {weight:.4g}" for name, weight in calibration.weights.items())
    typer.echo(f"weights: {weights}; offset {calibration.offset:.4g}, threshold {calibration.threshold:.4g}")
    typer.echo(fitted.fitted.table())
    if fitted.checked is not None:
        typer.echo(f"checked on {', '.join(map(str, check))}\n{fitted.checked.table()}")
    if fitted.lists:
        typer.echo(f"absent targets detected where {max_lost:.0%} of the present ones are missed\n{fitted.table()}")


def verify(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the recordings: .jsonl or .csv, see wesep prepare.")],
    model: Annotated[
        str,
        typer.Option("--model", help="Checkpoint or experiment folder of a speaker encoder, or of a model with one."),
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder that paths in manifests start from; by default that of each manifest."),
    ] = None,
    trials: Annotated[
        Path | None,
        typer.Option("--trials", help="Lines '1 ENROLLMENT TEST' or 'ENROLLMENT TEST target'; by default all pairs."),
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option("--cohort", help="Manifest of other speakers, which normalise the scores (AS-norm)."),
    ] = None,
    top_n: Annotated[
        int,
        typer.Option(
            "--top-n", metavar="N", min=2, help="Normalise with the N speakers of the cohort that are nearest."
        ),
    ] = 300,
    overlap: Annotated[
        int,
        typer.Option(
            "--overlap",
            metavar="N",
            min=0,
            help="Also verify overlapping speech: simulate N recordings of one voice and N of two.",
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

    The score of a trial is the cosine similarity of two embeddings, one per
    recording. --cohort normalises it with each recording's nearest speakers in
    the cohort.
    """
    from wesep_py.evaluation.verifier import check_verification_output, verify_manifest, write_verification
    from wesep_py.inference.model_loading import pick_device

    if output is not None:
        inputs = [(manifest, "the manifest"), (trials, "the list of trials"), (cohort, "the cohort")]
        check_verification_output(output, overwrite, inputs)
    set_threads(threads)
    with progress("embedding", "recordings") as on_progress:
        result = verify_manifest(
            model, manifest, root, trials, cohort, top_n, pick_device(device), on_progress, overlap
        )
    if output is not None:
        write_verification(result, output, overwrite)
    if json_output:
        typer.echo(json.dumps(result.summary(), indent=2))
        return
    _show_verification(result)
    if output is not None:
        typer.echo(f"written: {output}")


def _show_verification(result: VerificationResult) -> None:
    """Print the error rates as a table, the counts, and the results on overlapping speech if there are any."""
    summary = result.summary()
    typer.echo(f"{'metric':<10}{'value':>9}   95 % interval over speakers")
    for name, scale, unit in (("eer", 100, " %"), ("min_dcf", 1, "")):
        rate = summary[name]
        interval = "" if rate["low"] is None else f"{scale * rate['low']:.3f} to {scale * rate['high']:.3f}"
        typer.echo(f"{name:<10}{scale * rate['mean']:>9.3f}{unit:<2} {interval}")
    counts = summary["counts"]
    typer.echo(
        f"{counts['trials']} trials ({counts['target']} of one speaker) of {counts['utterances']} recordings, "
        f"{counts['speakers']} speakers; {summary['protocol']['score']}"
    )
    for line in result.overlap.lines() if result.overlap else ():
        typer.echo(line)
