"""`wesep extract` on long files, batches and absent targets: files, messages and exit statuses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import reason
from wesep_py.inference import Calibration
from wesep_py.inference.presence_decision.presence import save_calibration
from wesep_py.network.extraction_network import build_network


@pytest.fixture(scope="module")
def presence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small model with a presence head."""
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "presence": {}})
    return checkpoint.save(tmp_path_factory.mktemp("telling") / "model", network.config, network.state_dict())


@pytest.fixture
def calibrated_model(presence_model: Path, tmp_path: Path):
    """Return a function that copies the model, calibrated so that each target is present (`True`) or absent."""

    def model_with(present: bool) -> Path:
        model = shutil.copytree(presence_model, tmp_path / f"model_{present}")
        save_calibration(model, Calibration(offset=50.0 if present else -50.0))
        return model

    return model_with


@pytest.fixture
def arguments(tiny_speech: Path) -> list:
    return [tiny_speech / "bert" / "bert-0.wav", "--enroll", tiny_speech / "anna" / "anna-1.wav", "--device", "cpu"]


def test_an_absent_target_gives_silence_and_status_3(wesep, calibrated_model, arguments, tmp_path):
    out, rest = tmp_path / "o.wav", tmp_path / "r.wav"
    ran = wesep("extract", *arguments, "-o", out, "--residual", rest, "--model", calibrated_model(False), "--json")
    assert ran.status == 3 and "silence was written; --force" in ran.err
    (result,) = json.loads(ran.out)
    assert result["absent"] and result["silenced"] and result["presence"] < 0.01 and result["threshold"] == 0.5
    assert not soundfile.read(out)[0].any()
    np.testing.assert_array_equal(soundfile.read(rest)[0], soundfile.read(arguments[0])[0])
    forced = wesep("extract", *arguments, "-o", out, "--model", tmp_path / "model_False", "--force", "--overwrite")
    assert forced.status == 0 and "written because of --force" in forced.err and soundfile.read(out)[0].any()


def test_probability_of_presence_is_printed_if_the_model_has_one(
    wesep, calibrated_model, tiny_model, arguments, tmp_path
):
    ran = wesep("extract", *arguments, "-o", tmp_path / "o.wav", "--model", calibrated_model(True))
    assert ran.status == 0 and "anna-1 speaks in it with probability 1.00" in ran.err
    assert ran.out.strip() == str(tmp_path / "o.wav")
    ran = wesep("extract", *arguments, "-o", tmp_path / "p.wav", "--model", tiny_model)
    assert ran.status == 0 and "probability" not in ran.err


def test_residual_and_timeline_of_several_targets(wesep, tiny_model, tiny_speech, tmp_path):
    mixture = tiny_speech / "carl" / "carl-0.wav"
    enrollments = ["--enroll", f"anna={tiny_speech}/anna/anna-1.wav", "--enroll", f"bert={mixture}@0.5-1.75"]
    places = ["-o", tmp_path / "out", "--residual", tmp_path / "out", "--timeline", tmp_path / "when.rttm"]
    ran = wesep("extract", mixture, *enrollments, *places, "--model", tiny_model, "--device", "cpu")
    assert ran.status == 0, ran.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["carl-0_anna.wav", "carl-0_anna_rest.wav", "carl-0_bert.wav", "carl-0_bert_rest.wav"]
    whole = soundfile.read(mixture)[0]
    for name in ("anna", "bert"):
        parts = [soundfile.read(tmp_path / "out" / f"carl-0_{name}{end}.wav")[0] for end in ("", "_rest")]
        np.testing.assert_array_equal(sum(parts), whole)
    for line in (tmp_path / "when.rttm").read_text().splitlines():
        assert line.split()[:3] == ["SPEAKER", "carl-0", "1"] and line.split()[7] in ("anna", "bert")
    clash = ["--residual", tmp_path / "r.flac", "-o", tmp_path / "o.wav", "--model", tiny_model]
    assert "the same suffix" in wesep("extract", mixture, "--enroll", mixture, *clash).message
    several = ["--timeline", tmp_path / "t.pdf", "-o", tmp_path / "o.wav", "--model", tiny_model]
    assert ".rttm, .json, .csv" in wesep("extract", mixture, "--enroll", mixture, *several).message
    folder = ["--timeline", tmp_path / "when", "-o", tmp_path / "p.wav", "--model", tiny_model]
    assert wesep("extract", mixture, "--enroll", mixture, *folder).status == 0
    assert sorted(path.name for path in (tmp_path / "when").iterdir()) == ["carl-0.json", "carl-0.rttm"]


def test_a_segment_of_a_recording_enrolls(wesep, tiny_model, tiny_speech, tmp_path):
    recording = tiny_speech / "anna" / "anna-2.wav"
    samples, rate = soundfile.read(recording)
    soundfile.write(tmp_path / "part.wav", samples[8000:32000], rate, subtype="PCM_16")
    common = ["--model", tiny_model, "--device", "cpu"]
    mixture = tiny_speech / "bert" / "bert-0.wav"
    for name, enrollment in {"a": f"{recording}@0.5-2", "b": tmp_path / "part.wav"}.items():
        assert wesep("extract", mixture, "--enroll", enrollment, "-o", tmp_path / f"{name}.wav", *common).status == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    ran = wesep("enroll", f"{recording}@0:00.5-0:02.5", "-o", tmp_path / "anna.voice", *common)
    assert ran.status == 0 and "2.0 s of 1 recording" in ran.out
    assert "1 to 99 s were requested" in wesep("enroll", f"{recording}@1-99", *common).message
    ran = wesep("extract", mixture, "--enroll", f"{recording}@0.5-2", *common)
    assert Path(ran.out.strip()).name == "bert-0_anna-2.wav"
    Path(ran.out.strip()).unlink()


def test_a_pattern_is_extracted_in_two_processes(wesep, tiny_model, tiny_speech, tmp_path):
    common = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    (tmp_path / "in").mkdir()
    for index in range(3):
        shutil.copy(tiny_speech / "bert" / f"bert-{index}.wav", tmp_path / "in")
    (tmp_path / "in" / "bert-1.wav").write_bytes(b"text")
    pattern = f"{tmp_path}/i?/*.wav"
    ran = wesep("extract", pattern, *common, "-o", tmp_path / "out", "--jobs", "2", "--threads", "1")
    assert ran.status == 1 and "1 of 3 extractions failed (named above); the others are written" in ran.err
    assert [Path(line).name for line in ran.out.split()] == ["bert-0.wav", "bert-2.wav"]
    assert any(line.startswith("failed: ") and "bert-1.wav" in line for line in ran.err.splitlines())
    wesep("extract", tmp_path / "in" / "bert-2.wav", *common, "-o", tmp_path / "alone.wav")
    assert (tmp_path / "alone.wav").read_bytes() == (tmp_path / "out" / "bert-2.wav").read_bytes()
    assert "matches no recording" in wesep("extract", f"{tmp_path}/*.flac", *common).message


@pytest.mark.parametrize("error", [ValueError("out of step"), MemoryError(), KeyError("x")])
def test_an_unexpected_error_loses_only_its_recording(
    wesep, calibrated_model, tiny_speech, tmp_path, monkeypatch, error
):
    from wesep_py.inference import Extractor

    extract = Extractor.extract
    (tmp_path / "in").mkdir()
    for index in range(2):
        shutil.copy(tiny_speech / "bert" / f"bert-{index}.wav", tmp_path / "in")

    def failing(self, mixture, voice, **options):
        if mixture.name.endswith("bert-0.wav"):
            raise error
        return extract(self, mixture, voice, **options)

    monkeypatch.setattr(Extractor, "extract", failing)
    arguments = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", calibrated_model(False), "--device", "cpu"]
    ran = wesep("extract", tmp_path / "in", *arguments, "-o", tmp_path / "out", "--json")
    assert ran.status == 1 and "1 of 2 extractions failed (named above); the others are written" in ran.err
    assert "anna-1 is not in" in ran.err and "silence was written" in ran.err
    written, missing = json.loads(ran.out)
    assert Path(written["output"]).name == "bert-1.wav"
    assert missing == {"mixture": str(tmp_path / "in" / "bert-0.wav"), "error": reason(error)}
    assert type(error).__name__ in missing["error"]


def test_all_failed_recordings_are_reported(wesep, tiny_model, tiny_speech, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.wav").write_bytes(b"text")
    common = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    ran = wesep("extract", tmp_path / "in", *common, "-o", tmp_path / "out", "--json")
    assert ran.status == 1 and ran.err.splitlines()[-1].endswith("2 of 2 extractions failed (named above)")
    assert [Path(result["mixture"]).name for result in json.loads(ran.out)] == ["a.wav", "b.wav"]
    ran = wesep("extract", tmp_path / "in" / "a.wav", *common, "-o", tmp_path / "o.wav", "--json")
    (only,) = json.loads(ran.out)
    assert ran.status == 2 and "not audio" in only["error"] and "not audio" in ran.message


def test_recording_and_enrollment_are_not_replaced(wesep, tiny_model, tiny_speech, tmp_path):
    mixture, enrollment = (shutil.copy(tiny_speech / name, tmp_path) for name in ("bert/bert-0.wav", "anna/anna-0.wav"))
    before = Path(mixture).read_bytes(), Path(enrollment).read_bytes()
    common = ["extract", mixture, "--enroll", enrollment, "--model", tiny_model, "--overwrite"]
    assert "is the recording itself; name another output" in wesep(*common, "-o", mixture).message
    ran = wesep(*common, "-o", tmp_path / "o.wav", "--residual", enrollment)
    assert ran.status == 2 and "is an enrollment itself" in ran.message
    assert (Path(mixture).read_bytes(), Path(enrollment).read_bytes()) == before


def test_batch_file(wesep, tiny_model, tiny_speech, tmp_path):
    for name in ("anna/anna-0.wav", "anna/anna-1.wav", "bert/bert-0.wav", "carl/carl-0.wav"):
        shutil.copy(tiny_speech / name, tmp_path)
    lines = ["carl-0.wav ,anna-0.wav; anna-1.wav,anna,", "bert-0.wav,missing.wav,,", "carl-0.wav,bert-0.wav,,b.flac"]
    lines.append("bert-0.wav,anna-0.wav,an/na,")
    (tmp_path / "jobs.csv").write_text("\n".join(["mixture,enroll,name,output", *lines]) + "\n")
    common = ["--model", tiny_model, "--device", "cpu"]
    ran = wesep("extract", "--batch", tmp_path / "jobs.csv", *common)
    assert ran.status == 1 and "2 of 4 extractions failed" in ran.err
    assert "jobs.csv: line 3: " in ran.err and "missing.wav: no such file" in ran.err
    assert "jobs.csv: line 5: the name 'an/na' becomes part of a file name; give one without a slash" in ran.err
    assert [Path(line).name for line in ran.out.split()] == ["carl-0_anna.wav", "b.flac"]
    assert "leave out MIXTURE" in wesep("extract", tmp_path, "--batch", tmp_path / "jobs.csv", *common).message
    for text, message in {
        "mixture,voice\na,b\n": "did you mean|has a column 'voice'",
        "mixture\na\n": "no column 'enroll'",
        "mixture,enroll\n": "holds no lines",
        "mixture,enroll\na.wav,\n": "line 2 names no enroll",
        "mixture,enroll\nm.wav,anna-0.wav,anna-1.wav\n": "csv:2: has 3 values for 2 columns; separate the recordings",
        "mixture;enroll\nm.wav;anna-0.wav\n": "is separated by semicolons",
        "mixture,enroll,output\nm.wav,anna-0.wav,o.wav\nn.wav,anna-0.wav,o.wav\n": "name another output for one, or",
        "mixture,enroll,output\nm.wav,anna-0.wav,o.wav\nm.wav,bert-0.wav,./o.wav\n": "two results would be written",
    }.items():
        (tmp_path / "bad.csv").write_text(text)
        ran = wesep("extract", "--batch", tmp_path / "bad.csv", *common)
        assert ran.status == 2 and any(part in ran.message for part in message.split("|")), ran.err
    assert "is a folder; give the path of a CSV" in wesep("extract", "--batch", tmp_path, *common).message


@pytest.mark.parametrize(
    ("source", "written", "container"),
    [
        (("RF64", "PCM_16", "m.wav"), "o.wav", "WAV"),
        (("RF64", "PCM_24", "m.rf64"), "o.rf64", "RF64"),
        (("W64", "PCM_16", "m.w64"), "o.w64", "W64"),
        (("WAV", "PCM_16", "m.wav"), "o.w64", "W64"),
        (("W64", "PCM_24", "m.w64"), "o.wav", "WAV"),
    ],
)
def test_large_containers_keep_the_sample_format(wesep, tiny_model, tiny_speech, tmp_path, source, written, container):
    samples, rate = soundfile.read(tiny_speech / "bert" / "bert-0.wav")
    kind, subtype, name = source
    soundfile.write(tmp_path / name, samples, rate, subtype, format=kind)
    out = tmp_path / written
    enrollment = tiny_speech / "anna" / "anna-1.wav"
    ran = wesep("extract", tmp_path / name, "--enroll", enrollment, "-o", out, "--model", tiny_model, "--device", "cpu")
    assert ran.status == 0, ran.err
    about = soundfile.info(out)
    assert (about.format, about.subtype, about.frames) == (container, subtype, len(samples))


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX")
def test_a_file_name_that_is_not_utf8_is_extracted(wesep, tiny_model, tiny_speech, tmp_path):
    mixture = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    shutil.copy(tiny_speech / "bert" / "bert-0.wav", mixture)
    common = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    out, when = mixture.with_name(mixture.stem + "_out.wav"), [tmp_path / "t.rttm", tmp_path / "t.json"]
    for timeline in when:
        ran = wesep("extract", mixture, *common, "-o", out, "--timeline", timeline, "--overwrite")
        assert ran.status == 0, ran.err
    assert out.is_file() and "caf" in when[0].read_text("utf-8")
    assert str(mixture) in json.loads(when[1].read_text("utf-8")).values()


def test_unsupported_sample_rate_is_refused_before_extraction(wesep, tiny_model, tiny_speech, tmp_path):
    voice, _ = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(voice, 8), 44100)
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    ran = wesep("extract", tmp_path / "long.wav", *enroll, "-o", tmp_path / "o.opus", "--block", "2")
    assert ran.status == 2 and "OPUS allows 8000" in ran.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.wav"]


@pytest.mark.parametrize("seconds", [1, 9])
def test_in_silence_the_target_is_absent_at_any_length(wesep, presence_model, tiny_speech, tmp_path, seconds):
    soundfile.write(tmp_path / "m.wav", np.zeros(16000 * seconds), 16000)
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", presence_model, "--device", "cpu"]
    ran = wesep("extract", tmp_path / "m.wav", *enroll, "-o", tmp_path / "o.wav", "--block", "4", "--json")
    (result,) = json.loads(ran.out)
    assert ran.status == 3 and result["absent"] and result["presence"] < 1e-6


def test_batch_and_enroll_name_outputs_the_same_way(wesep, tiny_model, tiny_speech, tmp_path):
    mixture, enrollment = (shutil.copy(tiny_speech / name, tmp_path) for name in ("bert/bert-0.wav", "anna/anna-0.wav"))
    common = ["--model", tiny_model, "--device", "cpu"]
    ran = wesep("extract", mixture, "--enroll", f"{enrollment}@0.2-1.5", *common)
    assert ran.status == 0 and Path(ran.out.strip()).name == "bert-0_anna-0.wav"
    (tmp_path / "jobs.csv").write_text("mixture,enroll\nbert-0.wav,anna-0.wav@0.2-1.5\n")
    again = wesep("extract", "--batch", tmp_path / "jobs.csv", *common, "--overwrite")
    assert again.out == ran.out


BAD_NAMES = {"long": "b" * 300, "nul": "nu\0l", "line": "two\tlines"}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_name_in_a_batch_fails_only_its_line(wesep, tiny_model, tiny_speech, tmp_path, name):
    for path in ("anna/anna-0.wav", "carl/carl-0.wav"):
        shutil.copy(tiny_speech / path, tmp_path)
    rows = [f"carl-0.wav,anna-0.wav,{name},", f"{name}.wav,anna-0.wav,x,", f"carl-0.wav,{name}.wav,y,"]
    rows += ["carl-0.wav,anna-0.wav,anna,", "carl-0.wav,anna-0.wav,z,none/out.wav"]
    rows += [f"carl-0.wav,anna-0.wav,w,{'o' * 300}.wav", "carl-0.wav,anna-0.wav,v,out.txt"]
    (tmp_path / "jobs.csv").write_text("\n".join(["mixture,enroll,name,output", *rows]) + "\n")
    ran = wesep("extract", "--batch", tmp_path / "jobs.csv", "--model", tiny_model, "--device", "cpu")
    assert ran.status == 1 and "6 of 7 extractions failed" in ran.err, ran.err
    assert [Path(line).name for line in ran.out.split()] == ["carl-0_anna.wav"]
    assert all(len(line) < 700 and line.isprintable() for line in ran.err.splitlines())


def test_a_bad_name_of_enroll_fails_only_its_target(wesep, tiny_model, tiny_speech, tmp_path):
    mixture, enrollment = tiny_speech / "carl/carl-0.wav", tiny_speech / "anna/anna-0.wav"
    common = [
        mixture,
        "--enroll",
        f"anna={enrollment}",
        "-o",
        tmp_path / "out",
        "--model",
        tiny_model,
        "--device",
        "cpu",
    ]
    ran = wesep("extract", *common, "--enroll", f"{'b' * 300}={enrollment}", "--enroll", f"{'b' * 300}={enrollment}")
    assert ran.status == 1 and "1 of 2 extractions failed" in ran.err and "at most 100 bytes" in ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["carl-0_anna.wav"]
    long = shutil.copy(mixture, tmp_path / f"{'m' * 230}.wav")
    names = ["--enroll", f"a={enrollment}", "--enroll", f"{'b' * 50}={enrollment}"]
    ran = wesep("extract", long, *names, "-o", tmp_path / "out", "--model", tiny_model, "--device", "cpu")
    assert ran.status == 1 and "a file name has at most 255 bytes" in ran.err
    assert (tmp_path / f"out/{'m' * 230}_a.wav").is_file()


def test_hidden_files_are_ignored(wesep, tiny_model, tiny_speech, tmp_path):
    mixture = shutil.copy(tiny_speech / "carl/carl-0.wav", tmp_path)
    for name in ("._carl-0.wav", ".DS_Store"):
        (tmp_path / name).write_bytes(b"of another system")
    enroll = ["--enroll", tiny_speech / "anna/anna-0.wav", "--model", tiny_model, "--device", "cpu"]
    for place in (tmp_path, tmp_path / "*.wav"):
        ran = wesep("extract", place, *enroll, "-o", tmp_path / "out", "--overwrite")
        assert ran.status == 0 and ran.out.split() == [str(tmp_path / "out" / Path(mixture).name)]
