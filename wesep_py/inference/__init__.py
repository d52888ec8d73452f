"""Extraction from files and arrays: load a model, enroll a voice, extract it.

Names are imported when they are first used: workers that score need parts of this package, and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wesep_py.inference.enrollment_quality import MIN_SPEECH_S, RecordingQuality, VoiceQuality
    from wesep_py.inference.extractor import Extractor, load, pick_device
    from wesep_py.inference.inputs import AUDIO_SUFFIXES, Recording, Source, audio_files, read_source, segment_of
    from wesep_py.inference.mixed_enrollment import EnrollmentVoices
    from wesep_py.inference.overlap_add import Blocks
    from wesep_py.inference.presence import Calibration, Presence
    from wesep_py.inference.result import Result
    from wesep_py.inference.speech_activity import MAX_ENROLLMENT_S
    from wesep_py.inference.voice_print import Voice

_MODULE_OF = {
    "AUDIO_SUFFIXES": "inputs",
    "MAX_ENROLLMENT_S": "speech_activity",
    "MIN_SPEECH_S": "enrollment_quality",
    "Blocks": "overlap_add",
    "Calibration": "presence",
    "Extractor": "extractor",
    "EnrollmentVoices": "mixed_enrollment",
    "Presence": "presence",
    "Recording": "inputs",
    "RecordingQuality": "enrollment_quality",
    "Result": "result",
    "Source": "inputs",
    "Voice": "voice_print",
    "VoiceQuality": "enrollment_quality",
    "audio_files": "inputs",
    "load": "extractor",
    "pick_device": "extractor",
    "read_source": "inputs",
    "segment_of": "inputs",
}

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_ENROLLMENT_S",
    "MIN_SPEECH_S",
    "Blocks",
    "Calibration",
    "Extractor",
    "EnrollmentVoices",
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
    "segment_of",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
