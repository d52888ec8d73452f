"""One step of a stream: every cutting into blocks gives the estimate of the whole recording."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference.long_recordings.test_streaming import ENCODER, STREAMING, TASNET
from tests.inference.networks import BSRNN, CAUSAL_BSRNN
from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import build_network
from wesep_py.network.streaming_network import StreamingNetwork

TF_MAP = [{"name": "tf_map"}]
EMBEDDING = {"cues": [{"name": "embedding"}], "speaker": ENCODER}
DPCCN = {
    "name": "dpccn", "causal": True, "channels": 4, "dense_channels": [4], "deep_channels": [4],
    "tcn_repeats": 1, "tcn_blocks": 2,
}  # fmt: skip
NETWORKS = {
    **STREAMING,
    "bsrnn_two_hops": {"backbone": {**CAUSAL_BSRNN, "hop_ms": 16}, "cues": [*TF_MAP, {"name": "band_attention"}]},
    "bsrnn_hop_of_10_ms": {"backbone": {**CAUSAL_BSRNN, "hop_ms": 10}, "cues": TF_MAP},
    "asymmetric": {"backbone": {**CAUSAL_BSRNN, "window": "asymmetric"}, "cues": TF_MAP},
    "tracked": {"backbone": {**CAUSAL_BSRNN, "window": "asymmetric"}, "cues": TF_MAP, "normalise": "tracked"},
    "live": {"backbone": {**BSRNN, "live": True, "norm": "frame"}, "cues": TF_MAP, "normalise": "rms"},
    "usef": {"backbone": CAUSAL_BSRNN, "cues": [{"name": "usef"}]},
    "dpccn": {"backbone": DPCCN, "cues": TF_MAP},
    "dpccn_spectrum": {"backbone": {**DPCCN, "estimate": "spectrum"}, "cues": TF_MAP},
    "spex": {"backbone": {"name": "conv_tasnet", **TASNET, "kernels_ms": [2.5, 10, 20], "hop_ms": 1.25}, **EMBEDDING},
    "tasnet_bias": {"backbone": {"name": "conv_tasnet", **TASNET, "basis_bias": True}, **EMBEDDING},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_any_size_give_the_estimate_of_the_whole_recording(name: str):
    torch.manual_seed(0)
    head = "live_presence" if name == "live" else "presence"
    network = build_network({"normalise": "none", head: {"smoothing": "lstm"}, **NETWORKS[name]}).eval()
    mixture, rng = 0.1 * torch.randn(2, 9077) + 0.02, np.random.default_rng(0)
    mixture[:, 3000:4500] = 0.0
    step = StreamingNetwork(network)
    with torch.inference_mode():
        prepared = network.prepare(0.1 * torch.randn(2, 8000))
        whole = network.live().extract(mixture, prepared)
        for largest in (90, 1200, 9077):
            state, outputs, logits, start = step.initial_state(2), [], [], 0
            while start < mixture.shape[1]:
                stop = start + int(rng.integers(0, largest + 1))
                output = step(mixture[:, start:stop], state, prepared)
                state, start = output.state, stop
                outputs.append(output.waveform)
                logits += [] if output.presence_logits is None else [output.presence_logits]
            estimate, presence = torch.cat(outputs, dim=1)[:, step.num_leading :], torch.cat(logits, dim=1)
            missing = mixture.shape[1] - estimate.shape[1]
            assert missing <= step.max_delay
            torch.testing.assert_close(estimate, whole.waveforms[0][:, : estimate.shape[1]], atol=1e-5, rtol=0)
            expected = whole.presence_logits[:, : presence.shape[1]]
            torch.testing.assert_close(presence, expected, atol=1e-4, rtol=1e-4)


def test_a_sample_is_finished_when_no_later_frame_contributes_to_it():
    network = build_network({"backbone": CAUSAL_BSRNN, "cues": TF_MAP, "normalise": "none"}).eval()
    step, delays = StreamingNetwork(network), []
    with torch.inference_mode():
        prepared, state, finished = network.prepare(torch.randn(1, 8000)), step.initial_state(1), -step.num_leading
        for arrived in range(1, 2000):
            output = step(torch.randn(1, 1), state, prepared)
            state, finished = output.state, finished + output.waveform.shape[1]
            delays.append(arrived - finished)
    assert max(delays[1000:]) == step.max_delay
    assert step.max_delay == network.latency + 1  # the sample itself, and those that it depends on


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backbone": BSRNN, "cues": TF_MAP}, "backbone 'bsrnn' looks ahead; a model trained with"),
        ({"backbone": CAUSAL_BSRNN, "cues": [{"name": "usef", "causal": False}]}, "cue USEFCue needs later frames"),
        ({"backbone": CAUSAL_BSRNN, "cues": [{"name": "listen_first"}]}, "puts the enrollment before the mixture"),
        ({"backbone": {**CAUSAL_BSRNN, "pad_mode": "reflect"}, "cues": TF_MAP}, "'reflect' needs later samples"),
    ],
)
def test_a_network_that_cannot_stream_is_refused(config: dict, message: str):
    with pytest.raises(ConfigError) as error:
        StreamingNetwork(build_network({"normalise": "none", **config}))
    assert message in str(error.value) and "\n" not in str(error.value)
