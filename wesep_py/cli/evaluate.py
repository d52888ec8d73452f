"""`wesep evaluate` and `wesep score`: score what a model extracts, or audio that was made elsewhere.

The file begins with the options that both commands share and ends with the functions that both run: `_metrics` checks
the metrics, `_metric_backends` loads the models that some of them need, `_show_results` prints the summary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wesep_py.cli.options import (
    AUTO_VERIFIER,
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    JsonOption,
    LiveOption,
    ModelOption,
    OverwriteOption,
    RepairOption,
    ShiftsOption,
    ThreadsOption,
    VerifyOption,
    progress,
    resumable,
    set_threads,
)
from wesep_py.common.errors import InputError, WesepError

if TYPE_CHECKING:
    from wesep_py.data import Trial
    from wesep_py.evaluation.metric_backends import MetricBackend
    from wesep_py.evaluation.speech_detectors import SpeechDetector

log = logging.getLogger(__name__)
OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Folder for summary.json and per_trial.jsonl.")]
MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics",
        help="Separated by commas, out of si_sdr, sdr, pesq, stoi, estoi, timing, dnsmos, pdnsmos; all: all but the "
        "last two.",
    ),
]
SpeakerModelOption = Annotated[
    str | None,
    typer.Option(
        "--speaker-model", help="Checkpoint of a speaker encoder; adds the similarity of estimate and enrollment."
    ),
]
RecogniserOption = Annotated[
    str | None,
    typer.Option(
        "--recogniser",
        metavar="MODULE:FUNCTION",
        help="Your function (waveform, sample_rate) -> text; adds the word error rate.",
    ),
]
TranscriptsOption = Annotated[
    Path | None,
    typer.Option(
        "--transcripts",
        help="Lines 'UTTERANCE words' or 'MIXTURE/TARGET words'; by default, --recogniser transcribes the references.",
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE.rttm",
        help="When the targets speak, for the metric timing; by default, when the references are active.",
    ),
]
ScoringJobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=0, help="Number of processes that score; by default one per core if a metric is slow, else none."
    ),
]
ProtocolOption = Annotated[
    Literal["wesep", "speakerbeam", "espnet", "real_tse"] | None,
    typer.Option("--protocol", help="Score by those definitions, where they differ from ours."),
]
VadOption = Annotated[
    str | None,
    typer.Option(
        "--vad",
        metavar="energy|silero|MODULE:FUNCTION",
        help="Finds speech in the estimates, for the metric timing; your function is (waveform, sample_rate) -> pairs "
        "of start and end in seconds.",
        show_default="energy",
    ),
]
BaselineOption = Annotated[
    bool,
    typer.Option(
        "--baseline",
        help="Measure similarity and word errors of the unprocessed mixtures too: similarity_mixture, …",
    ),
]
SaveExtremesOption = Annotated[
    int,
    typer.Option("--save-extremes", metavar="N", min=0, help="Save the audio of the N worst and the N best trials."),
]


def evaluate(
    trials: Annotated[
        Path,
        typer.Option(
            "--trials",
            help="Metadata CSV of LibriMix, a rendered LibriMix tree, a data folder of WeSep or ESPnet, or a CSV of "
            "recordings alone.",
        ),
    ],
    enrollment: Annotated[
        Path,
        typer.Option(
            "--enrollment",
            help="The map_mixture2enrollment: target and enrollments of each trial; or a data folder of WeSep or "
            "ESPnet.",
        ),
    ],
    out: OutputOption,
    model: ModelOption = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder that paths in the list start from; by default the folder of the list."),
    ] = None,
    noise_root: Annotated[
        Path | None, typer.Option("--noise-root", help="Folder that paths of noise start from; by default --root.")
    ] = None,
    speakers: Annotated[
        Path | None,
        typer.Option("--speakers", help="CSV with speaker_id, gender, age; adds results per gender and age."),
    ] = None,
    condition: Annotated[
        Literal["clean", "noisy"], typer.Option("--condition", help="Mix the speakers only, or with noise.")
    ] = "clean",
    metrics: MetricsOption = "si_sdr",
    protocol: ProtocolOption = None,
    negatives: Annotated[
        bool,
        typer.Option(
            "--negatives",
            help="Enroll another target of the mixture as one who is not meant (for models that take one).",
        ),
    ] = False,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings", help="Precomputed embeddings of the enrollments: a folder of .npy, or Kaldi's .scp or .ark."
        ),
    ] = None,
    speaker_model: SpeakerModelOption = None,
    recogniser: RecogniserOption = None,
    transcripts: TranscriptsOption = None,
    labels: LabelsOption = None,
    vad: VadOption = None,
    baseline: BaselineOption = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Use only the first N trials.")
    ] = None,
    jobs: ScoringJobsOption = None,
    save_audio: Annotated[
        int, typer.Option("--save-audio", metavar="N", min=0, help="Save the audio of the first N trials.")
    ] = 0,
    save_extremes: SaveExtremesOption = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Number of mixtures of one length that are extracted together; by default 8 on a GPU, else 1.",
        ),
    ] = None,
    shifts: ShiftsOption = None,
    live: LiveOption = False,
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    verify: VerifyOption = AUTO_VERIFIER,
    repair: RepairOption = "none",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json_output: JsonOption = False,
) -> None:
    """Extract and score a list of trials.

    Example: wesep evaluate --model exp/mine --trials dev_2mix.csv
    --enrollment dev_2mix.map_mixture2enrollment --root data -o results

    Each line of the map is a trial. Trials with a silent or absent target are
    counted separately, with their attenuation. A trial that fails is named at
    the end and does not stop the others. The same command resumes an
    interrupted run.
    """
    from wesep_py.data import read_speakers, read_trials
    from wesep_py.data.embedding_files import Embeddings
    from wesep_py.data.trials import with_negatives
    from wesep_py.evaluation import EvaluationOptions
    from wesep_py.evaluation import evaluate as run
    from wesep_py.evaluation.activity_labels import read_labels
    from wesep_py.evaluation.results import check_output
    from wesep_py.inference import load

    chosen_metrics = _metrics(metrics, speaker_model, recogniser)
    load_backends = _metric_backends(speaker_model, recogniser, transcripts, protocol)
    detector = _detector(vad, chosen_metrics, labels)
    inputs = [
        (trials, "--trials"),
        (enrollment, "--enrollment"),
        (speakers, "--speakers"),
        (embeddings, "--embeddings"),
        (labels, "--labels"),
        (transcripts, "--transcripts"),
    ]
    check_output(out, overwrite, inputs, [(root, "--root"), (noise_root, "--noise-root")])
    speaker_info = None if speakers is None else read_speakers(speakers)
    trial_list = read_trials(trials, enrollment, root, noise_root, speakers=speaker_info or (), recordings=True)
    trial_list = (with_negatives(trial_list) if negatives else trial_list)[:limit]
    _check_condition(trial_list, condition, trials)
    activity_labels = None if labels is None else read_labels(labels)
    set_threads(threads)
    extractor = load(model, device, live=live, shifts=shifts, verify=verify, repair=repair)
    if negatives and not extractor.takes_negative:
        raise InputError(f"{extractor.name}: takes no negative enrollment; leave out --negatives")
    extractor.max_enrollment_s = enroll_max_s
    model_device = str(extractor.device)
    embedding_files = None if embeddings is None else Embeddings(embeddings, extractor.embedding_dim)
    backends = load_backends(extractor.sample_rate, model_device)
    with resumable(out), progress("evaluate", "trials", len(trial_list)) as on_progress:
        options = EvaluationOptions(
            metrics=chosen_metrics,
            backends=backends,
            labels=activity_labels,
            detector=detector,
            baseline=baseline,
            jobs=jobs,
            save_audio=save_audio,
            save_extremes=save_extremes,
            overwrite=overwrite,
            on_progress=on_progress,
            protocol=protocol,
            condition=condition,
            speakers=speaker_info,
            embeddings=embedding_files,
            batch_size=batch_size or (8 if model_device.startswith("cuda") else 1),
        )
        summary = run(extractor, trial_list, out, options)
    _show_results(summary, out, json_output)


def score(
    estimate: Annotated[
        Path, typer.Option("--estimate", help="Folder of the estimates; files are named like the references.")
    ],
    out: OutputOption,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", help="Folder of the references (the clean targets), or a LibriMix tree.", show_default=False
        ),
    ] = None,
    mixture: Annotated[
        Path | None,
        typer.Option("--mixture", help="Folder of the mixtures; a LibriMix tree has its own.", show_default=False),
    ] = None,
    interferers: Annotated[
        list[Path] | None,
        typer.Option(
            "--interferers", help="Folder of one clean interferer; give it once per interferer.", show_default=False
        ),
    ] = None,
    enrollment: Annotated[
        Path | None,
        typer.Option(
            "--enrollment", help="Folder of the enrollments, which --speaker-model needs.", show_default=False
        ),
    ] = None,
    condition: Annotated[
        Literal["clean", "noisy"],
        typer.Option("--condition", help="Which mixtures of a LibriMix tree: mix_clean or mix_both."),
    ] = "clean",
    metrics: MetricsOption = "si_sdr",
    protocol: ProtocolOption = None,
    speaker_model: SpeakerModelOption = None,
    recogniser: RecogniserOption = None,
    transcripts: TranscriptsOption = None,
    labels: LabelsOption = None,
    vad: VadOption = None,
    baseline: BaselineOption = False,
    jobs: ScoringJobsOption = None,
    save_extremes: SaveExtremesOption = 0,
    overwrite: OverwriteOption = False,
    json_output: JsonOption = False,
) -> None:
    """Score audio that was made elsewhere, matched with its references by name.

    Example: wesep score --reference test/s1 --estimate mine --mixture test/mix_clean
    --interferers test/s2 -o results

    In a LibriMix tree (folders s1, s2, …) each source is a target once, and
    the estimates are in folders s1, s2, … too: wesep score --reference test
    --estimate mine -o results. A silent reference is an absent target.

    Recordings without references: wesep score --estimate mine
    --mixture meetings --labels meetings.rttm --metrics timing -o results
    """
    from wesep_py.evaluation import ScoringOptions
    from wesep_py.evaluation.activity_labels import read_labels
    from wesep_py.evaluation.results import check_output
    from wesep_py.evaluation.score_files import common_sample_rate, find_pairs, score_files, unmatched_estimates

    chosen_metrics = _metrics(metrics, speaker_model, recogniser)
    load_backends = _metric_backends(speaker_model, recogniser, transcripts, protocol)
    detector = _detector(vad, chosen_metrics, labels)
    inputs = [
        (reference, "--reference"),
        (estimate, "--estimate"),
        (mixture, "--mixture"),
        (enrollment, "--enrollment"),
        *((folder, "--interferers") for folder in interferers or []),
        (labels, "--labels"),
        (transcripts, "--transcripts"),
    ]
    check_output(out, overwrite, inputs)
    pairs = find_pairs(reference, estimate, mixture, interferers or [], enrollment, condition)
    if unmatched := unmatched_estimates(pairs, estimate):
        names = ", ".join(unmatched[:3]) + (", …" if len(unmatched) > 3 else "")
        typer.echo(f"{len(unmatched)} estimates have no reference and are not scored: {names}", err=True)
    activity_labels = None if labels is None else read_labels(labels)
    rate = common_sample_rate(pairs)
    backends = load_backends(rate, "cpu")
    with resumable(out), progress("score", "trials", len(pairs)) as on_progress:
        options = ScoringOptions(
            metrics=chosen_metrics,
            backends=backends,
            labels=activity_labels,
            detector=detector,
            baseline=baseline,
            jobs=jobs,
            save_extremes=save_extremes,
            overwrite=overwrite,
            on_progress=on_progress,
            protocol=protocol,
        )
        summary = score_files(pairs, out, options, sample_rate=rate)
    _show_results(summary, out, json_output)


def _check_condition(trials: Sequence[Trial], condition: str, place: Path) -> None:
    """Refuse the noisy condition of a list without noise; warn where noise of a recipe's data folder is left out."""
    from wesep_py.data.recipe_lists import is_data_folder, mixtures_have_noise

    if condition == "noisy" and trials and not any(t.noise is not None or "noisy" in t.rendered for t in trials):
        raise InputError(f"{place}: none of its mixtures has noise; evaluate them with --condition clean")
    if condition == "clean" and is_data_folder(place) and mixtures_have_noise(place):
        log.warning("%s: its mixtures have noise, which is left out; --condition noisy adds it", place)


def _metrics(metrics: str, speaker_model: str | None, recogniser: str | None) -> tuple[str, ...]:
    """Return the metrics of the options.

    Raises:
        InputError: an unknown metric, one that needs an option that is not given, or one whose package is missing.
    """
    from wesep_py.evaluation.evaluator import complete_metrics
    from wesep_py.evaluation.scoring import check_computable, parse_metrics

    backends = [name for name, option in (("similarity", speaker_model), ("wer", recogniser)) if option is not None]
    names = complete_metrics(parse_metrics(metrics), backends)
    check_computable(names, referenced=True, labelled=True)
    return names


def _detector(vad: str | None, metrics: Sequence[str], labels: Path | None) -> SpeechDetector | None:
    """Return the detector of the option; `None` without it.

    Raises:
        InputError: it cannot be imported, or no timing is measured.
    """
    from wesep_py.evaluation.speech_detectors import SpeechDetector

    if vad is not None and "timing" not in metrics and labels is None:
        raise InputError("--vad is for the metric timing; give --metrics timing or --labels")
    return None if vad is None else SpeechDetector(vad)


def _metric_backends(
    speaker_model: str | None, recogniser: str | None, transcripts: Path | None, protocol: str | None
) -> Callable[[int, str], list[MetricBackend]]:
    """Read what the backends of word error rate and speaker similarity need; return the function that builds them.

    The recogniser and its transcripts are read at once, so that a mistake in them ends the command before a model is
    loaded. The speaker model needs the sample rate and the device, which are known later.

    Returns:
        Function of the sample rate in Hz and the device. It raises `CheckpointError` if the model holds no encoder.

    Raises:
        InputError: transcripts without a recogniser; the recogniser or the transcripts cannot be read; a package that
            the protocol needs is missing.
    """
    from wesep_py.evaluation.metric_backends import SpeakerSimilarity, WordErrorRate, read_transcripts
    from wesep_py.evaluation.protocols import find_protocol
    from wesep_py.evaluation.real_tse_measures import check_text_packages

    if transcripts is not None and recogniser is None:
        raise InputError("--transcripts needs --recogniser; give both")
    backends: list[MetricBackend] = []
    if recogniser is not None:
        chosen = find_protocol(protocol)
        tokens = None if chosen is None else chosen.tokens
        if tokens is not None:
            check_text_packages()
        texts = None if transcripts is None else read_transcripts(transcripts)
        backends.append(WordErrorRate(recogniser, texts, tokens))

    def build(sample_rate: int, device: str) -> list[MetricBackend]:
        if speaker_model is not None:
            backends.append(SpeakerSimilarity(speaker_model, sample_rate, device))
        return backends

    return build


def _show_results(summary: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Print the summary on stdout and every failed trial on stderr.

    Raises:
        WesepError: trials failed; the command then ends with status 1.
    """
    _show_summary(summary, out, as_json)
    failed = summary["failed"]
    for trial in failed:
        typer.echo(f"{trial['mixture_id']} {trial['target_utterance_id']}: {trial['error']}", err=True)
    if failed:
        total = summary["counts"]["trials"]
        raise WesepError(f"{len(failed)} of {total} trials failed; see {out / 'per_trial.jsonl'}")


def _show_summary(summary: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Print the summary as a table, or as JSON, on stdout."""
    import json

    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    counts = summary["counts"]
    typer.echo(f"{summary['protocol']['condition']}; {counts['scored']} of {counts['trials']} trials scored")
    if "scoring" in summary["protocol"]:
        typer.echo(f"scored as by {summary['protocol']['scoring']['source']}")
    if counts["scored"]:
        typer.echo(f"{'metric':<17}{'mean':>9}   {'95 % interval':<19}{'trials':>6}")
    for name in summary["protocol"]["metrics"]:
        if name in summary and summary[name]["count"]:
            typer.echo(_row(name, summary[name]))
    for outcome in ("absent", "silent_reference"):
        if summary[outcome]["count"]:
            title = outcome.replace("_", " ")
            typer.echo(f"{title}, attenuation in dB:")
            attenuation = summary[outcome]["attenuation_db"]
            typer.echo(_row("", attenuation) if attenuation["count"] else "  not known: no mixtures were given")
            _show_rates(f"{title}, false alarm rate", summary[outcome]["false_alarm_rate"])
    if summary["absent"]["count"] or summary["silent_reference"]["count"]:
        _show_rates("retention", summary["absent"]["retention"])
    for name, reasons in summary["missing"].items():
        for reason, count in reasons.items():
            typer.echo(f"{name}: missing for {count} trials: {reason}")
    if counts["silent_estimate"]:
        typer.echo(f"{counts['silent_estimate']} estimates are silent (0 dB SI-SDR by definition)")
    if "repaired" in counts:
        typer.echo(f"{counts['repaired']} extractions were repaired")
    if summary["speed"]["rtf"] is not None:
        speed = summary["speed"]
        threads = f"{speed['threads']} thread{'' if speed['threads'] == 1 else 's'}"
        typer.echo(f"real-time factor {speed['rtf']:.3f} on {speed['device']}, {threads}")
    typer.echo(f"written: {out}")


def _show_rates(title: str, rates: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the rates of one kind of trials, per rule: by level, and by presence if the model tells it."""
    for rule, interval in rates.items():
        if interval["count"]:
            typer.echo(f"{title} {rule.replace('_', ' ')}:")
            typer.echo(_row("", interval))


def _row(name: str, interval: Mapping[str, Any]) -> str:
    """Return the line of a mean with its interval, as far as there is one, and its number of trials."""
    low, high = interval["low"], interval["high"]
    ends = "" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{name:<17}{interval['mean']:>9.3f}   {ends:<19}{interval['count']:>6}"


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("evaluate")
