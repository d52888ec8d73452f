"""File names: the name of a file that is called after an id, Unicode spellings of a name, and printing a name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection

LONGEST_BYTES = 230
"""Maximum length of a file name without its suffix: file systems allow 255 bytes, and `_absent.wav` has to fit too."""

# Folder separators, control characters (NUL too), a leading dot (it hides a file, and `..` leaves the folder),
# lone surrogates, and `%` before two hex digits, which would be read as one of the escapes.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]|^\.|%(?=[0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def file_name(identifier: str) -> str:
    """Return the file name, without suffix, for an id. Every file that is called after an id has this name.

    Ordinary ids stay unchanged. Characters that a name cannot hold become `%XX`, so different ids get different names.
    An id that is too long is cut and marked with its hash. The name never leaves its folder and is never hidden.

    >>> file_name("84-121123-0000_61-70968-0000"), file_name("/etc/passwd"), file_name("..")
    ('84-121123-0000_61-70968-0000', '%2Fetc%2Fpasswd', '%2E.')
    >>> len(file_name(1000 * "a"))
    230
    """
    name = _UNSAFE.sub(_percent_encoded, canonical(identifier)) or "%00"
    encoded = name.encode()
    if len(encoded) <= LONGEST_BYTES:
        return name
    mark = "~" + hashlib.sha256(encoded).hexdigest()[:16]
    return encoded[: LONGEST_BYTES - len(mark)].decode(errors="ignore") + mark


def canonical(text: str) -> str:
    """Return the Unicode spelling by which names are compared (NFC: `é` is one character).

    >>> canonical("cafe\\u0301") == "caf\\u00e9"
    True
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spellings(text: str) -> tuple[str, ...]:
    """Return a name as given and, where they differ from it, in the two spellings that file systems use (NFC, NFD).

    >>> spellings("cafe"), len(spellings("caf\\u00e9"))
    (('cafe',), 2)
    """
    if text.isascii():
        return (text,)
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
    return tuple(dict.fromkeys(forms))


def is_hidden(name: str) -> bool:
    """True if the name begins with a dot, as `.DS_Store` and `._a.wav` do; readers pass such files over."""
    return name.startswith(".")


def is_utf8(name: str) -> bool:
    """True if a file name can be written as UTF-8; Python reads other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return a text with control characters, and bytes that are not UTF-8, as escapes, so that it can be printed.

    >>> print(printable("caf\\udce9.wav"), printable("a\\0b"))
    caf\\udce9.wav a\\x00b
    """
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.encode("utf-8", "backslashreplace").decode())


def listing(names: Collection[str], most: int = 3) -> str:
    """Return the first few names as a list in words, with the number of further ones.

    >>> listing(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
