"""Metrics that need a model: similarity of voices by a speaker encoder, word error rate by a recogniser.

They run in the process that extracts, because each holds a network. A backend that fails on a trial costs that trial
one value; the reason is in the results. No recogniser is bundled: the user names a function.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wesep_py.common.errors import InputError, reason
from wesep_py.common.textfiles import open_lines
from wesep_py.evaluation.activity_labels import as_rttm_field
from wesep_py.evaluation.results import TrialRecord
from wesep_py.metrics import MetricError
from wesep_py.metrics.detection import speaker_similarity
from wesep_py.metrics.perception import is_ideograph, word_errors, words

Recogniser = Callable[[np.ndarray, int], str]
"""Waveform, float32 `[samples]`, and sample rate in Hz → transcript."""
MIN_EMBEDDING_S = 0.1
"""Shortest signal of which an embedding is computed, in seconds."""


class MetricBackend(Protocol):
    """Measure one metric of each trial, in the process that extracts.

    Attributes:
        name: the metric, out of `scoring.BACKEND_METRICS`.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """Return which model measures, for the protocol of the results."""
        ...

    def measure(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        """Return the value for a trial, and its weight in the mean over trials.

        Args:
            record: the trial; it is not changed.
            estimate: `[samples]`.
            reference: `[samples]`; `None` if it is unknown.
            enrollment: `[enrollment_samples]`; `None` if it is unknown.
            sample_rate: of all signals, in Hz.

        Raises:
            MetricError: the trial has no value; the message is the reason.
        """
        ...


class SpeakerSimilarity:
    """Cosine similarity of the embeddings of estimate and enrollment.

    Args:
        path: a checkpoint or experiment folder of a speaker encoder, or of an extractor that has one.
        sample_rate: of the waveforms, in Hz.
        device: on which the encoder computes.

    Raises:
        CheckpointError: the checkpoint holds no such encoder.
    """

    name = "similarity"

    def __init__(self, path: str | Path, sample_rate: int, device: str = "cpu") -> None:
        from wesep_py.network.speaker import load_encoder

        self._path, self._device = str(path), device
        self._encoder = load_encoder(path, sample_rate).to(device)

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for key, tensor in sorted(self._encoder.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return {"encoder": Path(self._path).name, "weights_sha256": digest.hexdigest()}

    def measure(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        if enrollment is None:
            raise MetricError("no enrollment was given")
        return speaker_similarity(self._embed(estimate, sample_rate), self._embed(enrollment, sample_rate)), 1.0

    def _embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        import torch

        if len(waveform) < MIN_EMBEDDING_S * sample_rate:
            raise MetricError(f"an embedding needs {MIN_EMBEDDING_S} s of signal")
        if not np.any(waveform):
            raise MetricError("the estimate is silent")
        batch = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None].to(self._device)
        with torch.inference_mode():
            output = self._encoder(batch, torch.tensor([batch.shape[1]], device=self._device))
        return output.embedding[0].float().cpu().numpy()


class WordErrorRate:
    """Word error rate of the estimate, by a recogniser that the user names.

    The value is weighted by the number of words of the reference, so that the mean is all errors over all words.

    Args:
        recogniser: a function, or its name as `module:function`; the current folder is searched too.
        transcripts: the text of each target, by `MIXTURE_ID/TARGET` (`transcript_key`) or by its utterance id alone.
            `None`: the recogniser's transcript of the reference is taken as the text, so that the value shows the cost
            of extraction without the errors of recognition.
        tokens: splits a text of a language (that of the trial's group `language`; `None`: unknown) into the tokens to
            compare, and every trial has the same weight, as a protocol may define it (`protocols.ScoringProtocol`).
            `None`: our words, and weights.

    Raises:
        InputError: there is no such module or function.
    """

    name = "wer"

    def __init__(
        self,
        recogniser: str | Recogniser,
        transcripts: Mapping[str, str] | None = None,
        tokens: Callable[[str, str | None], list[str]] | None = None,
    ) -> None:
        self._name = recogniser if isinstance(recogniser, str) else getattr(recogniser, "__name__", "recogniser")
        self._recogniser = load_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
        self._transcripts = transcripts
        self._tokens = tokens

    def describe(self) -> dict[str, Any]:
        against = "its transcript of the reference" if self._transcripts is None else "transcripts"
        return {"recogniser": self._name, "against": against}

    def measure(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        text, language = self._reference_text(record, reference, sample_rate), record.groups.get("language")
        if self._tokens is not None and language is None:  # a hypothesis may be empty: the reference decides
            language = "zh" if any(map(is_ideograph, text)) else "en"

        def split(text: str) -> list[str]:
            return words(text) if self._tokens is None else self._tokens(text, language)

        reference_words = split(text)
        if not reference_words:
            raise MetricError("the reference has no words")
        errors = word_errors(split(self._recognise(estimate, sample_rate)), reference_words)
        weight = float(len(reference_words)) if self._tokens is None else 1.0
        return errors / len(reference_words), weight

    def _reference_text(self, record: TrialRecord, reference: np.ndarray | None, sample_rate: int) -> str:
        if self._transcripts is None:
            if reference is None:
                raise MetricError("there is no reference to recognise; give --transcripts")
            return self._recognise(reference, sample_rate)
        for key in (transcript_key(record.mixture_id, record.target_utterance_id), record.target_utterance_id):
            if key in self._transcripts:
                return self._transcripts[key]
        raise MetricError("there is no transcript of the utterance")

    def _recognise(self, waveform: np.ndarray, sample_rate: int) -> str:
        transcript = self._recogniser(np.ascontiguousarray(waveform, dtype=np.float32), sample_rate)
        if not isinstance(transcript, str):
            raise MetricError(f"the recogniser returned {type(transcript).__name__}; text is needed")
        return transcript


def load_recogniser(name: str) -> Recogniser:
    """Import the recogniser that `module:function` names.

    Raises:
        InputError: the form is wrong, or there is no such module or function.
    """
    return load_function(name, "recogniser", "my_asr:transcribe")


def load_function(name: str, what: str, example: str) -> Callable[[np.ndarray, int], Any]:
    """Import a function of a waveform and its sample rate, which `module:function` names.

    Args:
        name: of module and function; the current folder is searched too.
        what: what the function is for, for messages.
        example: such a name, for messages.

    Raises:
        InputError: the form is wrong, or there is no such module or function.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise InputError(f"{what} {name!r}: the form is module:function, like {example}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{what} {name!r}: cannot be imported ({error})") from error
    if not callable(function):
        raise InputError(f"{what} {name!r}: is not a function; one of (waveform, sample_rate) is needed")
    return function


def transcript_key(mixture_id: str, target: str) -> str:
    """Return the name, in a file of transcripts, of what a target says in one mixture of several.

    White space in it becomes `_`, because a line of the file is split there.

    >>> transcript_key("meeting 1", "anna")
    'meeting_1/anna'
    """
    return f"{as_rttm_field(mixture_id)}/{as_rttm_field(target)}"


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Read lines `UTTERANCE_ID words …`, the format of Kaldi's `text` and LibriSpeech's `.trans.txt`.

    Where a target is in several mixtures, `UTTERANCE_ID` is `MIXTURE_ID/TARGET` (`transcript_key`).

    Returns:
        The text of each utterance, by its id.

    Raises:
        InputError: the file cannot be read, or has no utterance.
    """
    transcripts = {}
    for line in open_lines(path, "transcripts"):
        if fields := line.split(maxsplit=1):
            transcripts[fields[0]] = fields[1].strip() if len(fields) > 1 else ""
    if not transcripts:
        raise InputError(f"{path}: has no utterance; lines 'UTTERANCE_ID words …' are needed")
    return transcripts


def apply_backends(
    backends: Sequence[MetricBackend],
    record: TrialRecord,
    estimate: np.ndarray,
    reference: np.ndarray | None,
    enrollment: np.ndarray | None,
    sample_rate: int,
    suffix: str = "",
) -> None:
    """Measure a trial with each backend, and enter each value, or the reason for none, into the record.

    No failure of a backend is raised. For the other arguments see `MetricBackend.measure`.

    Args:
        backends: measure one metric each.
        suffix: of the names of the values; `scoring.BASELINE_SUFFIX` where `estimate` is the unprocessed mixture.
    """
    for backend in backends:
        name = backend.name + suffix
        try:
            value, weight = backend.measure(record, estimate, reference, enrollment, sample_rate)
        except MetricError as error:
            record.missing[name] = str(error)
        except Exception as error:  # the user's own code; its failure costs one value
            record.missing[name] = reason(error)
        else:
            record.values[name] = value
            if weight != 1.0:
                record.weights[name] = weight
