"""The scripts of simulation/ on miniatures of LibriSpeech, WSJ0 and WHAM! in their real layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.recipes.miniature_voxceleb import SAMPLE_RATE, make_voice
from tests.simulation_configs.conftest import make_noises
from tests.simulation_configs.scripts import FOLDER, run_script
from wesep_py.data import read_trials


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five speakers a set, two utterances of 2 to 4 s each."""
    root = tmp_path_factory.mktemp("data")
    for place, subset in enumerate(("train-clean-100", "dev-clean", "test-clean")):
        for number in range(10 * place, 10 * place + 5):
            for chapter in (1, 2):
                name = f"{100 + number}-{chapter}-0000"
                _speak(root / "LibriSpeech" / subset / f"{100 + number}/{chapter}/{name}.flac", number, chapter)
    for place, subset in enumerate(("si_tr_s", "si_dt_05", "si_et_05")):
        for number in range(10 * place, 10 * place + 3):
            for take in (1, 2):
                _speak(root / "wsj0" / subset / f"{number:03d}/{number:03d}a010{take}.wav", number, take)
    for split in ("tr", "cv", "tt"):
        make_noises(root / "wham_noise" / split)
    return root


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("make_*.sh")))
def test_scripts_name_missing_options(script: str, tmp_path: Path):
    ran = run_script("bash", FOLDER / script)
    assert ran.returncode == 2 and "--data and -o are needed" in ran.stderr
    ran = run_script("bash", FOLDER / script, "--dat", tmp_path)
    assert ran.returncode == 2 and "--dat is not an option" in ran.stderr


def test_librimix_like(data: Path, tmp_path: Path):
    ran = _run("make_librimix_like.sh", data, tmp_path)
    assert ran.returncode == 0, ran.stderr
    for corpus, most in (("Libri2Mix", 2), ("Libri3Mix", 3), ("LibriNMix", 4), ("Libri2MixR", 2)):
        for split in ("train", "dev", "test"):
            folder = tmp_path / corpus / split
            trials = read_trials(folder / "mixture_mix_both.csv", folder / "map_mixture2enrollment")
            assert 1 <= len(trials) <= most and (corpus == "LibriNMix" or len(trials) == most)
            assert (folder / "s1_early").is_dir() == (corpus == "Libri2MixR")
    speakers = {split: _speakers(tmp_path / "Libri2Mix" / split) for split in ("train", "test")}
    assert not speakers["train"] & speakers["test"]


def test_whamr_like_in_its_four_versions(data: Path, tmp_path: Path):
    ran = _run("make_whamr_like.sh", data, tmp_path)
    assert ran.returncode == 0, ran.stderr
    for rate in (8, 16):
        for mode in ("min", "max"):
            for split in ("tr", "cv", "tt"):
                folder = tmp_path / f"wav{rate}k" / mode / split
                (file,) = sorted((folder / "mix_both").iterdir())
                assert soundfile.info(file).samplerate == 1000 * rate
                assert (folder / "s1_direct" / file.name).is_file() and not (folder / "s3").exists()


def test_conversation_script_and_user_keys(data: Path, tmp_path: Path):
    ran = _run(
        "make_conversation_like.sh", data, tmp_path, "simulation.duration_s=9", "simulation.noise.kinds.babble=0"
    )
    assert ran.returncode == 0, ran.stderr
    for split in ("train", "dev", "test"):
        (file,) = sorted((tmp_path / split / "mix_clean").iterdir())
        assert soundfile.info(file).duration == 9
        assert (tmp_path / split / "activity" / f"{file.stem}.rttm").is_file()


def _run(script: str, data: Path, out: Path, *keys: str):
    # One mixture each, with rooms that take little time.
    return run_script("bash", FOLDER / script, "--data", data, "-o", out, "--count", 1, "--jobs", 1, *keys)


def _speakers(folder: Path) -> set[str]:
    trials = read_trials(folder / "mixture_mix_both.csv", folder / "map_mixture2enrollment")
    return {trial.target_utterance_id.split("-")[0] for trial in trials}


def _speak(path: Path, number: int, take: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, make_voice(number, 2.0 + take, take), SAMPLE_RATE, subtype="PCM_16")
