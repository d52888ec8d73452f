"""The training state: exact round trip, atomic writing, and the previous state if the last is damaged."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch

from wesep_py.common.errors import CheckpointError, WesepError
from wesep_py.training.state import Progress, TrainingState, check_optimizer_state, has_state, load_state, save_state


def state(step: int) -> TrainingState:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(1, 2)).sum().backward()
    optimizer.step()
    progress = Progress(step=step, position=8 * step, elapsed_s=1.5, best_step=1, best=2.5)
    return TrainingState(progress, layer.state_dict(), optimizer.state_dict())


def test_a_state_loads_as_it_was_saved(tmp_path: Path):
    assert load_state(tmp_path) is None and not has_state(tmp_path)
    saved = state(3)
    save_state(tmp_path / "state", saved)
    loaded = load_state(tmp_path / "state")
    assert loaded is not None and has_state(tmp_path / "state")
    assert loaded.progress == saved.progress
    assert all(torch.equal(loaded.model[key], value) for key, value in saved.model.items())
    for index, moments in saved.optimizer["state"].items():
        assert all(torch.equal(loaded.optimizer["state"][index][key], value) for key, value in moments.items())
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]


def test_a_best_of_minus_infinity_survives(tmp_path: Path):
    save_state(tmp_path, TrainingState(Progress(), {}, {}))
    assert load_state(tmp_path).progress == Progress()


def test_a_damaged_state_falls_back_to_the_previous(tmp_path: Path):
    for step in (1, 2, 3):
        save_state(tmp_path, state(step))
    assert load_state(tmp_path).progress.step == 3
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"last\.pt: is damaged .* went back to previous\.pt"):
        assert load_state(tmp_path).progress.step == 2
    (tmp_path / "previous.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"delete .* to start from the beginning"):
        load_state(tmp_path)


@pytest.mark.parametrize("killed_before", ["last.pt stepped aside", "next.pt took its place"])
def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path, killed_before: str):
    save_state(tmp_path, state(1))
    save_state(tmp_path / "other", state(2))
    (tmp_path / "other" / "last.pt").rename(tmp_path / "next.pt")
    if killed_before == "next.pt took its place":
        (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    assert load_state(tmp_path).progress.step == 2


def test_nothing_is_unpickled(tmp_path: Path):
    """A state that would run code when unpickled is refused without running it."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"format_version": 1, "progress": Evil()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_state(tmp_path)
    (tmp_path / "last.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_keeps_the_last_state(tmp_path: Path):
    resource = pytest.importorskip("resource")
    save_state(tmp_path, state(1))
    large = state(2)
    large.model["large"] = torch.zeros(1_000_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(WesepError, match="cannot be written"):
            save_state(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(tmp_path).progress.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_another_format_version_is_named(tmp_path: Path):
    torch.save({"format_version": 99}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="format version 99; this version reads 1"):
        load_state(tmp_path)


def test_each_flipped_bit_is_detected(tmp_path: Path):
    """The archive's checksums show it: an accepted state equals the saved one."""
    for step in (1, 2):
        save_state(tmp_path, state(step))
    whole = (tmp_path / "last.pt").read_bytes()
    expected = load_state(tmp_path)
    for position in range(0, len(whole), 61):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        (tmp_path / "last.pt").write_bytes(damaged)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            loaded = load_state(tmp_path)
        if loaded.progress.step == 2:
            assert loaded.progress == expected.progress
            assert all(torch.equal(loaded.model[key], value) for key, value in expected.model.items())
            for index, moments in expected.optimizer["state"].items():
                assert all(torch.equal(loaded.optimizer["state"][index][key], value) for key, value in moments.items())
            assert loaded.optimizer["param_groups"] == expected.optimizer["param_groups"]


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.zeros(3),
        {"format_version": 1},
        {"format_version": 1, "progress": [1]},
        {"format_version": 1, "progress": {"step": 3}, "model": [1], "optimizer": {}},
        {"format_version": 1, "progress": {"step": 3}, "model": {"w": 1.0}, "optimizer": {}},
        {"format_version": 1, "progress": {"step": 3}, "model": {}, "optimizer": None},
        {"format_version": 1, "progress": {"step": 3}, "model": {}, "optimizer": {}, "average": {1: torch.zeros(1)}},
        *(
            {"format_version": 1, "progress": progress, "model": {}, "optimizer": {}}
            for progress in (
                {"step": 10**18},
                {"step": -1},
                {"step": "3"},
                {"step": True},
                {"step": 2.5},
                {"step": 3, "position": 10**18},
                {"step": 3, "elapsed_s": float("nan")},
                {"step": 3, "elapsed_s": float("inf")},
                {"step": 3, "elapsed_s": -1.0},
                {"step": 3, "best": float("nan")},
                {"step": 3, "best_step": 4},
                {"step": 3, "since_best": 10**6},
            )
        ),
    ],
)
def test_impossible_values_fall_back_to_the_previous_state(tmp_path: Path, content):
    save_state(tmp_path, state(1))
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    torch.save(content, tmp_path / "last.pt")
    with pytest.warns(UserWarning, match=r"last\.pt: is damaged \(.*\); went back to previous\.pt"):
        assert load_state(tmp_path).progress.step == 1


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "NAdam", "Adafactor", "ASGD", "Rprop"])
def test_an_optimiser_state_must_fit_its_parameters(kind: str):
    def made(rows: int, columns: int) -> torch.optim.Optimizer:
        layer = torch.nn.Linear(columns, rows)
        optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=0.1)
        layer(torch.randn(1, columns)).sum().backward()
        optimizer.step()
        return optimizer

    fresh = getattr(torch.optim, kind)(torch.nn.Linear(3, 4).parameters(), lr=0.1)
    saved = made(4, 3).state_dict()
    check_optimizer_state(fresh, saved)
    check_optimizer_state(fresh, {**saved, "state": {}})
    assert not fresh.state
    for other in (
        {**saved, "param_groups": []},
        {**saved, "param_groups": [{**saved["param_groups"][0], "params": [0]}]},
        {**saved, "param_groups": [{**saved["param_groups"][0], "lr": "much"}]},
        {**saved, "state": {7: {"step": torch.tensor(1.0)}}},
        {"state": None, "param_groups": saved["param_groups"]},
        [],
    ):
        with pytest.raises(ValueError, match="optimiser's state"):
            check_optimizer_state(fresh, other)
    if kind != "SGD":  # without momentum it has no state
        with pytest.raises(ValueError, match="optimiser's state of parameter 0"):
            check_optimizer_state(fresh, made(1, 2).state_dict())


def test_a_folder_that_cannot_be_made_is_a_one_line_error(tmp_path: Path):
    (tmp_path / "state").touch()
    with pytest.raises(WesepError, match=r"state: the training state cannot be written \(File exists\)"):
        save_state(tmp_path / "state", state(1))
