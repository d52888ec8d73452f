"""`wesep extract` of short recordings: its files, voice prints, and the same result as in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile


def test_two_targets_are_extracted_from_two_recordings(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
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
        mixture, estimate = soundfile.info(result["mixture"]), soundfile.info(result["output"])
        assert (estimate.frames, estimate.subtype) == (mixture.frames, mixture.subtype)


def test_a_voice_print_gives_the_same_result_as_its_recordings(
    wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path
):
    common = ["--model", tiny_model, "--device", "cpu"]
    recordings = [tiny_speech / "anna" / "anna-0.wav", tiny_speech / "anna" / "anna-1.wav"]
    ran = wesep("enroll", *recordings, "-o", tmp_path / "anna.voice", *common)
    assert ran.status == 0 and "4.5 s of 2 recording" in ran.out
    mixture = tiny_speech / "bert" / "bert-1.wav"
    wesep("extract", mixture, "--enroll", tmp_path / "anna.voice", "-o", tmp_path / "a.wav", *common)
    wesep("extract", mixture, *(w for r in recordings for w in ("--enroll", r)), "-o", tmp_path / "b.wav", *common)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav")[0], soundfile.read(tmp_path / "b.wav")[0])


def test_command_and_python_write_the_same_bytes(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    import wesep_py

    mixture, enrollment = tiny_speech / "bert" / "bert-1.wav", tiny_speech / "anna" / "anna-0.wav"
    common = ["--model", tiny_model, "--device", "cpu"]
    assert wesep("extract", mixture, "--enroll", enrollment, "-o", tmp_path / "cli.wav", *common).status == 0
    extractor = wesep_py.load(tiny_model, device="cpu")
    extractor.extract(mixture, extractor.enroll(enrollment)).save(tmp_path / "python.wav")
    assert (tmp_path / "cli.wav").read_bytes() == (tmp_path / "python.wav").read_bytes()


def test_shifts_of_the_command_are_those_of_python(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    """In one process and in several, for a recording that is extracted whole and one that is extracted in blocks."""
    import wesep_py
    from wesep_py.inference import Blocks

    recordings, enrollment = [tiny_speech / "bert" / f"bert-{i}.wav" for i in (0, 3)], tiny_speech / "anna/anna-0.wav"
    common = ["--enroll", enrollment, "--model", tiny_model, "--device", "cpu", "--block", "3"]
    for jobs in (1, 2):
        ran = wesep("extract", *recordings, *common, "--shifts", "2", "-o", tmp_path / str(jobs), "--jobs", jobs)
        assert ran.status == 0, ran.err
    extractor = wesep_py.load(tiny_model, "cpu", shifts=2)
    voice, blocks = extractor.enroll(enrollment), Blocks.of(3.0)
    for recording in recordings:
        extractor.extract(recording, voice, blocks).save(tmp_path / "python.wav", overwrite=True)
        expected = soundfile.read(tmp_path / "python.wav")[0]
        for jobs in (1, 2):
            np.testing.assert_allclose(soundfile.read(tmp_path / str(jobs) / recording.name)[0], expected, atol=2**-15)
        single = extractor.extract(recording, voice, blocks, shifts=1).waveform
        assert np.abs(single - expected).max() > 1e-3


def test_the_live_mode_gives_what_a_stream_gives(wesep, tiny_speech: Path, tmp_path: Path):
    """In one process and in several, for a recording that is extracted whole and one that is extracted in blocks."""
    import wesep_py
    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "live": True, "norm": "frame"}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}]})
    model = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    recordings, enrollment = [tiny_speech / "bert" / f"bert-{i}.wav" for i in (0, 3)], tiny_speech / "anna/anna-0.wav"
    common = ["--enroll", enrollment, "--model", model, "--device", "cpu", "--block", "3"]
    for jobs in (1, 2):
        ran = wesep("extract", *recordings, *common, "--live", "-o", tmp_path / str(jobs), "--jobs", jobs)
        assert ran.status == 0, ran.err
    extractor = wesep_py.load(model, "cpu")
    voice = extractor.enroll(enrollment)
    for recording in recordings:
        mixture, rate = soundfile.read(recording, dtype="float32")
        stream = extractor.stream(voice, rate)
        expected = np.concatenate([stream.process(mixture), stream.flush()])
        for jobs in (1, 2):
            np.testing.assert_allclose(soundfile.read(tmp_path / str(jobs) / recording.name)[0], expected, atol=2**-15)
        assert np.abs(extractor.extract((mixture, rate), voice).waveform - expected).max() > 1e-3
    ran = wesep("extract", recordings[0], *common, "--live", "--shifts", "2", "-o", tmp_path / "shifted.wav")
    assert ran.status == 2 and "allows 1 only" in ran.message


def test_shifts_that_the_model_does_not_allow_are_refused(wesep, tiny_speech: Path, tmp_path: Path):
    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": True}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "normalise": "none", "shifts": 2})
    model = checkpoint.save(tmp_path / "causal", network.config, network.state_dict())
    mixture, enrollment = tiny_speech / "bert" / "bert-0.wav", tiny_speech / "anna" / "anna-0.wav"
    arguments = ["extract", mixture, "--enroll", enrollment, "-o", tmp_path / "o.wav", "--model", model]
    ran = wesep(*arguments, "--shifts", "2")
    assert ran.status == 2 and "shifts is 2; a causal network that streams allows 1 only" in ran.message
    for shifts in ("0", "-1", "17"):
        ran = wesep(*arguments, "--shifts", shifts)
        assert ran.status == 2 and f"shifts is {shifts}; a whole number from 1 to 16 is allowed" in ran.message
    assert not (tmp_path / "o.wav").exists() and wesep(*arguments).status == 0
