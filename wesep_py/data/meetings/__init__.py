"""Recordings of conversations without clean references, as lists of trials for `wesep evaluate`.

| module | what it does |
| --- | --- |
| `meeting` | who says what, and when, in one recording; intervals of time |
| `meeting_trials` | windows of meetings, their targets, enrollments and absent speakers |
| `recording_lists` | the four files of a list: recordings, trials, activity labels, transcripts |
| `ami` | the AMI corpus |
| `libricss` | LibriCSS |
| `real_t` | REAL-T, the data of the REAL-TSE challenge, with trials of its own |
"""
