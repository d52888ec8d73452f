"""`wesep score`: score audio that was made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wesep_py.cli.options import (
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    progress_bar,
    set_threads,
)
from wesep_py.common.errors import InputError, WesepError

if TYPE_CHECKING:
    from wesep_py.evaluation.scoring import MetricBackend


# ----------------------------------------
# `wesep evaluate`: extract and score a list of trials.

MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics",
        help="Any of si_sdr,sdr,pesq,stoi,estoi,timing,dnsmos,pdnsmos, by commas; all: but the last two.",
    ),
]
SpeakerModelOption = Annotated[
    str | None,
    typer.Option("--speaker-model", help="An encoder's checkpoint: similarity of the estimate to the enrollment."),
]
RecogniserOption = Annotated[
    str | None,
    typer.Option("--recogniser", help="MODULE:FUNCTION of yours, (waveform, sample_rate) -> text: word error rate."),
]
TranscriptsOption = Annotated[
    Path | None,
    typer.Option("--transcripts", help="Lines 'UTTERANCE words'; by default what --recogniser hears in the reference."),
]
EmbeddingsOption = Annotated[
    Path | None,
    typer.Option(
        "--embeddings", help="The enrollments' precomputed embeddings: a folder of .npy, Kaldi's .scp or .ark."
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE.rttm", help="When the targets speak, for timing; else their references."),
]
SaveExtremesOption = Annotated[
    int, typer.Option("--save-extremes", min=0, help="Save the audio of so many of the worst and of the best trials.")
]


def evaluate(
    trials: Annotated[
        Path, typer.Option("--trials", help="LibriMix metadata CSV, or a rendered LibriMix tree; or recordings alone.")
    ],
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
    metrics: MetricsOption = "si_sdr",
    embeddings: EmbeddingsOption = None,
    speaker_model: SpeakerModelOption = None,
    recogniser: RecogniserOption = None,
    transcripts: TranscriptsOption = None,
    labels: LabelsOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many trials, the first ones.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=0, help="Processes that score; by default one a core where it pays."),
    ] = None,
    save_audio: Annotated[
        int, typer.Option("--save-audio", min=0, help="Save the audio of so many trials, the first ones.")
    ] = 0,
    save_extremes: SaveExtremesOption = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Mixtures of one length extracted at a time; by default 1, on a GPU 8."
        ),
    ] = None,
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
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
    not stop the rest. A run that was killed goes on when its command is
    repeated.
    """
    from wesep_py.data import read_speakers, read_trials
    from wesep_py.data.embedding_files import Embeddings
    from wesep_py.evaluation import evaluate as run
    from wesep_py.evaluation.activity_labels import read_labels
    from wesep_py.evaluation.results import check_output
    from wesep_py.inference import load

    chosen = chosen_measures(metrics, speaker_model, recogniser)
    listeners = word_listeners(recogniser, transcripts)
    inputs = [
        (trials, "--trials"),
        (enrollment, "--enrollment"),
        (speakers, "--speakers"),
        (embeddings, "--embeddings"),
    ]
    inputs += [(labels, "--labels"), (transcripts, "--transcripts")]
    check_output(out, overwrite, inputs, [(root, "--root"), (noise_root, "--noise-root")])
    known = None if speakers is None else read_speakers(speakers)
    listed = read_trials(trials, enrollment, root, noise_root, speakers=known or (), recordings=True)[:limit]
    spoken = None if labels is None else read_labels(labels)
    set_threads(threads)
    extractor = load(model, device)
    extractor.max_enrollment_s = enroll_max_s
    on = str(extractor.device)
    known_voices = None if embeddings is None else Embeddings(embeddings, extractor.embedding_dim)
    listeners += speaker_listeners(speaker_model, extractor.sample_rate, on)
    with resumable(out), progress_bar("trials") as bar:
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
            listeners=listeners,
            save_extremes=save_extremes,
            batch_size=batch_size or (8 if on.startswith("cuda") else 1),
            embeddings=known_voices,
            labels=spoken,
        )
    show_summary(summary, out, json_output)
    name_failures(summary, out)


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Say, where a run is interrupted, how it goes on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is done stands in {out}, repeat the command to go on"
        ) from interrupt


def chosen_measures(metrics: str, speaker_model: str | None, recogniser: str | None) -> tuple[str, ...]:
    """What the options ask for.

    Raises:
        InputError: an unknown metric, one that needs an option that is not there, or one whose package is missing.
    """
    from wesep_py.evaluation.evaluator import with_backends
    from wesep_py.evaluation.scoring import check_computable, parse_metrics

    given = [name for name, option in (("similarity", speaker_model), ("wer", recogniser)) if option is not None]
    chosen = with_backends(parse_metrics(metrics), given)
    check_computable(chosen, referenced=True, labelled=True)
    return chosen


def word_listeners(recogniser: str | None, transcripts: Path | None) -> list[MetricBackend]:
    """What measures word errors, where the command line names it.

    Raises:
        InputError: transcripts without a recogniser; something that is named is not there.
    """
    from wesep_py.evaluation.scoring import WordErrorRate, read_transcripts

    if recogniser is None:
        if transcripts is not None:
            raise InputError("--transcripts is of use with --recogniser only; name one")
        return []
    return [WordErrorRate(recogniser, None if transcripts is None else read_transcripts(transcripts))]


def speaker_listeners(speaker_model: str | None, sample_rate: int, device: str) -> list[MetricBackend]:
    """What measures similarity, where the command line names it.

    Raises:
        CheckpointError: there is no such encoder.
    """
    from wesep_py.evaluation.scoring import SpeakerSimilarity

    return [] if speaker_model is None else [SpeakerSimilarity(speaker_model, sample_rate, device)]


def show_summary(summary: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """The summary as a table, or as JSON, on stdout."""
    import json

    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    counts = summary["counts"]
    typer.echo(f"{summary['protocol']['condition']}; {counts['scored']} of {counts['trials']} trials scored")
    if counts["scored"]:
        typer.echo(f"{'metric':<17}{'mean':>9}   {'95 % interval':<19}{'trials':>6}")
    for name in summary["protocol"]["metrics"]:
        if name in summary and summary[name]["count"]:
            typer.echo(_row(name, summary[name]))
    for outcome in ("absent", "silent_reference"):
        if summary[outcome]["count"]:
            called = outcome.replace("_", " ")
            typer.echo(f"{called}, attenuation in dB:")
            attenuation = summary[outcome]["attenuation_db"]
            typer.echo(_row("", attenuation) if attenuation["count"] else "  not known: no mixtures were given")
            _show_rates(f"{called}, false alarm rate", summary[outcome]["false_alarm_rate"])
    if summary["absent"]["count"] or summary["silent_reference"]["count"]:
        _show_rates("retention", summary["absent"]["retention"])
    for name, reasons in summary["missing"].items():
        for reason, count in reasons.items():
            typer.echo(f"{name}: missing for {count} trials: {reason}")
    if counts["silent_estimate"]:
        typer.echo(f"{counts['silent_estimate']} estimates are silent (0 dB SI-SDR by definition)")
    if summary["speed"]["rtf"] is not None:
        speed = summary["speed"]
        typer.echo(f"real-time factor {speed['rtf']:.3f} on {speed['device']}, {speed['threads']} threads")
    typer.echo(f"written: {out}")


def _show_rates(title: str, rates: Mapping[str, Mapping[str, Any]]) -> None:
    for rule, interval in rates.items():
        if interval["count"]:
            typer.echo(f"{title} {rule.replace('_', ' ')}:")
            typer.echo(_row("", interval))


def _row(name: str, interval: Mapping[str, Any]) -> str:
    low, high = interval["low"], interval["high"]
    ends = "" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{name:<17}{interval['mean']:>9.3f}   {ends:<19}{interval['count']:>6}"


def name_failures(summary: Mapping[str, Any], out: Path) -> None:
    """Name every trial that failed on stderr, and end with status 1 if there is one."""
    failed = summary["failed"]
    for trial in failed:
        typer.echo(f"{trial['mixture_id']} {trial['target_utterance_id']}: {trial['error']}", err=True)
    if failed:
        total = summary["counts"]["trials"]
        raise WesepError(f"{len(failed)} of {total} trials failed; see {out / 'per_trial.jsonl'}")


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
    from wesep_py.evaluation.activity_labels import read_labels
    from wesep_py.evaluation.results import check_output
    from wesep_py.evaluation.score_files import common_sample_rate, find_pairs, score_files, unmatched_estimates

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
    if extra := unmatched_estimates(pairs, estimate):
        listing = ", ".join(extra[:3]) + (", …" if len(extra) > 3 else "")
        typer.echo(f"{len(extra)} estimates belong to no reference and are not scored: {listing}", err=True)
    spoken = None if labels is None else read_labels(labels)
    rate = common_sample_rate(pairs)
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

    run_module("evaluate")
