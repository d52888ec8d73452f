"""Extraction from files and arrays: load a model, enroll a voice, extract it."""

from __future__ import annotations

from wesep_py.inference.extractor import Extractor
from wesep_py.inference.loading import load, pick_device
from wesep_py.inference.result import Result
from wesep_py.inference.sources import AUDIO_SUFFIXES, Recording, Source, audio_files, read_source
from wesep_py.inference.voice import Voice

__all__ = [
    "AUDIO_SUFFIXES",
    "Extractor",
    "Recording",
    "Result",
    "Source",
    "Voice",
    "audio_files",
    "load",
    "pick_device",
    "read_source",
]
