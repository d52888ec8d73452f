"""Noise corpora in their real layouts: read from folders and, bit-exact, from the LMDB files of noise_lmdb.yaml."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.recipes.miniature_voxceleb import make_musan
from tests.simulation_configs.scripts import FOLDER, run_script
from wesep_py.data import find_noises
from wesep_py.data.recordings import open_reader, resolve_location
from wesep_py.simulation.description.simulation_config import NoiseConfig, NoiseGroup

RATE = 16000
SNR = {"musan/noise": (0, 15), "musan/speech": (13, 20), "musan/music": (5, 15)}


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MUSAN, WHAM! (two channels, with its tables), DEMAND (a folder of 16 files an environment), DNS (48 kHz)."""
    root = tmp_path_factory.mktemp("noises")
    make_musan(root / "musan")
    (root / "musan/README").write_text("MUSAN")
    for number, split in enumerate(("tr", "cv", "tt")):
        _noise(root / "wham_noise" / split / f"01{number}a010{number}_0.5_02ca0105_-0.5.wav", number, channels=2)
        (root / "wham_noise/metadata").mkdir(exist_ok=True)
        (root / f"wham_noise/metadata/noise_meta_{split}.csv").write_text("utterance_id\n")
    for number, environment in enumerate(("DKITCHEN", "TBUS")):
        for channel in range(1, 17):
            _noise(root / "demand" / environment / f"ch{channel:02d}.wav", 100 * number + channel)
    _noise(root / "noise_fullband" / "_-2jLdPN4sY.wav", 50, rate=48000)
    _noise(root / "noise_fullband" / "door_Freesound_validated_9_0.wav", 51, rate=48000)
    return root


def test_noise_layouts_are_found_with_their_folders(noises: Path):
    found = {name: [n.utterance_id for n in find_noises([name], noises)] for name in _names(noises)}
    assert found["musan"] == [
        "noise/musan/music/fma/music-fma-0000",
        "noise/musan/noise/free-sound/noise-free-sound-0000",
        "noise/musan/speech/librivox/speech-librivox-0000",
    ]
    assert found["wham_noise"] == [
        "noise/wham_noise/cv/011a0101_0.5_02ca0105_-0.5",
        "noise/wham_noise/tr/010a0100_0.5_02ca0105_-0.5",
        "noise/wham_noise/tt/012a0102_0.5_02ca0105_-0.5",
    ]
    assert len(found["demand"]) == 32 and found["demand"][0] == "noise/demand/DKITCHEN/ch01"
    assert found["noise_fullband"] == [
        "noise/noise_fullband/_-2jLdPN4sY",
        "noise/noise_fullband/door_Freesound_validated_9_0",
    ]


def test_groups_select_musan_parts_and_demand_environments(noises: Path):
    groups = [NoiseGroup(folder, snr_db=snr_db) for folder, snr_db in SNR.items()]
    config = NoiseConfig(groups=(*groups, NoiseGroup("DKITCHEN")))
    numbers = [config.group_of(n.path) for n in find_noises(["musan", "demand"], noises)]
    assert numbers == [2, 0, 1] + [3] * 16 + [None] * 16


def test_script_packs_existing_noise_without_changes(noises: Path, tmp_path: Path):
    ran = _pack(noises, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in tmp_path.glob("*.lmdb")) == [
        "demand.lmdb", "dns.lmdb", "musan.lmdb", "wham_cv.lmdb", "wham_tr.lmdb", "wham_tt.lmdb",
    ]  # fmt: skip
    pairs = {"musan": "musan", "wham_tr": "wham_noise/tr", "demand": "demand", "dns": "noise_fullband"}
    for store, folder in pairs.items():
        place = str(tmp_path / f"{store}.lmdb")
        packed, files = find_noises([place], noises), find_noises([folder], noises)
        assert [n.utterance_id for n in packed] == [n.utterance_id for n in files]
        assert [n.path for n in packed] == [n.path for n in files]  # so groups are the same
        readers = open_reader([resolve_location(place, noises)], RATE), open_reader([], RATE)
        for one, other in list(zip(packed, files, strict=True))[:3]:
            np.testing.assert_array_equal(readers[0].read(one), readers[1].read(other))
    again = _pack(noises, tmp_path)
    assert again.returncode == 0 and again.stdout.count("is there, passed over") == 6


def test_first_channel_is_used(noises: Path, tmp_path: Path):
    assert _pack(noises, tmp_path, "stores={wham.lmdb: wham_noise/tr, gone.lmdb: gone}").returncode == 0
    (noise,) = find_noises([str(tmp_path / "wham.lmdb")], noises)
    stereo, _ = soundfile.read(noise.path, dtype="float32")
    kept = open_reader([str(tmp_path / "wham.lmdb")], RATE).read(noise)
    assert stereo.shape[1] == 2 and not np.array_equal(stereo[:, 0], stereo[:, 1])
    np.testing.assert_allclose(kept, stereo[:, 0], atol=1e-4)


def test_root_without_noise_is_an_error(tmp_path: Path):
    ran = _pack(tmp_path, tmp_path / "out")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1 and "none of its noise folders is there" in ran.stderr


def _pack(root: Path, output: Path, *overrides: str):
    script, config = FOLDER / "make_noise_lmdb.py", FOLDER / "noise_lmdb.yaml"
    return run_script(sys.executable, script, config, f"root={root}", *overrides, "-o", output, "--jobs", 1)


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def _noise(path: Path, seed: int, rate: int = RATE, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hiss = 0.05 * np.random.default_rng(seed).standard_normal((rate // 4, channels))
    soundfile.write(path, hiss, rate, subtype="PCM_16")
