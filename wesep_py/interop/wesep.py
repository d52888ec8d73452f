"""Networks of WeSep and of WeSep real-TSE, from their configuration and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from wesep_py.errors import CheckpointError, ConfigError, nearest
from wesep_py.extractor import TargetSpeakerExtractor, build_network
from wesep_py.interop import realtse_bsrnn, wesep_bsrnn, wesep_conv_tasnet, wesep_dpccn, wesep_tf_gridnet

Enrolled = Literal["waveform", "features", "embedding"]
REAL_TSE = "TSE_BSRNN_SPK"
ARCHITECTURES = {
    "BSRNN": wesep_bsrnn,
    "ConvTasNet": wesep_conv_tasnet,
    "DPCCN": wesep_dpccn,
    "TFGridNet": wesep_tf_gridnet,
    REAL_TSE: realtse_bsrnn,
}
"""The public name of a network, and the module with its `translate` and `rename`."""


def load_wesep(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> WesepAdapter:
    """A network of ours that computes what the public one does, in evaluation mode.

    Args:
        config: `{"model": name, "args": its constructor's arguments}`; `encoder: {"model": …, "args": …}` where the
            speaker encoder is not the one that `args` name.
        state_dict: the public network's weights under their public names.

    Raises:
        ConfigError: a model or an argument that cannot be translated.
        CheckpointError: weights that are missing, find no place, or are of another size.
    """
    name, args = str(config.get("model")), config.get("args", {})
    if name not in ARCHITECTURES:
        raise ConfigError(f"model: no network is called {name!r}; {nearest(name, ARCHITECTURES)}")
    architecture, encoder = ARCHITECTURES[name], config.get("encoder")
    enrolled: Enrolled = "embedding"
    front_end, channel = None, False
    if name == REAL_TSE:
        model, enrolled = realtse_bsrnn.translate(args, encoder, state_dict), "waveform"
    elif name == "BSRNN":
        model = wesep_bsrnn.translate(args, encoder)
        if args.get("joint_training", False):
            enrolled, front_end = "features", wesep_bsrnn.front_end(state_dict, args)
    else:
        model = architecture.translate(args)
    if name == "ConvTasNet":
        enrolled, channel = wesep_conv_tasnet.signature(args)
    further = (encoder,) if name == "BSRNN" else ()
    network = build_network(model, initialise=False)
    try:
        network.load_state_dict(architecture.rename(state_dict, args, *further))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: the weights do not fit the arguments ({reason})") from error
    return WesepAdapter(network, enrolled, channel, front_end).eval()


class WesepAdapter(nn.Module):
    """A network of ours behind the public networks' signature.

    Args:
        network: ours.
        enrolled: what the public `forward` takes beside the mixture.
        channel: the public network returns `[batch, 1, samples]` for a mixture `[batch, samples]`.
        front_end: makes the speaker encoder's features of a waveform, where they are not ours.

    Attributes:
        network: as given; `network.config` is its native configuration.
    """

    def __init__(
        self,
        network: TargetSpeakerExtractor,
        enrolled: Enrolled,
        channel: bool = False,
        front_end: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.enrolled, self.channel, self.front_end = network, enrolled, channel, front_end

    def forward(self, mixture: Tensor, enrollment: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the public network returns: its waveform, or a tuple where it has several outputs.

        Args:
            mixture: `[batch, samples]`, or `[batch, 1, samples]`, and then the estimate likewise.
            enrollment: a waveform of the same number of axes, features `[batch, frames, mel bins]`, or an embedding
                `[batch, embedding_dim]`.
        """
        channel = self.channel or mixture.dim() == 3
        if mixture.dim() == 3:
            mixture = mixture[:, 0]
        if self.enrolled == "features":
            features = enrollment if self.front_end is None else self.front_end(enrollment)
            enrollment = self.network.encoder.network(features).embedding
        if self.enrolled != "waveform":
            out = self.network.extract(mixture, {"0.embedding": enrollment})
        else:
            out = self.network(mixture, enrollment[:, 0] if enrollment.dim() == 3 else enrollment)
        waveforms = tuple(one[:, None] if channel else one for one in out.waveforms)
        outputs = waveforms if out.speaker_logits is None else (*waveforms, out.speaker_logits)
        return outputs[0] if len(outputs) == 1 else outputs
