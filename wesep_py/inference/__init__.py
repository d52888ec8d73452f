"""Inference: enroll a voice, extract it from recordings.

```
enrollment: alice.wav ─► inputs ─► enrollment, speech_activity ─► Extractor.enroll ─► Voice (alice.voice)
                                                                                        │
mixture: meeting.wav ─► inputs ─► Extractor.extract ◄───────────────────────────────────┘
                                    network on the whole recording, or by blocks ─► level ─► presence ─► Result
```

| module or folder | content |
| --- | --- |
| `extractor` | `Extractor.enroll`, `Extractor.extract`: the whole path, in memory |
| `model_loading` | `load`: a model by name, folder or repository; `pick_device` |
| `pretrained` | models as the Hugging Face ecosystem loads, saves and uploads them |
| `result` | `Result`: level of the voice, saving |
| `file_extraction` | `extract_file`: one recording from file to file, short or long |
| `long_files` | one recording of any length from file to file, by blocks |
| `presence_detector` | when a voice speaks, without extracting it |
| `single_speaker` | segments of a recording in which one person seems to speak alone |
| `enrolling/` | enrollment recordings, their quality, and `Voice` |
| `inputs_outputs/` | files and arrays in; voices, residuals, timelines and segments out |
| `long_recordings/` | overlapping blocks, and causal networks from block to block |
| `presence_decision/` | whether the voice is there, with or without a verifier; repair |
| `live_stream/` | `Stream`, pipes, sound devices |

The folders import neither these modules nor `__init__`.

Names are imported when they are first used: processes that score need parts of this package, and no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wesep_py.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from wesep_py.inference.enrolling.enrollment_quality import MIN_SPEECH_S, RecordingQuality, VoiceQuality
    from wesep_py.inference.enrolling.mixed_enrollment import EnrollmentVoices
    from wesep_py.inference.enrolling.speech_activity import MAX_ENROLLMENT_S
    from wesep_py.inference.enrolling.voice_print import Voice
    from wesep_py.inference.extractor import Extractor
    from wesep_py.inference.inputs_outputs.inputs import (
        AUDIO_SUFFIXES,
        Recording,
        Source,
        audio_files,
        read_source,
        segment_of,
    )
    from wesep_py.inference.live_stream.stream import Stream
    from wesep_py.inference.long_recordings.blocks import Blocks
    from wesep_py.inference.model_loading import load, pick_device
    from wesep_py.inference.presence_decision.presence import Calibration, Presence
    from wesep_py.inference.result import Result

_MODULE_OF = {
    "AUDIO_SUFFIXES": "inputs_outputs.inputs",
    "MAX_ENROLLMENT_S": "enrolling.speech_activity",
    "MIN_SPEECH_S": "enrolling.enrollment_quality",
    "Blocks": "long_recordings.blocks",
    "Calibration": "presence_decision.presence",
    "EnrollmentVoices": "enrolling.mixed_enrollment",
    "Extractor": "extractor",
    "Presence": "presence_decision.presence",
    "Recording": "inputs_outputs.inputs",
    "RecordingQuality": "enrolling.enrollment_quality",
    "Result": "result",
    "Source": "inputs_outputs.inputs",
    "Stream": "live_stream.stream",
    "Voice": "enrolling.voice_print",
    "VoiceQuality": "enrolling.enrollment_quality",
    "audio_files": "inputs_outputs.inputs",
    "load": "model_loading",
    "pick_device": "model_loading",
    "read_source": "inputs_outputs.inputs",
    "segment_of": "inputs_outputs.inputs",
}

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_ENROLLMENT_S",
    "MIN_SPEECH_S",
    "Blocks",
    "Calibration",
    "EnrollmentVoices",
    "Extractor",
    "Presence",
    "Recording",
    "RecordingQuality",
    "Result",
    "Source",
    "Stream",
    "Voice",
    "VoiceQuality",
    "audio_files",
    "load",
    "pick_device",
    "read_source",
    "segment_of",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF, __all__)
