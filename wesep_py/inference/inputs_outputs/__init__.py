"""Files of an extraction: recordings and enrollments in; voices, timelines and segments out.

| module | content |
| --- | --- |
| `inputs` | files and arrays as `Recording`; segments `meeting.wav@12.3-17.8`; embeddings `alice.npy` |
| `output_files` | sample formats, residuals, writing voices by blocks |
| `timeline` | segments in which the voice speaks, as RTTM, JSON, CSV, subtitles or labels |
| `segment_files` | each of these segments as a file |
"""
