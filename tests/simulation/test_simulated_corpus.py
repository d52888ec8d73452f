"""Trees of rendered mixtures: independent of the number of processes, completed after a stop, read as trials."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.data import FileReader, Utterance, read_librimix_metadata, read_mixtures, read_trials
from wesep_py.data.mixture_lists import speakers_of
from wesep_py.simulation import (
    EnrollmentConfig,
    NoiseConfig,
    Recipe,
    SimulationConfig,
    Simulator,
    read_recipes,
    render,
    render_trial,
)
from wesep_py.simulation.simulated_corpus import change_paths, draw_recipes, render_tree

CONFIG = SimulationConfig(
    duration_s=1.2,
    num_speakers={1: 1, 2: 1, 3: 1},
    noise=NoiseConfig(probability=0.7),
    enrollment=EnrollmentConfig(duration_s=(1.0, 2.0)),
)


@pytest.fixture(scope="module")
def simulator(utterances: list[Utterance], noises: list[Utterance], reader: FileReader) -> Simulator:
    return Simulator(CONFIG, utterances, noises, reader, seed=2)


@pytest.fixture(scope="module")
def recipes(simulator: Simulator) -> list[Recipe]:
    return draw_recipes(simulator, 12)[0]


@pytest.fixture(scope="module")
def tree(recipes: list[Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trees") / "tree"
    assert render_tree(recipes, folder) == []
    return folder


def _samples(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.rglob("*.wav"))
    return {str(file.relative_to(folder)): soundfile.read(file, dtype="float32")[0] for file in files}


def _texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_tree_does_not_depend_on_number_of_processes(
    simulator: Simulator, recipes: list[Recipe], tree: Path, tmp_path: Path
) -> None:
    assert draw_recipes(simulator, 12, jobs=2) == (recipes, [])
    assert render_tree(recipes, tmp_path / "tree", jobs=2) == []
    ours, theirs = _samples(tmp_path / "tree"), _samples(tree)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert _texts(tmp_path / "tree") == _texts(tree)


def test_tree_is_read_back_as_trials(recipes: list[Recipe], tree: Path, reader: FileReader) -> None:
    for condition, name in (("clean", "mixture_mix_clean.csv"), ("noisy", "mixture_mix_both.csv")):
        trials = read_trials(tree / name, tree / "map_mixture2enrollment")
        assert len(trials) == sum(len(recipe.sources) for recipe in recipes)
        wanted = [(recipe, k) for recipe in recipes for k in range(len(recipe.sources))]
        for trial, (recipe, k) in zip(trials, wanted, strict=True):
            sample = render(recipe, reader)
            audio = render_trial(trial, condition)  # type: ignore[arg-type]
            mixture = sample.mixture if condition == "noisy" else sample.images.sum(axis=0)
            assert np.array_equal(audio.mixture, mixture)
            assert audio.reference is not None
            assert np.array_equal(audio.reference, sample.images[k])
            assert np.array_equal(audio.enrollment, sample.enrollments[k])
            assert trial.target is not None and trial.target.speaker_id == recipe.sources[k].speaker_id
            assert trial.target_utterance_id == recipe.sources[k].excerpt.utterance.utterance_id


def test_tree_folder_is_read_as_librimix_tree(recipes: list[Recipe], tree: Path) -> None:
    mixtures = read_mixtures(tree)
    assert [len(mixtures[recipe.mixture_id].sources) for recipe in recipes] == [len(r.sources) for r in recipes]
    assert set(mixtures[recipes[0].mixture_id].rendered) == {"clean", "noisy"}


def test_targets_are_written_beside_the_images(utterances: list[Utterance], reader: FileReader, tmp_path: Path) -> None:
    from wesep_py.simulation import RoomConfig

    config = SimulationConfig(duration_s=1.2, room=RoomConfig(), target="early", enrollment=CONFIG.enrollment)
    recipes, _ = draw_recipes(Simulator(config, utterances, [], reader), 2)
    render_tree(recipes, tmp_path / "tree")
    for recipe in recipes:
        sample = render(recipe, reader)
        for k in range(2):
            target = soundfile.read(tmp_path / f"tree/s{k + 1}_early/{recipe.mixture_id}.wav", dtype="float32")[0]
            assert np.array_equal(target, sample.targets[k])
            assert not np.array_equal(target, sample.images[k])
    assert not (tmp_path / "tree" / "mix_both").exists()


def test_interrupted_tree_is_completed(recipes: list[Recipe], tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    render_tree(recipes[:8], folder)
    kept = folder / f"s1/{recipes[0].mixture_id}.wav"
    lost = folder / f"mix_clean/{recipes[3].mixture_id}.wav"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    render_tree(recipes, folder)
    assert kept.stat().st_mtime_ns == before
    assert _samples(folder).keys() == _samples(tree).keys()
    assert _texts(folder) == _texts(tree)


def test_tree_of_other_mixtures_is_not_overwritten(recipes: list[Recipe], simulator: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    render_tree(recipes[:2], folder)
    others = [simulator.draw(1, index) for index in range(2)]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        render_tree(others, folder)
    assert list(read_recipes(folder / "recipes.jsonl")) == recipes[:2]
    render_tree(others, folder, overwrite=True)
    assert list(read_recipes(folder / "recipes.jsonl")) == others
    assert set(read_mixtures(folder)) == {recipe.mixture_id for recipe in others}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(OutputExistsError):
        render_tree(recipes, tmp_path / "mine")
    with pytest.raises(InputError, match="does not exist"):
        render_tree(recipes, tmp_path / "none" / "tree")


@pytest.mark.parametrize("jobs", [1, 2])
def test_unreadable_recording_does_not_stop_other_mixtures(recipes: list[Recipe], tmp_path: Path, jobs: int) -> None:
    broken = recipes[5].sources[0].excerpt.utterance.path
    damaged = [
        change_paths(recipe, lambda path: tmp_path / "gone.wav" if path == broken else path) for recipe in recipes
    ]
    failures = render_tree(damaged, tmp_path / "tree", jobs=jobs)
    hit = [recipe.mixture_id for recipe in damaged if "gone.wav" in str(recipe.to_dict())]
    assert [failure.mixture for failure in failures] == hit
    assert all("gone.wav" in failure.reason for failure in failures)
    listed = read_mixtures(tmp_path / "tree" / "mixture_mix_both.csv")
    assert set(listed) == {recipe.mixture_id for recipe in recipes} - set(hit)
    assert 0 < len(hit) < len(recipes)


def test_incompatible_recipes_are_refused(recipes: list[Recipe], tmp_path: Path) -> None:
    import dataclasses

    with pytest.raises(InputError, match="no recipe"):
        render_tree([], tmp_path / "tree")
    with pytest.raises(InputError, match="same seed, epoch and index"):
        render_tree([recipes[0], recipes[0]], tmp_path / "tree")
    with pytest.raises(InputError, match="8000 and 16000 Hz"):
        render_tree([recipes[0], dataclasses.replace(recipes[1], sample_rate=8000)], tmp_path / "tree")
    with pytest.raises(InputError, match="--root"):
        render_tree([change_paths(recipes[0], lambda path: Path("elsewhere") / path.name)], tmp_path / "tree")
    with pytest.raises(InputError, match="jobs: is 0"):
        render_tree(recipes, tmp_path / "tree", jobs=0)
    assert not (tmp_path / "tree").exists()


def test_tree_lists_utterances_and_speakers(recipes: list[Recipe], tree: Path, tmp_path: Path) -> None:
    expected = {r.mixture_id: tuple(source.speaker_id for source in r.sources) for r in recipes}
    bare = shutil.copytree(tree, tmp_path / "bare", ignore=shutil.ignore_patterns("*.csv"))
    for folder in (tree, bare):  # by its lists, and by its recipes alone
        assert {name: speakers_of(mixture) for name, mixture in read_mixtures(folder).items()} == expected
        utterances = read_librimix_metadata(folder)
        assert {u.utterance_id: u.speaker_id for u in utterances} == {
            f"{name}-s{k}": speaker_id
            for name, speaker_ids in expected.items()
            for k, speaker_id in enumerate(speaker_ids, start=1)
        }
        trials = read_trials(folder, tree / "map_mixture2enrollment", root=tree)
        told = [source.excerpt.utterance for recipe in recipes for source in recipe.sources]
        assert [trial.target_utterance_id for trial in trials] == [utterance.utterance_id for utterance in told]
        assert [trial.target.speaker_id for trial in trials if trial.target] == [u.speaker_id for u in told]
    (bare / "recipes.jsonl").unlink()
    with pytest.raises(InputError, match="does not say who speaks"):
        read_librimix_metadata(bare)


def test_enrollments_of_tree_are_of_the_same_speaker(recipes: list[Recipe], tree: Path, reader: FileReader) -> None:
    from wesep_py.data.mixture_corpus import read_mixture_corpus
    from wesep_py.simulation.listed_mixtures import ListedMixtures

    config = SimulationConfig(duration_s=None, enrollment=CONFIG.enrollment)
    simulator = ListedMixtures(config, read_mixture_corpus([tree]), [], reader)
    assert simulator.mixtures
    told = {f"{r.mixture_id}-s{k}": s.speaker_id for r in recipes for k, s in enumerate(r.sources, start=1)}
    for index in range(len(simulator.mixtures)):
        for source in simulator.draw(0, index).sources:
            of = {told[stretch.utterance.utterance_id] for stretch in source.enrollments}
            assert of == {told[source.excerpt.utterance.utterance_id]}


def test_temporary_files_of_killed_run_are_removed(recipes: list[Recipe], tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    render_tree(recipes[:2], folder)
    expected = sorted(folder.rglob("*"))
    name = recipes[0].mixture_id
    for left in (f"s1/.{name}.abcdefgh.wav", f"activity/.{name}.abcdefgh.rttm", ".recipes.abcdefgh.jsonl"):
        (folder / left).write_bytes(b"half")
    (folder / f"enrollment/.{name}_s1.abcdefgh.wav").write_bytes(b"half")
    (folder / "s1/.mine.abcdefgh.wav").write_bytes(b"mine")
    assert set(read_mixtures(folder)) == {recipe.mixture_id for recipe in recipes[:2]}
    render_tree(recipes[:2], folder)
    assert sorted(folder.rglob("*")) == sorted([*expected, folder / "s1/.mine.abcdefgh.wav"])


def test_overwrite_replaces_trees_only(recipes: list[Recipe], tmp_path: Path) -> None:
    (tmp_path / "mine/s1").mkdir(parents=True)
    (tmp_path / "mine/s1/song.wav").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds 's1' and no recipes\.jsonl, so it is no tree"):
        render_tree(recipes[:1], tmp_path / "mine", overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["s1"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.DS_Store").touch()
    assert render_tree(recipes[:1], tmp_path / "new") == []
    (tmp_path / "new/empty").mkdir()
    render_tree(recipes[1:2], tmp_path / "new", overwrite=True)
    assert (tmp_path / "new/empty").is_dir()


def test_recipes_of_moved_recordings_render_with_root(recipes: list[Recipe], tmp_path: Path) -> None:
    root = recipes[0].sources[0].excerpt.utterance.path.parents[2]
    moved = [change_paths(recipes[0], lambda path: Path("/old/place") / path.relative_to(root))]
    assert render_tree(moved, tmp_path / "tree", root=root) == []
    with pytest.raises(InputError, match="--root"):
        render_tree(moved, tmp_path / "other")
