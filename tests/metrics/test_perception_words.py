from __future__ import annotations

import random

import pytest

from wesep_py.metrics.perception import word_errors, words


def slow_distance(first: list[str], second: list[str]) -> int:
    """Compute the distance by its definition, one cell at a time."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
            )
    return table[-1][-1]


def test_equals_the_slow_version_on_random_words():
    rng = random.Random(0)
    for _ in range(200):
        first, second = ([rng.choice("abcd") for _ in range(rng.randint(0, 9))] for _ in range(2))
        assert word_errors(first, second) == slow_distance(first, second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  WORLD!", ["hello", "world"]),
        ("it’s 'quoted' - don't", ["it's", "quoted", "don't"]),
        ("我们 go", ["我", "们", "go"]),
        ("Straße", ["strasse"]),
        (" … ", []),
    ],
)
def test_texts_are_split_into_words(text, expected):
    assert words(text) == expected
