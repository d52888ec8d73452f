"""Tags before and after the audio of a file: ID3, APE, lyrics."""

from __future__ import annotations

from wesep_py.audio.containers.source import Source


def tag_at(source: Source, position: int) -> int:
    """Return the size in bytes of a tag that begins at a place; 0 if none does.

    >>> tag_at(Source("a.mp3", data=b"ID3\\x04\\x00\\x00\\x00\\x00\\x00\\x05hello"), 0)
    15
    """
    head = source.at(position, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80 and head[3] < 0xFF:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG" and source.size - position in (128, 227 + 128):
        return source.size - position
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size = int.from_bytes(head[12:16], "little")
        has_header = head[23] & 0x20
        return 32 + size if has_header else 32
    if head[:11] == b"LYRICSBEGIN" and source.size - position < 1 << 16:
        end = source.at(position, 1 << 16).find(b"LYRICS200")
        return end + 9 if end >= 0 else 0
    return 0


def after_tags(source: Source, position: int = 0) -> int:
    """Return the place after the tags that begin at a place."""
    for _ in range(64):
        size = tag_at(source, position)
        if not size or position + size > source.size:
            break
        position += size
    return position
