"""Metrics of perception: intelligibility (STOI, ESTOI), quality (PESQ, DNSMOS) and words (word error rate).

The packages `pystoi`, `pesq`, `speechmos` and `jiwer` compute them; here their special cases become a value or a
reason. This module also runs as a script, which computes one PESQ (`_pesq_in_own_process`).
"""

from __future__ import annotations

import io
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wesep_py.common.processes import python_command
from wesep_py.metrics.separation import MetricError, checked_pair, checked_signal, is_silent

STOI_MIN_DURATION_S = 0.4
"""Least duration of speech for STOI: 30 frames of 256 samples every 128 at 10 kHz, as its definition needs."""
PESQ_MODES = {16000: "wb", 8000: "nb"}
"""Mode of PESQ at each sample rate: wide-band, narrow-band."""
PESQ_SAFE_DURATION_S = 15.0
"""The reference code keeps 50 utterances in fixed arrays and overruns them without a check, which kills the process.
An utterance with its pause takes more than 0.3 s, so shorter signals cannot have more than 50; longer signals are
scored in a process of their own."""
DNSMOS_SAMPLE_RATE = 16000
DNSMOS_PARTS = ("ovrl", "sig", "bak", "p808")


def stoi(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Return the short-time objective intelligibility of an estimate.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`.
        sample_rate: in Hz; signals are resampled to 10 kHz.

    Returns:
        Mean correlation of third-octave envelopes, at most 1; 0 for a silent estimate.

    Raises:
        MetricError: the reference is silent, or has less than 0.4 s of speech; not finite; lengths differ.

    Source: Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of time-frequency
    weighted noisy speech", IEEE TASLP 19(7), 2011; by the package `pystoi`.

    >>> speech = np.random.default_rng(0).standard_normal(16000)
    >>> round(stoi(speech, speech, 16000), 3)
    1.0
    """
    return _compute_stoi(estimate, reference, sample_rate, extended=False)


def estoi(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Return the extended short-time objective intelligibility; arguments, result and errors as `stoi`.

    Source: Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise
    maskers", IEEE/ACM TASLP 24(11), 2016; by the package `pystoi`.

    >>> speech = np.random.default_rng(0).standard_normal(16000)
    >>> round(estoi(speech, speech, 16000), 3)
    1.0
    """
    return _compute_stoi(estimate, reference, sample_rate, extended=True)


def _compute_stoi(estimate: np.ndarray, reference: np.ndarray, sample_rate: int, extended: bool) -> float:
    from pystoi import stoi as compute

    estimate, reference = checked_pair(estimate, reference)
    if len(reference) < STOI_MIN_DURATION_S * sample_rate:
        raise MetricError(f"the reference has {len(reference) / sample_rate:.3f} s; STOI needs {STOI_MIN_DURATION_S} s")
    if is_silent(estimate):
        return 0.0
    # pystoi dithers by 1e-16 with NumPy's global generator, which decides the correlation of frames that are all zeros:
    # seeded here for the same result every time; the generator's state is restored.
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(compute(reference, estimate, sample_rate, extended=extended))
    finally:
        np.random.set_state(state)
    # pystoi returns 1e-5 with a warning where there is too little speech: here there is no value.
    if any("Not enough STFT frames" in str(warning.message) for warning in caught):
        raise MetricError(f"the reference has less than {STOI_MIN_DURATION_S} s of speech once its pauses are left out")
    if not np.isfinite(value):
        raise MetricError("STOI gave no finite value")
    return value


def pesq(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Return the perceptual evaluation of speech quality: wide-band at 16 kHz, narrow-band at 8 kHz.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`.
        sample_rate: 16000 or 8000 Hz.

    Returns:
        MOS-LQO: about 1.0 (bad) to 4.64 (wide-band) or 4.55 (narrow-band).

    Raises:
        MetricError: another sample rate; a silent signal; less than 0.25 s; no utterance, or more than 50 of them.

    Source: ITU-T P.862 (2001) with P.862.1 (narrow-band) and P.862.2 (wide-band) mappings, by the package
        `pesq`.

    >>> speech = np.random.default_rng(0).standard_normal(16000) * np.hanning(16000)
    >>> round(pesq(speech, speech, 16000), 2)
    4.64
    """
    if sample_rate not in PESQ_MODES:
        raise MetricError(f"PESQ is defined at 16000 and 8000 Hz, not at {sample_rate} Hz")
    estimate, reference = checked_pair(estimate, reference)
    if is_silent(estimate):
        raise MetricError("the estimate is silent")
    if len(reference) / sample_rate > PESQ_SAFE_DURATION_S:
        return _pesq_in_own_process(estimate, reference, sample_rate)
    return _compute_pesq(estimate, reference, sample_rate)


def _compute_pesq(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    from pesq import PesqError
    from pesq import pesq as compute

    try:
        value = float(compute(sample_rate, reference, estimate, PESQ_MODES[sample_rate]))
    except PesqError as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise MetricError(reason.decode() if isinstance(reason, bytes) else str(reason)) from error
    if not np.isfinite(value):
        raise MetricError("PESQ gave no finite value")
    return value


def _pesq_in_own_process(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    signals = io.BytesIO()
    np.save(signals, np.stack([estimate, reference]))
    command = python_command("wesep_py.metrics.perception", str(sample_rate))
    done = subprocess.run(command, input=signals.getvalue(), capture_output=True, check=False)
    if done.returncode == 0:
        return float(done.stdout)
    if done.returncode < 0:
        raise MetricError("the PESQ reference code failed: most likely more than 50 utterances in one recording")
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    raise MetricError(lines[-1] if lines else f"the process of PESQ ended with status {done.returncode}")


def _main() -> None:
    estimate, reference = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    try:
        print(_compute_pesq(estimate, reference, int(sys.argv[1])))
    except MetricError as error:
        sys.exit(str(error))


def load_dnsmos() -> Any:
    """Import the module of `speechmos` that holds the networks of DNSMOS.

    Raises:
        MetricError: it, or a package that it needs, cannot be imported.
    """
    try:
        from speechmos import dnsmos as network
    except ImportError as error:
        raise MetricError(f"speechmos cannot be imported ({error}): pip install 'wesep-py[mos]'") from error
    return network


def dnsmos(estimate: np.ndarray, sample_rate: int, personalised: bool = False) -> dict[str, float]:
    """Return the mean opinion scores (1 to 5) that DNSMOS predicts for an estimate without a reference.

    Args:
        estimate: `[samples]`; one that peaks beyond full scale is scaled to it, because the network needs that.
        sample_rate: 16000 Hz.
        personalised: use the network that also penalises other voices, meant for target speaker extraction.

    Returns:
        `ovrl` (overall), `sig` (speech), `bak` (background), all of P.835, and `p808` (overall, of P.808).

    Raises:
        MetricError: `speechmos` is not installed, another rate, a signal that is silent or not finite.

    Source: Reddy, Gopal, Cutler, "DNSMOS P.835", ICASSP 2022; the network of the Deep Noise Suppression Challenge.
    """
    if sample_rate != DNSMOS_SAMPLE_RATE:
        raise MetricError(f"DNSMOS is defined at {DNSMOS_SAMPLE_RATE} Hz, not at {sample_rate} Hz")
    signal = checked_signal(estimate, "estimate")
    if is_silent(signal):
        raise MetricError("the estimate is silent")
    network = load_dnsmos()
    signal = signal / max(1.0, float(np.abs(signal).max()))
    kind = "dnsmos_personalized" if personalised else "dnsmos"
    try:
        result: Mapping[str, Any] = network.run(signal.astype(np.float32), sr=sample_rate, model_type=kind)
    except Exception as error:  # whatever the network's runtime raises: it costs this value only
        raise MetricError(f"speechmos: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return {part: float(result[f"{part}_mos"]) for part in DNSMOS_PARTS}


def words(text: str) -> list[str]:
    """Return the words of a text: case and punctuation are ignored, each Chinese or Japanese character is a word.

    >>> words("It's FINE, 好的!")
    ["it's", 'fine', '好', '的']
    """
    normalised = []
    for character in unicodedata.normalize("NFKC", text).casefold().replace("’", "'"):
        if is_ideograph(character):
            normalised.append(f" {character} ")
        elif character == "'" or not unicodedata.category(character).startswith(("P", "S")):
            normalised.append(character)
        else:
            normalised.append(" ")
    # An apostrophe is part of a word (it's), but not at its ends, where it is a quotation mark.
    return [word for word in (part.strip("'") for part in "".join(normalised).split()) if word]


def word_errors(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Return the least number of words to insert, delete or replace (Levenshtein distance), by the package `jiwer`.

    Args:
        hypothesis: words of the recogniser, from `words`.
        reference: words that were said, from `words`.

    >>> word_errors(["a", "cat", "sat"], ["the", "cat", "sat", "down"])
    2
    """
    if not reference or not hypothesis:  # jiwer refuses an empty reference
        return len(hypothesis) + len(reference)
    import jiwer

    alignment = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return alignment.substitutions + alignment.deletions + alignment.insertions


def is_ideograph(character: str) -> bool:
    """True if a character is Chinese or Japanese, so that it counts as a word."""
    return unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))


if __name__ == "__main__":
    _main()
