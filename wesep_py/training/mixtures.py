"""From the configuration's `data.mixtures` to the mixtures that are learned from."""

from __future__ import annotations

from pathlib import Path

from wesep_py.corpus import read_speech
from wesep_py.corpus.listed import MixtureCorpus, read_mixture_corpus
from wesep_py.errors import ConfigError
from wesep_py.training.config import DataConfig


def read_mixtures_of(data: DataConfig) -> MixtureCorpus | None:
    """The mixtures that a configuration names; none where it has them drawn.

    Raises:
        ConfigError: speeds besides: a mixture has the speeds it has.
        InputError, AudioError: as `read_mixture_corpus`.
    """
    if data.mixtures is None:
        return None
    if data.speeds != [1.0]:
        raise ConfigError("data.speeds: is for mixtures that are drawn, and data.mixtures gives them as they are")
    root, chosen = Path(data.root), data.mixtures
    return read_mixture_corpus(
        [root / name for name in chosen.lists],
        chosen.condition,
        None if chosen.root is None else root / chosen.root,
        None if chosen.noise_root is None else root / chosen.noise_root,
        read_speech(data.train, root),
    )
