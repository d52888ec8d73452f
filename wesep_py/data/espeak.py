"""Speaks sentences with the library of espeak-ng, as a program of its own.

    echo '{"voice": "en-us+f2", "pitch": 50, "range": 50, "speed": 160, "texts": ["Hello."]}' | python espeak.py

Standard output: for each text a line `SAMPLE_RATE NUM_SAMPLES` and then the samples (16 bit, native byte order).
What espeak-ng says depends on all it has said before in its process (its oscillators keep their phase, even over
espeak_Terminate) and on the clock (which seeds its breath noise). A process for each voice and a fixed seed
make the speech a function of the request alone. The library is GPL, and stays outside the process that uses its
speech.

This file imports nothing of the package, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, BinaryIO

# Of speak_lib.h, espeak-ng 1.52.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
CHARS_UTF8 = 1
# Percent of the usual volume: at 100 loud voices are clipped inside espeak-ng.
QUIET = 50

MISSING = "espeakng_loader is not installed; pip install 'wesep-py[demo]'"


def speak(request: dict[str, Any], output: BinaryIO) -> None:
    """Speak the texts of a request into a stream.

    Args:
        request: `voice` (a language, or language+variant), `pitch` and `range` (0 to 100), `speed` (80 to
            450 words a minute) and `texts`.
        output: takes a header line and samples for each text.

    Raises:
        ImportError: the package espeakng_loader is missing.
        RuntimeError: espeak-ng refuses to start, or has no such voice.
    """
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    sample_rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, INITIALIZE_DONT_EXIT)
    if sample_rate <= 0:
        raise RuntimeError(f"espeak-ng does not start (status {sample_rate})")
    spoken = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def keep(samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    # Two generators make the noise: espeak-ng's own, and the C library's in the Klatt voices.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).srand(1)
    library.espeak_SetSynthCallback(keep)
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {request['voice']!r}")
    for parameter, value in (
        (RATE, request["speed"]),
        (VOLUME, QUIET),
        (PITCH, request["pitch"]),
        (RANGE, request["range"]),
    ):
        library.espeak_SetParameter(parameter, int(value), 0)
    for text in request["texts"]:
        spoken.clear()
        encoded = text.encode() + b"\0"
        status = library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, CHARS_UTF8, None, None
        ) or library.espeak_Synchronize()  # fmt: skip
        if status != 0 or not spoken:
            raise RuntimeError(f"espeak-ng says nothing to {text!r} (status {status})")
        output.write(f"{sample_rate} {len(spoken) // 2}\n".encode())
        output.write(spoken)
    output.flush()


if __name__ == "__main__":
    try:
        speak(json.load(sys.stdin), sys.stdout.buffer)
    except ImportError:
        sys.exit(MISSING)
    except (RuntimeError, OSError) as error:
        sys.exit(str(error))
