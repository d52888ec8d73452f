"""The measures of the REAL-TSE challenge, by its own definitions: timing of the target's speech, token error rate.

Its other measures are ours with the right networks: `similarity` with WeSpeaker's encoders, `dnsmos` as it is.

Source: the evaluation scripts of REAL-TSE-Challenge (https://github.com/REAL-TSE/REAL-TSE-Challenge,
`utils/tse_timing_evaluation.py`, `utils/prepare_label_segments.py`, `utils/vad_inference_firered.py`,
`utils/asr_metrics.py`, `utils/calculate_TER.py`), described here and computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.metrics.perception import is_ideograph

TIMING_FRAME_S = 0.01
LABEL_COLLAR_S = 0.05
"""Every labelled segment begins this much earlier and ends this much later."""
DETECTOR_PEAK = 0.9
"""Peak to which an estimate is scaled before its speech is detected."""
LANGUAGE_CODES: Mapping[str, str] = {
    **dict.fromkeys(("en", "eng", "english"), "en"),
    **dict.fromkeys(("zh", "zho", "chs", "cn", "chinese", "mandarin"), "zh"),
}
"""Names of the two languages in metadata, in lower case, and their codes."""
TEXT_PACKAGES = {"whisper_normalizer": "whisper-normalizer", "opencc": "opencc"}
"""Modules that normalise text, and the packages that hold them."""


class ChallengeTiming(NamedTuple):
    """Agreement of two activities, 0 to 1 each; the error is not one of the challenge's measures."""

    precision: float
    recall: float
    f1: float
    error: float


def challenge_timing(
    detected: Iterable[tuple[float, float]], labelled: Iterable[tuple[float, float]], duration_s: float
) -> ChallengeTiming:
    """Return precision, recall and F1 of detected speech, in frames of 10 ms, and the share of frames that differ.

    A frame that a segment touches is active. The labels are widened by 0.05 s on both sides; no frame is left out and
    no pause closed. F1 is 2 TP / (2 TP + FP + FN); a ratio whose denominator is 0 is 0.

    Args:
        detected: start and end in seconds of each segment of speech in the estimate.
        labelled: the same of the target, by the labels.
        duration_s: length of the mixture in seconds.

    >>> challenge_timing([(0.0, 1.0)], [(0.05, 0.45)], 2.0)
    ChallengeTiming(precision=0.5, recall=1.0, f1=0.6666666666666666, error=0.25)
    """
    inside = [(max(0.0, start), min(duration_s, end)) for start, end in labelled]
    widened = [
        (round(max(0.0, start - LABEL_COLLAR_S), 6), round(min(duration_s, end + LABEL_COLLAR_S), 6))
        for start, end in inside
        if end > start
    ]
    estimate, target = touched_frames(detected, duration_s), touched_frames(widened, duration_s)
    hits = int((estimate & target).sum())
    num_detected, num_labelled = int(estimate.sum()), int(target.sum())
    return ChallengeTiming(
        hits / num_detected if num_detected else 0.0,
        hits / num_labelled if num_labelled else 0.0,
        2 * hits / (num_detected + num_labelled) if num_detected + num_labelled else 0.0,
        float((estimate != target).mean()) if len(target) else 0.0,
    )


def touched_frames(segments: Iterable[tuple[float, float]], duration_s: float) -> NDArray[np.bool_]:
    """Return the frames of 10 ms that any segment touches, bool `[frames]`; the last frame may be shorter.

    >>> touched_frames([(0.015, 0.021)], 0.045).tolist()
    [False, True, True, False, False]
    """
    frames = np.zeros(math.ceil(duration_s / TIMING_FRAME_S), dtype=bool)
    for start_s, end_s in segments:
        start_s, end_s = max(0.0, min(duration_s, start_s)), max(0.0, min(duration_s, end_s))
        if end_s > start_s:
            frames[math.floor(start_s / TIMING_FRAME_S) : math.ceil(end_s / TIMING_FRAME_S)] = True
    return frames


def scaled_for_detection(estimate: np.ndarray) -> np.ndarray:
    """Return the estimate `[samples]` with a peak of 0.9; a silent one unchanged."""
    peak = float(np.abs(estimate).max(initial=0.0))
    return estimate if peak == 0.0 else estimate * (DETECTOR_PEAK / peak)


def check_text_packages() -> None:
    """Check that the packages that normalise text can be imported.

    Raises:
        InputError: one is missing.
    """
    for module, package in TEXT_PACKAGES.items():
        try:
            __import__(module)
        except ImportError as error:
            raise InputError(
                f"the token error rate of REAL-TSE needs {package} ({error}): pip install 'wesep-py[real-tse]'"
            ) from error


def challenge_tokens(text: str, language: str | None = None) -> list[str]:
    """Return the tokens of a transcript: words of English, characters of Mandarin.

    Round brackets are removed first. English is normalised by Whisper's normaliser for English (numbers, contractions,
    British spelling, hesitations), then loses its full stops. Mandarin is normalised by Whisper's for other languages,
    converted to simplified characters and split into characters.

    Args:
        text: of a recogniser, or the reference.
        language: `en` or `zh`, or another name of these (`LANGUAGE_CODES`); `None`: `zh` for a text with ideographs.

    Raises:
        InputError: another language, or a package is missing (`check_text_packages`).
    """
    code = language_code(language) if language else "zh" if any(map(is_ideograph, text)) else "en"
    english, basic, simplified = _normalisers()
    text = text.replace("(", "").replace(")", "")
    if code == "en":
        return english(text).replace(".", "").split()
    return list("".join(simplified.convert(basic(text)).split()))


def language_code(name: str) -> str:
    """Return `en` or `zh` for the name of a language.

    Raises:
        InputError: it is another language.

    >>> language_code("Mandarin")
    'zh'
    """
    code = LANGUAGE_CODES.get(name.strip().lower())
    if code is None:
        raise InputError(f"language {name!r} is neither English nor Mandarin, which REAL-TSE defines; give en or zh")
    return code


@lru_cache(maxsize=1)
def _normalisers() -> tuple[Any, Any, Any]:
    check_text_packages()
    from opencc import OpenCC
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer(), BasicTextNormalizer(), OpenCC("t2s")
