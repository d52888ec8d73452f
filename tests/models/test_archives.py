"""Named files out of archives that somebody else made, and archives that are damaged or meant to do harm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from wesep_py.common.errors import InputError, WesepError
from wesep_py.models import archives
from wesep_py.models.archives import archive_format, read_members

WANTED = {"weights": "avg_model.pt", "config": "config.yaml"}
CONTENT = {"avg_model.pt": b"weights" * 1000, "config.yaml": b"model: {}\n"}


def make(path: Path, members: list[tuple[str, bytes]], kind: str) -> Path:
    """Write an archive."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members:
                file.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize("prefix", ["", "./", "bsrnn/v1/"])
def test_only_named_files_are_taken(tmp_path: Path, kind: str, prefix: str):
    members = [(prefix + name, content) for name, content in CONTENT.items()]
    members += [("/etc/passwd", b"x"), ("../../outside", b"x"), ("other/my_avg_model.pt", b"x")]
    archive = make(tmp_path / f"a.{kind}", members, kind)
    (tmp_path / "out").mkdir()
    files = read_members(archive, kind, WANTED, tmp_path / "out")
    assert {role: path.read_bytes() for role, path in files.items()} == {
        "weights": CONTENT["avg_model.pt"],
        "config": CONTENT["config.yaml"],
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.yaml", "weights.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", "out"]


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("avg_model.pt", b"w")], "holds no config.yaml; it holds avg_model.pt"),
        ([], "holds no avg_model.pt; it holds nothing"),
        ([("a/avg_model.pt", b"1"), ("b/avg_model.pt", b"2")], "holds a/avg_model.pt and b/avg_model.pt; which"),
        ([("../avg_model.pt", b"1")], "leads out of the archive"),
        ([("/avg_model.pt", b"1")], "leads out of the archive"),
        ([("a/../avg_model.pt", b"1")], "leads out of the archive"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, kind: str, members: list, message: str):
    with pytest.raises(InputError, match=message):
        read_members(make(tmp_path / f"a.{kind}", members, kind), kind, WANTED, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo("avg_model.pt")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    with pytest.raises(InputError, match="is a link or a device"):
        read_members(tmp_path / "a.tar.gz", "tar.gz", WANTED, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_links_and_encrypted_files_in_a_zip_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        info = zipfile.ZipInfo("avg_model.pt")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="is a link or a folder"):
        read_members(tmp_path / "link.zip", "zip", WANTED, tmp_path)
    archive = make(tmp_path / "secret.zip", [("avg_model.pt", b"w")], "zip")
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the directory
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="is encrypted"):
        read_members(archive, "zip", WANTED, tmp_path)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_damaged_archives_are_one_line(tmp_path: Path, kind: str):
    whole = make(tmp_path / f"a.{kind}", list(CONTENT.items()), kind).read_bytes()
    for number, damaged in enumerate([b"", b"<html>", whole[: len(whole) // 2], whole[:10] + bytes(60) + whole[70:]]):
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match=rf"{number}\.{kind}: (is no whole archive .*another copy|holds no )"
        ) as caught:
            read_members(path, kind, WANTED, tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    archive = make(tmp_path / f"a.{kind}", list(CONTENT.items()), kind)
    with monkeypatch.context() as patched:
        patched.setattr(archives, "MAX_MEMBER_BYTES", 6999)
        with pytest.raises(InputError, match=r"avg_model.pt has 0.0 MiB; at most"):
            read_members(archive, kind, WANTED, tmp_path)
    for limit, value in (("MAX_ARCHIVE_BYTES", 6999), ("MAX_MEMBERS", 1)):
        with monkeypatch.context() as patched:
            patched.setattr(archives, limit, value)
            with pytest.raises(InputError, match="it is not read"):
                read_members(archive, kind, WANTED, tmp_path)


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path):
    archive = make(tmp_path / "a.zip", [("avg_model.pt", bytes(5000)), ("config.yaml", b"a")], "zip")
    raw = bytearray(archive.read_bytes())
    place = raw.index(b"PK\x01\x02") + 24  # the size in the directory
    raw[place : place + 4] = (100).to_bytes(4, "little")
    archive.write_bytes(raw)
    with pytest.raises(InputError):
        read_members(archive, "zip", WANTED, tmp_path)


def test_free_space_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import types

    from wesep_py.models import downloading

    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    with pytest.raises(WesepError, match="make room"):
        read_members(make(tmp_path / "a.zip", list(CONTENT.items()), "zip"), "zip", WANTED, tmp_path)


def test_formats_are_known_by_name():
    assert [archive_format(Path(name)) for name in ("a.tar.gz", "A.TGZ", "a.zip", "a.whl", "a.pt")] == [
        "tar.gz",
        "tar.gz",
        "zip",
        "zip",
        None,
    ]
