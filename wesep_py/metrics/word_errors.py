"""Word error rate: how many words of a transcript have to be changed to reach another."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np


def words(text: str) -> list[str]:
    """The words of a text: case and punctuation do not count, and each character of Chinese or Japanese is a word.

    >>> words("It's FINE, 好的!")
    ["it's", 'fine', '好', '的']
    """
    kept = []
    for character in unicodedata.normalize("NFKC", text).casefold().replace("’", "'"):
        if _is_ideograph(character):
            kept.append(f" {character} ")
        elif character == "'" or not unicodedata.category(character).startswith(("P", "S")):
            kept.append(character)
        else:
            kept.append(" ")
    return [word for word in (part.strip("'") for part in "".join(kept).split()) if word]


def word_errors(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """The least number of words to insert, delete or replace to get from one to the other (Levenshtein).

    >>> word_errors(["a", "cat", "sat"], ["the", "cat", "sat", "down"])
    2
    """
    ids: dict[str, int] = {}
    heard, meant = (np.array([ids.setdefault(w, len(ids)) for w in side]) for side in (hypothesis, reference))
    positions = np.arange(len(meant) + 1)
    row = positions.copy()
    for count, word in enumerate(heard, start=1):
        changed = np.concatenate([[count], np.minimum(row[:-1] + (meant != word), row[1:] + 1)])
        row = np.minimum.accumulate(changed - positions) + positions
    return int(row[-1])


def _is_ideograph(character: str) -> bool:
    return unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))
