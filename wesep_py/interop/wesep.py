"""Networks of WeSep and of WeSep real-TSE, from their configuration and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError, nearest, shorten
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.interop import realtse_bsrnn, wesep_bsrnn, wesep_conv_tasnet, wesep_dpccn, wesep_tf_gridnet
from wesep_py.interop.public_checkpoints import fill, translating, unwrap
from wesep_py.interop.wesep_enrollment import Signature
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

ARCHITECTURES = {
    "BSRNN": wesep_bsrnn,
    "ConvTasNet": wesep_conv_tasnet,
    "DPCCN": wesep_dpccn,
    "TFGridNet": wesep_tf_gridnet,
    "TSE_BSRNN_SPK": realtse_bsrnn,
}
"""The public name of a network, and the module with its `translate`, `rename` and `signature`."""


def load_wesep(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> WesepAdapter:
    """A network of ours that computes what the public one does, in evaluation mode.

    Args:
        config: `{"model": name, "args": its constructor's arguments}`; `encoder: {"model": …, "args": …}` where the
            speaker encoder is not the one that `args` name.
        state_dict: the public network's weights under their public names, or the content of its file.

    Raises:
        ConfigError: a model or an argument that cannot be translated.
        CheckpointError: weights that are missing, find no place, or are of another size.
    """
    name, args, encoder = str(config.get("model")), config.get("args", {}), config.get("encoder")
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"model: no network is called {shorten(name, 60)!r}; {nearest(shorten(name, 60), ARCHITECTURES)}"
        )
    architecture, weights = ARCHITECTURES[name], unwrap(state_dict) if state_dict else {}
    check_numbers({"args": args, "encoder": encoder})
    with translating():
        model = architecture.translate(args, encoder, weights)
    network = build_within(lambda: build_network(model, initialise=False), weights)
    fill(network, architecture.rename(weights, args, encoder), name)
    return WesepAdapter(network, architecture.signature(args)).eval()


class WesepAdapter(nn.Module):
    """A network of ours behind the public networks' signature.

    Args:
        network: ours.
        signature: the public one.

    Attributes:
        network: as given; `network.config` is its native configuration.
    """

    def __init__(self, network: TargetSpeakerExtractor, signature: Signature) -> None:
        super().__init__()
        self.network, self.signature = network, signature

    def forward(self, mixture: Tensor, enrollment: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the public network returns: its waveform, or a tuple where it has several outputs.

        Args:
            mixture: `[batch, samples]`, or `[batch, 1, samples]`, and then the estimate likewise.
            enrollment: a waveform of the same number of axes, features `[batch, frames, mel bins]`, or an embedding
                `[batch, embedding_dim]`.
        """
        channel = self.signature.channel or mixture.dim() == 3
        if mixture.dim() == 3:
            mixture = mixture[:, 0]
        if self.signature.enrolled == "waveform":
            out = self.network(mixture, enrollment[:, 0] if enrollment.dim() == 3 else enrollment)
        else:
            enrollment = self._embedding(enrollment)
            out = self.network.extract(mixture, {"0.embedding": enrollment})
        outputs = [one[:, None] if channel else one for one in out.waveforms]
        if out.speaker_logits is not None:
            outputs.append(out.speaker_logits)
        if self.signature.embedding:
            outputs.append(enrollment)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _embedding(self, enrollment: Tensor) -> Tensor:
        encoder = self.network.encoder
        if self.signature.enrolled == "features":
            return encoder.network(enrollment).embedding
        if self.signature.enrolled == "encoder":
            # At its own level, whatever the mixture is divided by.
            lengths = torch.full((len(enrollment),), enrollment.shape[1], device=enrollment.device)
            return encoder(enrollment, lengths).embedding
        return enrollment
