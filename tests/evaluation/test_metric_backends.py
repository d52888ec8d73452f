from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import VOICES, make_voice
from tests.evaluation.conftest import Oracle
from wesep_py.common.errors import InputError
from wesep_py.evaluation import EvaluationOptions, evaluate
from wesep_py.evaluation.metric_backends import SpeakerSimilarity, WordErrorRate, load_recogniser, read_transcripts

NOTHING = np.zeros(1600, np.float32)


def by_level(waveform: np.ndarray, sample_rate: int) -> str:
    """Return one word more for every 10 dB that a signal is quieter."""
    assert waveform.dtype == np.float32 and sample_rate == 16000
    return " ".join(["a"] * round(-np.log10((waveform**2).mean() + 1e-9)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    import torch

    from wesep_py import checkpoint
    from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder, encoder_config

    torch.manual_seed(0)
    config = SpeakerConfig({"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8})
    network = SpeakerEncoder(config, 16000)
    folder = tmp_path_factory.mktemp("encoder") / "model"
    return checkpoint.save(folder, encoder_config(config), network.state_dict())


def test_similarity_to_the_enrollment(trials, encoder):
    backend = SpeakerSimilarity(encoder, 16000)
    summary = evaluate(Oracle(trials), trials[:2], options=EvaluationOptions(backends=[backend]))
    assert summary["similarity"]["count"] == 2
    assert -1 <= summary["similarity"]["mean"] <= 1
    assert summary["protocol"]["similarity"]["encoder"] == "model"
    assert "cosine" in summary["protocol"]["metrics"]["similarity"]
    voice = make_voice(*VOICES["anna"], 1.0, 0)
    record = None
    assert backend.measure(record, voice, voice, voice, 16000)[0] == pytest.approx(1.0, abs=1e-5)
    other = make_voice(*VOICES["bert"], 1.0, 0)
    assert backend.measure(record, voice, voice, other, 16000)[0] < 0.9999


def test_a_silent_estimate_or_no_enrollment_has_no_similarity(trials, encoder):
    class Mute(Oracle):
        def extract(self, mixture, voice):
            from dataclasses import replace

            result = super().extract(mixture, voice)
            return replace(result, waveform=np.zeros_like(result.waveform))

    backend = SpeakerSimilarity(encoder, 16000)
    summary = evaluate(Mute(trials), trials[:2], options=EvaluationOptions(backends=[backend]))
    assert summary["missing"]["similarity"] == {"the estimate is silent": 2}


def test_word_errors_against_transcripts_are_pooled_over_words(trials):
    said = {"anna-0": "one two three four five six seven eight", "bert-0": "One."}
    summary = evaluate(
        Oracle(trials),
        trials[:3],
        options=EvaluationOptions(backends=[WordErrorRate(lambda waveform, rate: "one", said)], metrics=("si_sdr",)),
    )
    assert summary["wer"]["mean"] == pytest.approx(7 / 9)
    assert summary["wer"]["count"] == 2
    assert summary["missing"]["wer"] == {"there is no transcript of the utterance": 1}
    assert summary["protocol"]["wer"]["against"] == "transcripts"


def test_without_transcripts_the_reference_is_recognised(trials):
    summary = evaluate(Oracle(trials, leak=0.0), trials, options=EvaluationOptions(backends=[WordErrorRate(by_level)]))
    assert summary["wer"]["mean"] == 0.0
    assert summary["wer"]["count"] == 6
    assert summary["protocol"]["wer"] == {"recogniser": "by_level", "against": "its transcript of the reference"}


@pytest.mark.parametrize(
    ("recogniser", "reason"),
    [
        (lambda waveform, rate: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda waveform, rate: None, "the recogniser returned NoneType; text is needed"),
        (lambda waveform, rate: "...", "the reference has no words"),
    ],
)
def test_a_recogniser_that_fails_costs_its_number_only(trials, recogniser, reason):
    summary = evaluate(Oracle(trials), trials[:2], options=EvaluationOptions(backends=[WordErrorRate(recogniser)]))
    assert summary["missing"]["wer"] == {reason: 2}
    assert summary["si_sdr"]["count"] == 2


def test_a_recogniser_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_asr_of_test.py").write_text("def transcribe(waveform, rate):\n    return 'yes'\nname = 3\n")
    monkeypatch.chdir(tmp_path)
    assert load_recogniser("my_asr_of_test:transcribe")(NOTHING, 16000) == "yes"
    for named, message in (
        ("my_asr_of_test", "the form is module:function"),
        ("no_such_module_at_all:f", "cannot be imported"),
        ("my_asr_of_test:nothing", "cannot be imported"),
        ("my_asr_of_test:name", "is not a function"),
    ):
        with pytest.raises(InputError, match=message):
            load_recogniser(named)


def test_transcripts_are_read_as_kaldi_writes_them(tmp_path):
    (tmp_path / "text").write_text("84-1 HE SAID\n\n84-2\n")
    assert read_transcripts(tmp_path / "text") == {"84-1": "HE SAID", "84-2": ""}
    (tmp_path / "text").write_bytes("\ufeff84-1\tHE SAID\r\n84-2   NO\n".encode())
    assert read_transcripts(tmp_path / "text") == {"84-1": "HE SAID", "84-2": "NO"}
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InputError, match="has no utterance"):
        read_transcripts(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file; give the path of transcripts"):
        read_transcripts(tmp_path / "nowhere")


def test_a_metric_without_its_backend_is_refused(trials):
    with pytest.raises(InputError, match="metric 'wer' needs a model that measures it; give --recogniser"):
        evaluate(Oracle(trials), trials, options=EvaluationOptions(metrics=("si_sdr", "wer")))
    with pytest.raises(InputError, match="--speaker-model"):
        evaluate(Oracle(trials), trials, options=EvaluationOptions(metrics=("similarity",)))
