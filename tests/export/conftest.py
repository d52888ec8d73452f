"""Exported folders, each made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.export.exportable_networks import OFFLINE, STREAMING, exported, random_network
from wesep_py.export.graph_runner import GraphRunner


@pytest.fixture(scope="session")
def runner_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GraphRunner]:
    """`runner_of("live", precision="int8")`: run the folder of a network, exported with a stream if it has one."""
    made: dict[Any, GraphRunner] = {}

    def make(name: str, **options: Any) -> GraphRunner:
        key = (name, *sorted(options.items()))
        if key not in made:
            network = random_network({**OFFLINE, **STREAMING}[name])
            folder = tmp_path_factory.mktemp("exported") / "folder"
            made[key] = exported(network, folder, stream=name in STREAMING, **options)
        return made[key]

    return make
