"""A running page, and toy recordings: two voices at once, and each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from wesep_py import audio

if TYPE_CHECKING:
    from wesep_py.ui import PageServer


@dataclass(frozen=True)
class Talk:
    """Two people at once.

    Attributes:
        mixture: the recording.
        enrollments: another recording of each, by name.
        references: what each says in the mixture.
    """

    mixture: Path
    enrollments: dict[str, Path]
    references: dict[str, np.ndarray]


def make_talk(folder: Path, names: tuple[str, str], seed: int, duration_s: float = 4.0) -> Talk:
    """Write a mixture of two toy voices and an enrollment of each."""
    folder.mkdir(parents=True, exist_ok=True)
    voices = {name: 0.5 * make_voice(*VOICES[name], duration_s, seed + k) for k, name in enumerate(names)}
    mixture = folder / f"{'_'.join(names)}.wav"
    audio.write(mixture, sum(voices.values()), SAMPLE_RATE, "PCM_16")
    enrollments = {}
    for k, name in enumerate(names):
        enrollments[name] = folder / f"{name}.wav"
        audio.write(enrollments[name], make_voice(*VOICES[name], 4.0, seed + 10 + k), SAMPLE_RATE, "PCM_16")
    return Talk(mixture, enrollments, voices)


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return make_talk(tmp_path_factory.mktemp("talk"), ("anna", "bert"), 1)


@pytest.fixture(scope="session")
def other_talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return make_talk(tmp_path_factory.mktemp("other_talk"), ("carl", "dora"), 5)


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    """The page with the bundled model; two extractions at a time, files deleted at once when a page is closed."""
    pytest.importorskip("gradio")
    from wesep_py.ui import PageServer, UiSettings

    with PageServer(UiSettings(device="cpu", jobs=2, max_upload_mb=8.0, grace_s=0.2)) as running:
        yield running
