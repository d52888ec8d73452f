"""Layout of audio files: the byte ranges of the recordings in a file, found without decoding.

The sizes in a file's header are only hints. `layout_of` compares them with the bytes that are there, and splits a file
that holds several recordings, one after the other, into these.

| module | contents |
| --- | --- |
| `layout` | bytes of a file (`ByteSource`), parts joined for a decoder (`SplicedFile`), results (`Layout`, `Link`) |
| `pcm` | WAV, RF64, Wave64, AU, AIFF, CAF, NIST SPHERE |
| `flac` | FLAC |
| `ogg` | Ogg (Vorbis, Opus, Speex, FLAC) |
| `mpeg` | MPEG audio (MP3), and tags (ID3, APE, lyrics) |
| `mp4` | boxes of MP4 and QuickTime: whether a file is whole, or encrypted |
"""

from __future__ import annotations

from wesep_py.audio.containers.flac import flac_layout
from wesep_py.audio.containers.layout import ByteSource, Layout, Link, SplicedFile
from wesep_py.audio.containers.mpeg import after_tags, is_mpeg, mpeg_layout
from wesep_py.audio.containers.ogg import ogg_layout
from wesep_py.audio.containers.pcm import aiff_layout, au_layout, caf_layout, nist_layout, w64_layout, wav_layout

__all__ = ["ByteSource", "Layout", "Link", "SplicedFile", "layout_of"]


def layout_of(source: ByteSource) -> Layout:
    """Return the layout of a recording. Only headers are read, in memory that does not grow with the file.

    A file of an unknown format is one recording, as long as libsndfile says.

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
    if start and source.at(start, 4) in (b"RIFF", b"RF64", b"FORM"):  # libsndfile would count the tag as samples
        return Layout((Link(((start, source.size),)),))
    if is_mpeg(source, start):
        return mpeg_layout(source, start)
    return Layout()
