"""What lies where in an audio file: recordings one after the other, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wesep_py.audio.containers.source import Part, Source

LARGEST_COUNT = 1 << 48
"""No recording has as many bytes or samples: a header that says so does not know."""


@dataclass(frozen=True)
class Link:
    """One recording of a file.

    Attributes:
        parts: what a decoder is given; `None`: the file as it is.
        most_samples: more samples than these cannot be in it, whatever its header says; `None`: no bound is known.
        is_counted: only decoding tells how long it is.
        num_samples: how many there are, where this is known better than by the decoder's own header.
        stated_size: up to which a decoder is given zeros behind the parts, in bytes.
    """

    parts: tuple[Part, ...] | None = None
    most_samples: int | None = None
    is_counted: bool = False
    num_samples: int | None = None
    stated_size: int | None = None


@dataclass(frozen=True)
class Layout:
    """The recordings of a file.

    Attributes:
        links: one or more, to be decoded one after the other.
        faults: what is wrong, each as the end of a sentence that begins with the file's name.
        is_cut: the file ends early.
    """

    links: tuple[Link, ...] = (Link(),)
    faults: tuple[str, ...] = ()
    is_cut: bool = False


def overlaid(source: Source, end: int, patches: Mapping[int, bytes]) -> tuple[Part, ...]:
    """Return a source up to `end`, with other bytes at some places.

    >>> overlaid(Source("x", data=b"abcdef"), 5, {1: b"XY"})
    ((0, 1), b'XY', (3, 5))
    """
    parts: list[Part] = []
    position = 0
    for place in sorted(patches):
        if place > position:
            parts.append((position, place))
        parts.append(patches[place])
        position = place + len(patches[place])
    if end > position:
        parts.append((position, end))
    return tuple(parts)


def seconds(count: float, rate: float) -> str:
    """Return `0.250 s`; nothing where the rate is unknown."""
    return f"{count / rate:.3f} s" if rate > 0 else "an unknown time"
