"""Which container a file is, by its first bytes, and its layout."""

from __future__ import annotations

from wesep_py.audio.containers.flac import flac_layout
from wesep_py.audio.containers.layout import ByteSource, Layout, Link
from wesep_py.audio.containers.mpeg import after_tags, is_mpeg, mpeg_layout
from wesep_py.audio.containers.ogg import ogg_layout
from wesep_py.audio.containers.pcm import aiff_layout, au_layout, caf_layout, nist_layout, w64_layout, wav_layout


def layout_of(source: ByteSource) -> Layout:
    """Return what lies where in a recording. Only headers are read, in memory that does not grow with the file.

    A format that is not known here is one recording, as long as libsndfile says.

    Args:
        source: an audio file of any format.

    Raises:
        OSError: the file cannot be read.
    """
    head = source.at(0, 16)
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        return wav_layout(source)
    if head[:4] == b"riff":
        return w64_layout(source)
    if head[:4] in (b".snd", b"dns."):
        return au_layout(source)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return aiff_layout(source)
    if head[:4] == b"caff":
        return caf_layout(source)
    if head[:7] == b"NIST_1A":
        return nist_layout(source)
    if head[:4] == b"OggS":
        return ogg_layout(source)
    start = after_tags(source) if head[:3] == b"ID3" else 0
    if source.at(start, 4) == b"fLaC":
        return flac_layout(source, start)
    if start and source.at(start, 4) in (b"RIFF", b"RF64", b"FORM"):  # libsndfile counts the tag among the samples
        return Layout((Link(((start, source.size),)),))
    if is_mpeg(source, start):
        return mpeg_layout(source, start)
    return Layout()
