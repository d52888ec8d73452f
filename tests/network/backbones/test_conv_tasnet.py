"""Conv-TasNet, SpEx+ and TD-SpeakerBeam: lengths, frames, fusion, latency and streaming state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.network.backbones.conv_tasnet import ChannelNorm, ConvTasNet, MaskMixer, TCNBlock
from wesep_py.network.cues import fusions
from wesep_py.network.extraction_network import build_network

SPEX = {"kernels_ms": (2.5, 10.0, 20.0), "hop_ms": 1.25}
MULTI = {**SPEX, "fuse_scales": True, "mix_masks": True}
SHIPPED = ("convtasnet", "td_speakerbeam", "spexplus")


def small(**arguments) -> ConvTasNet:
    torch.manual_seed(0)
    sizes = {"num_filters": 16, "bottleneck": 6, "hidden": 8, "blocks_per_stack": 2, "num_stacks": 2}
    return ConvTasNet(**{**sizes, **arguments}).eval()


def unsteered(point: int, latent: torch.Tensor) -> torch.Tensor:
    return latent


def run(network: ConvTasNet, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
    analysis = network.analyse(waveform)
    latent, _ = network.encode(analysis.features, unsteered)
    return network.synthesise(latent, analysis, waveform.shape[1])


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize(
    "arguments", [{}, {"causal": True}, SPEX, {**SPEX, "causal": True}, {"deep": True}, MULTI], ids=str
)
def test_the_estimate_has_the_length_of_the_mixture_at_any_rate(sample_rate, arguments):
    network = small(sample_rate=sample_rate, **arguments)
    for length in (1, network.stride - 1, network.stride, 1777):
        estimates = run(network, torch.randn(2, length))
        assert len(estimates) == len(network.kernels)
        assert all(estimate.shape == (2, length) for estimate in estimates)
        assert all(torch.isfinite(estimate).all() for estimate in estimates)


def test_windows_and_hop_have_the_configured_duration_at_any_rate():
    assert [small(sample_rate=rate, **SPEX).kernels for rate in (8000, 48000)] == [[20, 80, 160], [120, 480, 960]]
    assert [small(sample_rate=rate, **SPEX).stride for rate in (8000, 48000)] == [10, 60]


def test_frame_t_of_every_window_begins_at_sample_t_times_hop():
    """An impulse changes only the frames that contain it."""
    network = small(**SPEX)
    waveform = torch.zeros(1, 2000)
    waveform[0, 1000] = 1.0
    spectrum = network.analyse(waveform).spectrum[0]
    for size, basis in zip(network.kernels, spectrum.chunk(3), strict=True):
        changed = basis.sum(dim=0).nonzero().flatten().tolist()
        assert changed == list(range((1000 - size) // network.stride + 1, 1000 // network.stride + 1))


def test_drop_last_gives_zeros_for_samples_without_a_frame():
    """Three frames of 32 samples with a hop of 16 cover 64 samples; the estimate of the other ten is zero."""
    network, waveform = small(drop_last=True), torch.randn(1, 74)
    (estimate,) = run(network, waveform)
    torch.testing.assert_close(estimate[:, :64], run(network, waveform[:, :64])[0])
    assert (estimate[:, 64:] == 0).all()
    assert network.analyse(waveform).num_frames == small().analyse(waveform).num_frames - 1 == 3


@pytest.mark.parametrize("arguments", [{}, {"drop_last": True}, SPEX], ids=["one window", "drop_last", "three windows"])
def test_num_frames_is_the_number_of_frames_of_analyse(arguments):
    network, lengths = small(**arguments), torch.tensor([1, 15, 16, 32, 33, 47, 48, 49, 1000])
    counted = [network.analyse(torch.randn(1, int(length))).num_frames for length in lengths]
    assert network.num_frames(lengths).tolist() == counted


@pytest.mark.parametrize("name", ["spexplus_small", "td_speakerbeam_small"])
def test_padding_of_an_enrollment_is_ignored(name):
    """Regression: frames that begin within a recording, but that it would not have without padding, were counted."""
    torch.manual_seed(0)
    network = build_network(load_yaml(conf_folder() / f"model/{name}.yaml")["model"]).eval()
    padded = torch.cat([torch.randn(1, 3500), torch.zeros(1, 900)], dim=1)
    for length in range(3400, 3500, 7):
        alone, cut = padded[:, :length], padded * (torch.arange(4400) < length)
        with_padding = network.prepare(cut, torch.tensor([length]))["0.embedding"]
        torch.testing.assert_close(with_padding, network.prepare(alone)["0.embedding"], atol=1e-5, rtol=1e-4)


def test_num_speakers_of_the_cue_adds_the_speaker_task_of_spex_plus():
    """The output has three scales and the logits, and the second task trains the speaker branch."""
    torch.manual_seed(0)
    model = load_yaml(conf_folder() / "model/spexplus_small.yaml")["model"]
    assert model["cues"][0]["num_speakers"] is None
    assert build_network(model)(torch.randn(2, 800), torch.randn(2, 1600)).speaker_logits is None
    network = build_network({**model, "cues": [{**model["cues"][0], "num_speakers": 5}]}).train()
    output = network(torch.randn(2, 800), torch.randn(2, 1600))
    assert len(output.waveforms) == 3 and output.speaker_logits.shape == (2, 5)
    nn.functional.cross_entropy(output.speaker_logits, torch.tensor([3, 0])).backward()
    assert network.cues[0].classifier.weight.grad.any()
    assert network.encoder.network.input.weight.grad.any() and network.backbone.bases[0].filters.weight.grad.any()
    assert all(parameter.grad is None for parameter in network.backbone.blocks.parameters())


def test_the_number_of_parameters_is_the_published_one():
    """SpEx+: 11.2 M, speaker branch and fusion included."""
    network = build_network(load_yaml(conf_folder() / "model/spexplus.yaml")["model"])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(11.2e6, rel=0.01)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fusion_place": "inside"},
        {"fusion_blocks": (3, 1), "fusion_norm": True},
        {"fusion_place": "output"},
        {"fusion_place": "output", "fusion_blocks": (2,), "skip": True},
        {"fusion_place": "output", "fusion_blocks": (3,), "skip": True, "skip_sum": "network"},
    ],
)
def test_every_fusion_point_is_called_once_in_order(arguments):
    network, points = small(**arguments), []

    def condition(point, latent):
        assert latent.shape[network.fusion_axis] == network.latent_dim
        points.append(point)
        return latent

    latent, _ = network.encode(network.analyse(torch.randn(2, 4000)).features, condition)
    assert points == list(range(network.num_fusion_points)) == [0, 1]
    assert network.summarise(latent).shape == (2, latent.shape[-1], network.summary_dim)


@pytest.mark.parametrize(("place", "width"), [("before", 6), ("inside", 8)])
def test_an_embedding_changes_its_block_and_none_before_it(place, width):
    """As in TD-SpeakerBeam: fused at block 3 of 4, the output of block 2 does not change."""
    network, outputs = small(fusion_blocks=(3,), fusion_place=place), []
    features = network.analyse(torch.randn(1, 1000)).features
    for block in network.blocks[2:]:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output[0]))
    for factor in (1.0, 2.0):
        network.encode(features, lambda point, latent, factor=factor: latent * factor)
    assert network.latent_dim == width
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[1], outputs[3])


def test_fusion_at_the_output_steers_what_a_block_adds():
    """Multiplied by zero, the block adds nothing, and its skip connection is silent."""
    network = small(fusion_blocks=(1,), fusion_place="output", skip=True, skip_sum="network", num_stacks=1)
    features = network.analyse(torch.randn(1, 1000)).features
    first = network.blocks[0](network.input(features.flatten(1, 2)))[0]
    latent, _ = network.encode(features, lambda point, latent: latent * 0)
    torch.testing.assert_close(latent, first[1])
    latent, _ = network.encode(features, lambda point, latent: latent * point)
    torch.testing.assert_close(latent, first[1] + network.blocks[1](first[0])[0][1])


def test_skip_connections_of_all_blocks_are_summed():
    network, skips = small(skip=True, skip_sum="network"), []
    features = network.analyse(torch.randn(1, 1000)).features
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: skips.append(output[0][1]))
    latent, _ = network.encode(features, unsteered)
    torch.testing.assert_close(latent, sum(skips))
    assert len(skips) == 4
    summed_by_stack, _ = small(skip=True).encode(features, unsteered)
    assert not torch.allclose(summed_by_stack, latent, atol=1e-3)


@pytest.mark.parametrize("name", ["linear", "prelu", "relu", "sigmoid", "tanh"])
def test_activations_of_latent_and_mask(name):
    network = small(latent_activation=name, mask_activation=name)
    function = {"linear": lambda x: x, "prelu": lambda x: nn.functional.prelu(x, torch.tensor([0.25]))}.get(name)
    function = function or getattr(torch, name)
    analysis = network.analyse(torch.randn(1, 320))
    latent, _ = network.encode(analysis.features, unsteered)
    masked = function(network.mask[0](function(latent))) * analysis.spectrum
    torch.testing.assert_close(network.synthesise(latent, analysis, 320)[0], network.decoders[0](masked)[:, :320])


def test_biases_and_eps_can_be_left_out_and_set():
    network = small(conv_bias=False, norm_eps=1e-7, input_norm_eps=1e-3, skip=True)
    biases = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv1d) and module.bias is not None
    ]
    eps = [module.eps for module in network.modules() if isinstance(module, ChannelNorm)]
    assert not biases and eps == [1e-3] + [1e-7] * 8


def test_norm_over_valid_frames_is_that_of_the_frames_alone():
    torch.manual_seed(0)
    norm, x = ChannelNorm(4, "global"), torch.randn(2, 4, 30)
    nn.init.normal_(norm.weight)
    mask = torch.arange(30)[None] < torch.tensor([[12], [30]])
    masked = norm(x, mask)
    torch.testing.assert_close(masked[:1, :, :12], norm(x[:1, :, :12]))
    torch.testing.assert_close(masked[1:], norm(x[1:]))


def test_add_inside_a_block_equals_concatenation_to_its_input():
    """The published block: one convolution over [h; e], h alone on the residual path."""
    torch.manual_seed(0)
    block, embedding, h = TCNBlock(6, 8, 3, 1, "global", causal=False), torch.randn(2, 5), torch.randn(2, 6, 40)
    add = fusions.get("add")(5, 8, 1)
    steered, _ = block(h, steer=lambda hidden: add(hidden, embedding))

    joint = nn.Conv1d(6 + 5, 8, 1)
    with torch.no_grad():
        joint.weight.copy_(torch.cat([block.expand.weight, add.linear.weight[:, :, None]], dim=1))
        joint.bias.copy_(block.expand.bias + add.linear.bias)
    hidden = joint(torch.cat([h, embedding[:, :, None].expand(-1, -1, 40)], dim=1))
    hidden = block.norm1(block.activation1(hidden))
    expected = h + block.project(block.norm2(block.activation2(block.depthwise(hidden))))
    torch.testing.assert_close(steered, expected)


@pytest.mark.parametrize("kind", ["global", "frame"])
def test_norms_equal_their_definition(kind):
    norm, x = ChannelNorm(4, kind), 3 + 2 * torch.randn(2, 4, 50)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    axes = (1, 2) if kind == "global" else 1
    centred = x - x.mean(dim=axes, keepdim=True)
    expected = centred / (centred.square().mean(dim=axes, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected * norm.weight[:, None] + norm.bias[:, None])


@pytest.mark.parametrize(
    "arguments", [{}, {**SPEX, "fusion_place": "inside"}, MULTI], ids=["one window", "three windows", "fused scales"]
)
def test_the_look_ahead_of_a_causal_network_is_its_latency(arguments):
    """If every sample from n on changes, the first output that changes is n − latency in the worst phase of the hop."""
    network = small(causal=True, **arguments).double()
    torch.manual_seed(1)
    waveform = torch.randn(1, 2400, dtype=torch.float64)
    before = torch.stack(run(network, waveform))
    look_ahead = []
    for phase in range(0, network.stride):
        changed, at = waveform.clone(), 1200 + phase
        changed[:, at:] = torch.randn(1, 2400 - at, dtype=torch.float64)
        differs = (torch.stack(run(network, changed)) != before).any(dim=0)[0]
        look_ahead.append(at - int(differs.nonzero()[0]))
    assert max(look_ahead) == network.latency == max(network.kernels) - 1
    assert min(look_ahead) == network.latency - network.stride + 1


def test_a_network_that_is_not_causal_sees_the_whole_recording():
    network = small()
    waveform = torch.randn(1, 6000)
    changed = waveform.clone()
    changed[:, 5000:] = 0
    assert network.latency is None
    assert ((run(network, waveform)[0] - run(network, changed)[0]).abs()[0, :1000] > 0).any()


def test_causal_encoding_of_blocks_equals_that_of_the_whole():
    network = small(causal=True, kernel=4)
    features = network.analyse(torch.randn(2, 2000)).features
    whole, _ = network.encode(features, unsteered)
    latents, state = [], None
    for block in features.split([1, 20, features.shape[-1] - 21], dim=-1):
        latent, state = network.encode(block, unsteered, state)
        latents.append(latent)
    torch.testing.assert_close(torch.cat(latents, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_scales_are_fused_by_the_formula_and_masks_work_on_the_encoders_output():
    network = small(**MULTI)
    analysis = network.analyse(torch.randn(2, 1500))
    encoded, fuser = analysis.spectrum, network.scale_fuser
    for i, scale in enumerate(encoded.chunk(3, dim=1)):
        linear = torch.einsum("oi,bit->bto", fuser.convolutions[i].weight[..., 0], encoded)
        normalised = nn.functional.layer_norm(linear + fuser.convolutions[i].bias, [16])
        expected = scale + (normalised * fuser.norms[i].weight + fuser.norms[i].bias).transpose(1, 2)
        torch.testing.assert_close(analysis.features[:, 0].chunk(3, dim=1)[i], expected, atol=1e-5, rtol=1e-4)
    masked = network._masked(torch.randn(2, 6, analysis.num_frames), analysis)
    assert not masked[encoded == 0].any(), "masks are applied to what the decoders invert"


def test_each_mask_is_made_of_the_heads_of_the_others_too():
    torch.manual_seed(0)
    mixer = MaskMixer(3, 4, bias=True)
    heads = torch.randn(2, 12, 7)
    first, second, third = heads.chunk(3, dim=1)
    mixed = mixer(heads).chunk(3, dim=1)
    torch.testing.assert_close(mixed[1], second + mixer.convolutions[1](torch.cat([first, third], dim=1)))
    torch.testing.assert_close(mixed[0], first + mixer.convolutions[0](torch.cat([second, third], dim=1)))
    moved = (mixer(torch.cat([first, second, third + 1], dim=1)) - mixer(heads)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.all()


def test_mixture_and_enrollment_share_the_fusion_of_scales():
    model = load_yaml(conf_folder() / "model/mcspex_small.yaml")["model"]
    model["cues"][0]["num_speakers"] = 5
    network = build_network(model)
    output = network(torch.randn(2, 3000), torch.randn(2, 6000))
    output.speaker_logits.sum().backward()
    assert all(p.grad.any() for p in network.backbone.scale_fuser.convolutions.parameters())
    assert len(output.waveforms) == 3


@pytest.mark.processor
def test_half_precision_changes_the_waveform_little():
    network, waveform = small(**SPEX), torch.randn(1, 2000)
    whole = run(network, waveform)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        estimate = run(network, waveform)[0]
    assert estimate.dtype == torch.float32
    assert (estimate - whole).norm() / whole.norm() < 0.05


@pytest.mark.parametrize("fusion", ["concat", "add", "multiply", "film"])
@pytest.mark.parametrize("place", ["before", "inside"])
def test_every_fusion_and_a_tf_map_work_on_a_learned_basis(fusion, place):
    sizes = {"num_filters": 16, "bottleneck": 6, "hidden": 8, "blocks_per_stack": 2, "num_stacks": 2}
    network = build_network(
        {
            "backbone": {"name": "conv_tasnet", "fusion_place": place, **sizes},
            "speaker": {"front_end": "backbone", "network": {"name": "spex_plus", "channels": 8, "embedding_dim": 4}},
            "cues": [{"name": "embedding", "fusion": fusion}, {"name": "tf_map"}],
        }
    )
    (estimate,) = network(torch.randn(2, 1500), torch.randn(2, 2000), torch.tensor([2000, 900])).waveforms
    estimate.square().mean().backward()
    assert estimate.shape == (2, 1500)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("twin", ["", "_small"])
def test_shipped_models_train_and_their_weights_load(name, twin):
    model = load_yaml(conf_folder() / f"model/{name}{twin}.yaml")["model"]
    torch.manual_seed(0)
    network = build_network(model).train()
    output = network(torch.randn(2, 800), torch.randn(2, 1600))
    assert len(output.waveforms) == (3 if name == "spexplus" else 1)
    sum(estimate.square().mean() for estimate in output.waveforms).backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    again = build_network(network.config)
    again.load_state_dict(network.state_dict())
    mixture, enrollment = torch.randn(1, 800), torch.randn(1, 1600)
    with torch.no_grad():
        expected = network.eval()(mixture, enrollment).waveforms[0]
        assert torch.equal(again.eval()(mixture, enrollment).waveforms[0], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop_ms": 3.0}, "hop_ms"),
        ({"kernels_ms": ()}, "kernels_ms"),
        ({"num_stacks": 0}, "1 or more"),
        ({"kernel": 2}, "odd"),
        ({"causal": True, "norm": "global"}, "averages over time"),
        ({"deep": True, "causal": True}, "deep"),
        ({"deep": True, **SPEX}, "deep"),
        ({"fusion_norm": True, "fusion_place": "inside"}, "fusion_norm"),
        ({"fusion_blocks": (4,)}, "from 0 to 3"),
        ({"fusion_blocks": ()}, "from 0 to 3"),
        ({"fusion_norm": True, "fusion_place": "output"}, "fusion_norm"),
        ({"norm_eps": 0.0}, "norm_eps and input_norm_eps: are 0.0 and 0.0; above 0"),
        ({"input_norm_eps": -1e-5}, "above 0"),
        ({"fuse_scales": True}, "are for several encoders"),
        ({"mix_masks": True}, "are for several encoders"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
