from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.data import Utterance


def test_an_utterance_knows_where_it_ends():
    assert Utterance("a-1", "a", Path("1.wav"), 2.0, start_s=1.5).stop_s == 3.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utterance_id": ""}, "utterance_id: is ''"),
        ({"utterance_id": "a 1"}, "without white space"),
        ({"speaker_id": " "}, "speaker_id"),
        ({"duration_s": 0.0}, "duration_s: is 0.0; seconds greater than 0"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"start_s": -0.1}, "start_s: is -0.1; seconds of at least 0"),
        ({"age": -1.0}, "age: is -1.0"),
    ],
)
def test_an_impossible_value_is_named(change: dict[str, object], message: str):
    values = {"utterance_id": "a-1", "speaker_id": "a", "path": Path("1.wav"), "duration_s": 1.0}
    with pytest.raises(InputError, match=message):
        Utterance(**{**values, **change})
