"""TD-SpeakerBeam in ESPnet's layout: random weights under its names, and a slow computation of it by layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = torch.finfo(torch.float32).eps
EXTRACTOR_CONF: dict[str, Any] = {
    "layer": 2,
    "stack": 2,
    "bottleneck_dim": 6,
    "hidden_dim": 8,
    "skip_dim": 6,
    "kernel": 3,
    "causal": False,
    "norm_type": "gLN",
    "pre_nonlinear": "prelu",
    "nonlinear": "relu",
    "i_adapt_layer": 1,
    "adapt_layer_type": "mul",
    "adapt_enroll_dim": 6,
}
CONV_CONF = {"channel": 10, "kernel_size": 16, "stride": 8}


def espnet_config(encoder: dict[str, Any] | None = None, **extractor: Any) -> dict[str, Any]:
    """Return a configuration of ESPnet's layout, at 8 kHz; arguments change `extractor_conf`."""
    conf = {**EXTRACTOR_CONF, **extractor}
    if conf["adapt_layer_type"] == "muladd":
        conf["adapt_enroll_dim"] = 2 * conf["bottleneck_dim"]
    return {
        "fs": "8k",
        "encoder": "conv",
        "encoder_conf": {**CONV_CONF, **(encoder or {})},
        "extractor": "td_speakerbeam",
        "extractor_conf": conf,
        "decoder": "conv",
        "decoder_conf": {**CONV_CONF, **(encoder or {})},
        "model_conf": {"num_spk": 1, "share_encoder": not conf.get("use_spk_emb", False)},
        "criterions": [{"name": "snr", "conf": {"eps": 1e-7}, "wrapper": "fixed_order", "wrapper_conf": {"weight": 1}}],
    }


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the shape of each tensor."""
    conf, basis = config["extractor_conf"], config["encoder_conf"]
    features, channels, hidden = basis["channel"], conf["bottleneck_dim"], conf["hidden_dim"]
    skip, kernel = conf["skip_dim"] is not None, conf["kernel"]
    yield "encoder.conv1d.weight", (features, 1, basis["kernel_size"])
    yield "decoder.convtrans1d.weight", (features, 1, basis["kernel_size"])

    def norm(place: str, size: int, kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        if kind in ("gLN", "cLN"):
            yield f"{place}.gamma", (1, size, 1)
            yield f"{place}.beta", (1, size, 1)
            return
        for name in ("weight", "bias", *(["running_mean", "running_var"] if kind == "BN" else [])):
            yield f"{place}.{name}", (size,)
        if kind == "BN":
            yield f"{place}.num_batches_tracked", ()

    def tcn(place: str, stacks: int, out: int, causal: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from norm(f"{place}.0", features, "cLN")
        yield f"{place}.1.weight", (channels, features, 1)
        shift = int(causal)
        for block in (f"{place}.2.{r}.{x}.net" for r in range(stacks) for x in range(conf["layer"])):
            yield f"{block}.0.weight", (hidden, channels, 1)
            yield f"{block}.1.weight", (1,)
            yield from norm(f"{block}.2", hidden, conf["norm_type"])
            yield f"{block}.3.net.0.weight", (hidden, 1, kernel)
            yield f"{block}.3.net.{1 + shift}.weight", (1,)
            yield from norm(f"{block}.3.net.{2 + shift}", hidden, conf["norm_type"])
            yield f"{block}.3.net.{3 + shift}.weight", (channels, hidden, 1)
            if skip:
                yield f"{block}.3.skip_conv.weight", (channels, hidden, 1)
        if conf["pre_nonlinear"] == "prelu":
            yield f"{place}.3.weight", (1,)
        yield f"{place}.{3 if conf['pre_nonlinear'] == 'linear' else 4}.weight", (out, channels, 1)

    size = conf["adapt_enroll_dim"] * (2 if skip else 1)
    yield from tcn("extractor.tcn.network", conf["stack"], features, conf["causal"])
    if conf["adapt_layer_type"] == "concat":
        for part in range(2 if skip else 1):
            yield f"extractor.tcn.adapt_layer.transform.{part}.weight", (channels, 2 * channels)
            yield f"extractor.tcn.adapt_layer.transform.{part}.bias", (channels,)
    if conf.get("use_spk_emb"):
        yield "extractor.auxiliary_net.weight", (size, conf["spk_emb_dim"], 1)
        yield "extractor.auxiliary_net.bias", (size,)
    else:
        yield from tcn("extractor.auxiliary_net.network", 1, size, False)


def espnet_weights(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of the network of a configuration, under ESPnet's names."""
    torch.manual_seed(seed)
    weights = {}
    for name, shape in _shapes(config):
        weights[name] = 0.4 * torch.randn(shape)
        if name.endswith("running_var"):
            weights[name] = 0.5 + torch.rand(shape)
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith(("gamma", "adapt_layer.bias")):
            weights[name] += 1
    return weights


class SlowReference:
    """ESPnet's network, computed by layers from its weights."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.conf, self.basis, self.w = config["extractor_conf"], config["encoder_conf"], weights
        self.skip = self.conf["skip_dim"] is not None

    def __call__(self, mixture: Tensor, enrollment: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate and the embedding."""
        features = self.encode(mixture)
        if self.conf.get("use_spk_emb"):
            weight, bias = (self.w[f"extractor.auxiliary_net.{kind}"] for kind in ("weight", "bias"))
            embedding = F.conv1d(enrollment[..., None], weight, bias).mean(dim=2)
        else:
            frames = self.tcn(self.encode(enrollment), "extractor.auxiliary_net.network", 1, causal=False)
            embedding = frames.mean(dim=2)
        score = self.tcn(features, "extractor.tcn.network", self.conf["stack"], self.conf["causal"], embedding)
        masked = features * self.activate(score, self.conf["nonlinear"])
        stride = self.basis["stride"]
        estimate = F.conv_transpose1d(masked, self.w["decoder.convtrans1d.weight"], stride=stride)[:, 0]
        return F.pad(estimate, (0, mixture.shape[1] - estimate.shape[1])), embedding

    def encode(self, waveform: Tensor) -> Tensor:
        return F.conv1d(waveform[:, None], self.w["encoder.conv1d.weight"], stride=self.basis["stride"]).relu()

    def tcn(self, x: Tensor, place: str, stacks: int, causal: bool, embedding: Tensor | None = None) -> Tensor:
        x = F.conv1d(self.norm(x, f"{place}.0", "cLN"), self.w[f"{place}.1.weight"])
        total = torch.zeros(())
        for number in range(stacks * self.conf["layer"]):
            stack, layer = divmod(number, self.conf["layer"])
            outputs = self.block(x, f"{place}.2.{stack}.{layer}.net", 2**layer, causal)
            if embedding is not None and number == self.conf["i_adapt_layer"]:
                parts = embedding.chunk(len(outputs), dim=1)
                outputs = [self.adapt(h, e, i) for i, (h, e) in enumerate(zip(outputs, parts, strict=True))]
            x = x + outputs[0]
            total = total + outputs[-1]
        y = total if self.skip else x
        before = self.conf["pre_nonlinear"]
        y = F.prelu(y, self.w[f"{place}.3.weight"]) if before == "prelu" else self.activate(y, before)
        return F.conv1d(y, self.w[f"{place}.{3 if before == 'linear' else 4}.weight"])

    def block(self, x: Tensor, place: str, dilation: int, causal: bool) -> list[Tensor]:
        kind, reach = self.conf["norm_type"], (self.conf["kernel"] - 1) * dilation
        y = F.prelu(F.conv1d(x, self.w[f"{place}.0.weight"]), self.w[f"{place}.1.weight"])
        y = F.pad(self.norm(y, f"{place}.2", kind), (reach, 0) if causal else (reach // 2, reach // 2))
        y = F.conv1d(y, self.w[f"{place}.3.net.0.weight"], dilation=dilation, groups=y.shape[1])
        shift = int(causal)
        y = F.prelu(y, self.w[f"{place}.3.net.{1 + shift}.weight"])
        y = self.norm(y, f"{place}.3.net.{2 + shift}", kind)
        outputs = [F.conv1d(y, self.w[f"{place}.3.net.{3 + shift}.weight"])]
        return [*outputs, F.conv1d(y, self.w[f"{place}.3.skip_conv.weight"])] if self.skip else outputs

    def adapt(self, h: Tensor, e: Tensor, part: int) -> Tensor:
        if self.conf["adapt_layer_type"] == "mul":
            return h * e[..., None]
        if self.conf["adapt_layer_type"] == "muladd":
            scale, shift = e.chunk(2, dim=1)
            return h * scale[..., None] + shift[..., None]
        place = f"extractor.tcn.adapt_layer.transform.{part}"
        joined = torch.cat([h, e[..., None].expand(-1, -1, h.shape[2])], dim=1).transpose(1, 2)
        return F.linear(joined, self.w[f"{place}.weight"], self.w[f"{place}.bias"]).transpose(1, 2)

    def norm(self, x: Tensor, place: str, kind: str) -> Tensor:
        if kind == "BN":
            mean, var, weight, bias = (
                self.w[f"{place}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
            )
            return (x - mean[:, None]) / (var[:, None] + 1e-5).sqrt() * weight[:, None] + bias[:, None]
        axes, eps = ((1,), EPS) if kind == "cLN" else ((1, 2), 1e-8 if kind == "GN" else EPS)
        weight, bias = ("weight", "bias") if kind == "GN" else ("gamma", "beta")
        var, mean = torch.var_mean(x, dim=axes, keepdim=True, correction=0)
        gamma, beta = (self.w[f"{place}.{name}"].flatten()[:, None] for name in (weight, bias))
        return (x - mean) / (var + eps).sqrt() * gamma + beta

    def activate(self, x: Tensor, name: str) -> Tensor:
        return {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "linear": lambda y: y}[name](x)
