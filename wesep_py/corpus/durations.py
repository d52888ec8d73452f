"""How long recordings are, by their headers; many at once, and what to do about a bad one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wesep_py.audio.files import info
from wesep_py.errors import AudioError

# Told of a recording that has to be left out, and why; without it the first bad recording is an error.
OnBad = Callable[[Path, str], None]
# Told how many recordings have been looked at, and how many there are.
OnProgress = Callable[[int, int], None]


def measure_durations(
    paths: Iterable[Path], on_bad: OnBad | None = None, on_progress: OnProgress | None = None, threads: int = 8
) -> dict[Path, float]:
    """The lengths of recordings in seconds.

    Args:
        paths: the files; one that comes twice is looked at once.
        on_bad: called with each file that is missing, damaged or no audio, which is then left out.
        on_progress: called with the number of files done and of all.
        threads: how many files are looked at at a time, at least 1.

    Raises:
        AudioError: a file is missing, damaged or no audio, and there is no `on_bad`.
    """
    distinct = list(dict.fromkeys(paths))
    durations: dict[Path, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(info, path) for path in distinct]
        try:
            for number, (path, future) in enumerate(zip(distinct, futures, strict=True), start=1):
                try:
                    durations[path] = future.result().duration_s
                except AudioError as error:
                    if on_bad is None:
                        raise
                    on_bad(path, str(error))
                if on_progress is not None:
                    on_progress(number, len(distinct))
        finally:
            pool.shutdown(cancel_futures=True)
    return durations
