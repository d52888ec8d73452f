"""WeSpeaker's RepVGG: its sizes, its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_common import Rule, complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

BLOCKS = {"RepVGG": "repvgg", "RepSPK": "rsbb"}
STRIDES = (1, 1, 2, 2, 2)
STAGE_CHANNELS = (64, 128, 256, 512)
BASE_WIDTH = 64
GROUPED = range(2, 27, 2)
"""Which blocks of the sizes `g2` and `g4` are grouped: every second one, up to the 26th."""

DEPTHS = {"TINY": (3, 4, 23, 3), "A": (2, 4, 14, 1), "B": (4, 6, 16, 1), "D": (8, 14, 24, 1)}
WIDTHS = {
    "TINY_A0": (0.5, 0.5, 0.5, 0.5),
    "A0": (0.75, 0.75, 0.75, 2.5),
    "A1": (1, 1, 1, 2.5),
    "A2": (1.5, 1.5, 1.5, 2.75),
    "B0": (1, 1, 1, 2.5),
    "B1": (2, 2, 2, 4),
    "B2": (2.5, 2.5, 2.5, 5),
    "B3": (3, 3, 3, 5),
    "D2SE": (2.5, 2.5, 2.5, 5),
}
"""Each size's channels, as multiples of `STAGE_CHANNELS`."""

SIZES = (
    *("TINY_A0", "TINY_RSBB_A0", "A0", "RSBB_A0", "A1", "A2", "RSBB_A2", "B0", "RSBB_B0"),
    *("B1", "B1g2", "B1g4", "B2", "B2g2", "B2g4", "B3", "B3g2", "B3g4", "D2SE"),
)
MODELS = ("RepVGG", *(f"REPVGG_{size}" for size in SIZES))
NAMED = {"embed_dim": None, "pooling_func": "TSTP", "deploy": False, "use_se": False}
OWN = {
    **{"num_blocks": None, "strides": None, "width_multiplier": None, "base_width": BASE_WIDTH, "head_inplanes": 1},
    **{"override_groups_map": {}, "embed_dim": 256, "pooling_func": "ASTP", "deploy": False, "use_se": False},
}
"""The arguments of the named sizes, and of `RepVGG` itself, with their defaults; `None` where one must be given."""

RULES: tuple[Rule, ...] = (
    (r"^stage0\.", "stem."),
    (r"^stage(\d)\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\.rbr_dense\.conv\.", ".convs.0."),
    (r"\.rbr_dense\.bn\.", ".norms.0."),
    (r"\.rbr_(?:dense_dilation|1x1)\.conv\.", ".convs.1."),
    (r"\.rbr_(?:dense_dilation|1x1)\.bn\.", ".norms.1."),
    (r"\.rbr_identity\.", ".identity."),
    (r"\.rbr_reparam\.", ".folded."),
    (r"\.se\.fc_", ".excite.linear"),
    *POOLING_RULES,
    (r"^seg\.", "linear."),
)


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: repvgg, …}` without the number of mel bins.

    Args:
        model: a name in `MODELS`.
        args: `embed_dim`, `pooling_func`, `use_se`, `deploy`; for `RepVGG` itself also `num_blocks`, `strides`,
            `width_multiplier`, `base_width`, `block` and `override_groups_map`.
        block: `RepVGG` or `RepSPK`, where `args` do not give it.

    >>> translate("REPVGG_TINY_RSBB_A0", {"embed_dim": 256})["channels"]
    [32, 64, 128, 256]

    Raises:
        ConfigError: another model, block or pooling; an unknown, a missing or an impossible argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    if model == "RepVGG":
        args = {**args, "override_groups_map": args.get("override_groups_map") or {}}
        given = complete(model, args, {**OWN, "block": block or "RepVGG"})
    else:
        given = {**_sizes(model), **complete(model, args, {**NAMED, "use_se": model == "REPVGG_D2SE"})}
    if given["block"] not in BLOCKS:
        raise ConfigError(f"encoder.block: is {given['block']!r}; {nearest(str(given['block']), BLOCKS)}")
    if given["head_inplanes"] != 1:
        raise ConfigError(f"encoder: head_inplanes {given['head_inplanes']!r} cannot be translated; 1 is allowed")
    if len(given["width_multiplier"]) != len(STAGE_CHANNELS):
        raise ConfigError(f"encoder: width_multiplier is {given['width_multiplier']!r}; four numbers are needed")
    widths = [width * (given["base_width"] / BASE_WIDTH) for width in given["width_multiplier"]]
    grouped = {int(number): count for number, count in given["override_groups_map"].items()}
    return {
        "name": "repvgg",
        "num_blocks": list(given["num_blocks"]),
        "channels": [int(base * width) for base, width in zip(STAGE_CHANNELS, widths, strict=True)],
        "strides": list(given["strides"]),
        "embedding_dim": given["embed_dim"],
        "block": BLOCKS[given["block"]],
        "groups": [grouped.get(number + 1, 1) for number in range(sum(given["num_blocks"]))] if grouped else [],
        "squeeze_excite": bool(given["use_se"]),
        "pooling": translate_pooling(given["pooling_func"]),
        "folded": bool(given["deploy"]),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return substitute(state_dict, RULES)


def _sizes(model: str) -> dict[str, Any]:
    """The arguments of `RepVGG` itself that make the named size."""
    size = model.removeprefix("REPVGG_")
    plain, _, groups = size.replace("RSBB_", "").partition("g")
    count = 4 if size == "D2SE" else int(groups or 1)
    return {
        **OWN,
        "num_blocks": DEPTHS["TINY" if plain.startswith("TINY") else plain[0]],
        "strides": STRIDES,
        "width_multiplier": WIDTHS[plain],
        "block": "RepSPK" if "RSBB" in size else "RepVGG",
        "override_groups_map": dict.fromkeys(GROUPED, count) if count > 1 else {},
    }
