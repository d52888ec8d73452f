"""TF-GridNet: lengths, latency, memory, recurrent layers and streaming state."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.backbones import tf_gridnet
from wesep_py.network.backbones.tf_gridnet import TFGridNet, WindowedRNN, overlap_add

KERNELS = [{"kernel": 1}, {"kernel": 4}]


def small(**arguments) -> TFGridNet:
    torch.manual_seed(0)
    defaults = {"feature_dim": 4, "num_blocks": 2, "hidden": 4, "num_heads": 2, "query_size": 64}
    return TFGridNet(**{**defaults, **arguments}).eval()


def run(network: TFGridNet, waveform: torch.Tensor) -> torch.Tensor:
    analysis = network.analyse(waveform)
    latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    return network.synthesise(latent, analysis, waveform.shape[1])[0]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("arguments", [{}, {"causal": True}, {"kernel": 4, "kernel_hop": 3}, {"pad_mode": "reflect"}])
def test_the_estimate_has_the_length_of_the_mixture_at_any_rate(sample_rate, arguments):
    network = small(sample_rate=sample_rate, num_blocks=1, **arguments)
    for length in (1, network.stride - 1, network.stride, 1777):
        out = run(network, torch.randn(2, length))
        assert out.shape == (2, length)
        assert torch.isfinite(out).all()


def test_the_number_of_parameters_is_the_published_one():
    """7 M parameters, without the fusion."""
    count = sum(p.numel() for p in TFGridNet().parameters())
    assert 6.9e6 < count < 7.1e6


@pytest.mark.parametrize("fuse_along", ["channels", "bins"])
def test_every_fusion_point_is_called_once_in_order(fuse_along):
    network, points = small(num_blocks=3, fuse_along=fuse_along), []

    def condition(point, latent):
        assert latent.shape[network.fusion_axis] == network.latent_dim
        points.append(point)
        return latent

    analysis = network.analyse(torch.randn(1, 4000))
    latent, state = network.encode(analysis.features, condition)
    assert points == list(range(network.num_fusion_points))
    assert state is None
    assert network.summarise(latent).shape == (1, analysis.num_frames, network.latent_dim)


@pytest.mark.parametrize("arguments", KERNELS)
def test_the_look_ahead_of_a_causal_network_is_its_latency(arguments):
    """If every sample from n on changes, the first output that changes is n − latency in the worst phase of the hop."""
    network = small(causal=True, **arguments).double()
    torch.manual_seed(1)
    waveform = torch.randn(1, 2000, dtype=torch.float64)
    before, look_ahead = run(network, waveform), []
    for phase in range(0, network.stride):
        changed, at = waveform.clone(), 1000 + phase
        changed[:, at:] = torch.randn(1, 2000 - at, dtype=torch.float64)
        differs = run(network, changed)[0] != before[0]
        look_ahead.append(at - int(differs.nonzero()[0]))
    assert max(look_ahead) == network.latency
    assert min(look_ahead) == network.latency - network.stride + 1


def test_a_network_that_is_not_causal_sees_the_whole_recording():
    network = small()
    waveform = torch.randn(1, 4000)
    changed = waveform.clone()
    changed[:, 3500:] = 0
    assert network.latency is None
    assert ((run(network, waveform) - run(network, changed)).abs()[0, :500] > 0).any()


@pytest.mark.parametrize("arguments", [*KERNELS, {"attention_window_s": 0.04}])
def test_causal_encoding_of_blocks_equals_that_of_the_whole(arguments):
    network = small(causal=True, **arguments)
    features = network.analyse(torch.randn(2, 4000)).features
    whole, _ = network.encode(features, lambda point, latent: latent)
    latents, state = [], None
    for block in features.split([1, 1, 20, features.shape[-1] - 22], dim=-1):
        latent, state = network.encode(block, lambda point, latent: latent, state)
        latents.append(latent)
    torch.testing.assert_close(torch.cat(latents, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_an_attention_window_changes_only_longer_recordings():
    full, windowed = small(), small(attention_window_s=0.2)
    short, long = torch.randn(1, 3000), torch.randn(1, 8000)
    torch.testing.assert_close(run(windowed, short), run(full, short))
    assert (run(windowed, long) - run(full, long)).norm() / run(full, long).norm() > 1e-4


def test_gradient_checkpointing_changes_no_gradient():
    waveform, gradients = torch.randn(2, 2000), []
    for gradient_checkpointing in (False, True):
        network = small(gradient_checkpointing=gradient_checkpointing).train()
        run(network, waveform).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_gradient_checkpointing_stores_less():
    """The tensors stored for the backward pass, counted by the hooks of autograd."""

    def saved_bytes(network: TFGridNet) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(network, torch.randn(1, 4000))
        return sum(sizes.values())

    plain, checkpointed = (saved_bytes(small(gradient_checkpointing=g).train()) for g in (False, True))
    assert checkpointed < plain / 4


def test_long_recordings_are_computed_in_blocks(monkeypatch):
    network, waveform = small(kernel=4), torch.randn(1, 2000)
    with torch.no_grad():
        whole = run(network, waveform)
        monkeypatch.setattr(tf_gridnet, "MAX_ELEMENTS_PER_BLOCK", 500)
        torch.testing.assert_close(run(network, waveform), whole)


def test_overlap_add_sums_overlapping_steps():
    """Steps of four ones, shifted by 1: the sum is the number of steps that cover an element."""
    out = overlap_add(torch.ones(1, 5, 4, 1), hop=1)
    assert out.flatten().tolist() == [1, 2, 3, 4, 4, 3, 2, 1]
    assert overlap_add(torch.arange(6.0).view(1, 3, 2, 1), hop=2).flatten().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("kernel", "hop"), [(1, 1), (4, 1), (4, 3), (4, 4), (5, 2)])
@pytest.mark.parametrize("length", [1, 2, 9, 17])
def test_padding_fills_the_last_step(kernel, hop, length):
    layer = WindowedRNN(3, 2, kernel, hop, causal=False)
    before, after = layer.padding(length)
    assert before == kernel - hop
    assert after >= 0
    assert (before + length + after - kernel) % hop == 0
    padded = torch.randn(2, before + length + after, 3)
    assert layer(padded)[0].shape == padded.shape


def test_windowed_rnn_equals_unfold_and_transposed_convolution():
    """The reference uses PyTorch's operations, as the paper does."""
    torch.manual_seed(0)
    layer, x = WindowedRNN(3, 5, 4, 2, causal=False), torch.randn(2, 12, 3)
    unfolded = torch.nn.functional.unfold(layer.norm(x).transpose(1, 2)[..., None], (4, 1), stride=(2, 1))
    out, _ = layer.rnn(unfolded.transpose(1, 2))
    weight = layer.linear.weight.view(4, 3, 10).permute(2, 1, 0)
    expected = x + torch.nn.functional.conv_transpose1d(out.transpose(1, 2), weight, stride=2).transpose(1, 2)
    torch.testing.assert_close(layer(x)[0], expected)


def test_a_causal_network_takes_the_level_from_the_mixture():
    """The estimate is a mask, near one before training, and silence stays silent."""
    network, waveform = small(causal=True), torch.randn(1, 4000)
    out = run(network, waveform)
    assert (run(network, waveform * 0.1) * 10 - out).norm() / out.norm() < 0.1
    assert (out - waveform).norm() / waveform.norm() < 0.3
    assert (run(network, torch.zeros(1, 4000)) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop_ms": 5}, "hop_ms"),
        ({"causal": True, "norm": "group"}, "averages over time"),
        ({"causal": True, "kernel": 4, "kernel_hop": 2}, "frame by frame"),
        ({"kernel": 2, "kernel_hop": 3}, "from 1 to kernel"),
        ({"attention_window_s": 0.0}, "attention_window_s"),
        ({"num_heads": 3}, "a divisor of feature_dim"),
        ({"num_blocks": 0}, "1 or more"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
