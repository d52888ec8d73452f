"""Utterances as encoded audio in memory, without loss: what shards and LMDB stores hold.

What is stored is the utterance's own stretch, at the rate of its recording. The encoding is chosen by the samples:
the narrowest that gives every one of them back exactly. So a store and a `FileReader` give the same values at
any rate.
"""

from __future__ import annotations

from typing import Literal, get_args

from wesep_py.audio.encoded import Encoded, encode
from wesep_py.corpus.stretch import cut_utterance
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import InputError

StoredFormat = Literal["flac", "wav", "opus-as-is"]
STORED_FORMATS: tuple[str, ...] = get_args(StoredFormat)
_AS_IS_SUFFIXES = frozenset({".opus", ".ogg", ".mp3"})


def encode_utterance(utterance: Utterance, form: StoredFormat = "flac", all_channels: bool = False) -> Encoded:
    """The stretch of an utterance, decoded, checked and encoded anew, or copied.

    Args:
        utterance: what to encode; its speed is left to who reads it.
        form: `flac`, or `wav` where samples do not fit FLAC (floating point, more than 8 channels); `wav`; or
            `opus-as-is`: a whole recording in a lossy format (Opus, Vorbis, MP3) is copied byte by byte, all
            else is as with `flac`.
        all_channels: keep all channels, as a room response needs; otherwise the first.

    Raises:
        AudioError: the recording is missing, damaged, or shorter than the utterance says.
        InputError: another `form`.
    """
    if form not in STORED_FORMATS:
        raise InputError(f"format: is {form!r}; {', '.join(STORED_FORMATS)} are allowed")
    waveform, rate, may_copy = cut_utterance(utterance)
    suffix = utterance.path.suffix.lower()
    if form == "opus-as-is" and may_copy and suffix in _AS_IS_SUFFIXES:
        return Encoded(utterance.path.read_bytes(), suffix, rate, waveform.shape[1])
    return encode(waveform if all_channels else waveform[:1], rate, "wav" if form == "wav" else "flac")
