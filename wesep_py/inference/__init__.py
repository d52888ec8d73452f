"""Inference: enroll a voice, extract it from recordings.

```
enrollment: alice.wav ─► inputs ─► enrollment, speech_activity ─► Extractor.enroll ─► Voice (alice.voice)
                                                                                        │
mixture: meeting.wav ─► inputs ─► Extractor.extract ◄───────────────────────────────────┘
                                    network on the whole recording, or by blocks ─► level ─► presence ─► Result
```

| module | content |
| --- | --- |
| `extractor` | `Extractor.enroll`, `Extractor.extract`: the whole path, in memory |
| `model_loading` | `load`: a model by name, folder or repository; `pick_device` |
| `inputs` | files and arrays as `Recording`; segments `meeting.wav@12.3-17.8`; embeddings `alice.npy` |
| `enrollment` | enrollment recordings at the model's rate, and their assessment |
| `voice_enrollment` | from these recordings to a `Voice` |
| `speech_activity` | where somebody speaks; the best segments of long enrollments |
| `enrollment_quality` | SNR, clipping, second voices, outliers; the report with its warnings |
| `mixed_enrollment` | enrollments in which several people speak |
| `voice_print` | `Voice`: the tensors of an enrollment, and `.voice` files |
| `blocks` | `Blocks`; overlapping blocks of long recordings, cross-faded |
| `overlap_add` | a network in torch on one block, and on shifted copies of it |
| `stream`, `stream_engine` | `Stream`: a live signal in blocks of any size; its network in torch |
| `pcm_stream` | raw samples through a stream, from descriptor to descriptor: pipes |
| `sound_card`, `live_session` | sound devices; a stream from microphone to loudspeaker |
| `streaming` | causal networks: the state is carried from block to block |
| `presence` | probability that the voice is in the recording, and its calibration |
| `presence_verifier` | the same with the help of a trained speaker encoder |
| `repair` | extractions that seem to hold the wrong voice: the residual instead, or a second extraction |
| `result` | `Result`: level of the voice, saving |
| `timeline` | segments in which the voice speaks, as RTTM, JSON, CSV, subtitles or labels |
| `segment_files` | each of these segments as a file |
| `single_speaker` | segments of a recording in which one person seems to speak alone |
| `output_files` | sample formats, residuals, writing voices by blocks |
| `block_store` | finished blocks of a long extraction on disk, to resume from |
| `long_files` | one recording of any length from file to file, by blocks |
| `file_extraction` | `extract_file`: one recording from file to file, short or long |

Names are imported when they are first used: processes that score need parts of this package, and no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wesep_py.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from wesep_py.inference.blocks import Blocks
    from wesep_py.inference.enrollment_quality import MIN_SPEECH_S, RecordingQuality, VoiceQuality
    from wesep_py.inference.extractor import Extractor
    from wesep_py.inference.inputs import AUDIO_SUFFIXES, Recording, Source, audio_files, read_source, segment_of
    from wesep_py.inference.mixed_enrollment import EnrollmentVoices
    from wesep_py.inference.model_loading import load, pick_device
    from wesep_py.inference.presence import Calibration, Presence
    from wesep_py.inference.result import Result
    from wesep_py.inference.speech_activity import MAX_ENROLLMENT_S
    from wesep_py.inference.stream import Stream
    from wesep_py.inference.voice_print import Voice

_MODULE_OF = {
    "AUDIO_SUFFIXES": "inputs",
    "MAX_ENROLLMENT_S": "speech_activity",
    "MIN_SPEECH_S": "enrollment_quality",
    "Blocks": "blocks",
    "Calibration": "presence",
    "EnrollmentVoices": "mixed_enrollment",
    "Extractor": "extractor",
    "Presence": "presence",
    "Recording": "inputs",
    "RecordingQuality": "enrollment_quality",
    "Result": "result",
    "Source": "inputs",
    "Stream": "stream",
    "Voice": "voice_print",
    "VoiceQuality": "enrollment_quality",
    "audio_files": "inputs",
    "load": "model_loading",
    "pick_device": "model_loading",
    "read_source": "inputs",
    "segment_of": "inputs",
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
