"""Ray gives the same results; where it is not installed, one line says so."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from wesep_py.audio import read
from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.processes import check_executor, map_processes
from wesep_py.data import FileReader, read_speaker_folders, write_shards
from wesep_py.simulation import EnrollmentConfig, SimulationConfig, Simulator
from wesep_py.simulation.simulated_corpus import draw_recipes, render_tree


def divide(item: int) -> float:
    if item == 0:
        raise AudioError("the third is bad")
    return 12 / item


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory):
    """Start Ray with two processes for all tests of this file."""
    module = pytest.importorskip("ray")
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield module
    module.shutdown()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch):
    """Make `import ray` fail."""
    load = builtins.__import__

    def refuse(name: str, *arguments: object, **named: object) -> object:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'")
        return load(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


def content(file: Path) -> bytes:
    """Return the bytes of a file, or the samples of a WAV, whose header holds the time of writing."""
    return read(file)[0].tobytes() if file.suffix == ".wav" else file.read_bytes()


def test_every_item_is_computed_once(ray):
    assert sorted(map_processes(divide, [1, 2, 3, 4, 6], 2, "ray")) == [(0, 12), (1, 6), (2, 4), (3, 3), (4, 2)]


def test_errors_are_raised_unchanged(ray):
    with pytest.raises(AudioError) as caught:
        list(map_processes(divide, [1, 2, 0, 3], 2, "ray"))
    assert str(caught.value) == "the third is bad"


def test_mixtures_and_shards_are_the_same_through_ray(ray, tiny_speech: Path, tmp_path: Path):
    utterances = read_speaker_folders(tiny_speech)
    config = SimulationConfig(duration_s=1.0, min_source_s=0.5, enrollment=EnrollmentConfig(duration_s=(0.5, 1.0)))
    simulator = Simulator(config, utterances, [], FileReader(16000))
    local, _ = draw_recipes(simulator, 10)
    through_ray, failures = draw_recipes(simulator, 10, 2, executor="ray")
    assert through_ray == local and not failures
    for executor in ("local", "ray"):
        assert not render_tree(local, tmp_path / executor, jobs=1 if executor == "local" else 2, executor=executor)
        write_shards(utterances, tmp_path / f"{executor}_shards", size_mib=0.3, executor=executor)
    for suffix in ("", "_shards"):
        left, right = (
            {file.relative_to(folder): content(file) for file in folder.rglob("*") if file.is_file()}
            for folder in (tmp_path / f"local{suffix}", tmp_path / f"ray{suffix}")
        )
        assert len(left) > 4 and left == right


def test_without_ray_one_line_says_what_to_install(no_ray, tiny_speech: Path, tmp_path: Path):
    for attempt in (
        lambda: check_executor("ray"),
        lambda: list(map_processes(divide, [1], 1, "ray")),
        lambda: write_shards(read_speaker_folders(tiny_speech), tmp_path / "shards", executor="ray"),
    ):
        with pytest.raises(InputError, match=r"^--executor ray: Ray is not installed .*wesep-py\[ray\]") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "shards").exists()
    assert list(map_processes(divide, [1], 1)) == [(0, 12)]


def test_an_unknown_executor_is_an_error():
    with pytest.raises(InputError, match="executor: is 'dask'"):
        check_executor("dask")
