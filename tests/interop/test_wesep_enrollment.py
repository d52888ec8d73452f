"""WeSep's enrollment: jointly trained speaker networks, their features and transforms."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.interop.public import (
    TF_GRIDNET_ARGS,
    XVECTOR,
    dpccn_weights,
    public_xvector,
    read,
    relative_error,
    tf_gridnet_weights,
)
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.features import KaldiFilterbank, WesepMel
from wesep_py.interop import load_wesep
from wesep_py.interop.public_checkpoints import PublicWeights
from wesep_py.interop.wesep_enrollment import ENROLLMENT_DEFAULTS, enrollment_weights
from wesep_py.interop.wesep_networks import BSRNN
from wesep_py.network.extraction_network import build_network

JOINT = {"joint_training": True, "spk_emb_dim": 6, "spk_model": "XVEC", "spk_args": XVECTOR["args"]}


def mel_buffers(sample_rate: int, win: int, stride: int) -> dict[str, torch.Tensor]:
    mel = WesepMel(sample_rate, 20, 1000 * win / sample_rate, 1000 * stride / sample_rate)
    return {
        "preEmphasis.flipped_filter": torch.tensor([[[-0.97, 1.0]]]),
        "spk_encoder.spectrogram.window": mel.window,
        "spk_encoder.mel_scale.fb": mel.filters,
    }


def joint(model: str, spk_feat: bool, multi_task: bool):
    """Return a network's configuration, and random weights of its public layout."""
    if model == "DPCCN":
        args, bins = {"tcn_blocks": 2, "tcn_layers": 2}, 257
        weights, buffers = dpccn_weights(args), mel_buffers(16000, 512, 128)
    else:
        args, bins = {**TF_GRIDNET_ARGS, "multi_fuse": False}, 65
        weights, buffers = tf_gridnet_weights(), mel_buffers(16000, 128, 64)
    args = {**args, **JOINT, "spk_feat": spk_feat, "multi_task": multi_task, "spksInTrain": 4}
    weights |= {"spk_fuse.fc.linear.weight": 0.2 * torch.randn(bins, 6), "spk_fuse.fc.linear.bias": torch.ones(bins)}
    weights |= {f"spk_model.{key}": value for key, value in public_xvector()[1].items()}
    if not spk_feat:
        weights |= buffers
    if multi_task:
        weights |= {"pred_linear.weight": torch.randn(4, 6), "pred_linear.bias": torch.randn(4)}
    return {"model": model, "args": args}, weights


@pytest.mark.parametrize("model", ["DPCCN", "TFGridNet"])
@pytest.mark.parametrize(("spk_feat", "multi_task"), [(True, True), (False, False)])
def test_jointly_trained_speaker_network(model, spk_feat, multi_task):
    config, weights = joint(model, spk_feat, multi_task)
    adapter, (speaker, _) = load_wesep(config, weights), public_xvector()
    mixture, enrollment = torch.randn(2, 2000), torch.randn(2, 8000)
    window = 32.0 if model == "DPCCN" else 8.0
    front_end = (
        KaldiFilterbank(num_mel_bins=20) if spk_feat else WesepMel(16000, 20, window, window / (4 if window > 8 else 2))
    )
    with torch.no_grad():
        features = front_end(enrollment)
        estimate, second = adapter(mixture, features if spk_feat else enrollment)
        embedding = speaker(features).embedding
        expected = adapter.network.extract(mixture, {"0.embedding": embedding}).waveforms[0]
    torch.testing.assert_close(estimate, expected, atol=1e-5, rtol=1e-4)
    if multi_task:
        embedding = F.linear(embedding, weights["pred_linear.weight"], weights["pred_linear.bias"])
    torch.testing.assert_close(second, embedding, atol=1e-4, rtol=1e-4)


def test_mel_front_end_belongs_to_our_network(shared_parity):
    """Without an adapter, our configured network takes waveforms."""
    config, weights, inputs, (waveform, logits) = read(shared_parity, "wesep_bsrnn_joint_wave")
    network = build_network(BSRNN.translate(config["args"], config["encoder"])).eval()
    network.load_state_dict(BSRNN.rename(weights, config["args"], config["encoder"]))
    with torch.no_grad():
        out = network(*inputs)
    assert network.config["speaker"]["front_end"] == "mel"
    assert relative_error(out.waveforms[0], waveform) < 1e-4
    assert relative_error(out.speaker_logits, logits) < 1e-4


def test_front_end_that_differs_from_the_arguments_is_refused():
    config, weights = joint("DPCCN", spk_feat=False, multi_task=False)
    weights["spk_encoder.mel_scale.fb"] = 2 * weights["spk_encoder.mel_scale.fb"]
    with pytest.raises(CheckpointError, match=r"spk_encoder\.mel_scale\.fb: is not what"):
        load_wesep(config, weights)


def test_transform_computes_what_the_public_layers_compute():
    """Convolutions of one frame: 256 → 128, 128 → 128, tanh, 128 → 256."""
    torch.manual_seed(0)
    sizes = {0: (128, 256, 1), 1: (128, 128, 1), 3: (256, 128, 1)}
    public = {f"spk_transform.transforms.{i}.weight": 0.1 * torch.randn(size) for i, size in sizes.items()}
    public |= {f"spk_transform.transforms.{i}.bias": torch.randn(size[0]) for i, size in sizes.items()}
    args = {"feature_dim": 4, "num_repeat": 1, "joint_training": False, "use_spk_transform": True}
    transform = build_network(BSRNN.translate(args)).cues[0].transform
    mapped = enrollment_weights(PublicWeights(public), {**ENROLLMENT_DEFAULTS, **args}, None)
    transform.load_state_dict({name.removeprefix("cues.0.transform."): value for name, value in mapped.items()})
    embedding = torch.randn(3, 256)
    x = embedding[..., None]
    for i in (0, 1, 3):
        x = F.conv1d(x, *(public[f"spk_transform.transforms.{i}.{part}"] for part in ("weight", "bias")))
        x = torch.tanh(x) if i == 1 else x
    torch.testing.assert_close(transform(embedding), x[..., 0], atol=1e-5, rtol=1e-4)


def test_untranslatable_arguments_are_all_named():
    with pytest.raises(ConfigError) as caught:
        load_wesep({"model": "TFGridNet", "args": {"n_srcs": 2, "eps": 1e-8, "emb_dims": 4}}, {})
    assert all(key in str(caught.value) for key in ("n_srcs: 2", "eps: 1e-08", "emb_dims"))
