"""Enrollment: from the recordings of a person to a `Voice`.

| module | content |
| --- | --- |
| `enrollment` | enrollment recordings at the model's rate, and their assessment |
| `speech_activity` | where somebody speaks; the best segments of long enrollments |
| `enrollment_quality` | SNR, clipping, second voices, outliers; the report with its warnings |
| `mixed_enrollment` | enrollments in which several people speak |
| `voice_enrollment` | from these recordings to a `Voice` |
| `voice_print` | `Voice`: the tensors of an enrollment, and `.voice` files |
"""
