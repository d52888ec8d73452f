"""The measures of the REAL-TSE challenge, against independent computations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from wesep_py.common.errors import InputError
from wesep_py.evaluation import real_tse_measures
from wesep_py.evaluation.metric_backends import WordErrorRate
from wesep_py.evaluation.protocols import find_protocol
from wesep_py.evaluation.real_tse_measures import (
    challenge_timing,
    challenge_tokens,
    check_text_packages,
    language_code,
    scaled_for_detection,
)
from wesep_py.evaluation.results import TrialRecord
from wesep_py.metrics.perception import words

Segments = list[tuple[int, int]]
"""In milliseconds, ending on 5, so that no boundary lies on one of a frame."""


def counted(detected: Segments, labelled: Segments, duration_ms: int) -> tuple[Fraction, ...]:
    """Return precision, recall, F1 and error by asking of each frame which segments overlap it, in whole numbers."""
    hits = false_alarms = misses = 0
    for start in range(0, duration_ms, 10):
        end = min(start + 10, duration_ms)
        estimate = any(min(end, last) > max(start, first) for first, last in detected)
        target = any(
            min(end, min(last, duration_ms) + 50) > max(start, max(first, 0) - 50)
            for first, last in labelled
            if min(last, duration_ms) > max(first, 0)
        )
        hits += estimate and target
        false_alarms += estimate and not target
        misses += target and not estimate

    def ratio(over: int, under: int) -> Fraction:
        return Fraction(over, under) if under else Fraction(0)

    return (
        ratio(hits, hits + false_alarms),
        ratio(hits, hits + misses),
        ratio(2 * hits, 2 * hits + false_alarms + misses),
        ratio(false_alarms + misses, -(-duration_ms // 10)),
    )


def draw(rng: np.random.Generator, count: int) -> Segments:
    starts = 10 * rng.integers(-10, 420, count) + 5
    return [(int(start), int(start + 10 * rng.integers(1, 120))) for start in starts]


@pytest.mark.parametrize("seed", range(30))
def test_timing_as_counted_frame_by_frame(seed: int):
    rng = np.random.default_rng(seed)
    duration_ms = int(rng.integers(2000, 5000))
    detected, labelled = draw(rng, int(rng.integers(0, 4))), draw(rng, int(rng.integers(0, 4)))
    seconds = [[(first / 1000, last / 1000) for first, last in segments] for segments in (detected, labelled)]
    expected = counted(detected, labelled, duration_ms)
    assert challenge_timing(*seconds, duration_ms / 1000) == pytest.approx([float(value) for value in expected])


def test_a_collar_widens_labels_and_closes_no_pause():
    # 0.2 s of labels become 0.3 s; our own timing would leave frames near boundaries out, and close the pause.
    assert challenge_timing([(0.0, 2.0)], [(1.005, 1.205)], 2.0).precision == pytest.approx(31 / 200)
    assert challenge_timing([(0.0, 1.0), (1.1, 2.0)], [(0.0, 2.0)], 2.0).recall == pytest.approx(190 / 200)


@pytest.mark.parametrize(("detected", "labelled"), [([], [(0.0, 1.0)]), ([(0.0, 1.0)], []), ([], [])])
def test_without_speech_all_three_are_zero(detected, labelled):
    assert challenge_timing(detected, labelled, 2.0)[:3] == (0.0, 0.0, 0.0)


def test_estimates_are_scaled_before_detection():
    assert np.abs(scaled_for_detection(np.array([0.1, -0.2]))).max() == pytest.approx(0.9)
    assert not scaled_for_detection(np.zeros(3)).any()


@pytest.fixture
def packages() -> None:
    for module in real_tse_measures.TEXT_PACKAGES:
        pytest.importorskip(module)


@pytest.mark.parametrize(
    ("text", "language", "tokens"),
    [
        # Whisper's normaliser: contractions, hesitations, numbers, British spelling.
        ("Well, I'd say (uh) twenty-one colours.", "en", "well i would say 21 colors"),
        ("Mr. Smith isn't here... 3.5!", "en", "mister smith is not here 35"),
        ("這個 颜色，很好 OK", "zh", "这 个 颜 色 很 好 o k"),
        ("", "zh", ""),
    ],
)
def test_tokens_of_both_languages(packages: None, text: str, language: str, tokens: str):
    assert challenge_tokens(text, language) == tokens.split()
    assert challenge_tokens(text) == tokens.split() or not text


def edit_distance(first: list[str], second: list[str]) -> int:
    """Return the Levenshtein distance, by its recurrence."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_the_error_rate_of_each_trial_has_the_same_weight(packages: None):
    texts = {"m1/anna": "I've got twenty one", "m2/anna": "no", "m3/bert": "这个颜色很好"}
    heard = {"m1/anna": "I have got 22", "m2/anna": "no no no", "m3/bert": "這個顏色好"}
    backend = WordErrorRate(lambda waveform, rate: heard[key], texts, find_protocol("real_tse").tokens)
    expected = {"m1/anna": ("i have got 21", "i have got 22"), "m2/anna": ("no", "no no no"),
                "m3/bert": ("这 个 颜 色 很 好", "这 个 颜 色 好")}  # fmt: skip
    for key, (reference, hypothesis) in expected.items():
        mixture, target = key.split("/")
        record = TrialRecord(mixture, target, "e.wav", groups={"language": "zh" if target == "bert" else "en"})
        value, weight = backend.measure(record, np.zeros(8), None, None, 8000)
        distance = edit_distance(hypothesis.split(), reference.split())
        assert (value, weight) == (pytest.approx(distance / len(reference.split())), 1.0)
        record.groups.clear()  # the reference then tells the language
        assert backend.measure(record, np.zeros(8), None, None, 8000)[0] == value
    ours = WordErrorRate(lambda waveform, rate: heard[key], texts)
    key = "m1/anna"
    value, weight = ours.measure(TrialRecord("m1", "anna", "e.wav"), np.zeros(8), None, None, 8000)
    assert weight == 4 and value == edit_distance(words(heard[key]), words(texts[key])) / 4


def test_other_languages_are_refused():
    assert language_code(" CHS ") == "zh"
    with pytest.raises(InputError, match="language 'de' is neither English nor Mandarin"):
        language_code("de")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(real_tse_measures.TEXT_PACKAGES, "no_such_module", "no-such-package")
    for module in ("whisper_normalizer", "opencc"):
        monkeypatch.delitem(real_tse_measures.TEXT_PACKAGES, module)
    with pytest.raises(InputError, match=r"needs no-such-package .* pip install 'wesep-py\[real-tse\]'"):
        check_text_packages()
