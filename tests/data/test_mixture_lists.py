"""Lists of mixtures in LibriMix's form, rendered trees, and their sources as a corpus."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import MixtureNoise, MixtureSource, read_librimix_metadata, read_mixtures
from wesep_py.data.mixture_lists import find_noise_file, source_ids, speakers_of

GAINS = (
    "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"
    "1-2-3_4-5-6,test/1/1-2-3.flac,0.5,test/4/4-5-6.flac,2,tr/n.wav,0.25\n"
)
RENDERED = (
    "mixture_ID,mixture_path,source_1_path,source_2_path,noise_path,length\n"
    "1-2-3_4-5-6,mix_both/1-2-3_4-5-6.wav,s1/1-2-3_4-5-6.wav,s2/1-2-3_4-5-6.wav,noise/1-2-3_4-5-6.wav,51280\n"
)


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_metadata_with_gains(tmp_path: Path):
    metadata = write(tmp_path / "m.csv", GAINS)
    (mixture,) = read_mixtures(metadata, root=tmp_path / "speech", noise_root=tmp_path / "wham").values()
    assert mixture.mixture_id == "1-2-3_4-5-6"
    assert mixture.sources == (
        MixtureSource("1-2-3", tmp_path / "speech/test/1/1-2-3.flac", 0.5),
        MixtureSource("4-5-6", tmp_path / "speech/test/4/4-5-6.flac", 2.0),
    )
    assert mixture.noise == MixtureNoise(tmp_path / "wham/tr/n.wav", 0.25, 0.0)
    assert mixture.rendered == {}


def test_noise_paths_start_from_root_or_noise_root(tmp_path: Path):
    metadata = write(tmp_path / "m.csv", GAINS)
    assert read_mixtures(metadata)["1-2-3_4-5-6"].noise.path == tmp_path / "tr/n.wav"
    assert read_mixtures(metadata, root="/speech")["1-2-3_4-5-6"].noise.path == Path("/speech/tr/n.wav")


def test_metadata_of_a_rendered_tree(tmp_path: Path):
    (mixture,) = read_mixtures(write(tmp_path / "m.csv", RENDERED)).values()
    assert [source.utterance_id for source in mixture.sources] == ["1-2-3", "4-5-6"]
    assert [source.gain for source in mixture.sources] == [1.0, 1.0]
    assert mixture.rendered == {"noisy": tmp_path / "mix_both/1-2-3_4-5-6.wav"}
    clean = RENDERED.replace("mix_both", "mix_clean").replace("noise/1-2-3_4-5-6.wav", "")
    (mixture,) = read_mixtures(write(tmp_path / "clean.csv", clean)).values()
    assert list(mixture.rendered) == ["clean"]
    assert mixture.noise is None


def test_a_rendered_tree_without_metadata(tmp_path: Path):
    for folder, names in {
        "s1": ["a-1_b-1", "a-1_b-1_c-1"],
        "s2": ["a-1_b-1", "a-1_b-1_c-1"],
        "s3": ["a-1_b-1_c-1"],
        "noise": ["a-1_b-1"],
        "mix_clean": ["a-1_b-1", "a-1_b-1_c-1"],
        "mix_both": ["a-1_b-1"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.wav").touch()
    mixtures = read_mixtures(tmp_path)
    assert [source.utterance_id for source in mixtures["a-1_b-1_c-1"].sources] == ["a-1", "b-1", "c-1"]
    assert mixtures["a-1_b-1_c-1"].noise is None
    two = mixtures["a-1_b-1"]
    assert [source.path for source in two.sources] == [tmp_path / "s1/a-1_b-1.wav", tmp_path / "s2/a-1_b-1.wav"]
    assert two.noise == MixtureNoise(tmp_path / "noise/a-1_b-1.wav")
    assert two.rendered == {
        "clean": tmp_path / "mix_clean/a-1_b-1.wav",
        "noisy": tmp_path / "mix_both/a-1_b-1.wav",
    }
    (tmp_path / "s2/a-1_b-1_c-1.wav").unlink()
    with pytest.raises(InputError, match="a-1_b-1_c-1 is in a later one of s1, s2"):
        read_mixtures(tmp_path)


def test_errors_name_a_folder_that_is_no_tree(tmp_path: Path):
    with pytest.raises(InputError, match="has no folders s1, s2"):
        read_mixtures(tmp_path)
    (tmp_path / "s1").mkdir()
    with pytest.raises(InputError, match="s1 holds no file"):
        read_mixtures(tmp_path)


def test_columns_may_name_utterances_and_speakers(tmp_path: Path):
    metadata = write(
        tmp_path / "m.csv",
        "mixture_ID,source_1_path,source_1_utterance_id,source_1_speaker_id\nmix0,a.wav,u_1,anna\n",
    )
    assert read_mixtures(metadata)["mix0"].sources == (MixtureSource("u_1", tmp_path / "a.wav", 1.0, "anna"),)


@pytest.mark.parametrize(
    ("mixture_id", "names", "expected"),
    [
        ("84-1-2_61-3-4", ["84-1-2", "61-3-4"], ["84-1-2", "61-3-4"]),
        ("so1-007_so2-008", ["007", "008"], ["so1-007", "so2-008"]),
        ("id_1_a_id_2_b", ["x", "y"], ["id_1_a", "id_2_b"]),
        ("an_1_b", ["an_1", "b"], ["an_1", "b"]),
        ("mixture1", ["u1", "u2"], ["u1", "u2"]),
    ],
)
def test_the_ids_of_sources_come_from_the_mixture_id(mixture_id: str, names: list[str], expected: list[str]):
    assert source_ids(mixture_id, [Path(f"folder/{name}.wav") for name in names]) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("mixture_ID,source_1_path\n", "names no mixture"),
        ("mixture,source_1_path\nm,a.wav\n", "no column 'mixture_ID'; did you mean 'mixture'"),
        ("mixture_ID,source_1_path\nm,\n", "m.csv:2: source_1_path is missing"),
        ("mixture_ID,source_1_path\nm,a.wav\nm,b.wav\n", "m.csv:3: mixture_ID 'm' is listed at .*m.csv:2 already"),
        ("mixture_ID,source_1_path,source_1_gain\nm,a.wav,loud\n", "m.csv:2: source_1_gain is 'loud'"),
        (
            "mixture_ID,source_1_path,source_1_gain,source_2_path\nm,a.wav,0.5,b.wav\n",
            "m.csv:2: has no source_2_gain, but other sources have a gain",
        ),
        (
            "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\nm,a.wav,,b.wav,2\n",
            "m.csv:2: has no source_1_gain, but",
        ),
        ("mixture_ID,source_1_path,noise_path,noise_offset_s\nm,a.wav,n.wav,-1\n", "noise_offset_s is -1.0"),
    ],
)
def test_errors_name_a_malformed_list(tmp_path: Path, content: str, message: str):
    with pytest.raises(InputError, match=message):
        read_mixtures(write(tmp_path / "m.csv", content))


def test_recordings_without_sources_if_allowed(tmp_path: Path):
    path = write(tmp_path / "m.csv", "mixture_ID,mixture_path\nm,a.wav\n")
    with pytest.raises(InputError, match="no column 'source_1_path'"):
        read_mixtures(path)
    mixture = read_mixtures(path, recordings=True)["m"]
    assert mixture.sources == ()
    assert mixture.rendered == {"clean": tmp_path / "a.wav", "noisy": tmp_path / "a.wav"}
    write(path, "mixture_ID,mixture_path\nm,\n")
    with pytest.raises(InputError, match=r"m\.csv:2: source_1_path is missing, and mixture_path"):
        read_mixtures(path, recordings=True)


def test_errors_name_a_missing_list(tmp_path: Path):
    with pytest.raises(InputError, match="no such file; give the path of a LibriMix metadata CSV"):
        read_mixtures(tmp_path / "none.csv")


def _tree(folder: Path, *names: str, sources: int = 2) -> Path:
    for part in (*(f"s{k}" for k in range(1, sources + 1)), "mix_clean"):
        (folder / part).mkdir(parents=True)
        for name in names:
            (folder / part / f"{name}.wav").touch()
    return folder


DRAWN = ("0000-0000000-seed0", "0000-0000001-seed0")
LIST_WITH_SPEAKERS = (
    "mixture_ID,mixture_path,source_1_path,source_2_path,source_1_utterance_id,source_2_utterance_id,"
    "source_1_speaker_id,source_2_speaker_id\n"
    "0000-0000000-seed0,m.wav,a.wav,b.wav,anna-1,bert-1,anna,bert\n0000-0000001-seed0,m.wav,a.wav,b.wav,bert-2,carl-1,bert,carl\n"
)


@pytest.mark.parametrize("place", ["{tree}/mixture_mix_clean.csv", "{tree}/../metadata/mixture_tree_mix_both.csv"])
def test_speakers_of_a_tree_come_from_the_list_next_to_it(tmp_path: Path, place: str):
    tree = _tree(tmp_path / "tree", *DRAWN)
    with pytest.raises(InputError, match=r"'0000-0000000-seed0' does not say who speaks"):
        speakers_of(read_mixtures(tree)[DRAWN[0]])
    metadata = Path(place.format(tree=tree))
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(LIST_WITH_SPEAKERS)
    mixtures = read_mixtures(tree)
    assert [speakers_of(mixtures[name]) for name in DRAWN] == [("anna", "bert"), ("bert", "carl")]
    assert [source.utterance_id for source in mixtures[DRAWN[1]].sources] == ["bert-2", "carl-1"]
    assert mixtures[DRAWN[1]].sources[0].path == tree / f"s1/{DRAWN[1]}.wav"
    (tree / f"s2/{DRAWN[0]}.wav").unlink()
    with pytest.raises(InputError, match=r"mixture '0000-0000000-seed0' has 2 sources, and the tree 1"):
        read_mixtures(tree)


def test_speakers_of_a_tree_come_from_its_recipes(tmp_path: Path):
    tree = _tree(tmp_path / "tree", *DRAWN)
    sources = [{"excerpt": {"utterance": {"utterance_id": f"{name}-1", "speaker_id": name}}} for name in ("ann", "bob")]
    recipes = [{"seed": 0, "epoch": 0, "index": index, "sources": sources} for index in (0, 1)]
    (tree / "recipes.jsonl").write_text("".join(json.dumps(recipe) + "\n" for recipe in recipes))
    assert speakers_of(read_mixtures(tree)[DRAWN[1]]) == ("ann", "bob")
    (tree / "recipes.jsonl").write_text('{"seed": 0, "epoch": 0, "index": 0, "sources": [1]}\n')
    with pytest.raises(InputError, match=r"recipes\.jsonl:1: is not a recipe"):
        read_mixtures(tree)


def test_sources_of_one_speaker_are_refused(tmp_path: Path):
    rows = "mixture_ID,source_1_path,source_2_path\nm,day1-anna.wav,day1-bert.wav\n"
    (mixture,) = read_mixtures(write(tmp_path / "m.csv", rows)).values()
    with pytest.raises(InputError, match=r"m\.csv:2: source 2 of mixture 'm' \(day1-bert\) .* by their names both of"):
        speakers_of(mixture)
    rows = "mixture_ID,source_1_path,source_2_path,source_1_speaker_id,source_2_speaker_id\nm,a.wav,b.wav,x,x\n"
    (mixture,) = read_mixtures(write(tmp_path / "m.csv", rows)).values()
    with pytest.raises(InputError, match="are both of speaker 'x'; the speakers of a mixture must differ"):
        speakers_of(mixture)


def test_hidden_files_are_skipped_and_both_spellings_are_equal(tmp_path: Path):
    names = [unicodedata.normalize(form, "Zoë-1_Åse-1") for form in ("NFC", "NFD")]
    tree = _tree(tmp_path / "tree", names[0])
    (tree / f"s2/{names[0]}.wav").rename(tree / f"s2/{names[1]}.wav")
    for hidden in (".DS_Store", "._a-1_b-1.wav", ".0000-0000000-seed0.abcdefgh.wav"):
        (tree / "s1" / hidden).touch()
    (mixture,) = read_mixtures(tree).values()
    assert len(mixture.sources) == 2
    rows = f"mixture_ID,source_1_path\n{names[0]},a.wav\n{names[1]},b.wav\n"
    with pytest.raises(InputError, match=r"m\.csv:3: mixture_ID .* is listed at"):
        read_mixtures(write(tmp_path / "m.csv", rows))


def test_a_list_of_a_data_set_that_has_moved(tmp_path: Path):
    for name in ("data/s1/a.wav", "data/s2/a.wav", "wham/tr/n.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    rows = "mixture_ID,source_1_path,source_2_path,noise_path\n"
    rows += "m,/old/data/s1/a.wav,D:\\data\\s2\\a.wav,/wham/tr/nsp08.wav\n"
    metadata = write(tmp_path / "m.csv", rows)
    (mixture,) = read_mixtures(metadata, tmp_path / "data", tmp_path / "wham").values()
    assert [source.path for source in mixture.sources] == [tmp_path / "data/s1/a.wav", tmp_path / "data/s2/a.wav"]
    assert mixture.noise.path == tmp_path / "wham/tr/nsp08.wav"  # its original at another speed


def speak(path: Path, num_samples: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(num_samples, 0.1), 16000)


def test_sources_that_are_mixed_twice_are_listed_once(tmp_path: Path):
    speak(tmp_path / "84/84-1-1.flac", 16000)
    speak(tmp_path / "61/61-1-1.flac")
    speak(tmp_path / "61/61-1-2.flac")
    (tmp_path / "m.csv").write_text(
        "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\n"
        "84-1-1_61-1-1,84/84-1-1.flac,1,61/61-1-1.flac,1\n61-1-2_84-1-1,61/61-1-2.flac,1,84/84-1-1.flac,0.5\n"
    )
    utterances = read_librimix_metadata(tmp_path / "m.csv")
    assert [(u.utterance_id, u.speaker_id, u.duration_s) for u in utterances] == [
        ("84-1-1", "84", 1.0),
        ("61-1-1", "61", 0.5),
        ("61-1-2", "61", 0.5),
    ]


def test_images_of_a_tree_are_separate_utterances(tmp_path: Path):
    for folder in ("s1", "s2", "mix_clean"):
        for name in ("84-1-1_61-1-1", "61-1-2_84-1-1"):
            speak(tmp_path / folder / f"{name}.wav")
    utterances = read_librimix_metadata(tmp_path)
    assert [(u.utterance_id, u.speaker_id) for u in utterances] == [
        ("61-1-2_84-1-1-s1", "61"),
        ("61-1-2_84-1-1-s2", "84"),
        ("84-1-1_61-1-1-s1", "84"),
        ("84-1-1_61-1-1-s2", "61"),
    ]
    assert utterances[0].path == tmp_path / "s1/61-1-2_84-1-1.wav"


def test_a_missing_source_is_skipped_or_an_error(tmp_path: Path):
    speak(tmp_path / "84-1-1.flac")
    (tmp_path / "m.csv").write_text("mixture_ID,source_1_path,source_2_path\n84-1-1_61-1-1,84-1-1.flac,61-1-1.flac\n")
    with pytest.raises(AudioError, match=r"61-1-1\.flac: no such file"):
        read_librimix_metadata(tmp_path / "m.csv")
    bad: list[str] = []
    utterances = read_librimix_metadata(tmp_path / "m.csv", on_skip=lambda path, _: bad.append(path.name))
    assert [u.utterance_id for u in utterances] == ["84-1-1"]
    assert bad == ["61-1-1.flac"]


def test_ambiguous_ids_and_unknown_speakers_are_errors(tmp_path: Path):
    for name in ("x/1-1.wav", "y/1-1.wav", "y/2-1.wav", "anna.wav"):
        speak(tmp_path / name)
    (tmp_path / "m.csv").write_text(
        "mixture_ID,source_1_path,source_2_path\n1-1_2-1,x/1-1.wav,y/2-1.wav\n1-1,y/1-1.wav,\n"
    )
    with pytest.raises(InputError, match="'1-1' is that of"):
        read_librimix_metadata(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("mixture_ID,source_1_path\nanna,anna.wav\n")
    with pytest.raises(InputError, match=r"m\.csv:2: utterance 'anna' does not say who speaks"):
        read_librimix_metadata(tmp_path / "m.csv")


def test_a_missing_noise_at_a_speed_is_its_original_at_that_speed(tmp_path: Path):
    for mark, speed in (("sp08", 0.8), ("sp12", 1.2)):
        assert find_noise_file(tmp_path / f"01ga_0.6{mark}.wav") == (tmp_path / "01ga_0.6.wav", speed)
    assert find_noise_file(tmp_path / "01ga_0.6.wav") == (tmp_path / "01ga_0.6.wav", 1.0)


def test_an_existing_noise_at_a_speed_is_used(tmp_path: Path):
    (tmp_path / "onsp08.wav").touch()
    assert find_noise_file(tmp_path / "onsp08.wav") == (tmp_path / "onsp08.wav", 1.0)
