"""What lies where in an audio file: the ranges that a decoder is to be given, found without decoding.

The sizes in a file's header are hints. `layout_of` compares them with the bytes that are there, and splits a file
that holds several recordings, one after the other, into these.
"""

from __future__ import annotations

from wesep_py.audio.containers.find import layout_of
from wesep_py.audio.containers.layout import ByteSource, Layout, Link, SplicedFile

__all__ = ["ByteSource", "Layout", "Link", "SplicedFile", "layout_of"]
