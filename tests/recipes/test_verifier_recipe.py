"""recipes/default/verifier.sh: its stages give a calibrated verifier; mistakes are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import build_encoder

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "default" / "verifier.sh"
ENCODER = {
    "network": {"name": "dvector", "hidden_dim": 8, "frame_dim": 8, "embedding_dim": 6, "pooling": "last"},
    "windows": {"num_frames": 40, "hop_frames": 20},
}


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """Environment in which `wesep` is that of this checkout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "wesep").write_text(f'#!/bin/sh\nexec {sys.executable} -m wesep_py.cli.main "$@"\n')
    (folder / "wesep").chmod(0o755)
    home = str(tmp_path / "home")
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "WESEP_HOME": home,
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def write_lists(folder: Path, speech: Path) -> None:
    """Write two lists of two mixtures each, with present and with absent targets."""
    trials = folder / "trials"
    trials.mkdir(parents=True)
    (folder / "speech").symlink_to(speech)
    header = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain"
    for name in ("dev_2mix", "dev_ls_2mix"):
        rows, present, absent = [header], [], []
        for i, (first, second) in enumerate((("anna", "bert"), ("carl", "dora"))):
            a, b = f"speech/{first}/{first}-0.wav", f"speech/{second}/{second}-0.wav"
            rows.append(f"m{i},{a},1.0,{b},1.0,{a},0.01")
            present.append(f"m{i} {first}-0 speech/{first}/{first}-1.wav")
            others = ("carl", "dora") if first == "anna" else ("anna", "bert")
            absent += [f"m{i} - speech/{other}/{other}-1.wav" for other in others]
        (trials / f"{name}.csv").write_text("\n".join(rows) + "\n")
        (trials / f"{name}.map_mixture2enrollment").write_text("\n".join(present) + "\n")
        (trials / f"{name}_absent.map_mixture2enrollment").write_text("\n".join(absent) + "\n")


@pytest.mark.slow
def test_recipe_fits_the_verifier_of_a_model(commands, tiny_speech: Path, tmp_path: Path):
    write_lists(tmp_path / "data", tiny_speech)
    torch.manual_seed(0)
    encoder = build_encoder(ENCODER, 16000)
    assert encoder is not None
    checkpoint.save(tmp_path / "home" / "models" / "tiny", ENCODER, encoder.state_dict())
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "presence": {}})
    model = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    arguments = ("--data", tmp_path / "data", "--model", model, "--encoder", "tiny", "--exp", tmp_path / "exp")
    ran = run(commands, *arguments)
    assert ran.returncode == 0, ran.stderr
    fitted = json.loads((model / "provenance.json").read_text())["presence_verifiers"]["tiny"]
    assert len(fitted["fitted_on"]) == len(fitted["checked_on"]) == 4
    lists = {
        f"{name}/{condition}" for name in ("dev_ls_2mix", "dev_ls_2mix_absent") for condition in ("clean", "noisy")
    }
    assert set(fitted["checked_on"]) == lists  # no folder of this machine
    assert "dev_ls_2mix/noisy" in ran.stdout


def test_mistakes_are_one_line(commands, tmp_path: Path):
    ran = run(commands, "--data", tmp_path)
    assert ran.returncode == 1 and ran.stderr.strip().startswith("verifier.sh: --model is missing")
    ran = run(commands, "--data", tmp_path, "--model", "base")
    assert ran.returncode == 1 and "dev_2mix_absent.map_mixture2enrollment is missing" in ran.stderr
    assert "--check-on LIST" in run(commands, "--help").stdout
