from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError
from wesep_py.data import read_speakers, read_trials

METADATA = (
    "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain,noise_offset_s\n"
    "1-1-1_2-1-1,1/1.wav,0.5,2/1.wav,2,n.wav,0.25,1.5\n"
    "2-1-2_1-1-2,2/2.wav,1,1/2.wav,1,n.wav,1,0\n"
)
MAP = "1-1-1_2-1-1 1-1-1 1/2.wav\n1-1-1_2-1-1 2-1-1 s1/2-1-2_1-1-2\nelsewhere 7-1-1 7/2.wav\n1-1-1_2-1-1 - 1/3.wav\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("1/1.wav", "1/2.wav", "1/3.wav", "2/1.wav", "2/2.wav", "n.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/mixtures.csv").write_text(METADATA)
    (tmp_path / "lists/map").write_text(MAP)
    return tmp_path


def test_trials_are_those_in_both_files(corpus: Path):
    path, speakerbeam, absent = read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)
    assert path.mixture_id == "1-1-1_2-1-1"
    assert (path.target_index, path.target_utterance_id) == (0, "1-1-1")
    assert path.target is path.sources[0]
    assert path.interferers == path.sources[1:]
    assert (path.target.gain, path.target.path, path.target.speaker_id) == (0.5, corpus / "1/1.wav", "1")
    assert (path.enrollment, path.enrollment_sources) == (corpus / "1/2.wav", ())
    assert (path.noise.path, path.noise.gain, path.noise.offset_s) == (corpus / "n.wav", 0.25, 1.5)
    assert speakerbeam.target_index == 1
    assert (absent.target_index, absent.target_utterance_id, absent.target) == (None, "-", None)
    assert len(absent.interferers) == 2


def test_a_speakerbeam_enrollment_is_cut_like_its_mixture(corpus: Path):
    trial = read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)[1]
    assert trial.enrollment == corpus / "2/2.wav"
    assert [mate.path for mate in trial.enrollment_sources] == [corpus / "2/2.wav", corpus / "1/2.wav"]


def test_a_speakerbeam_enrollment_of_a_rendered_tree_is_its_file(corpus: Path):
    (corpus / "s1").mkdir()
    (corpus / "s1/2-1-2_1-1-2.wav").touch()
    trial = read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)[1]
    assert (trial.enrollment, trial.enrollment_sources) == (corpus / "s1/2-1-2_1-1-2.wav", ())


def test_a_tree_and_its_map(tmp_path: Path):
    for folder in ("s1", "s2", "mix_clean"):
        (tmp_path / folder).mkdir()
        for name in ("a-1_b-1", "b-2_a-2"):
            (tmp_path / folder / f"{name}.wav").touch()
    (tmp_path / "map_mixture2enrollment").write_text("a-1_b-1 b-1 s1/b-2_a-2\nb-2_a-2 a-2 s1/a-1_b-1\n")
    first, second = read_trials(tmp_path, tmp_path / "map_mixture2enrollment")
    assert first.target.path == tmp_path / "s2/a-1_b-1.wav"
    assert first.enrollment == tmp_path / "s1/b-2_a-2.wav"
    assert first.rendered == {"clean": tmp_path / "mix_clean/a-1_b-1.wav"}
    assert second.target.speaker_id == "a"


def test_enrollments_are_found_in_a_tree_rendered_elsewhere(tmp_path: Path):
    tree = tmp_path / "rendered"
    rows = ["mixture_ID,mixture_path,source_1_path,source_2_path,length"]
    for folder in ("s1", "s2", "mix_clean"):
        (tree / folder).mkdir(parents=True)
    for name in ("a-1_b-1", "b-2_a-2"):
        paths = [tree / folder / f"{name}.flac" for folder in ("mix_clean", "s1", "s2")]
        for path in paths:
            path.touch()
        rows.append(",".join([name, *map(str, paths), "100"]))
    (tmp_path / "m.csv").write_text("\n".join(rows))
    (tmp_path / "map").write_text("a-1_b-1 b-1 s1/b-2_a-2\n")
    (trial,) = read_trials(tmp_path / "m.csv", tmp_path / "map")
    assert (trial.enrollment, trial.enrollment_sources) == (tree / "s1/b-2_a-2.flac", ())


def test_speakers_of_sources_may_come_from_a_table(corpus: Path):
    trials = read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", corpus, speakers={"1-1", "2"})
    assert [source.speaker_id for source in trials[0].sources] == ["1-1", "2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1-1-1_2-1-1 1-1-1", "map:1: has 2 fields"),
        ("1-1-1_2-1-1 9-9-9 1/2.wav", r"map:1: target '9-9-9' is not a source of .*its sources: 1-1-1, 2-1-1"),
        ("1-1-1_2-1-1 1-1-1 s3/2-1-2_1-1-2", "map:1: enrollment 's3/2-1-2_1-1-2': that mixture has 2 sources"),
        ("1-1-1_2-1-1 1-1-1 s1/unknown", "map:1: enrollment 's1/unknown' is neither a file under"),
        ("1-1-1_2-1-1 1-1-1 1/gone.wav", r"map:1: .*1/gone\.wav does not exist; .*--root"),
        ("elsewhere 1-1-1 1/2.wav", "none of its mixtures is in"),
    ],
)
def test_errors_name_an_impossible_line(corpus: Path, line: str, message: str):
    (corpus / "lists/map").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)


def test_errors_name_a_missing_source_if_files_are_checked(corpus: Path):
    (corpus / "2/1.wav").unlink()
    with pytest.raises(InputError, match=r"mixtures\.csv:2: .*2/1\.wav does not exist"):
        read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)
    assert len(read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", corpus, check_files=False)) == 3


def test_noise_is_not_needed_to_read_trials(corpus: Path):
    (corpus / "n.wav").unlink()
    assert len(read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)) == 3


@pytest.mark.parametrize(
    ("name", "map_name", "count", "absent"),
    [
        ("dev_2mix", "dev_2mix", 500, 0),
        ("dev_3mix", "dev_3mix", 300, 0),
        ("dev_ls_2mix", "dev_ls_2mix", 200, 0),
        ("dev_ls_3mix", "dev_ls_3mix", 150, 0),
        ("dev_2mix", "dev_2mix_absent", 250, 250),
        ("dev_ls_2mix", "dev_ls_2mix_absent", 100, 100),
    ],
)
def test_the_lists_of_the_shared_data(shared_data: Path, name: str, map_name: str, count: int, absent: int):
    speakers = read_speakers(shared_data / "speech" / ("dev_ls.csv" if "ls" in name else "dev.csv"))
    trials = read_trials(
        shared_data / f"trials/{name}.csv",
        shared_data / f"trials/{map_name}.map_mixture2enrollment",
        root=shared_data,
        speakers=speakers,
    )
    assert len(trials) == count
    assert sum(trial.target is None for trial in trials) == absent
    for trial in trials:
        ids = [source.speaker_id for source in trial.sources]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= set(speakers)
        enrolled = trial.enrollment.parent.name
        assert enrolled == trial.target.speaker_id if trial.target else enrolled not in ids


def test_a_repeated_trial_counts_once_with_a_warning(corpus: Path, caplog: pytest.LogCaptureFixture):
    (corpus / "lists/map").write_text(MAP + MAP.splitlines()[0] + "\n\n" + MAP.splitlines()[0] + "\n")
    assert len(read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)) == 3
    (message,) = caplog.messages
    assert "2 lines name a trial that is listed before" in message and "map:5 (that of" in message
    (corpus / "lists/map").write_text("1-1-1_2-1-1 1-1-1 1/2.wav\n1-1-1_2-1-1 1-1-1 1/3.wav\n")
    assert len(read_trials(corpus / "lists/mixtures.csv", corpus / "lists/map", root=corpus)) == 2


def test_ambiguous_speaker_guesses_are_dropped(corpus: Path):
    (corpus / "m.csv").write_text("mixture_ID,source_1_path,source_2_path\nm,1/1.wav,2/1.wav\nn,1/1.wav,2/2.wav\n")
    (corpus / "map").write_text("n 1 1/2.wav\n")
    (trial,) = read_trials(corpus / "m.csv", corpus / "map")
    assert trial.target_utterance_id == "1"
    (corpus / "map").write_text("m 1 1/2.wav\n")
    with pytest.raises(InputError, match=r"map:1: target '1' is the name of several sources of 'm'"):
        read_trials(corpus / "m.csv", corpus / "map")
    head = "mixture_ID,source_1_path,source_2_path,source_1_utterance_id,source_2_utterance_id"
    (corpus / "m.csv").write_text(f"{head}\nm,1/1.wav,2/1.wav,day-1,day-2\n")
    (corpus / "map").write_text("m day-1 1/2.wav\n")
    (trial,) = read_trials(corpus / "m.csv", corpus / "map")
    assert [source.speaker_id for source in trial.sources] == [None, None]
    (corpus / "m.csv").write_text(f"{head},source_1_speaker_id,source_2_speaker_id\nm,1/1.wav,2/1.wav,a,b,x,x\n")
    with pytest.raises(InputError, match=r"m\.csv:2: two sources of mixture 'm' are of speaker 'x'"):
        read_trials(corpus / "m.csv", corpus / "map")


@pytest.mark.parametrize("in_map", ["NFC", "NFD"])
@pytest.mark.parametrize("in_list", ["NFC", "NFD"])
def test_ids_match_in_both_spellings(corpus: Path, in_map: str, in_list: str):
    name, target = (unicodedata.normalize(in_list, text) for text in ("Zoë-1_Åse-1", "Zoë-1"))
    (corpus / "m.csv").write_text(f"mixture_ID,source_1_path,source_1_utterance_id\n{name},1/1.wav,{target}\n")
    name, target = (unicodedata.normalize(in_map, text) for text in ("Zoë-1_Åse-1", "Zoë-1"))
    (corpus / "map").write_text(f"{name} {target} /old/place/1/2.wav\n")
    (trial,) = read_trials(corpus / "m.csv", corpus / "map")
    assert trial.target_index == 0 and trial.enrollment == corpus / "1/2.wav"
