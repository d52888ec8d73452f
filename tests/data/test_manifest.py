"""Utterances, manifests and tables of speakers."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.data import Utterance, read_manifest, read_speakers, speaker_of, write_manifest

LINE = {"utterance_id": "a-1", "speaker_id": "a", "path": "1.wav", "duration_s": 2.5}


def write_lines(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return path


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    (tmp_path / "audio").mkdir()
    for name in ("1.wav", "2.wav"):
        (tmp_path / "audio" / name).touch()
    return [
        Utterance("a-1", "a", tmp_path / "audio/1.wav", 2.780, gender="f", age=6.0, text='say "hi", now\u2028Ümit'),
        Utterance("b-1", "b", tmp_path / "audio/2.wav", 1 / 3, start_s=10.25),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_written_manifest_is_read_back(tmp_path: Path, utterances: list[Utterance], suffix: str):
    manifest = tmp_path / f"manifest{suffix}"
    write_manifest(utterances, manifest)
    assert read_manifest(manifest) == utterances


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_folder_with_its_manifest_can_be_moved(tmp_path: Path, utterances: list[Utterance], suffix: str):
    write_manifest(utterances, tmp_path / f"manifest{suffix}")
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    assert [u.path for u in read_manifest(moved / f"manifest{suffix}")] == [
        moved / "audio/1.wav",
        moved / "audio/2.wav",
    ]
    moved.rename(tmp_path)


def test_paths_are_written_relative_to_a_root_and_read_from_it(tmp_path: Path, utterances: list[Utterance]):
    (tmp_path / "lists").mkdir()
    manifest = tmp_path / "lists/train.jsonl"
    write_manifest(utterances, manifest, relative_to=tmp_path)
    assert json.loads(manifest.read_text().split("\n")[0])["path"] == "audio/1.wav"
    assert read_manifest(manifest, root=tmp_path) == utterances


def test_audio_outside_the_folder_keeps_an_absolute_path(tmp_path: Path, utterances: list[Utterance]):
    (tmp_path / "lists").mkdir()
    write_manifest(utterances, tmp_path / "lists/train.jsonl")
    assert json.loads((tmp_path / "lists/train.jsonl").read_text().split("\n")[0])["path"] == str(utterances[0].path)


def test_the_csv_of_the_shared_data_is_a_manifest(shared_data: Path):
    utterances = read_manifest(shared_data / "speech/train.csv", root=shared_data)
    assert len(utterances) == 4226
    assert len({utterance.speaker_id for utterance in utterances}) == 426
    first = utterances[0]
    assert (first.utterance_id, first.gender, first.age, first.duration_s) == ("so0003-000030012", "m", 6.0, 3.360)
    assert utterances[-1].gender is None or utterances[-1].gender in "mf"


def test_errors_name_the_line_of_a_missing_file(tmp_path: Path):
    (tmp_path / "1.wav").touch()
    manifest = write_lines(tmp_path / "m.jsonl", LINE, {**LINE, "utterance_id": "a-2", "path": "2.wav"})
    with pytest.raises(InputError, match=rf"m\.jsonl:2: path {tmp_path}/2\.wav does not exist; .*--root"):
        read_manifest(manifest)
    assert len(read_manifest(manifest, check_files=False)) == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"speaker_id": None}, "m.jsonl:2: speaker_id is missing"),
        ({"duration_s": "long"}, "m.jsonl:2: duration_s is 'long'; a number is needed"),
        ({"duration_s": -1}, "m.jsonl:2: duration_s: is -1.0; seconds greater than 0"),
        ({"path": ["x"]}, r"m.jsonl:2: path is \['x'\]; a string is needed"),
        ({"age": "old"}, "m.jsonl:2: age is 'old'"),
        ({"utterance_id": "a-1"}, r"m.jsonl:2: utterance_id 'a-1' is listed at .*m.jsonl:1 already"),
    ],
)
def test_errors_name_line_and_field(tmp_path: Path, record: dict[str, object], message: str):
    manifest = write_lines(tmp_path / "m.jsonl", LINE, {**LINE, "utterance_id": "a-2", **record})
    with pytest.raises(InputError, match=message):
        read_manifest(manifest, check_files=False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", "{broken\n", "m.jsonl:1: is not JSON"),
        ("m.jsonl", "[1, 2]\n", "m.jsonl:1: is not a JSON object"),
        ("m.jsonl", "\n\n", "names no utterance"),
        ("m.csv", "", "m.csv:1: has no column 'utterance_id'"),
        ("m.csv", "utterance_id,speaker,path,duration_s\n", "no column 'speaker_id'; did you mean 'speaker'"),
        ("m.csv", "utterance_id,speaker_id,path,duration_s\na,b,c,1,2\n", "m.csv:2: has 5 values for 4 columns"),
        ("m.txt", "", r"ends in '.txt'; give a manifest \(.jsonl or .csv\)"),
    ],
)
def test_errors_name_a_malformed_manifest(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / name)


def test_errors_name_a_missing_or_binary_manifest(tmp_path: Path):
    with pytest.raises(InputError, match="no such file; give the path of a manifest"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_manifest(tmp_path / "binary.csv")


def test_umlauts_and_a_byte_order_mark_are_read(tmp_path: Path):
    (tmp_path / "m.csv").write_text(
        "\ufeffutterance_id,speaker_id,path,duration_s\r\nä-1,ä,1.wav,1\r\n", encoding="utf-8"
    )
    assert read_manifest(tmp_path / "m.csv", check_files=False)[0].speaker_id == "ä"


def test_lists_that_could_not_be_read_back_are_not_written(tmp_path: Path, utterances: list[Utterance]):
    with pytest.raises(InputError, match="no utterance to write"):
        write_manifest([], tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="'a-1' is that of"):
        write_manifest([utterances[0], utterances[0].__class__("a-1", "a", Path("x.wav"), 1.0)], tmp_path / "m.jsonl")
    with pytest.raises(InputError, match=r"end it in \.jsonl or \.csv"):
        write_manifest(utterances, tmp_path / "m.txt")
    assert not list(tmp_path.glob("m.*"))


def test_an_existing_manifest_is_kept_unless_overwritten(tmp_path: Path, utterances: list[Utterance]):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_manifest(utterances, manifest)
    assert manifest.read_text() == "mine"
    write_manifest(utterances, manifest, overwrite=True)
    assert read_manifest(manifest) == utterances


def test_a_manifest_of_a_data_set_that_has_moved(tmp_path: Path):
    (tmp_path / "speech/anna").mkdir(parents=True)
    (tmp_path / "speech/anna/1.wav").touch()
    line = {"utterance_id": "a-1", "speaker_id": "a", "duration_s": 1}
    for written in ("/old/data/speech/anna/1.wav", "C:\\data\\speech\\anna\\1.wav", "speech\\anna\\1.wav"):
        (tmp_path / "m.jsonl").write_text(json.dumps(line | {"path": written}) + "\n")
        assert read_manifest(tmp_path / "m.jsonl")[0].path == tmp_path / "speech/anna/1.wav"
    (tmp_path / "m.jsonl").write_text(json.dumps(line | {"path": "a" * 300}) + "\n")
    with pytest.raises(InputError, match="does not exist"):
        read_manifest(tmp_path / "m.jsonl")


def test_ids_are_kept_in_one_spelling(tmp_path: Path):
    (tmp_path / "1.wav").touch()
    names = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    rows = "".join(f"{name}-{k},{name},1.wav,1\n" for k, name in enumerate(names))
    (tmp_path / "m.csv").write_text("utterance_id,speaker_id,path,duration_s\n" + rows)
    assert {utterance.speaker_id for utterance in read_manifest(tmp_path / "m.csv")} == {names[0]}


def test_an_utterance_has_an_end():
    assert Utterance("a-1", "a", Path("1.wav"), 2.0, start_s=1.5).stop_s == 3.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utterance_id": ""}, "utterance_id: is ''"),
        ({"utterance_id": "a 1"}, "without white space"),
        ({"speaker_id": " "}, "speaker_id"),
        ({"duration_s": 0.0}, "duration_s: is 0.0; seconds greater than 0"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"start_s": -0.1}, "start_s: is -0.1; seconds of at least 0"),
        ({"age": -1.0}, "age: is -1.0"),
    ],
)
def test_errors_name_an_impossible_value(change: dict[str, object], message: str):
    values = {"utterance_id": "a-1", "speaker_id": "a", "path": Path("1.wav"), "duration_s": 1.0}
    with pytest.raises(InputError, match=message):
        Utterance(**{**values, **change})


def test_gender_and_age_are_read_from_a_csv_of_utterances(tmp_path: Path):
    (tmp_path / "s.csv").write_text("utterance_id,speaker_id,gender,age\n1,anna,f,6\n2,anna,f,6\n3,bert,m,\n4,cleo,,\n")
    assert read_speakers(tmp_path / "s.csv") == {"anna": ("f", 6.0), "bert": ("m", None), "cleo": (None, None)}


def test_values_of_several_lines_are_combined(tmp_path: Path):
    (tmp_path / "s.csv").write_text("speaker_id,gender,age\nanna,f,\nanna,,6\n")
    speakers = read_speakers(tmp_path / "s.csv")
    assert speakers["anna"].gender == "f"
    assert speakers["anna"].age == 6.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("speaker_id,gender\nanna,f\nanna,m\n", r"s\.csv:3: gender of 'anna' is 'm', and 'f' in a line before"),
        ("speaker_id,age\nanna,young\n", r"s\.csv:2: age is 'young'"),
        ("name,age\nanna,6\n", "has no column 'speaker_id'"),
        ("speaker_id,age\n", "names no speaker"),
    ],
)
def test_errors_name_a_malformed_table(tmp_path: Path, content: str, message: str):
    (tmp_path / "s.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_speakers(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("utterance_id", "speakers", "expected"),
    [
        ("84-121123-0000", (), "84"),
        ("84-121123-0000", {"84", "84-121123"}, "84-121123"),
        ("84-121123-0000", {"8", "99"}, "84"),
        ("anna_1", {"anna", "ann"}, "anna"),
        ("anna", {"anna"}, "anna"),
        ("anna_1", (), None),
        ("-1", (), None),
    ],
)
def test_the_speaker_comes_from_the_id(utterance_id: str, speakers: set[str], expected: str | None):
    assert speaker_of(utterance_id, speakers) == expected


def test_the_speakers_of_the_shared_data(shared_data: Path):
    speakers = read_speakers(shared_data / "speech/dev.csv")
    assert len(speakers) == 25
    assert speakers["so0093"] == ("f", 6.0)
