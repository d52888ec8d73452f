"""Data folders and lists of WeSep and ESPnet: what they hold, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.public_layouts import make_espnet, make_speakerbeam, make_voxceleb, make_wesep
from wesep_py.common.errors import InputError
from wesep_py.data import read_mixtures, read_speech, read_trials
from wesep_py.data.mixture_corpus import read_mixture_corpus
from wesep_py.data.recipe_lists import read_spk2enroll


@pytest.fixture
def wesep_data(tmp_path: Path) -> Path:
    return make_wesep(tmp_path / "recipe")


def test_folder_of_wesep_lists_mixtures_sources_and_speakers(wesep_data: Path):
    mixtures = read_mixtures(wesep_data / "train-100")
    assert list(mixtures) == [
        "84-1-0_174-2-0",
        "174-2-1_84-1-1",
        "84-1-2_251-3-0",
        "251-3-1_174-2-2",
    ]
    first = mixtures["84-1-0_174-2-0"]
    assert [(s.utterance_id, s.speaker_id) for s in first.sources] == [("84-1-0", "84"), ("174-2-0", "174")]
    assert list(first.rendered) == ["clean"] and first.noise is None
    parts = [soundfile.read(source.path)[0] for source in first.sources]
    np.testing.assert_allclose(sum(parts), soundfile.read(first.rendered["clean"])[0], atol=1e-4)


def test_raw_list_holds_the_same_mixtures(wesep_data: Path):
    from_folder, from_list = (read_mixtures(wesep_data / "dev" / name) for name in ("", "raw.list"))
    assert {name: (m.sources, m.rendered) for name, m in from_folder.items()} == {
        name: (m.sources, m.rendered) for name, m in from_list.items()
    }


def test_noisy_folder_of_wesep_has_the_noise_beside_it(tmp_path: Path):
    mixtures = read_mixtures(make_wesep(tmp_path, "both") / "dev")
    assert all(list(mixture.rendered) == ["noisy"] for mixture in mixtures.values())
    assert all(mixture.noise.path.parent.name == "noise" for mixture in mixtures.values())


def test_wav_scp_instead_of_its_folder_is_refused(wesep_data: Path):
    with pytest.raises(InputError, match="name its folder"):
        read_mixtures(wesep_data / "dev/wav.scp")
    with pytest.raises(InputError, match=r"no wav\.scp; give .* a data folder"):
        read_mixtures(wesep_data)


def test_enrollments_of_wesep_are_trials_of_both_speakers(wesep_data: Path):
    trials = read_trials(wesep_data / "dev", wesep_data / "dev")
    assert [(t.target_utterance_id, t.enrollment.parent.name, t.enrollment.stem) for t in trials] == [
        ("777-5-0", "s2", "888-6-1_777-5-1"),
        ("888-6-0", "s1", "888-6-1_777-5-1"),
        ("888-6-1", "s2", "777-5-0_888-6-0"),
        ("777-5-1", "s1", "777-5-0_888-6-0"),
    ]


def test_relative_paths_start_from_the_folder_of_the_recipe(wesep_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    assert all(s.path.is_file() for m in read_mixtures(wesep_data / "dev").values() for s in m.sources)
    moved = wesep_data.parents[1].rename(wesep_data.parents[2] / "elsewhere")
    assert all(s.path.is_file() for m in read_mixtures(moved / "data/clean/dev").values() for s in m.sources)


def test_spk2enroll_and_sources_of_mixtures_are_the_same_utterances(wesep_data: Path):
    train = wesep_data / "train-100"
    enrollments = read_spk2enroll(train / "spk2enroll.json")
    corpus = read_mixture_corpus([train], speech=enrollments)
    sources = {source.utterance.utterance_id for mixture in corpus.mixtures for source in mixture.sources}
    assert {utterance.utterance_id for utterance in enrollments} == sources
    assert len(corpus.speech) == len(sources) == 8


def test_folder_of_espnet_lists_sources_noise_and_enrollments(tmp_path: Path):
    data = make_espnet(tmp_path)
    trials = read_trials(data / "dev", data / "dev")
    assert [t.target.speaker_id for t in trials] == ["777", "888", "888", "777"]
    assert [t.enrollment.stem for t in trials[:2]] == ["777-99-0", "888-99-0"]
    assert trials[0].noise is not None and list(trials[0].rendered) == ["noisy"]
    corpus = read_mixture_corpus([data / "train"], "noisy", speech=read_spk2enroll(data / "train/spk2enroll.json"))
    assert len(corpus.noises) == 4 and len(corpus.speech) == 8 + 6


def test_single_utterances_are_read_from_folder_and_raw_list(tmp_path: Path):
    folder = make_voxceleb(tmp_path)
    utterances = read_speech([str(folder)])
    assert [(u.utterance_id, u.speaker_id) for u in utterances[:2]] == [
        ("id10001/video1/00001.wav", "id10001"),
        ("id10001/video2/00002.wav", "id10001"),
    ]
    assert read_speech([str(folder / "raw_online.list")]) == utterances
    assert read_speech([str(folder / "spk2enroll.json")]) == utterances


def test_newer_raw_list_of_single_utterances_is_read(tmp_path: Path):
    folder = make_voxceleb(tmp_path)
    rows = [json.loads(line) for line in (folder / "raw_online.list").read_text().splitlines()]
    newer = [{"key": row["key"], "spk": [row["spk"]], "src": {row["spk"]: [row["wav"]]}} for row in rows]
    (folder / "samples.list").write_text("\n".join(map(json.dumps, newer)))
    assert read_speech([str(folder / "samples.list")]) == read_speech([str(folder)])


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_mixtures_and_single_utterances_are_not_taken_for_each_other(wesep_data: Path, tmp_path: Path):
    vox = make_voxceleb(tmp_path / "vox")
    for name in (vox, vox / "raw_online.list"):
        with pytest.raises(InputError, match=r"single utterances.*data\.train"):
            read_mixtures(name)
    for name in (wesep_data / "dev", wesep_data / "dev/raw.list"):
        with pytest.raises(InputError, match=r"mixtures.*data\.mixtures\.lists"):
            read_speech([str(name)])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("utt2spk", "777-5-0_888-6-0 777 888\n", "", r"utt2spk: has no '777-5-0_888-6-0' \(1 of 2 keys\)"),
        ("wav.scp", "777-5-0_888-6-0 ", "x ", "utt2spk: has no 'x'"),
        ("utt2spk", " 777 888", " 777 888 9", "names 3 speakers of '777-5-0_888-6-0', and wav.scp 2 sources"),
        ("utt2spk", " 777 888", " 777 777", None),
        ("spk2.enroll", "777-5-0_888-6-0 ", "y ", "spk2.enroll: has no enrollment of '777-5-0_888-6-0'"),
        ("spk1.enroll", "s2/888-6-1_777-5-1.wav", "s2/none.wav", "'s2/none.wav' is not in single.wav.scp"),
    ],
)
def test_lists_that_do_not_match_are_refused(wesep_data: Path, file: str, old: str, new: str, message: str | None):
    replace_in(wesep_data / "dev" / file, old, new)
    with pytest.raises(InputError, match=message or "two sources of mixture"):
        read_trials(wesep_data / "dev", wesep_data / "dev")


def test_enrollments_that_training_chooses_are_no_trials(tmp_path: Path):
    data = make_espnet(tmp_path)
    with pytest.raises(InputError, match="leaves the enrollment to training"):
        read_trials(data / "train", data / "train")


def test_spk2enroll_of_another_form_is_refused(tmp_path: Path):
    (tmp_path / "spk2enroll.json").write_text('{"84": ["a.wav"]}')
    with pytest.raises(InputError, match=r"speaker '84' has \['a.wav'\]; a list of \[utterance, path\] is needed"):
        read_spk2enroll(tmp_path / "spk2enroll.json")


def test_speakerbeam_csv_and_map_name_the_same_trials(tmp_path: Path):
    dev = make_speakerbeam(tmp_path) / "dev"
    of_map, of_csv = (
        read_trials(dev / "mixture_dev_mix_both.csv", dev / name)
        for name in ("map_mixture2enrollment", "mixture2enrollment.csv")
    )
    assert len(of_map) == 4 and of_map == of_csv
    assert read_mixture_corpus([dev / "mixture_dev_mix_both.csv"], "noisy").noises


def test_speakerbeam_training_enrollments_are_no_trials(tmp_path: Path):
    dev = make_speakerbeam(tmp_path) / "dev"
    path = dev / "mixture2enrollment.csv"
    path.write_text("".join(line + ",x.wav,8000\n" for line in path.read_text().splitlines()))
    with pytest.raises(InputError, match="names 2 enrollments, to choose from in training"):
        read_trials(dev / "mixture_dev_mix_both.csv", path)
