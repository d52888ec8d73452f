"""The annotations of AMI, LibriCSS and REAL-T: a hundred damaged files each give a value or one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damaged_files import damaged_bytes, hundred, value_or_line
from tests.recipes.miniature_meetings import make_ami, make_libricss, make_real_t
from wesep_py.data.meetings.ami import read_ami
from wesep_py.data.meetings.libricss import read_libricss
from wesep_py.data.meetings.real_t import read_real_t


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    make_ami(folder)
    make_libricss(folder)
    make_real_t(folder)
    return folder


def read_damaged(path: Path, content: bytes, read) -> None:
    """Read with the damaged content in place of a file, which is whole again afterwards."""
    whole = path.with_name("whole")
    shutil.copy(path, whole)
    try:
        path.write_bytes(content)
        value_or_line(read, path)
    finally:
        whole.replace(path)


@hundred
@given(
    name=st.sampled_from(
        [
            "ami_public_manual_1.6.2/words/ES2004a.A.words.xml",
            "ami_public_manual_1.6.2/corpusResources/meetings.xml",
            "rttms/ES2004a.rttm",
        ]
    ),
    data=st.data(),
)
def test_ami_gives_a_value_or_one_line(corpora: Path, name: str, data: st.DataObject):
    content = data.draw(damaged_bytes((corpora / name).read_bytes()))
    read_damaged(
        corpora / name, content, lambda: read_ami(corpora, names=["ES2004a"], rttm=corpora / "rttms").pop().alone
    )


@hundred
@given(data=st.data())
def test_libricss_gives_a_value_or_one_line(corpora: Path, data: st.DataObject):
    (path,) = (corpora / "for_release/0S").rglob("meeting_info.txt")
    content = data.draw(damaged_bytes(path.read_bytes()))
    read_damaged(path, content, lambda: read_libricss(corpora)[0].alone)


@hundred
@given(name=st.sampled_from(["AMI_meta.csv", "json/AMI/overlap_records.json"]), data=st.data())
def test_real_t_gives_a_value_or_one_line(corpora: Path, name: str, data: st.DataObject):
    path = corpora / "REAL-T-dev/DEV" / name
    content = data.draw(damaged_bytes(path.read_bytes()))
    read_damaged(path, content, lambda: read_real_t(corpora / "REAL-T-dev"))
