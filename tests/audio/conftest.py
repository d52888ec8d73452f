"""Let a fault that is reported once per file be reported again in each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wesep_py.audio import decoding as strictness


@pytest.fixture(autouse=True)
def _nothing_reported() -> Iterator[None]:
    strictness._reported.clear()
    yield
