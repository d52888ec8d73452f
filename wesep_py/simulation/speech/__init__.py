"""Speech of mixtures: which segments the speakers say, and when.

| module | content |
| --- | --- |
| `placement` | `SpeechDrawer.place`: the sources of a mixture, for every kind of overlap |
| `conversation` | turns and pauses of conversations, computed on frames of activity |
| `speaker_pool` | `SpeakerPool`: segments and enrollments of the speakers of a corpus, none of them silent |
"""
