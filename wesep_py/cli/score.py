"""`wesep score`: score audio that was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wesep_py.cli.common import JsonOption, OverwriteOption, progress_bar
from wesep_py.cli.evaluate import (
    LabelsOption,
    MetricsOption,
    RecogniserOption,
    SaveExtremesOption,
    SpeakerModelOption,
    TranscriptsOption,
    chosen_measures,
    name_failures,
    resumable,
    show_summary,
    speaker_listeners,
    word_listeners,
)


def score(
    estimate: Annotated[Path, typer.Option("--estimate", help="Folder of what was made, with the same file names.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for summary.json and per_trial.jsonl.")],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Folder of the targets alone; or a LibriMix tree.", show_default=False),
    ] = None,
    mixture: Annotated[
        Path | None, typer.Option("--mixture", help="Folder of the mixtures; a tree has its own.", show_default=False)
    ] = None,
    interferers: Annotated[
        list[Path] | None,
        typer.Option("--interferers", help="Folder of another speaker; once for each.", show_default=False),
    ] = None,
    enrollment: Annotated[
        Path | None,
        typer.Option("--enrollment", help="Folder of the enrollments, for --speaker-model.", show_default=False),
    ] = None,
    condition: Annotated[
        Literal["clean", "noisy"], typer.Option("--condition", help="Of a tree: mix_clean, or mix_both.")
    ] = "clean",
    metrics: MetricsOption = "si_sdr",
    speaker_model: SpeakerModelOption = None,
    recogniser: RecogniserOption = None,
    transcripts: TranscriptsOption = None,
    labels: LabelsOption = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=0, help="Processes that score; by default one a core where it pays."),
    ] = None,
    save_extremes: SaveExtremesOption = 0,
    overwrite: OverwriteOption = False,
    json_output: JsonOption = False,
) -> None:
    """Score audio made elsewhere, matched with its references by name.

    Example: wesep score --reference test/s1 --estimate mine --mixture test/mix_clean
    --interferers test/s2 -o results

    In a LibriMix tree (folders s1, s2, …) every source is a target, and
    estimates lie in folders s1, s2, … too: wesep score --reference test
    --estimate mine -o results. A silent reference is an absent target.

    Recordings whose targets nobody has alone: wesep score --estimate mine
    --mixture meetings --labels meetings.rttm --metrics timing -o results
    """
    from wesep_py.evaluation.journal import check_output
    from wesep_py.evaluation.labels import read_labels
    from wesep_py.evaluation.pairs import find_pairs, unmatched
    from wesep_py.evaluation.score_files import rate_of, score_files

    chosen = chosen_measures(metrics, speaker_model, recogniser)
    listeners = word_listeners(recogniser, transcripts)
    inputs = [
        (reference, "--reference"),
        (estimate, "--estimate"),
        (mixture, "--mixture"),
        (enrollment, "--enrollment"),
    ]
    inputs += [(folder, "--interferers") for folder in interferers or []]
    check_output(out, overwrite, [*inputs, (labels, "--labels"), (transcripts, "--transcripts")])
    pairs = find_pairs(reference, estimate, mixture, interferers or [], enrollment, condition)
    if extra := unmatched(pairs, estimate):
        listing = ", ".join(extra[:3]) + (", …" if len(extra) > 3 else "")
        typer.echo(f"{len(extra)} estimates belong to no reference and are not scored: {listing}", err=True)
    spoken = None if labels is None else read_labels(labels)
    rate = rate_of(pairs)
    listeners += speaker_listeners(speaker_model, rate, "cpu")
    with resumable(out), progress_bar("trials") as bar:
        task = bar.add_task("score", total=len(pairs))
        summary = score_files(
            pairs,
            out,
            chosen,
            jobs,
            overwrite,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            listeners=listeners,
            save_extremes=save_extremes,
            sample_rate=rate,
            labels=spoken,
        )
    show_summary(summary, out, json_output)
    name_failures(summary, out)


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("score")
