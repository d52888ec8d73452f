"""`wesep simulate` and `wesep render` of recipes: reproducible mixtures, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.data import Utterance, read_speaker_folders, read_trials, write_manifest

YAML = """
speech: [speech.jsonl]
noise: [noise.wav]
root: {root}
simulation:
  duration_s: 1.5
  num_speakers: {{2: 1, 3: 1}}
  noise: {{probability: 1}}
  enrollment: {{duration_s: [1, 2]}}
"""


@pytest.fixture
def data(tiny_speech: Path, tmp_path: Path) -> Path:
    """A folder of data with a manifest, noise and the YAML beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    utterances = read_speaker_folders(tiny_speech)
    moved = []
    for utterance in utterances:
        path = folder / utterance.path.name
        path.write_bytes(utterance.path.read_bytes())
        moved.append(Utterance(utterance.utterance_id, utterance.speaker_id, path, utterance.duration_s))
    write_manifest(moved, folder / "speech.jsonl", relative_to=folder)
    soundfile.write(folder / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    (tmp_path / "mix.yaml").write_text(YAML.format(root=folder))
    return folder


def _samples(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.rglob("*.wav"))
    return {str(file.relative_to(folder)): soundfile.read(file, dtype="float32")[0] for file in files}


def test_rendering_recipes_later_gives_the_same_samples(wesep, data: Path, tmp_path: Path) -> None:
    config = tmp_path / "mix.yaml"
    ran = wesep("simulate", config, "-o", tmp_path / "now", "--count", 4, "--jobs", 1)
    assert (ran.status, ran.out) == (0, f"{tmp_path / 'now'}: 4 mixtures, 0.00 h\n")
    ran = wesep("simulate", config, "-o", tmp_path / "described", "--count", 4, "--jobs", 1, "--describe-only")
    assert ran.status == 0 and "4 recipes" in ran.out
    assert [file.name for file in (tmp_path / "described").iterdir()] == ["recipes.jsonl"]
    recipes = tmp_path / "described" / "recipes.jsonl"
    assert str(data) not in recipes.read_text()
    ran = wesep("render", recipes, "--root", data, "-o", tmp_path / "later", "--jobs", 1)
    assert ran.status == 0 and "4 mixtures" in ran.out
    now, later = _samples(tmp_path / "now"), _samples(tmp_path / "later")
    assert now.keys() == later.keys() and len(now) >= 4 * 7
    assert all(np.array_equal(now[name], later[name]) for name in now)
    for name in ("mixture_mix_both.csv", "mixture_mix_clean.csv", "map_mixture2enrollment", "recipes.jsonl"):
        assert (tmp_path / "now" / name).read_text() == (tmp_path / "later" / name).read_text()


def test_the_output_can_be_read_as_trials(wesep, data: Path, tmp_path: Path) -> None:
    assert wesep("simulate", tmp_path / "mix.yaml", "-o", tmp_path / "out", "--count", 3, "--jobs", 1).status == 0
    trials = read_trials(tmp_path / "out" / "mixture_mix_both.csv", tmp_path / "out" / "map_mixture2enrollment")
    assert len({trial.mixture_id for trial in trials}) == 3
    assert 6 <= len(trials) <= 9


def test_a_larger_count_adds_mixtures(wesep, data: Path, tmp_path: Path) -> None:
    for count in (2, 3):
        arguments = ("-o", tmp_path / "out", "--count", count, "--jobs", 1)
        assert wesep("simulate", tmp_path / "mix.yaml", *arguments).status == 0
    assert len((tmp_path / "out" / "recipes.jsonl").read_text().splitlines()) == 3
    assert len(list((tmp_path / "out" / "mix_both").iterdir())) == 3
    ran = wesep("simulate", tmp_path / "mix.yaml", "seed=1", "-o", tmp_path / "out", "--count", 3, "--jobs", 1)
    assert ran.status == 2 and "--overwrite" in ran.message
    ran = wesep(
        "simulate", tmp_path / "mix.yaml", "seed=1", "-o", tmp_path / "out", "--count", 3, "--jobs", 1, "--overwrite"
    )
    assert ran.status == 0


def test_overrides_take_effect(wesep, data: Path, tmp_path: Path) -> None:
    arguments = ("simulation.duration_s=1.25", "simulation.num_speakers=1", "sample_rate=8000")
    assert wesep("simulate", tmp_path / "mix.yaml", *arguments, "-o", tmp_path / "out", "--count", 1).status == 0
    (file,) = (tmp_path / "out" / "s1").iterdir()
    assert (soundfile.info(file).frames, soundfile.info(file).samplerate) == (10000, 8000)


def test_mixtures_with_unreadable_recordings_are_named(wesep, data: Path, tmp_path: Path) -> None:
    config = tmp_path / "mix.yaml"
    wesep("simulate", config, "-o", tmp_path / "described", "--count", 8, "--describe-only", "--jobs", 1)
    recipes = tmp_path / "described" / "recipes.jsonl"
    (data / "anna-0.wav").write_text("not audio")
    hit = [line for line in recipes.read_text().splitlines() if "anna-0.wav" in line]
    assert 0 < len(hit) < 8
    ran = wesep("render", recipes, "--root", data, "-o", tmp_path / "out", "--jobs", 1)
    assert ran.status == 1
    lines = ran.err.strip().splitlines()
    assert len(lines) == len(hit) + 1
    assert all("anna-0.wav" in line for line in lines[:-1])
    assert f"{len(hit)} of 8 mixtures could not be made" in lines[-1]
    assert f"{8 - len(hit)} mixtures" in ran.out


def test_an_interrupted_run_is_completed_by_the_same_command(
    wesep, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wesep_py.simulation import simulated_corpus

    arguments = ("simulate", tmp_path / "mix.yaml", "-o", tmp_path / "out", "--count", 4, "--jobs", 1)
    written = []

    def stop_at_the_third(*arguments: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments)
        original(*arguments)

    original = simulated_corpus.write_sample
    monkeypatch.setattr(simulated_corpus, "write_sample", stop_at_the_third)
    ran = wesep(*arguments)
    assert ran.status == 130 and "the same command again completes" in ran.message
    assert len(list((tmp_path / "out" / "s1").iterdir())) == 2
    monkeypatch.undo()
    assert wesep(*arguments).status == 0
    assert len(list((tmp_path / "out" / "s1").iterdir())) == 4
    assert len((tmp_path / "out" / "mixture_mix_both.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("simulation.sir=3", "simulation.sir: unknown key; did you mean 'sir_db'"),
        ("simulation.duration_s=-1", "duration_s: is -1.0"),
        ("simulation.num_speakers=two", "num_speakers"),
        ("speech=[none.jsonl]", "none.jsonl"),
        ("noise=[]", "no noise recordings"),
        ("simulation.num_speakers=4 simulation.noise.kinds.babble=1", "5 are needed"),
    ],
)
def test_a_wrong_configuration_is_a_one_line_error(
    wesep, data: Path, tmp_path: Path, override: str, message: str
) -> None:
    ran = wesep("simulate", tmp_path / "mix.yaml", *override.split(), "-o", tmp_path / "out", "--count", 1)
    assert ran.status == 2
    assert message in ran.message
    assert not (tmp_path / "out").exists()


def test_wrong_paths_are_one_line_errors(wesep, data: Path, tmp_path: Path) -> None:
    assert "no such file" in wesep("render", tmp_path / "none.jsonl", "-o", tmp_path / "out").message
    wesep("simulate", tmp_path / "mix.yaml", "-o", tmp_path / "d", "--count", 1, "--describe-only", "--jobs", 1)
    ran = wesep("render", tmp_path / "d" / "recipes.jsonl", "-o", tmp_path / "out")
    assert ran.status == 2 and "--root" in ran.message
    ran = wesep("simulate", tmp_path / "mix.yaml", "-o", tmp_path / "no" / "out", "--count", 1, "--jobs", 1)
    assert ran.status == 2 and "does not exist" in ran.message
    ran = wesep("simulate", tmp_path / "none.yaml", "-o", tmp_path / "out")
    assert ran.status == 2 and "none.yaml" in ran.message
