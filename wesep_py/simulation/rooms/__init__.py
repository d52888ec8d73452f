"""Rooms: impulse responses that are computed for each mixture, or read from a bank made beforehand.

| module | content |
| --- | --- |
| `reverberation` | `reverberate`: images and targets of sources in a room; early and direct parts of responses |
| `fra` | drawing of a shoebox room, and its responses by fast random approximation (FRA-RIR) |
| `room_bank` | `RoomBank`: reading of a bank and drawing from it |
| `bank_opening` | `open_bank`: the bank that a configuration names, also an LMDB of WeSep with room responses |
| `bank_making`, `bank_writer` | `make_bank`: making of a bank, resumable |
| `simulated_rooms`, `recorded_rooms` | the rooms of a bank: simulated (image sources, ray tracing, FRA), or recorded |
| `acoustics` | RT60, C50 and direct-to-reverberant ratio of a response |
"""
