"""Live extraction: blocks of a mixture in, the voice out as soon as it can be known.

| module | content |
| --- | --- |
| `stream`, `stream_engine` | `Stream`: a live signal in blocks of any size; its network in torch |
| `pcm_stream` | raw samples through a stream, from descriptor to descriptor: pipes |
| `sound_card`, `live_session` | sound devices; a stream from microphone to loudspeaker |
"""
