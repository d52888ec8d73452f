"""Names: of files that are called after an id, of the same file in two spellings, and how a name is printed."""

from __future__ import annotations

import hashlib
import re
import unicodedata

LONGEST_BYTES = 230
"""Of a file's name without its ending: file systems take 255, and endings such as `_absent.wav` have to fit."""

# Separators of folders, control characters (NUL too), a dot in front (it hides a file, and `..` leaves the folder),
# half characters, and `%` where it would read as one of these.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]|^\.|%(?=[0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def file_name(identifier: str) -> str:
    """Return the one file name, without ending, that stands for an id wherever files are called after ids.

    Ordinary ids stay as they are. What may not stand in a name is written as `%XX`, so ids that differ get names that
    differ. An id that is too long is cut and marked with its hash. The name never leaves its folder, nor is it hidden.

    >>> file_name("84-121123-0000_61-70968-0000"), file_name("/etc/passwd"), file_name("..")
    ('84-121123-0000_61-70968-0000', '%2Fetc%2Fpasswd', '%2E.')
    >>> len(file_name(1000 * "a"))
    230
    """
    name = _UNSAFE.sub(_quoted, canonical(identifier)) or "%00"
    encoded = name.encode()
    if len(encoded) <= LONGEST_BYTES:
        return name
    mark = "~" + hashlib.sha256(encoded).hexdigest()[:16]
    return encoded[: LONGEST_BYTES - len(mark)].decode(errors="ignore") + mark


def canonical(text: str) -> str:
    """Return the spelling by which names are compared: `é` as one character (NFC), however it was written.

    >>> canonical("cafe\\u0301") == "caf\\u00e9"
    True
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spellings(text: str) -> tuple[str, ...]:
    """Return a name as it is and, if they differ, in the two spellings (NFC, NFD) that file systems use.

    >>> spellings("cafe"), len(spellings("caf\\u00e9"))
    (('cafe',), 2)
    """
    if text.isascii():
        return (text,)
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
    return tuple(dict.fromkeys(forms))


def is_hidden(name: str) -> bool:
    """True if a file of that name is not meant for a reader: it begins with a dot, as `.DS_Store` and `._a.wav` do."""
    return name.startswith(".")


def is_utf8(name: str) -> bool:
    """True if a file's name can be written as UTF-8; Python reads bytes that are none as half characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return a text that can be printed and written: control characters, and bytes that are no UTF-8, become escapes.

    >>> print(printable("caf\\udce9.wav"), printable("a\\0b"))
    caf\\udce9.wav a\\x00b
    """
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.encode("utf-8", "backslashreplace").decode())


def _quoted(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
