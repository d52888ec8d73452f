"""The published training configurations of WeSep and ESPnet: their keys and values, as differences from a common part.

WeSep: `examples/librimix/tse/v1/confs`, `v2/confs` and `examples/voxceleb1/v2/confs`; ESPnet:
`egs2/librimix/tse1/conf/tuning`.
"""

from __future__ import annotations

import copy
from typing import Any

LIBRIMIX: dict[str, Any] = {
    "dataloader_args": {
        "batch_size": 8,
        "drop_last": True,
        "num_workers": 6,
        "pin_memory": False,
        "prefetch_factor": 6,
    },
    "dataset_args": {
        "resample_rate": 16000,
        "sample_num_per_epoch": 0,
        "shuffle": True,
        "shuffle_args": {"shuffle_size": 2500},
        "chunk_len": 48000,
    },
    "enable_amp": False,
    "exp_dir": "exp/X",
    "gpus": "0,1",
    "log_batch_interval": 100,
    "loss": "SISDR",
    "loss_args": {},
    "model_init": {"tse_model": None, "discriminator": None},
    "num_avg": 2,
    "num_epochs": 150,
    "optimizer": {"tse_model": "Adam"},
    "optimizer_args": {"tse_model": {"lr": 0.001, "weight_decay": 0.0001}},
    "clip_grad": 5.0,
    "save_epoch_interval": 1,
    "scheduler": {"tse_model": "ExponentialDecrease"},
    "scheduler_args": {
        "tse_model": {"final_lr": 2.5e-05, "initial_lr": 0.001, "warm_from_zero": False, "warm_up_epoch": 0}
    },
    "seed": 42,
}
FBANK = {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0}
AUGMENTATION = {
    "noise_lmdb_file": "./data/musan/lmdb",
    "noise_prob": 0,
    "specaug_enroll_prob": 0,
    "reverb_enroll_prob": 0,
    "noise_enroll_prob": 0,
}
JOINT = {
    "joint_training": True,
    "spk_model": "ResNet34",
    "spk_model_init": False,
    "spk_args": {"feat_dim": 80, "embed_dim": 256, "pooling_func": "TSTP", "two_emb_layer": False},
    "spk_emb_dim": 256,
    "spk_model_freeze": False,
    "spk_feat": True,
    "feat_type": "consistent",
    "multi_task": False,
    "spksInTrain": 251,
}
FUSION = {"spk_fuse_type": "multiply", "use_spk_transform": False}
BSRNN = {"sr": 16000, "win": 512, "stride": 128, "feature_dim": 128, "num_repeat": 6, "multi_fuse": False, **FUSION}
DPCCN = {
    "win": 512,
    "stride": 128,
    "feature_dim": 257,
    "tcn_blocks": 10,
    "tcn_layers": 2,
    "causal": False,
    **FUSION,
}
TFGRIDNET = {
    "n_srcs": 1,
    "n_fft": 128,
    "stride": 64,
    "window": "hann",
    "n_imics": 1,
    "n_layers": 6,
    "lstm_hidden_units": 192,
    "attn_n_head": 4,
    "attn_approx_qk_dim": 512,
    "emb_dim": 128,
    "emb_ks": 1,
    "emb_hs": 1,
    "activation": "prelu",
    "eps": 1.0e-5,
    **FUSION,
}
SPEXPLUS = {
    "B": 256,
    "H": 512,
    "L": 20,
    "N": 256,
    "P": 3,
    "R": 4,
    "X": 8,
    "spk_emb_dim": 256,
    "activate": "relu",
    "causal": False,
    "norm": "gLN",
    "skip_con": False,
    "spk_fuse_type": "concatConv",
    "use_spk_transform": False,
    "multi_fuse": True,
    "encoder_type": "Multi",
    "decoder_type": "Multi",
    "joint_training": True,
    "multi_task": True,
    "spksInTrain": 251,
}
ONLINE = {
    "filter_len": True,
    "filter_len_args": {"min_num_seconds": 1.0, "max_num_seconds": 100.0},
    "online_mix": True,
    "online_mix_args": {"num_speaker": 2, "buffer_size": 1000},
    "use_random_snr": True,
    "speaker_feat": True,
    "fbank_args": FBANK,
    "noise_lmdb_file": "./data/musan/lmdb",
    "noise_prob": 0,
    "reverb_prob": 0,
}


def wesep(name: str, args: dict[str, Any], data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a configuration of WeSep: the common part, a network, additions to `dataset_args`, and further keys."""
    config = copy.deepcopy(LIBRIMIX)
    config["model"], config["model_args"] = {"tse_model": name}, {"tse_model": copy.deepcopy(args)}
    config["dataset_args"] |= copy.deepcopy(data or {})
    for key, value in copy.deepcopy(changes).items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key] |= value
        else:
            config[key] = value
    return config


GAN = {
    "use_metric_loss": True,
    "loss": "SISNR",
    "gan_loss_weight": 0.05,
    "model": {"discriminator": "CMGAN_Discriminator"},
    "model_args": {"discriminator": {}},
    "model_init": {"tse_model": "exp/DPCCN/models/final_model.pt"},
    "num_epochs": 50,
    "optimizer": {"discriminator": "Adam"},
    "optimizer_args": {
        "tse_model": {"lr": 0.0001, "weight_decay": 0.0001},
        "discriminator": {"lr": 0.001, "weight_decay": 0.0001},
    },
    "clip_grad": 3.0,
    "scheduler": {"discriminator": "ExponentialDecrease"},
    "scheduler_args": {
        "tse_model": {"final_lr": 2.5e-05, "initial_lr": 0.0001, "warm_from_zero": False, "warm_up_epoch": 0},
        "discriminator": {"final_lr": 2.5e-05, "initial_lr": 0.001, "warm_from_zero": False, "warm_up_epoch": 0},
    },
}
FEATURES = {"speaker_feat": True, "fbank_args": FBANK, **AUGMENTATION}
PRETRAINED = {**JOINT, "spk_model_init": "./wespeaker_models/voxceleb_resnet34/avg_model.pt"}
EMBEDDINGS = {"spk_emb_dim": 256, "joint_training": False}
WESEP: dict[str, dict[str, Any]] = {
    "librimix/v1/bsrnn": wesep("BSRNN", BSRNN | EMBEDDINGS, dataloader_args={"batch_size": 16}),
    "librimix/v1/dpccn": wesep("DPCCN", DPCCN | EMBEDDINGS, clip_grad=3.0, num_avg=5),
    "librimix/v1/dpcc_init_gan": wesep("DPCCN", DPCCN | {"spk_emb_dim": 256}, **GAN),
    "librimix/v1/tfgridnet": wesep("TFGridNet", TFGRIDNET | EMBEDDINGS, {"chunk_len": 16000}, loss="SI_SNR"),
    "librimix/v2/bsrnn": wesep("BSRNN", BSRNN | JOINT, FEATURES),
    "librimix/v2/bsrnn_multi_optim": wesep(
        "BSRNN_Multi",
        BSRNN | JOINT | {"spk_feat": False},
        FEATURES | {"speaker_feat": False},
        loss_args={"loss_posi": [[0, 1]], "loss_weight": [[0.4, 0.6]]},
    ),
    "librimix/v2/dpccn": wesep("DPCCN", DPCCN | JOINT | {"multi_fuse": False}, FEATURES, clip_grad=3.0),
    "librimix/v2/dpcc_init_gan": wesep("DPCCN", DPCCN | {"spk_emb_dim": 256}, AUGMENTATION, **GAN),
    "librimix/v2/spexplus": wesep(
        "ConvTasNet",
        SPEXPLUS,
        AUGMENTATION,
        gpus=["0"],
        loss=["SISDR", "CE"],
        loss_args={"loss_posi": [[0, 1, 2], [3]], "loss_weight": [[0.8, 0.1, 0.1], [0.5]]},
        num_avg=5,
        save_epoch_interval=5,
    ),
    "librimix/v2/tfgridnet": wesep("TFGridNet", TFGRIDNET | JOINT | {"sr": 16000, "multi_fuse": False}, FEATURES),
    "voxceleb1/v2/bsrnn_online": wesep("BSRNN", BSRNN | JOINT, ONLINE, dataloader_args={"batch_size": 4}),
    "voxceleb1/v2/bsrnn_online_PretrainedResNet34": wesep(
        "BSRNN", BSRNN | PRETRAINED | {"spk_model_freeze": True}, ONLINE | {"sample_num_per_epoch": 19200}
    ),
    "voxceleb1/v2/bsrnn_online_PretrainedResNet34JointTrain": wesep(
        "BSRNN", BSRNN | PRETRAINED, ONLINE | {"sample_num_per_epoch": 19200}
    ),
}
BSRNN_FEATS = wesep(
    "BSRNN_Feats",
    BSRNN | JOINT | {"spectral_feat": "tfmap_emb", "spk_fuse_type": "cross_multiply"},
    {"SSA_enroll_prob": 0},
)
"""The one published configuration whose network has no counterpart here."""

ESPNET_COMMON: dict[str, Any] = {
    "optim": "adam",
    "batch_type": "folded",
    "batch_size": 16,
    "iterator_type": "chunk",
    "num_workers": 4,
    "optim_conf": {"lr": 1.0e-3, "eps": 1.0e-8, "weight_decay": 0},
    "unused_parameters": True,
    "patience": 20,
    "accum_grad": 1,
    "grad_clip": 5.0,
    "val_scheduler_criterion": ["valid", "loss"],
    "keep_nbest_models": 1,
    "scheduler": "reducelronplateau",
    "scheduler_conf": {"mode": "min", "factor": 0.7, "patience": 3},
    "model_conf": {"num_spk": 2, "share_encoder": True},
    "load_spk_embedding": False,
    "encoder": "conv",
    "decoder": "conv",
    "extractor": "td_speakerbeam",
    "criterions": [{"name": "snr", "conf": {"eps": 1.0e-7}, "wrapper": "fixed_order", "wrapper_conf": {"weight": 1.0}}],
}
TD_SPEAKERBEAM = {
    "layer": 8,
    "hidden_dim": 512,
    "kernel": 3,
    "causal": False,
    "norm_type": "gLN",
    "nonlinear": "relu",
    "i_adapt_layer": 7,
    "adapt_layer_type": "mul",
}


def espnet(channel: int, kernel: int, extractor: dict[str, Any], **changes: Any) -> dict[str, Any]:
    basis = {"channel": channel, "kernel_size": kernel, "stride": kernel // 2}
    parts = {"encoder_conf": basis, "decoder_conf": basis, "extractor_conf": TD_SPEAKERBEAM | extractor}
    return copy.deepcopy(ESPNET_COMMON | parts | changes)


ESPNET: dict[str, dict[str, Any]] = {
    "librimix/train_enh_tse_td_speakerbeam_16k": espnet(
        256,
        32,
        {
            "stack": 4,
            "bottleneck_dim": 256,
            "skip_dim": 256,
            "pre_nonlinear": "prelu",
            "adapt_enroll_dim": 256,
            "use_spk_emb": False,
        },
        max_epoch=100,
        chunk_length=48000,
        chunk_excluded_key_prefixes=["enroll_ref"],
        best_model_criterion=[["valid", "snr", "max"], ["valid", "loss", "min"]],
        train_spk2enroll="data/train-100/spk2enroll.json",
        enroll_segment=48000,
        load_all_speakers=True,
        num_skp=2,
    ),
    "librimix/train_enh_tse_td_speakerbeam_4gpu_max": espnet(
        256,
        16,
        {"stack": 3, "bottleneck_dim": 128, "skip_dim": 128, "adapt_enroll_dim": 128},
        max_epoch=400,
        chunk_length=24000,
        best_model_criterion=[["valid", "si_snr", "max"], ["valid", "loss", "min"]],
        train_spk2utt="data/train-100/spk2enroll.json",
        enroll_segment=24000,
        load_all_speakers=False,
    ),
}
