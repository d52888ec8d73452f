"""WeSpeaker's ERes2Net: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop import wespeaker_res2net
from wesep_py.interop.wespeaker_common import Rule, substitute

BLOCK = "BasicBlockERes2Net"
NAMED: dict[str, dict[str, Any]] = {
    "ERes2Net": {"m_channels": None, "num_blocks": None, "baseWidth": 32, "scale": 2, "expansion": 2},
    "ERes2Net34_Base": {},
    "ERes2Net34_Large": {},
    "ERes2Net34_aug": {"baseWidth": 24, "scale": 3, "expansion": 4},
}
"""Each network's arguments beside those of Res2Net, and their defaults; `None` where one must be given."""

MODELS = tuple(NAMED)
RULES: tuple[Rule, ...] = (
    (r"^fuse_mode12\.", "fusions.0."),
    (r"^fuse_mode123\.", "fusions.1."),
    (r"^fuse_mode1234\.", "fusions.2."),
    (r"^layer(\d)_downsample\.", lambda m: f"downsamples.{int(m[1]) - 1}."),
    (r"\.fuse_models\.", ".fusions."),
    (r"\.local_att\.", ".attention."),
    (r"^(layer[34]\.\d+\.(?:convs|bns))\.(\d+)\.", lambda m: f"{m[1]}.{int(m[2]) + 1}."),
    (r"\.conv2_1\.", ".convs.0."),
    (r"\.bn2_1\.", ".bns.0."),
    *wespeaker_res2net.RULES,
)


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: eres2net, …}` without the number of mel bins.

    Args:
        model: `ERes2Net`, `ERes2Net34_Base`, `ERes2Net34_Large` or `ERes2Net34_aug`.
        args: `embed_dim`, `pooling_func`, `two_emb_layer`; for `ERes2Net` also `m_channels` and `num_blocks`; for it
            and `ERes2Net34_aug` also `baseWidth`, `scale` and `expansion`.
        block: the class of the blocks of the first two stages, of which there is one.

    >>> translate("ERes2Net34_aug", {"feat_dim": 80, "embed_dim": 512})["scale"]
    3

    Raises:
        ConfigError: another model, block or pooling; an unknown or a missing argument.
    """
    if block not in (None, BLOCK):
        raise ConfigError(f"encoder.block: is {block!r}; {nearest(str(block), [BLOCK])}")
    return {"name": "eres2net", **wespeaker_res2net.sizes(model, args, NAMED)}


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return substitute(state_dict, RULES)
