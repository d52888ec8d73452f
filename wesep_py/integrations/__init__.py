"""Extraction in voice-agent frameworks: adapters between their frames and a `Stream`.

```
frame of the framework ─► pipecat, livekit ─► frame_filter: delay, first turn, cross-fade ─► Stream ─► frame
```

| module | content |
| --- | --- |
| `frame_filter` | `FrameFilter`: what the adapters share, without any framework |
| `first_turn` | `FirstTurn`: collect the first seconds of speech of a live signal |
| `pipecat` | `TargetSpeakerFilter`, an audio filter of Pipecat's transports (extra `pipecat`) |
| `livekit` | `TargetSpeakerProcessor`, a frame processor of LiveKit's audio streams (extra `livekit`) |

Import an adapter from its module, `from wesep_py.integrations.pipecat import TargetSpeakerFilter`: only that needs the
framework. No module here imports torch; the model that an adapter is given may.
"""

from wesep_py.integrations.first_turn import FirstTurn
from wesep_py.integrations.frame_filter import FrameFilter, LiveModel, LiveStream

__all__ = ["FirstTurn", "FrameFilter", "LiveModel", "LiveStream"]
