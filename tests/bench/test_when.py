"""bench/when.py: figures of a model whose answer is known, on a simulated corpus."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.recipes.miniature import RECIPES
from tests.recipes.miniature_default import make_data
from wesep_py import checkpoint
from wesep_py.network.personal_vad import PersonalVAD


@pytest.mark.parametrize("bias", [9.0, -9.0])
def test_a_model_that_always_says_the_same_has_known_scores(wesep, tmp_path: Path, bias: float):
    make_data(tmp_path / "DATA")
    simulated = wesep(
        "simulate", RECIPES / "default/conversations.yaml", f"root={tmp_path}/DATA", "simulation.duration_s=4",
        "simulation.num_speakers=2", "-o", tmp_path / "corpus", "--count", 2,
    )  # fmt: skip
    assert simulated.status == 0, simulated.err
    network = PersonalVAD({"hidden": 8, "num_heads": 2})
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([0.0, bias, 0.0]))
    checkpoint.save(tmp_path / "vad", network.config, network.state_dict(), {"step": 1})
    command = [
        sys.executable,
        RECIPES.parent / "bench/when.py",
        "--corpus",
        tmp_path / "corpus",
        "--model",
        tmp_path / "vad",
    ]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    share = result["share_of_speech"]
    assert result["trials"] == 6 and 0.1 < share < 0.9
    assert result["frame_error"] == pytest.approx(1 - share if bias > 0 else share, abs=2e-3)
    assert result["f1"] == pytest.approx(2 * share / (1 + share) if bias > 0 else 0, abs=2e-3)
