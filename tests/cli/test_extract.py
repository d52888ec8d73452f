"""`wesep extract` and `wesep enroll`: which file goes where, which voice is whose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.cli.outputs import plan
from wesep_py.cli.targets import Target, parse_targets
from wesep_py.common.errors import AudioError, InputError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Empty files by name; `plan` and `parse_targets` do not open them."""
    for name in ("a.wav", "b.wav", "meeting.wav", "x/1.wav", "x/2.flac", "y/1.wav", "alice.voice", "k=v.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_files_without_a_name_are_one_voice(files: Path):
    (target,) = parse_targets([f"{files}/a.wav", f"{files}/b.wav", f"{files}/x"])
    assert (target.name, target.named) == ("a", False)
    assert [file.name for file in target.files] == ["a.wav", "b.wav", "1.wav", "2.flac"]


def test_names_are_targets_and_a_repeated_name_adds_audio(files: Path):
    alice, bob = parse_targets([f"alice={files}/a.wav", f"bob={files}/b.wav", f"alice={files}/x"])
    assert (alice.name, bob.name, alice.named) == ("alice", "bob", True)
    assert [len(alice.files), len(bob.files)] == [3, 1]


def test_a_path_that_holds_an_equals_sign_is_a_path(files: Path):
    (target,) = parse_targets([f"{files}/k=v.wav"])
    assert target.files == [files / "k=v.wav"] and not target.named


@pytest.mark.parametrize(
    ("enrollments", "error", "message"),
    [
        ([], InputError, "no enrollment"),
        (["{}/a.wav", "bob={}/b.wav"], InputError, "give every file a NAME=, or none"),
        (["bob={}/b.wav", "{}/a.wav"], InputError, "give every file a NAME=, or none"),
        (["{}/missing.wav"], AudioError, "missing.wav: no such file"),
        (["={}/a.wav"], InputError, "NAME=FILE is needed"),
        (["../bob={}/a.wav"], InputError, "NAME without a slash"),
        (["b" * 300 + "={}/a.wav"], InputError, "at most 100 bytes"),
        (["{}/alice.voice", "{}/a.wav"], InputError, "stands alone"),
    ],
)
def test_enrollments_that_make_no_sense(files: Path, enrollments, error, message):
    with pytest.raises(error, match=message):
        parse_targets([text.format(files) for text in enrollments])


def outputs(files: Path, mixtures: list[str], targets: list[Target], output: str | None = None) -> list[str]:
    jobs = plan([files / name for name in mixtures], targets, files / output if output else None, False)
    return [str(job.output.relative_to(files)) for job in jobs]


ALICE, BOB, UNNAMED = Target("alice", True), Target("bob", True), Target("voice", False)


def test_where_results_are_written(files: Path):
    assert outputs(files, ["meeting.wav"], [UNNAMED], "out.wav") == ["out.wav"]
    assert outputs(files, ["meeting.wav"], [UNNAMED]) == ["meeting_voice.wav"]
    assert outputs(files, ["meeting.wav"], [UNNAMED], "x") == ["x/meeting.wav"]
    assert outputs(files, ["meeting.wav"], [ALICE, BOB], "out") == ["out/meeting_alice.wav", "out/meeting_bob.wav"]
    assert outputs(files, ["x"], [UNNAMED], "out2") == ["out2/1.wav", "out2/2.flac"]
    assert outputs(files, ["x"], [UNNAMED]) == ["x/1_voice.wav", "x/2_voice.flac"]
    assert outputs(files, ["x"], [UNNAMED], "x") == ["x/1_voice.wav", "x/2_voice.flac"]


def test_two_recordings_of_one_name_are_not_written_over_each_other(files: Path):
    with pytest.raises(InputError, match=r"both .*x/1\.wav and .*y/1\.wav"):
        outputs(files, ["x", "y"], [UNNAMED], "out")


def test_two_results_of_one_recording_need_two_names(files: Path):
    with pytest.raises(InputError, match="two results would be written there; name another output for one"):
        plan([files / "meeting.wav"], [UNNAMED], files / "out.wav", False, residual=files / "x" / ".." / "out.wav")


def test_a_pattern_that_fits_one_file_is_as_one_that_fits_several(files: Path):
    assert outputs(files, ["meet*.wav"], [UNNAMED], "new") == ["new/meeting.wav"]
    assert (files / "new").is_dir()
    assert outputs(files, ["meet*.wav"], [UNNAMED], "out.wav") == ["out.wav"]


def test_an_output_needs_a_suffix_that_can_be_written(files: Path):
    with pytest.raises(
        InputError, match=r"has no suffix; name one of \.flac, \.mp3, \.ogg, \.opus, \.rf64, \.w64, \.wav"
    ):
        outputs(files, ["meeting.wav"], [UNNAMED], "new")
    with pytest.raises(InputError, match=r"\.m4a is not a format to write"):
        outputs(files, ["meeting.wav"], [UNNAMED], "new.m4a")


def test_what_is_read_is_never_replaced(files: Path):
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


def test_the_results_of_an_earlier_run_are_no_recordings(files: Path, caplog):
    (files / "x" / "1_voice.wav").touch()
    jobs = plan([files / "x"], [UNNAMED], None, False, skip_existing=True)
    assert [job.mixture.name for job in jobs] == ["1.wav", "2.flac"]
    assert "1_voice.wav: of the recordings 1 are where the results of others go" in caplog.text
    with pytest.raises(InputError, match="is the recording itself"):
        plan([files / "x"], [UNNAMED], None, True)


def test_a_folder_is_needed_for_several(files: Path):
    with pytest.raises(InputError, match="is a file; several results need a folder"):
        outputs(files, ["x"], [UNNAMED], "a.wav")
    with pytest.raises(InputError, match="create it first"):
        outputs(files, ["x"], [UNNAMED], "no/such/folder")


def test_two_voices_out_of_two_recordings(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    mixtures = tmp_path / "mixtures"
    mixtures.mkdir()
    for index in (0, 1):
        shutil.copy(tiny_speech / "carl" / f"carl-{index}.wav", mixtures)
    enrollments = ["--enroll", f"anna={tiny_speech}/anna", "--enroll", f"bert={tiny_speech}/bert/bert-0.wav"]
    arguments = ["extract", mixtures, *enrollments, "-o", tmp_path / "out", "--model", tiny_model, "--threads", "1"]
    ran = wesep(*arguments, "--device", "cpu", "--json")
    assert ran.status == 0, ran.err
    results = json.loads(ran.out)
    assert [(Path(r["mixture"]).name, r["target"], Path(r["output"]).name) for r in results] == [
        ("carl-0.wav", "anna", "carl-0_anna.wav"),
        ("carl-0.wav", "bert", "carl-0_bert.wav"),
        ("carl-1.wav", "anna", "carl-1_anna.wav"),
        ("carl-1.wav", "bert", "carl-1_bert.wav"),
    ]
    for result in results:
        assert result["sample_rate"] == 16000 and result["presence"] is None
        given, got = soundfile.info(result["mixture"]), soundfile.info(result["output"])
        assert (got.frames, got.subtype) == (given.frames, given.subtype)


def test_a_voice_print_stands_for_its_recordings(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    common = ["--model", tiny_model, "--device", "cpu"]
    recordings = [tiny_speech / "anna" / "anna-0.wav", tiny_speech / "anna" / "anna-1.wav"]
    ran = wesep("enroll", *recordings, "-o", tmp_path / "anna.voice", *common)
    assert ran.status == 0 and "4.5 s of 2 recording" in ran.out
    mixture = tiny_speech / "bert" / "bert-1.wav"
    wesep("extract", mixture, "--enroll", tmp_path / "anna.voice", "-o", tmp_path / "a.wav", *common)
    wesep("extract", mixture, *(w for r in recordings for w in ("--enroll", r)), "-o", tmp_path / "b.wav", *common)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav")[0], soundfile.read(tmp_path / "b.wav")[0])


def test_the_result_is_that_of_the_python_interface(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    import wesep_py

    mixture, enrollment = tiny_speech / "bert" / "bert-1.wav", tiny_speech / "anna" / "anna-0.wav"
    common = ["--model", tiny_model, "--device", "cpu"]
    assert wesep("extract", mixture, "--enroll", enrollment, "-o", tmp_path / "cli.wav", *common).status == 0
    extractor = wesep_py.load(tiny_model, device="cpu")
    extractor.extract(mixture, extractor.enroll(enrollment)).save(tmp_path / "python.wav")
    assert (tmp_path / "cli.wav").read_bytes() == (tmp_path / "python.wav").read_bytes()
