from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import VOICES, make_voice
from tests.evaluation.conftest import Oracle
from wesep_py.common.errors import InputError
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.evaluation.activity_labels import read_labels
from wesep_py.inference.inputs_outputs.timeline import SpeechSegment, Timeline
from wesep_py.metrics import MetricError

RTTM = """;; a comment
SPKR-INFO m 1 <NA> <NA> <NA> unknown anna <NA> <NA>
SPEAKER m 1 0.000 0.500 <NA> <NA> anna <NA> <NA>
SPEAKER m 1 0.500 1.000 <NA> <NA> bert <NA> <NA>

SPEAKER m 1 1.500 0.250 <NA> <NA> anna <NA>
SPEAKER alone 1 0.1 0.1 <NA> <NA> carl <NA> <NA>
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_frames_in_which_a_speaker_speaks(tmp_path):
    labels = read_labels(write(tmp_path / "l.rttm", RTTM))
    active = labels.activity("m", ["anna-0", "anna"], 2 * 8000, 8000)
    assert len(active) == 100 and active.dtype == bool
    assert np.flatnonzero(active).tolist() == [*range(25), *range(75, 88)]
    assert np.array_equal(labels.activity("m", ["anna"], 16001, 8000), [*active, False])
    assert labels.activity("alone", ["who"], 8000, 8000, any_sole_speaker=True).sum() == 5
    for recording, names, reason in [
        ("n", ["anna"], "do not name the recording"),
        ("m", ["dora"], "do not name the target"),
        ("alone", ["who"], "do not name the target"),
    ]:
        with pytest.raises(MetricError, match=reason):
            labels.activity(recording, names, 8000, 8000)
    with pytest.raises(MetricError, match="do not name the target"):
        labels.activity("m", ["who"], 8000, 8000, any_sole_speaker=True)


def test_what_extract_writes_is_read(tmp_path):
    line = Timeline("alice b", 9.0, (SpeechSegment(1.0, 2.5),), "energy").rttm("board meeting")
    active = read_labels(write(tmp_path / "l.rttm", line)).activity("board meeting", ["alice b"], 3000, 1000)
    assert np.flatnonzero(active).tolist() == [*range(50, 125)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no SPEAKER line"),
        ("SPEAKER m 1 0 1 <NA>\n", "l.rttm:1: has 6 fields"),
        ("\nSPEAKER m 1 zero 1 <NA> <NA> anna\n", "l.rttm:2: start is 'zero' and duration '1'; seconds of at least 0"),
        ("SPEAKER m 1 1 -1 <NA> <NA> anna\n", "l.rttm:1: start is '1' and duration '-1'"),
    ],
)
def test_malformed_labels_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_labels(write(tmp_path / "l.rttm", text))
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "nowhere.rttm")


def test_labels_take_the_place_of_the_references_activity(trials, tmp_path):
    """The labels name the target by its utterance, its speaker, its enrollment file, and not at all."""
    trials = [replace(trial, sources=tuple(replace(s, speaker_id=s.utterance_id[:4]) for s in trial.sources))
              for trial in trials[:4]]  # fmt: skip
    names = ["anna-0", "bert", trials[2].enrollment.stem]
    lines = [
        f"SPEAKER {trial.mixture_id} 1 0 9 <NA> <NA> {name} <NA> <NA>\n"
        for trial, name in zip(trials[:3], names, strict=True)
    ]
    labels = read_labels(write(tmp_path / "l.rttm", "".join(lines)))
    summary = evaluate(Oracle(trials), trials, tmp_path / "out", EvaluationOptions(labels=labels))
    assert summary["timing_f1"]["count"] == 3 and summary["si_sdr"]["count"] == 4
    assert summary["missing"]["timing_f1"] == {"the labels do not name the target in its recording": 1}
    assert summary["protocol"]["labels"] == {"file": "l.rttm", "sha256": labels.sha256}
    assert "where the labels say so" in summary["protocol"]["metrics"]["timing_recall"]
    late = "".join(line.replace(" 0 9 ", " 0.5 9 ") for line in lines)
    other = evaluate(
        Oracle(trials), trials, options=EvaluationOptions(labels=read_labels(write(tmp_path / "late.rttm", late)))
    )
    assert other["timing_precision"]["mean"] < summary["timing_precision"]["mean"] - 0.1
    assert other["si_sdr"] == summary["si_sdr"]


@pytest.fixture
def meetings(tmp_path) -> list:
    """Return a list of recordings whose sources are not known separately: anna, a pause, then bert."""
    import soundfile

    from wesep_py.data import read_trials

    anna, bert = (make_voice(*VOICES[name], 1.0, 0) for name in ("anna", "bert"))
    pause = np.zeros(8000, np.float32)
    for number in range(2):
        soundfile.write(tmp_path / f"meeting{number}.wav", np.concatenate([anna, pause, bert]), 16000)
    soundfile.write(tmp_path / "anna.wav", make_voice(*VOICES["anna"], 1.0, 1), 16000)
    write(tmp_path / "list.csv", "mixture_ID,mixture_path\n" + "".join(f"m{n},meeting{n}.wav\n" for n in range(2)))
    write(tmp_path / "map", "m0 anna anna.wav\nm1 anna anna.wav\nm1 - anna.wav\n")
    return read_trials(tmp_path / "list.csv", tmp_path / "map", recordings=True)


class Half(Oracle):
    """Return the first second of the mixture."""

    def extract(self, mixture, voice):
        from wesep_py.inference import Result

        waveform = mixture[0].copy()
        waveform[16000:] = 0
        return Result(waveform, mixture[1])


@pytest.mark.parametrize("condition", ["clean", "noisy"])
def test_recordings_without_references_are_scored_by_timing(meetings, tmp_path, condition):
    rttm = "".join(f"SPEAKER m{n} 1 0 1 <NA> <NA> anna <NA> <NA>\n" for n in range(2))
    labels = read_labels(write(tmp_path / "l.rttm", rttm))
    options = EvaluationOptions(
        condition=condition, metrics=("timing",), labels=labels, save_audio=1, speakers={"anna": ("f", 30)}
    )
    summary = evaluate(Half(meetings), meetings, tmp_path / "out", options)
    assert [summary["counts"][key] for key in ("scored", "absent", "failed")] == [2, 1, 0]
    assert summary["timing_f1"]["mean"] > 0.97 and summary["timing_f1"]["count"] == 2
    assert summary["absent"]["false_alarm_rate"]["by_level"]["mean"] == 1.0
    assert "num_speakers" not in summary["breakdown"]
    (folder,) = (tmp_path / "out" / "audio").iterdir()
    assert {path.stem for path in folder.iterdir()} == {"mixture", "enrollment", "estimate"}


def test_without_references_other_metrics_are_refused(meetings, tmp_path):
    oracle = Half(meetings)
    with pytest.raises(InputError, match="metric 'si_sdr' needs references"):
        evaluate(oracle, meetings, tmp_path / "out")
    with pytest.raises(InputError, match="give --labels"):
        evaluate(oracle, meetings, tmp_path / "out", EvaluationOptions(metrics=("timing",)))
    assert oracle.enrolled == [] and not (tmp_path / "out").exists()
