"""VoxCeleb in its published layouts: ids, genders and sets from the tables, and the error for m4a files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.recipes.miniature_voxceleb import DEV, TEST, VIDEOS, VOX2, make_voxceleb1, make_voxceleb2
from wesep_py.audio import media
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data.corpora import read_voxceleb, read_voxceleb_speakers


@pytest.fixture
def vox1(tmp_path: Path) -> Path:
    return make_voxceleb1(tmp_path / "voxceleb1", 0.5)


def test_ids_speakers_and_genders_of_voxceleb1(vox1: Path):
    utterances = read_voxceleb(vox1 / "wav")
    assert len(utterances) == 7 * 2 * 2
    assert len({u.utterance_id for u in utterances}) == len(utterances)
    (utterance,) = [u for u in utterances if u.utterance_id == "id10270-x6uYqmx31kE-00002"]
    assert (utterance.speaker_id, utterance.gender, utterance.duration_s) == ("id10270", "f", 0.5)
    assert utterance.path == vox1 / "wav/id10270/x6uYqmx31kE/00002.wav"


@pytest.mark.parametrize(("subset", "speakers"), [("dev", DEV), ("test", TEST)])
def test_the_sets_come_from_the_table(vox1: Path, subset: str, speakers: tuple[str, ...]):
    assert {u.speaker_id for u in read_voxceleb(vox1, subset)} == set(speakers)


def test_without_a_table_genders_and_sets_are_unknown(vox1: Path):
    (vox1 / "vox1_meta.csv").unlink()
    assert {u.gender for u in read_voxceleb(vox1)} == {None}
    with pytest.raises(InputError, match=r"there is no vox1_meta\.csv or vox2_meta\.csv .*take the set 'all'"):
        read_voxceleb(vox1, "dev")


def test_voxceleb2_as_converted_and_both_together(tmp_path: Path, vox1: Path):
    vox2 = make_voxceleb2(tmp_path / "voxceleb2", 0.5)
    assert read_voxceleb_speakers(vox2 / "dev" / "aac") == {"id00012": ("f", "dev"), "id00015": ("m", "dev")}
    assert {(u.speaker_id, u.gender) for u in read_voxceleb(vox2 / "dev" / "aac")} == {
        ("id00012", "f"),
        ("id00015", "m"),
    }
    assert {u.speaker_id for u in read_voxceleb(tmp_path)} == {*DEV, *TEST, *VOX2}


def test_m4a_is_refused_with_the_command_to_convert_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(media, "is_installed", lambda: False)
    folder = make_voxceleb2(tmp_path / "voxceleb2", 0.5)
    for path in sorted(folder.rglob("*.flac")):
        path.with_suffix(".m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    assert len(read_voxceleb(folder)) == 8  # every m4a has its converted copy
    left = folder / "dev/aac/id00012" / VIDEOS[0] / "00001.m4a"
    left.with_suffix(".flac").unlink()
    with pytest.raises(InputError) as caught:
        read_voxceleb(folder)
    message = str(caught.value)
    assert "\n" not in message and f"1 recordings are m4a only, such as {left}" in message
    assert "install what reads them (pip install 'wesep-py[media]')" in message
    assert f"find {folder} -name '*.m4a'" in message and '-ac 1 -ar 16000 "${0%.m4a}.flac"' in message


def test_m4a_is_read_where_pyav_is_installed_and_no_copy_is_there(tmp_path: Path):
    media_files = pytest.importorskip("tests.media_files")
    folder = make_voxceleb2(tmp_path / "voxceleb2", 0.5)
    converted = sorted(folder.rglob("*.flac"))
    for path in converted:
        media_files.write_media(path.with_suffix(".m4a"), "mp4", "aac", [media_files.chirps(1, 1.0, 16000)], 16000)
    converted[0].unlink()
    paths = {u.path for u in read_voxceleb(folder)}
    assert paths == {converted[0].with_suffix(".m4a"), *converted[1:]}


def test_unreadable_recordings_are_skipped_and_named(vox1: Path):
    bad = vox1 / "wav/id10001" / VIDEOS[0] / "00001.wav"
    bad.write_text("no audio")
    named: list[Path] = []
    assert len(read_voxceleb(vox1, on_skip=lambda path, _: named.append(path))) == 27
    assert named == [bad]
    with pytest.raises(AudioError, match=re.escape(str(bad))):
        read_voxceleb(vox1)


def test_other_folders_and_tables_are_refused(vox1: Path, tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        read_voxceleb(tmp_path / "none")
    (tmp_path / "elsewhere/alice").mkdir(parents=True)
    (tmp_path / "elsewhere/alice/one.wav").touch()
    with pytest.raises(InputError, match=r"such as id10270/x6uYqmx31kE/00001\.wav"):
        read_voxceleb(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"set: is 'train'"):
        read_voxceleb(vox1, "train")  # type: ignore[arg-type]
    (vox1 / "vox1_meta.csv").write_text("VoxCeleb1 ID\tNationality\n")
    with pytest.raises(InputError, match="has no column 'Gender'"):
        read_voxceleb(vox1)


def test_the_command_writes_a_manifest_of_a_set(vox1: Path, tmp_path: Path, wesep):
    ran = wesep("prepare", "voxceleb", vox1, "--set", "test", "--root", vox1, "-o", tmp_path / "test.csv")
    assert (ran.status, ran.out) == (0, f"{tmp_path}/test.csv: 4 speakers, 16 utterances, 0.00 hours\n")
    assert "wav/id10270/1zcIwhmdeo4/00001.wav" in (tmp_path / "test.csv").read_text()
    assert wesep("prepare", "voxceleb", vox1, "--set", "train", "-o", tmp_path / "m.csv").status == 2
