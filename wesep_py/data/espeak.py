"""Speech synthesis with the library of espeak-ng, run as a program of its own.

    echo '{"voice": "en-us+f2", "pitch": 50, "range": 50, "speed": 160, "texts": ["Hello."]}' | python espeak.py

Standard output holds, for each text, a line `SAMPLE_RATE NUM_SAMPLES` and then the samples (16 bit, native byte order).

The output of espeak-ng depends on everything that it has spoken before in its process (its oscillators keep their
phase, even over espeak_Terminate) and on the clock (which seeds its breath noise). With a process for each voice and a
fixed seed, the speech is a function of the request alone. The library is GPL, and stays outside the process that uses
its speech.

This file imports nothing of the package, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, BinaryIO

# Constants of speak_lib.h, espeak-ng 1.52.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
CHARS_UTF8 = 1
# Volume in percent of the usual one: at 100, loud voices are clipped inside espeak-ng.
UNCLIPPED_VOLUME = 50

MISSING = "espeakng_loader is not installed; pip install 'wesep-py[demo]'"


def speak(request: dict[str, Any], output: BinaryIO) -> None:
    """Synthesise the texts of a request, and write them to a stream.

    Args:
        request: `voice` (a language, or language+variant), `pitch` and `range` (0 to 100), `speed` (80 to 450 words per
            minute) and `texts`.
        output: receives a header line and samples for each text.

    Raises:
        ImportError: the package espeakng_loader is missing.
        RuntimeError: espeak-ng does not start, or has no such voice.
    """
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    sample_rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, INITIALIZE_DONT_EXIT)
    if sample_rate <= 0:
        raise RuntimeError(f"espeak-ng does not start (status {sample_rate})")
    waveform = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def on_samples(samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            waveform.extend(ctypes.string_at(samples, 2 * count))
        return 0

    # The noise comes from two random generators: espeak-ng's own, and the C library's in the Klatt voices.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).srand(1)
    library.espeak_SetSynthCallback(on_samples)
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {request['voice']!r}")
    for parameter, value in (
        (RATE, request["speed"]),
        (VOLUME, UNCLIPPED_VOLUME),
        (PITCH, request["pitch"]),
        (RANGE, request["range"]),
    ):
        library.espeak_SetParameter(parameter, int(value), 0)
    for text in request["texts"]:
        waveform.clear()
        encoded = text.encode() + b"\0"
        status = library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, CHARS_UTF8, None, None
        ) or library.espeak_Synchronize()  # fmt: skip
        if status != 0 or not waveform:
            raise RuntimeError(f"espeak-ng says nothing to {text!r} (status {status})")
        output.write(f"{sample_rate} {len(waveform) // 2}\n".encode())
        output.write(waveform)
    output.flush()


if __name__ == "__main__":
    try:
        speak(json.load(sys.stdin), sys.stdout.buffer)
    except ImportError:
        sys.exit(MISSING)
    except (RuntimeError, OSError) as error:
        sys.exit(str(error))
