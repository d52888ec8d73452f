"""From YAML to a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wesep_py.config import construct, load_yaml, to_plain
from wesep_py.errors import ConfigError, nearest
from wesep_py.training.config.runs import RunConfig, SpeakerTrainConfig, TrainConfig
from wesep_py.yamlfiles import read_yaml

CONFIGS: dict[str, type[RunConfig]] = {"extraction": TrainConfig, "speaker": SpeakerTrainConfig}
"""What a run trains (`task`), and the keys that it then has."""


def load_config(
    source: Mapping[str, Any] | str | Path, overrides: Sequence[str] = (), resolved: bool = False
) -> RunConfig:
    """The configuration from a YAML file, or from a mapping of the same form.

    Args:
        source: path of the YAML, or the mapping.
        overrides: `key.sub=value` (paths only), as on the command line.
        resolved: the file is what a run wrote into its folder: plain data, without includes and interpolation.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong type, an impossible value.

    Example:
        >>> load_config("recipes/speechocean762/train.yaml", ["optim.lr=0.0005"])  # doctest: +SKIP
    """
    if isinstance(source, Mapping):
        if overrides:
            raise ConfigError("overrides are for a YAML file; change the mapping itself")
        values = to_plain(source)
    else:
        values = read_yaml(source) if resolved else load_yaml(source, overrides)
        if missing := _missing(values):
            raise ConfigError(f"{source}: {missing} has no value yet; give one, as {missing}=… on the command line")
    task = str(values.get("task", "extraction"))
    if task not in CONFIGS:
        raise ConfigError(f"task: is {task!r}; {nearest(task, CONFIGS)}")
    return construct(CONFIGS[task], values)


def _missing(values: Mapping[str, Any], prefix: str = "") -> str:
    """The first key whose value is `???`, YAML's mark here for what a user must give; empty if there is none."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if found := _missing(value, f"{prefix}{key}."):
                return found
        elif value == "???":
            return f"{prefix}{key}"
    return ""
