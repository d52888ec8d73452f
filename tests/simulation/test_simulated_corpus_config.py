"""YAML of a corpus of mixtures, and the recordings that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.config import construct, load_yaml
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.data import Utterance, find_noises, write_manifest
from wesep_py.simulation.simulated_corpus import CorpusConfig, make_simulator

FOLDER = Path(__file__).resolve().parents[2] / "simulation"
SHIPPED = sorted(path for path in FOLDER.glob("*.yaml") if "wesep simulate" in path.read_text())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_valid(path: Path) -> None:
    config = construct(CorpusConfig, load_yaml(path))
    assert config.speech and config.root is not None


def test_there_are_shipped_files() -> None:
    assert {path.stem for path in SHIPPED} >= {"librimix_like", "meeting_like", "conversation_like"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_draw_from_the_shared_data(path: Path, shared_data: Path) -> None:
    config = construct(CorpusConfig, load_yaml(path, [f"root={shared_data}"]))
    sample = make_simulator(config).sample(0, 0)
    assert sample.mixture.size > 16000


def test_manifests_and_noises_are_found_under_the_root(
    utterances: list[Utterance], noises: list[Utterance], tmp_path: Path
) -> None:
    write_manifest(utterances, tmp_path / "speech.jsonl")
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a hiss.wav").write_bytes(noises[0].path.read_bytes())
    config = CorpusConfig(speech=["speech.jsonl"], noise=["noise"], root=str(tmp_path))
    assert len(make_simulator(config).speakers.speaker_ids) == 4
    found = find_noises(["noise", str(noises[0].path)], tmp_path)
    assert found[0].utterance_id == "noise/noise/a_hiss"
    assert [noise.duration_s for noise in found] == [1.0, 1.0]
    assert len({noise.utterance_id for noise in found}) == 2
    with pytest.raises(InputError, match="is neither a manifest, an audio file"):
        find_noises(["nothing"], tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "speech: is required"),
        ({"speech": []}, "speech: is empty"),
        ({"speech": ["a.csv"], "sample_rate": 10}, "sample_rate: is 10"),
        ({"speech": ["a.csv"], "seed": -1}, "seed: is -1"),
        ({"speech": ["a.csv"], "speach": []}, "did you mean 'speech'"),
        ({"speech": ["a.csv"], "simulation": {"target": "wet"}}, r"simulation\.target: is 'wet'"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        construct(CorpusConfig, values)
