"""ESPnet's TD-SpeakerBeam: against its own outputs, against a slow reference, and what cannot be translated."""

from __future__ import annotations

import pytest
import torch

from tests.interop.espnet_reference import SlowReference, espnet_config, espnet_weights
from tests.interop.public import read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError, InputError
from wesep_py.interop import load_espnet
from wesep_py.interop.espnet import translate_td_speakerbeam
from wesep_py.interop.espnet_config import parse_espnet_config
from wesep_py.network.streaming_network import StreamingNetwork

FIXTURES = ["causal_cln", "concat_bn", "mul", "mul_noskip"]


@pytest.mark.parametrize("name", FIXTURES)
def test_loaded_network_computes_what_the_public_one_computes(shared_parity, name):
    config, weights, inputs, expected = read(shared_parity, f"espnet_td_speakerbeam_{name}")
    with torch.no_grad():
        outputs = load_espnet(config, weights)(*inputs)
    assert [output.shape for output in outputs] == [output.shape for output in expected]
    assert all(relative_error(ours, theirs) < 1e-4 for ours, theirs in zip(outputs, expected, strict=True))


def assert_equal_to_reference(config, weights, enrollment):
    mixture = torch.randn(2, 803)  # the last three samples fill no frame
    with torch.no_grad():
        outputs, expected = (
            load_espnet(config, weights)(mixture, enrollment),
            SlowReference(config, weights)(mixture, enrollment),
        )
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape and relative_error(ours, theirs) < 1e-5
    assert (outputs[0][:, 800:] == 0).all() and outputs[0].abs().max() > 1e-3


@pytest.mark.parametrize("skip_dim", [6, None])
@pytest.mark.parametrize("norm_type", ["gLN", "cLN", "BN", "GN"])
@pytest.mark.parametrize("adapt_layer_type", ["mul", "muladd", "concat"])
def test_adaptation_norm_and_skip_compute_what_the_layers_say(adapt_layer_type, norm_type, skip_dim):
    config = espnet_config(adapt_layer_type=adapt_layer_type, norm_type=norm_type, skip_dim=skip_dim)
    assert_equal_to_reference(config, espnet_weights(config), torch.randn(2, 1200))


@pytest.mark.parametrize("norm_type", ["cLN", "BN"])
@pytest.mark.parametrize("skip_dim", [6, None])
def test_causal_network_computes_what_the_layers_say(norm_type, skip_dim):
    config = espnet_config(norm_type=norm_type, skip_dim=skip_dim, causal=True)
    assert_equal_to_reference(config, espnet_weights(config), torch.randn(2, 1200))


@pytest.mark.parametrize("before", ["prelu", "relu", "tanh", "sigmoid", "linear"])
@pytest.mark.parametrize("mask", ["relu", "sigmoid", "tanh", "linear"])
def test_activations_compute_what_the_layers_say(before, mask):
    config = espnet_config(pre_nonlinear=before, nonlinear=mask, i_adapt_layer=3, kernel=5)
    assert_equal_to_reference(config, espnet_weights(config), torch.randn(2, 1200))


@pytest.mark.parametrize("skip_dim", [6, None])
@pytest.mark.parametrize("adapt_layer_type", ["mul", "muladd", "concat"])
def test_embeddings_from_elsewhere_compute_what_the_layers_say(adapt_layer_type, skip_dim):
    config = espnet_config(adapt_layer_type=adapt_layer_type, skip_dim=skip_dim, use_spk_emb=True, spk_emb_dim=5)
    weights = espnet_weights(config)
    assert_equal_to_reference(config, weights, torch.randn(2, 5))
    adapter, mixture, embedding = load_espnet(config, weights), torch.randn(2, 800), torch.randn(2, 5)
    assert adapter.network.external_embedding_dim == 5
    assert torch.equal(adapter(mixture, embedding[:, None])[0], adapter(mixture, embedding)[0])
    with pytest.raises(InputError, match="4 numbers; this model takes 5"):
        adapter(mixture, embedding[:, :4])


def test_a_network_from_before_pre_nonlinear_is_recognised_by_its_weights():
    config = espnet_config(pre_nonlinear="linear")
    weights = espnet_weights(config)
    old = {**config, "extractor_conf": {k: v for k, v in config["extractor_conf"].items() if k != "pre_nonlinear"}}
    mixture, enrollment = torch.randn(1, 800), torch.randn(1, 800)
    with torch.no_grad():
        expected = load_espnet(config, weights)(mixture, enrollment)[0]
        assert torch.equal(load_espnet(old, weights)(mixture, enrollment)[0], expected)


def test_a_causal_network_streams_what_it_computes_at_once():
    config = espnet_config(norm_type="cLN", causal=True)
    adapter = load_espnet(config, espnet_weights(config))
    mixture, enrollment = torch.randn(1, 1600), torch.randn(1, 1200)
    streaming = StreamingNetwork(adapter.network)
    with torch.no_grad():
        whole, _ = adapter(mixture, enrollment)
        prepared, state, finished = adapter.network.prepare(enrollment), streaming.initial_state(1), []
        for block in mixture.split([16, 300, 84, 1200], dim=1):
            samples, _, state = streaming(block, state, prepared)
            finished.append(samples)
    streamed = torch.cat(finished, dim=1)
    assert adapter.network.latency == 15
    torch.testing.assert_close(streamed[:, : whole.shape[1]], whole[:, : streamed.shape[1]], atol=1e-5, rtol=1e-4)


def test_the_network_trains_further():
    """All parameters that reach the estimate get a gradient: all but the last block's path to the next one."""
    config = espnet_config()
    network = load_espnet(config, espnet_weights(config)).network.train()
    (estimate,) = network(torch.randn(2, 800), torch.randn(2, 1000), torch.tensor([1000, 700])).waveforms
    estimate.square().mean().backward()
    without = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert without == ["backbone.blocks.3.project.weight", "encoder.network.blocks.1.project.weight"]


@pytest.mark.parametrize(
    ("losses", "level"), [(["si_snr"], "fitted"), (["snr"], "kept"), (["si_snr", "l1_td"], "kept")]
)
def test_level_is_that_of_the_network_if_a_loss_depends_on_it(losses, level):
    config = {**espnet_config(), "criterions": [{"name": name, "conf": {}} for name in losses]}
    public = parse_espnet_config(config)
    assert translate_td_speakerbeam(public.args)["level"] == level
    assert translate_td_speakerbeam(parse_espnet_config({**config, "criterions": []}).args)["level"] == "fitted"


def recipe(**extractor):
    """The options of the published recipes (egs2/{librimix,wsj0_2mix}/tse1/conf/tuning) that concern the network."""
    conf = {"layer": 8, "stack": 4, "bottleneck_dim": 256, "hidden_dim": 512, "skip_dim": 256, "adapt_enroll_dim": 256}
    conf |= {"kernel": 3, "causal": False, "norm_type": "gLN", "nonlinear": "relu"}
    return {**conf, "i_adapt_layer": 7, "adapt_layer_type": "mul", **extractor}


TRAINING_OPTIONS = {
    "use_wandb": False,
    "optim": "adam",
    "max_epoch": 100,
    "batch_type": "folded",
    "batch_size": 16,
    "iterator_type": "chunk",
    "chunk_length": 48000,
    "chunk_excluded_key_prefixes": ["enroll_ref"],
    "num_workers": 4,
    "optim_conf": {"lr": 0.001, "eps": 1e-8, "weight_decay": 0},
    "unused_parameters": True,
    "patience": 20,
    "accum_grad": 1,
    "grad_clip": 5.0,
    "val_scheduler_criterion": ["valid", "loss"],
    "best_model_criterion": [["valid", "snr", "max"], ["valid", "loss", "min"]],
    "keep_nbest_models": 1,
    "scheduler": "reducelronplateau",
    "scheduler_conf": {"mode": "min", "factor": 0.7, "patience": 3},
    "train_spk2enroll": "data/train-100/spk2enroll.json",
    "enroll_segment": 48000,
    "load_spk_embedding": False,
    "load_all_speakers": True,
    "num_skp": 2,
}


@pytest.mark.parametrize(
    ("rate", "kernel", "extractor"),
    [(16000, 32, {"pre_nonlinear": "prelu", "use_spk_emb": False}), (8000, 16, {"spk_emb_dim": 256})],
    ids=["librimix", "wsj0_2mix"],
)
def test_a_published_recipe_gives_a_network_of_its_size(rate, kernel, extractor):
    """Random weights of all names and sizes that the recipe's network has, without the options of a dumped file."""
    config = espnet_config({"channel": 256, "kernel_size": kernel, "stride": kernel // 2})
    config |= {"extractor_conf": recipe(**extractor), "model_conf": {"num_spk": 2, "share_encoder": True}}
    config = {key: value for key, value in config.items() if key != "fs"} | TRAINING_OPTIONS
    weights = espnet_weights({**config, "extractor_conf": {"pre_nonlinear": "prelu", **config["extractor_conf"]}})
    weights = {name: 0.1 * value if value.dim() > 1 else value for name, value in weights.items()}
    assert parse_espnet_config(config, rate).problems == []
    adapter = load_espnet(config, weights, rate)
    network = adapter.network
    assert sum(value.numel() for value in weights.values()) == sum(p.numel() for p in network.parameters())
    assert network.backbone.kernels == [kernel] and network.backbone.stride == kernel // 2
    assert network.encoder.embedding_dim == 512 and network.sample_rate == rate
    assert adapter(torch.randn(1, 200), torch.randn(1, 200))[0].shape == (1, 200)


def problems_of(config, weights=None):
    with pytest.raises(ConfigError) as caught:
        load_espnet(config, weights or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_type": "LN"}, "norm_type: is 'LN'; 'gLN', 'cLN', 'BN', 'GN' can be translated"),
        ({"nonlinear": "softmax"}, "nonlinear: is 'softmax'"),
        ({"pre_nonlinear": "gelu"}, "pre_nonlinear: is 'gelu'"),
        ({"adapt_layer_type": "attn"}, "adapt_layer_type: is 'attn'"),
        ({"skip_dim": 5}, "skip_dim: is 5; ESPnet runs with null or bottleneck_dim (6)"),
        ({"adapt_enroll_dim": 7}, "adapt_enroll_dim: is 7"),
        ({"i_adapt_layer": 4}, "i_adapt_layer: is 4; there are 4 blocks"),
        ({"i_adapt_layer": -1}, "i_adapt_layer: is -1"),
        ({"causal": True}, "norm_type: 'gLN' averages over time"),
        ({"kernel": 4}, "kernel: is 4"),
        ({"stacks": 2}, "stacks: cannot be translated; did you mean 'stack'"),
        ({"layer": "two"}, "arguments: cannot be translated"),
    ],
)
def test_untranslatable_arguments_are_named(change, message):
    assert message in problems_of(espnet_config(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "stft", "encoder_conf": {"n_fft": 512}}, "encoder: 'stft' (the magnitudes of a Fourier transform"),
        ({"decoder": "codec"}, "decoder: 'codec' cannot be translated; only 'conv' can"),
        ({"decoder_conf": {"channel": 10, "kernel_size": 20, "stride": 8}}, "decoder_conf.kernel_size: is 20"),
        ({"encoder_conf": {"channel": 10, "kernel_size": 16}}, "encoder_conf.stride: is missing"),
        ({"extractor": "septda"}, "no extractor is called 'septda'"),
        ({"model_conf": {"share_encoder": False}}, "share_encoder: false runs in ESPnet only with"),
        ({"model_conf": {"mask_module": "x"}}, "model_conf.mask_module: cannot be translated"),
        ({"load_spk_embedding": True}, "load_spk_embedding: is true, but extractor_conf.use_spk_emb is false"),
        ({"use_lora": True}, "use_lora: true cannot be translated"),
        ({"encoders": "conv"}, "encoders: is no option of ESPnet that is known here; did you mean 'encoder'"),
        ({"separator": "tcn", "extractor": None}, "extractor"),
        ({"extractor_conf": [1]}, "extractor_conf: is [1]; a mapping"),
    ],
)
def test_other_parts_and_unknown_keys_are_named(change, message):
    assert message in problems_of({**espnet_config(), **change})


def test_a_separation_model_is_refused():
    config = {"encoder": "conv", "separator": "tcn", "decoder": "conv", "separator_conf": {"num_spk": 2}}
    assert "'tcn' is a model of ESPnet's separation" in problems_of(config)


def test_all_problems_are_listed_at_once():
    message = problems_of(espnet_config(norm_type="LN", kernel=2, encoder={"channel": 0}))
    assert all(key in message for key in ("norm_type", "kernel: is 2", "encoder_conf.channel", "decoder_conf.channel"))


def test_weights_that_do_not_fit_are_named():
    config = espnet_config()
    weights = espnet_weights(config)
    with pytest.raises(CheckpointError, match=r"without a counterpart here: extractor\.surplus"):
        load_espnet(config, weights | {"extractor.surplus": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"has no tensor 'extractor\.tcn\.network\.1\.weight'"):
        load_espnet(config, {k: v for k, v in weights.items() if k != "extractor.tcn.network.1.weight"})
    with pytest.raises(CheckpointError, match="do not fit the arguments"):
        load_espnet(espnet_config(hidden_dim=9), weights)
