"""Measures that need more than two signals: a speaker encoder, a recogniser that the user names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wesep_py.errors import InputError, reason
from wesep_py.evaluation.record import TrialRecord
from wesep_py.metrics import MetricError
from wesep_py.metrics.similarity import speaker_similarity
from wesep_py.metrics.word_errors import word_errors, words
from wesep_py.textfiles import open_lines

Recogniser = Callable[[np.ndarray, int], str]
"""Waveform, float32 `[samples]`, and its rate in Hz → what is said."""

MIN_DURATION_S = 0.1


class Listener(Protocol):
    """Measures one number of a trial, in the process that extracts.

    Attributes:
        name: the measure, out of `measures.BY_LISTENERS`.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """For the protocol: what listens."""
        ...

    def listen(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        """The value for a trial, and the weight that it has in the mean.

        Raises:
            MetricError: there is none; the reason.
        """
        ...


class SpeakerListener:
    """Similarity of the estimate to the enrollment, by a speaker encoder.

    Args:
        path: a checkpoint or experiment folder of an encoder, or of an extractor that has one.
        sample_rate: Hz of the waveforms.
        device: where the encoder computes.
    """

    name = "similarity"

    def __init__(self, path: str | Path, sample_rate: int, device: str = "cpu") -> None:
        from wesep_py.speaker import load_encoder

        self._path, self._device = str(path), device
        self._encoder = load_encoder(path, sample_rate).to(device)

    def describe(self) -> dict[str, Any]:
        import hashlib

        digest = hashlib.sha256()
        for key, tensor in sorted(self._encoder.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return {"encoder": Path(self._path).name, "weights_sha256": digest.hexdigest()}

    def listen(
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

        if len(waveform) < MIN_DURATION_S * sample_rate:
            raise MetricError(f"an embedding needs {MIN_DURATION_S} s of signal")
        if not np.any(waveform):
            raise MetricError("the estimate is silent")
        batch = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None].to(self._device)
        with torch.inference_mode():
            output = self._encoder(batch, torch.tensor([batch.shape[1]], device=self._device))
        return output.embedding[0].float().cpu().numpy()


class WordListener:
    """Word error rate of the estimate, by a recogniser that the user names; none is bundled.

    Args:
        recogniser: `module:function`, found as Python finds modules, the current folder included.
        transcripts: what is said in each utterance, by its id. `None`: what the recogniser hears in the reference
            counts as said, so that the number is what extraction costs, not what recognition costs.

    Raises:
        InputError: there is no such module or function.
    """

    name = "wer"

    def __init__(self, recogniser: str | Recogniser, transcripts: Mapping[str, str] | None = None) -> None:
        self._named = recogniser if isinstance(recogniser, str) else getattr(recogniser, "__name__", "recogniser")
        self._recognise = load_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
        self._transcripts = transcripts

    def describe(self) -> dict[str, Any]:
        against = "what it hears in the reference" if self._transcripts is None else "transcripts"
        return {"recogniser": self._named, "against": against}

    def listen(
        self,
        record: TrialRecord,
        estimate: np.ndarray,
        reference: np.ndarray | None,
        enrollment: np.ndarray | None,
        sample_rate: int,
    ) -> tuple[float, float]:
        if self._transcripts is None:
            if reference is None:
                raise MetricError("there is no reference to hear; give --transcripts")
            said = words(self._heard(reference, sample_rate))
        elif record.target_utterance_id in self._transcripts:
            said = words(self._transcripts[record.target_utterance_id])
        else:
            raise MetricError("there is no transcript of the utterance")
        if not said:
            raise MetricError("no word is said in the reference")
        return word_errors(words(self._heard(estimate, sample_rate)), said) / len(said), float(len(said))

    def _heard(self, waveform: np.ndarray, sample_rate: int) -> str:
        heard = self._recognise(np.ascontiguousarray(waveform, dtype=np.float32), sample_rate)
        if not isinstance(heard, str):
            raise MetricError(f"the recogniser returned {type(heard).__name__}; text is needed")
        return heard


def load_recogniser(named: str) -> Recogniser:
    """The function that `module:function` names.

    Raises:
        InputError: the form is wrong, or there is no such module or function.
    """
    module_name, _, function_name = named.partition(":")
    if not module_name or not function_name:
        raise InputError(f"recogniser {named!r}: the form is module:function, like my_asr:transcribe")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"recogniser {named!r}: cannot be imported ({error})") from error
    if not callable(function):
        raise InputError(f"recogniser {named!r}: is no function; one of (waveform, sample_rate) is needed")
    return function


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Lines `UTTERANCE_ID words …`, as Kaldi's `text` and LibriSpeech's `.trans.txt` have them.

    Raises:
        InputError: the file cannot be read or names no utterance.
    """
    found = {}
    for line in open_lines(path, "transcripts"):
        if fields := line.split(maxsplit=1):
            found[fields[0]] = fields[1].strip() if len(fields) > 1 else ""
    if not found:
        raise InputError(f"{path}: names no utterance; lines 'UTTERANCE_ID words …' are needed")
    return found


def listen_to(
    listeners: list[Listener],
    record: TrialRecord,
    estimate: np.ndarray,
    reference: np.ndarray | None,
    enrollment: np.ndarray | None,
    sample_rate: int,
) -> None:
    """Let all listen and enter what they measure, or why not, into the record; none of them stops the run."""
    for listener in listeners:
        try:
            value, weight = listener.listen(record, estimate, reference, enrollment, sample_rate)
        except MetricError as error:
            record.missing[listener.name] = str(error)
        except Exception as error:  # the user's own code; its failure costs one value
            record.missing[listener.name] = reason(error)
        else:
            record.values[listener.name] = value
            if weight != 1.0:
                record.weights[listener.name] = weight
