"""Networks of WeSep and of WeSep real-TSE, from their configuration and their weights.

`load_wesep` builds our network for a public one, and puts it behind the public call signature. The table
`ARCHITECTURES` names the networks that can be read; each lies in the module that its entry is imported from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError, nearest, shorten
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.interop.public_checkpoints import fill_network, translating, unwrap_weights
from wesep_py.interop.realtse import REALTSE_BSRNN
from wesep_py.interop.wesep_conv_tasnet import CONV_TASNET
from wesep_py.interop.wesep_enrollment import PublicExtractor, PublicSignature
from wesep_py.interop.wesep_networks import BSRNN, DPCCN, TF_GRIDNET
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

ARCHITECTURES: dict[str, PublicExtractor] = {
    "BSRNN": BSRNN,
    "BSRNN_Multi": BSRNN,
    "ConvTasNet": CONV_TASNET,
    "DPCCN": DPCCN,
    "TFGridNet": TF_GRIDNET,
    "TSE_BSRNN_SPK": REALTSE_BSRNN,
}
"""Public name of a network → how its arguments and weights become ours. `BSRNN_Multi` is a `BSRNN` that runs twice in
training (`self_enrollment` here)."""


def load_wesep(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> WesepAdapter:
    """Return a network of ours that computes what the public one does, in evaluation mode.

    Args:
        config: `{"model": name, "args": its constructor's arguments}`; `encoder: {"model": …, "args": …}` where the
            speaker encoder is not the one that `args` name.
        state_dict: the public network's weights under their public names, or the content of its file.

    Raises:
        ConfigError: a model or an argument that cannot be translated.
        CheckpointError: weights that are missing, have no counterpart, or are of another size.
    """
    name, args, encoder = str(config.get("model")), config.get("args", {}), config.get("encoder")
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"model: no network is called {shorten(name, 60)!r}; {nearest(shorten(name, 60), ARCHITECTURES)}"
        )
    architecture, weights = ARCHITECTURES[name], unwrap_weights(state_dict) if state_dict else {}
    check_numbers({"args": args, "encoder": encoder})
    with translating():
        model = architecture.translate(args, encoder, weights)
    network = build_within(lambda: build_network(model, initialise=False), weights)
    fill_network(network, architecture.rename(weights, args, encoder), name)
    return WesepAdapter(network, architecture.signature(args)).eval()


class WesepAdapter(nn.Module):
    """A network of ours behind the public networks' call signature.

    Args:
        network: ours.
        signature: the public one.

    Attributes:
        network: the same; `network.config` is its configuration here.
    """

    def __init__(self, network: TargetSpeakerExtractor, signature: PublicSignature) -> None:
        super().__init__()
        self.network, self.signature = network, signature

    def forward(self, mixture: Tensor, enrollment: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the public network returns: its waveform, or a tuple where it has several outputs.

        Args:
            mixture: `[batch, samples]`, or `[batch, 1, samples]`, and then the estimate likewise.
            enrollment: a waveform of the same number of axes, features `[batch, frames, mel bins]`, or an embedding
                `[batch, embedding_dim]`.
        """
        channel_axis = self.signature.channel_axis or mixture.dim() == 3
        if mixture.dim() == 3:
            mixture = mixture[:, 0]
        if self.signature.enrollment == "waveform":
            out = self.network(mixture, enrollment[:, 0] if enrollment.dim() == 3 else enrollment)
        else:
            enrollment = self._embedding(enrollment)
            out = self.network.extract(mixture, {"0.embedding": enrollment})
        outputs = [waveform[:, None] if channel_axis else waveform for waveform in out.waveforms]
        if out.speaker_logits is not None:
            outputs.append(out.speaker_logits)
        if self.signature.returns_embedding:
            outputs.append(enrollment)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _embedding(self, enrollment: Tensor) -> Tensor:
        encoder = self.network.encoder
        if self.signature.enrollment == "features":
            return encoder.network(enrollment).embedding
        if self.signature.enrollment == "encoder":
            # The enrollment keeps its own level, whatever the mixture is divided by.
            lengths = torch.full((len(enrollment),), enrollment.shape[1], device=enrollment.device)
            return encoder(enrollment, lengths).embedding
        return enrollment
