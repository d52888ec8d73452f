"""Extension of griffe: the examples of a docstring (`>>> …` up to an empty line) are code on the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(?P<indent>[ ]*)>>> .*?(?=\n[ ]*\n|\Z)", re.MULTILINE | re.DOTALL)


class FencedExamples(griffe.Extension):
    """Put a code fence around every example."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute once it is loaded."""
        self._fence(obj)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstring of the package itself, which is loaded before its members."""
        self._fence(pkg)

    @staticmethod
    def _fence(obj: griffe.Object) -> None:
        if obj.docstring is not None and "```pycon" not in obj.docstring.value:
            obj.docstring.value = _EXAMPLE.sub(
                lambda match: f"{match['indent']}```pycon\n{match[0]}\n{match['indent']}```", obj.docstring.value
            )
