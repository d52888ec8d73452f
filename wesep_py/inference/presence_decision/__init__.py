"""Decide whether the enrolled voice is in a recording, and whether an extraction is of that voice.

| module | content |
| --- | --- |
| `presence` | probability that the voice is in the recording, and its calibration |
| `presence_verifier` | the same with the help of a trained speaker encoder |
| `repair` | extractions that seem to hold the wrong voice: the residual instead, or a second extraction |
"""
