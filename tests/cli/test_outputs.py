"""Where `wesep extract` writes its results, and what it refuses to replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.cli.outputs import plan
from wesep_py.cli.targets import Target
from wesep_py.common.errors import InputError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Empty files by name; `plan` does not open them."""
    for name in ("a.wav", "b.wav", "meeting.wav", "x/1.wav", "x/2.flac", "y/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def outputs(files: Path, mixtures: list[str], targets: list[Target], output: str | None = None) -> list[str]:
    jobs = plan([files / name for name in mixtures], targets, files / output if output else None, False)
    return [str(job.output.relative_to(files)) for job in jobs]


ALICE, BOB, UNNAMED = Target("alice", True), Target("bob", True), Target("voice", False)


def test_paths_of_results(files: Path):
    assert outputs(files, ["meeting.wav"], [UNNAMED], "out.wav") == ["out.wav"]
    assert outputs(files, ["meeting.wav"], [UNNAMED]) == ["meeting_voice.wav"]
    assert outputs(files, ["meeting.wav"], [UNNAMED], "x") == ["x/meeting.wav"]
    assert outputs(files, ["meeting.wav"], [ALICE, BOB], "out") == ["out/meeting_alice.wav", "out/meeting_bob.wav"]
    assert outputs(files, ["x"], [UNNAMED], "out2") == ["out2/1.wav", "out2/2.flac"]
    assert outputs(files, ["x"], [UNNAMED]) == ["x/1_voice.wav", "x/2_voice.flac"]
    assert outputs(files, ["x"], [UNNAMED], "x") == ["x/1_voice.wav", "x/2_voice.flac"]


def test_recordings_of_one_name_in_two_folders_are_refused(files: Path):
    with pytest.raises(InputError, match=r"both .*x/1\.wav and .*y/1\.wav"):
        outputs(files, ["x", "y"], [UNNAMED], "out")


def test_estimate_and_residual_need_two_paths(files: Path):
    with pytest.raises(InputError, match="two results would be written there; name another output for one"):
        plan([files / "meeting.wav"], [UNNAMED], files / "out.wav", False, residual=files / "x" / ".." / "out.wav")


def test_a_pattern_that_matches_one_file_writes_into_a_folder(files: Path):
    assert outputs(files, ["meet*.wav"], [UNNAMED], "new") == ["new/meeting.wav"]
    assert (files / "new").is_dir()
    assert outputs(files, ["meet*.wav"], [UNNAMED], "out.wav") == ["out.wav"]


def test_an_output_needs_the_suffix_of_a_writable_format(files: Path):
    with pytest.raises(InputError, match=r"has no suffix; name one of \.flac, \.m4a, .* \.wav, \.webm"):
        outputs(files, ["meeting.wav"], [UNNAMED], "new")
    with pytest.raises(InputError, match=r"\.m4b is not a format that can be written"):
        outputs(files, ["meeting.wav"], [UNNAMED], "new.m4b")


def test_no_input_is_replaced(files: Path):
    meeting, enrolled = files / "meeting.wav", Target("a", False, [files / "a.wav"])
    (files / "linked.wav").hardlink_to(meeting)
    for place in ("meeting.wav", "x/../meeting.wav", "linked.wav"):
        with pytest.raises(InputError, match="is the recording itself; name another output"):
            plan([meeting], [enrolled], files / place, True)
        with pytest.raises(InputError, match="is the recording itself"):
            plan([meeting], [enrolled], files / "out.wav", True, residual=files / place)
    with pytest.raises(InputError, match=r"a\.wav: is an enrollment itself; name another output"):
        plan([meeting], [enrolled], files / "a.wav", True)
    stretch = Target("a", False, [files / "a.wav@0:01-0:02"])
    with pytest.raises(InputError, match="is an enrollment itself"):
        plan([meeting], [stretch], files / "out.wav", True, residual=files / "a.wav")
    with pytest.raises(InputError, match="is the recording itself"):  # and not: pass --overwrite
        plan([meeting], [enrolled], meeting, False)


def test_results_of_an_earlier_run_are_not_extracted_from(files: Path, caplog):
    (files / "x" / "1_voice.wav").touch()
    jobs = plan([files / "x"], [UNNAMED], None, False, skip_existing=True)
    assert [job.mixture.name for job in jobs] == ["1.wav", "2.flac"]
    assert "1_voice.wav: 1 of the recordings are results of other recordings" in caplog.text
    with pytest.raises(InputError, match="is the recording itself"):
        plan([files / "x"], [UNNAMED], None, True)


def test_several_results_need_an_existing_folder(files: Path):
    with pytest.raises(InputError, match="is a file; several results need a folder"):
        outputs(files, ["x"], [UNNAMED], "a.wav")
    with pytest.raises(InputError, match="create it first"):
        outputs(files, ["x"], [UNNAMED], "no/such/folder")
