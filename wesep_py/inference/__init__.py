"""Extraction from files and arrays: load a model, enroll a voice, extract it."""

from __future__ import annotations

from wesep_py.inference.best_speech import MAX_ENROLLMENT_S
from wesep_py.inference.extractor import Extractor
from wesep_py.inference.loading import load, pick_device
from wesep_py.inference.presence import Calibration, Presence
from wesep_py.inference.quality import MIN_SPEECH_S, RecordingQuality, VoiceQuality
from wesep_py.inference.recording.blocks import Blocks
from wesep_py.inference.result import Result
from wesep_py.inference.sources import AUDIO_SUFFIXES, Recording, Source, audio_files, read_source, stretch_of
from wesep_py.inference.voice import Voice
from wesep_py.inference.voices import HeardVoices

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_ENROLLMENT_S",
    "MIN_SPEECH_S",
    "Blocks",
    "Calibration",
    "Extractor",
    "HeardVoices",
    "Presence",
    "Recording",
    "RecordingQuality",
    "Result",
    "Source",
    "Voice",
    "VoiceQuality",
    "audio_files",
    "load",
    "pick_device",
    "read_source",
    "stretch_of",
]
