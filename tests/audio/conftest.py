"""What is told once for a file is told again in each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wesep_py.audio import decoding as strictness


@pytest.fixture(autouse=True)
def _nothing_told() -> Iterator[None]:
    strictness._told.clear()
    yield
