"""Causal networks run block by block, compared with the whole recording."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.networks import BSRNN, CAUSAL_BSRNN, SHORT_BLOCKS, noise, random_extractor, run_blocks
from wesep_py import checkpoint
from wesep_py.common.errors import InputError
from wesep_py.inference import Extractor, load
from wesep_py.inference.long_recordings.overlap_add import run_network
from wesep_py.inference.long_recordings.streaming import StreamingRunner, check_shifts, supports_streaming

TASNET = {"num_filters": 16, "bottleneck": 8, "hidden": 8, "blocks_per_stack": 2, "num_stacks": 1, "causal": True}
GRID = {"num_blocks": 1, "feature_dim": 4, "hidden": 4, "num_heads": 2, "kernel_hop": 1, "causal": True}
ENCODER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}}
STREAMING = {
    "bsrnn": {"backbone": CAUSAL_BSRNN, "cues": [{"name": "tf_map"}]},
    "conv_tasnet": {"backbone": {"name": "conv_tasnet", **TASNET}, "cues": [{"name": "embedding"}], "speaker": ENCODER},
    "tf_gridnet": {"backbone": {"name": "tf_gridnet", **GRID}, "cues": [{"name": "tf_map"}]},
}


@pytest.mark.parametrize("name", STREAMING)
def test_streaming_equals_the_whole_recording(name: str):
    extractor, voice = random_extractor({**STREAMING[name], "normalise": "none"})
    network, mixture = extractor.network, noise(40077, 2)
    assert supports_streaming(network)
    whole, logits = run_network(network, "cpu", mixture, [voice.tensors])
    runner = StreamingRunner(network, "cpu", [voice], SHORT_BLOCKS.grid(16000, network.backbone.stride), 2)
    outputs = run_blocks(runner, mixture, 7001)
    assert len(outputs) > 3
    np.testing.assert_array_equal(np.concatenate([output.mixture for output in outputs], axis=1), mixture)
    np.testing.assert_allclose(np.concatenate([output.estimates for output in outputs], axis=-1), whole, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([output.logits for output in outputs], axis=-1), logits, atol=1e-5)


def test_networks_that_do_not_support_streaming():
    assert not supports_streaming(random_extractor({"backbone": BSRNN, "cues": [{"name": "tf_map"}]})[0].network)
    assert not supports_streaming(
        random_extractor({"backbone": CAUSAL_BSRNN, "cues": [{"name": "listen_first"}], "normalise": "none"})[0].network
    )


def test_networks_that_stream_run_unshifted_and_refuse_shifts():
    config = {"backbone": CAUSAL_BSRNN, "cues": [{"name": "tf_map"}], "normalise": "none"}
    extractor, voice = random_extractor({**config, "shifts": 2})
    plain, _ = random_extractor(config)
    mixture = (noise(40077), 16000)
    assert extractor.shifts == check_shifts(extractor.network, None) == 1
    for blocks in (None, SHORT_BLOCKS):
        shifted = extractor.extract(mixture, voice, blocks)
        np.testing.assert_array_equal(shifted.waveform, plain.extract(mixture, voice, blocks, shifts=1).waveform)
    for refused in (
        lambda: extractor.extract(mixture, voice, shifts=2),
        lambda: extractor.extract_batch([(noise(9000)[0], 16000)], [voice], shifts=2),
        lambda: Extractor(extractor.network, shifts=3),
    ):
        with pytest.raises(InputError, match=r"^shifts is [23]; a causal network that streams allows 1 only.*$"):
            refused()


def test_the_live_mode_refuses_shifts(tmp_path):
    config = {"backbone": {**BSRNN, "norm": "frame", "live": True}, "cues": [{"name": "tf_map"}], "shifts": 2}
    extractor, _ = random_extractor(config)
    assert extractor.shifts == 2 and extractor.live().shifts == 1
    model = checkpoint.save(tmp_path / "model", extractor.network.config, extractor.network.state_dict())
    assert load(model, "cpu").shifts == 2 and load(model, "cpu", live=True).shifts == 1
    with pytest.raises(InputError, match="shifts is 2; a causal network that streams allows 1 only"):
        load(model, "cpu", live=True, shifts=2)
