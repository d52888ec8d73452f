"""How long recordings are, by their headers; many at once, and what to do about a bad one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wesep_py.audio.files import info
from wesep_py.errors import AudioError
from wesep_py.names import is_utf8, printable

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
        on_bad: called with each file that is missing, damaged or no audio, or whose name is no UTF-8; it is left out.
        on_progress: called with the number of files done and of all.
        threads: how many files are looked at at a time, at least 1.

    Raises:
        AudioError: a file is missing, damaged or no audio, and there is no `on_bad`.
    """
    distinct = list(dict.fromkeys(paths))
    durations: dict[Path, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_measure, path) for path in distinct]
        try:
            for number, (path, future) in enumerate(zip(distinct, futures, strict=True), start=1):
                try:
                    durations[path] = future.result()
                except AudioError as error:
                    if on_bad is None:
                        raise
                    on_bad(path, str(error))
                if on_progress is not None:
                    on_progress(number, len(distinct))
        finally:
            pool.shutdown(cancel_futures=True)
    return durations


def check_name(path: Path) -> None:
    """Refuse a file whose name no manifest can hold.

    Raises:
        AudioError: its name is not UTF-8.
    """
    if not is_utf8(str(path)):
        raise AudioError(f"{printable(str(path))}: its name is not UTF-8, and no list can hold it; rename the file")


def _measure(path: Path) -> float:
    check_name(path)
    return info(path).duration_s
