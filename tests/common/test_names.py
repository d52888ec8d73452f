"""File names of ids, Unicode spellings, and names that are not UTF-8."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wesep_py.common.names import LONGEST_BYTES, canonical, file_name, is_hidden, is_utf8, printable, spellings

IDS = ["84-121123-0000", "01aa010b_1.3972_20co0106_-1.3972", "Zoë", "a b", "50%", "x" * LONGEST_BYTES]


@pytest.mark.parametrize("identifier", IDS)
def test_an_ordinary_id_is_its_own_file_name(identifier: str):
    assert file_name(identifier) == identifier


@given(st.text(min_size=1, max_size=300))
def test_any_id_gives_a_valid_name_in_its_folder(identifier: str):
    name = file_name(identifier)
    assert 0 < len(os.fsencode(name)) <= LONGEST_BYTES
    assert Path(name).name == name and not is_hidden(name)
    assert not any(character < " " for character in name) and "\\" not in name


@given(st.text("ab%/.2F\0\\", min_size=1, max_size=6), st.text("ab%/.2F\0\\", min_size=1, max_size=6))
def test_different_ids_get_different_names(first: str, second: str):
    assert (file_name(first) == file_name(second)) == (first == second)


def test_long_ids_are_cut_and_stay_different():
    first, second = file_name("mix" + 500 * "a"), file_name("mix" + 501 * "a")
    assert first != second and first.startswith("mixa") and second.startswith("mixa")
    assert len(os.fsencode(file_name(500 * "é"))) <= LONGEST_BYTES


def test_spellings_of_a_name_are_equivalent():
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert canonical(decomposed) == canonical(composed) == composed
    assert file_name(decomposed) == file_name(composed)
    assert set(spellings(composed)) == set(spellings(decomposed)) == {composed, decomposed}


def test_a_name_that_is_not_utf8_is_recognised_and_printed():
    name = os.fsdecode(b"caf\xe9.wav")
    assert not is_utf8(name) and is_utf8("café.wav")
    assert printable(name).encode() == rb"caf\udce9.wav"
    assert printable("two\tlines\n") == "two\\x09lines\\x0a"
