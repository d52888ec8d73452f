"""The models that the page offers, each loaded once and shared by all visitors."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wesep_py.common.errors import InputError, nearest
from wesep_py.models import bundled_models, default_model, installed_models

if TYPE_CHECKING:
    from wesep_py.inference import Extractor


class ModelChoice:
    """Models by name: the one of `--model` first, then those that are bundled or installed.

    Only these can be chosen, so that a visitor cannot make the server read or download others.

    Args:
        model: as `inference.load`; `None` is the bundled default.
        device: as `inference.load`.

    Raises:
        InputError: no model is bundled, and none was given.

    >>> ModelChoice(None, "cpu").names[0]
    'base'
    """

    def __init__(self, model: str | None, device: str = "auto") -> None:
        self.default = default_model().name if model is None else model
        installed = [name for name, saved in installed_models().items() if saved.kind == "extractor"]
        self.names = list(dict.fromkeys([self.default, *bundled_models(), *installed]))
        self._device = device
        self._extractors: dict[str, Extractor] = {}
        self._lock = threading.Lock()

    def load(self, name: str | None = None) -> Extractor:
        """Return a model; the first call for each loads it.

        Raises:
            InputError: the page does not offer it.
            CheckpointError: as `inference.load`.
        """
        from wesep_py.inference import load

        name = name or self.default
        if name not in self.names:
            raise InputError(f"{name}: is no model of this page; {nearest(name, self.names)}")
        with self._lock:
            if name not in self._extractors:
                self._extractors[name] = load(name, self._device)
            return self._extractors[name]
