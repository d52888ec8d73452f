"""`wesep verify`: how well a speaker encoder tells voices apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from wesep_py.cli.options import DeviceOption, JsonOption, OverwriteOption, ThreadsOption, progress_bar, set_threads

# ----------------------------------------
# `wesep compare`: two results on the same trials.


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a result: the base line.")],
    second: Annotated[Path, typer.Argument(help="Folder of the result that is compared with it.")],
    common: Annotated[
        bool, typer.Option("--common", help="Where the lists differ, take the trials that both have.")
    ] = False,
    metric: Annotated[
        str | None, typer.Option("--metric", help="List moved trials by this one; si_sdri by default.")
    ] = None,
    moved: Annotated[int, typer.Option("--moved", min=0, help="List so many trials that moved most, each way.")] = 10,
    json_output: JsonOption = False,
) -> None:
    """Pair the trials of two results and test the difference.

    Example: wesep compare results/base results/mine

    Differences are SECOND less FIRST, with a 95 % bootstrap interval over
    mixtures and the p value of a sign-flip permutation test.
    """
    from wesep_py.evaluation.comparison import compare as run
    from wesep_py.evaluation.results import read_results

    result = run(read_results(first), read_results(second), common, metric, moved)
    if json_output:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _show(result)


def _show(result: Mapping[str, Any]) -> None:
    counts = result["counts"]
    alone = counts["only_first"] + counts["only_second"]
    typer.echo(f"{counts['pairs']} trials paired" + (f"; {alone} are in one result only" if alone else ""))
    typer.echo(f"{'metric':<17}{'first':>9}{'second':>9}{'difference':>12}   {'95 % interval':<19}{'p':>8}{'pairs':>7}")
    for name, row in result["metrics"].items():
        if not row["pairs"]:
            continue
        spread = row["difference"]
        ends = "" if spread["low"] is None else f"{spread['low']:+.3f} to {spread['high']:+.3f}"
        typer.echo(
            f"{name:<17}{row['first']:>9.3f}{row['second']:>9.3f}{spread['mean']:>+12.3f}   {ends:<19}"
            f"{row['p_value']:>8.4f}{row['pairs']:>7}"
        )
    moves = result["moved"]
    for key, title in (("lowest", "fell"), ("highest", "rose")):
        if moves[key]:
            typer.echo(f"\n{moves['metric']} {title} most:")
        for move in moves[key]:
            typer.echo(
                f"{move['difference']:>+9.2f}  {move['first']:>8.2f} to {move['second']:<8.2f}"
                f"{move['mixture_id']} {move['target_utterance_id']}"
            )


# ----------------------------------------
# `wesep report`: a result as one HTML page.


def report(
    result: Annotated[Path, typer.Argument(help="Folder that wesep evaluate or wesep score wrote.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; report.html in that folder by default.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=0, help="So many of the worst and of the best trials.")] = 10,
    overwrite: OverwriteOption = False,
) -> None:
    """Write one HTML page that works offline: tables, distributions, worst and best trials, protocol.

    Example: wesep evaluate … -o results --save-extremes 10, then wesep report results

    Trials whose audio was saved have spectrograms and players. The page needs
    no network and no other file.
    """
    from wesep_py.common.files import check_writable, refuse_inputs, write_text
    from wesep_py.evaluation.report_page import build_report
    from wesep_py.evaluation.results import AUDIO, PER_TRIAL, SUMMARY, check_reportable, read_results

    page = out or result / "report.html"
    results = read_results(result)
    check_reportable(results)
    parts = [*(result / name for name in (SUMMARY, PER_TRIAL)), *(result / AUDIO).rglob("*")]
    refuse_inputs([page], ((path, "a part of the result") for path in parts))
    check_writable(page, overwrite)
    html = build_report(results, count)
    write_text(page, html, overwrite)
    typer.echo(f"written: {page} ({len(html) / 1e6:.1f} MB)")


# ----------------------------------------
# `wesep calibrate`: make a model's probability that a voice is there believable.


def calibrate(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="Of wesep evaluate, with present and with absent targets.")
    ],
    model: Annotated[Path, typer.Option("--model", help="Checkpoint or experiment folder.", show_default=False)],
    check: Annotated[
        list[Path] | None, typer.Option("--check", metavar="RESULTS", help="Others, to see what it does there.")
    ] = None,
    max_lost: Annotated[
        float, typer.Option("--max-lost", min=0, max=1, help="Share of the present voices that may be lost.")
    ] = 0.02,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is found, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate a model's presence: its probabilities, and from which one on a voice is there.

    Example: wesep calibrate results/present results/absent --model exp/mine --check results/other

    The calibration is written into the checkpoint, whose voice prints stay valid. It may be repeated: what
    a model was calibrated with when its results were made is taken back first.
    """
    from wesep_py.evaluation.calibration import calibrate_model

    calibration, there, elsewhere = calibrate_model(model, results, check or [], max_lost, dry_run)
    if as_json:
        found = {"calibration": asdict(calibration), "there": there.as_dict()}
        typer.echo(json.dumps({**found, "checked": None if elsewhere is None else elsewhere.as_dict()}))
        return
    typer.echo(
        f"scale {calibration.scale:.4g}, offset {calibration.offset:.4g}, threshold {calibration.threshold:.4g}, "
        f"growth {calibration.growth:.4g} for twice the length"
    )
    typer.echo(f"of frames: scale {calibration.frame_scale:.4g}, offset {calibration.frame_offset:.4g}")
    typer.echo(there.table())
    if elsewhere is not None:
        typer.echo(f"on {', '.join(map(str, check or []))}\n{elsewhere.table()}")


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
    from wesep_py.evaluation.verifier import check_verification_output, verify_manifest, write_verification
    from wesep_py.inference.extractor import pick_device

    if output is not None:
        inputs = [(manifest, "the manifest"), (trials, "the list of trials"), (cohort, "the cohort")]
        check_verification_output(output, overwrite, inputs)
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
        write_verification(result, output, overwrite)
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
