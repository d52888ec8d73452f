"""WeSpeaker's CAM++: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_common import Rule, complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

MODELS = ("CAMPPlus",)
DEFAULTS = {
    "embed_dim": 512,
    "pooling_func": "TSTP",
    "growth_rate": 32,
    "bn_size": 4,
    "init_channels": 128,
    "config_str": "batchnorm-relu",
}
STEPS = ("batchnorm", "batchnorm_", "relu", "prelu")
BLOCKS = (12, 24, 16)
RULES: tuple[Rule, ...] = (
    (r"^head\.conv1\.", "head.stem.conv."),
    (r"^head\.bn1\.", "head.stem.norm."),
    (r"^head\.conv2\.", "head.last.conv."),
    (r"^head\.bn2\.", "head.last.norm."),
    (r"^head\.layer(\d)\.(\d)\.", lambda m: f"head.blocks.{2 * int(m[1]) - 2 + int(m[2])}."),
    (r"\.conv1\.", ".first.conv."),
    (r"\.bn1\.", ".first.norm."),
    (r"\.conv2\.", ".second.conv."),
    (r"\.bn2\.", ".second.norm."),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    (r"^xvector\.tdnn\.linear\.", "tdnn."),
    (r"^xvector\.tdnn\.nonlinear\.", "tdnn_activation."),
    (r"^xvector\.block(\d)\.tdnnd(\d+)\.", lambda m: f"blocks.{int(m[1]) - 1}.{int(m[2]) - 1}."),
    (r"\.nonlinear1\.", ".activation."),
    (r"^(blocks\.\d+\.\d+)\.linear1\.", r"\1.reduce."),
    (r"\.nonlinear2\.", ".inner_activation."),
    (r"\.cam_layer\.linear_local\.", ".conv."),
    (r"\.cam_layer\.", "."),
    (r"^xvector\.transit(\d)\.nonlinear\.", lambda m: f"transitions.{int(m[1]) - 1}.0."),
    (r"^xvector\.transit(\d)\.linear\.", lambda m: f"transitions.{int(m[1]) - 1}.1."),
    (r"^xvector\.out_nonlinear\.", "activation."),
    (r"^xvector\.stats\.", "pool."),
    *POOLING_RULES,
    (r"^xvector\.dense\.linear\.", "linear."),
    (r"^xvector\.dense\.nonlinear\.batchnorm\.", "embedding_norm."),
    (r"\.batchnorm\.", ".norm."),
)


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: campplus, …}` without the number of mel bins.

    Args:
        model: `CAMPPlus`.
        args: `embed_dim`, `pooling_func`, `growth_rate`, `bn_size`, `init_channels`, `config_str`.
        block: `None`; this network has no blocks to choose.

    >>> translate("CAMPPlus", {"feat_dim": 80, "embed_dim": 192})["embedding_dim"]
    192

    Raises:
        ConfigError: another model, pooling or nonlinearity; an unknown argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    if block is not None:
        raise ConfigError(f"encoder.block: is {block!r}; {model} has no blocks to choose, leave it out")
    given = complete(model, args, DEFAULTS)
    return {
        "name": "campplus",
        "embedding_dim": given["embed_dim"],
        "pooling": translate_pooling(given["pooling_func"]),
        "growth_rate": given["growth_rate"],
        "bottleneck_factor": given["bn_size"],
        "init_channels": given["init_channels"],
        "nonlinearity": _steps(given["config_str"]),
        "num_layers": list(BLOCKS),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names; the pooling's, which stand there twice, once."""
    renamed = substitute(state_dict, RULES)
    if "linear.weight" in renamed:
        renamed["linear.weight"] = renamed["linear.weight"].flatten(1)
    return renamed


def _steps(config_str: str) -> list[str]:
    """The steps of `batchnorm-relu` and its like; one that stands twice counts once, in its last form."""
    steps: dict[str, str] = {}
    for step in config_str.split("-"):
        if step not in STEPS:
            raise ConfigError(f"encoder: config_str {config_str!r} cannot be translated; {nearest(step, STEPS)}")
        steps[step.rstrip("_")] = step
    return list(steps.values())
