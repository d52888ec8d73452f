"""What goes into an extraction and what comes out of it, as files.

| module | content |
| --- | --- |
| `inputs` | files and arrays as `Recording`; segments `meeting.wav@12.3-17.8`; embeddings `alice.npy` |
| `output_files` | sample formats, residuals, writing voices by blocks |
| `timeline` | segments in which the voice speaks, as RTTM, JSON, CSV, subtitles or labels |
| `segment_files` | each of these segments as a file |
"""
