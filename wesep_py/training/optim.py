"""The optimiser, its parameter groups and its learning rate."""

from __future__ import annotations

import torch
from torch import nn

from wesep_py.errors import ConfigError
from wesep_py.training.config import OptimConfig


def build_optimizer(config: OptimConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that are trained; only weights of two and more dimensions are decayed.

    Sources: Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019 (decoupled decay, `adamw`).

    Raises:
        ConfigError: the network has no parameter to train.

    >>> build_optimizer(OptimConfig(lr=0.01), nn.Linear(2, 2)).param_groups[0]["lr"]
    0.01
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError("model: every parameter is frozen; leave something to train")
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set one learning rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
