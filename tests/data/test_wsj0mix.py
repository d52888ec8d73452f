"""WSJ0-mix in its published layout: utterances, lists, and the enrollment lists of SpEx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import InputError
from wesep_py.data import read_manifest, read_trials
from wesep_py.data.mixture_corpus import read_mixture_corpus
from wesep_py.data.wsj0mix import (
    check_set_is_complete,
    convert_enrollment_list,
    draw_enrollment_map,
    read_wsj0_mixtures,
    read_wsj0mix,
    utterance_ids_of_mixture,
)

FIRST, SECOND = "01aa010b_1.3972_20co0106_-1.3972", "01aa010c_0.001892_20co0106_-0.001892"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Write `wsj0/si_tr_s` with two speakers, `min/tr` with two mixtures, and `mix_2_spk_tr.txt`."""
    for name in ("01a/01aa010b", "01a/01aa010c", "20c/20co0106", "20c/20co0107"):
        path = tmp_path / f"wsj0/si_tr_s/{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(16000, 0.1), 16000)
    for mixture in (FIRST, SECOND):
        for part in ("mix", "s1", "s2"):
            (tmp_path / "min/tr" / part).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "min/tr" / part / f"{mixture}.wav", np.full(8000, 0.1), 8000)
    (tmp_path / "mix_2_spk_tr.txt").write_text(
        "wsj0/si_tr_s/01a/01aa010b.wav 1.3972 wsj0/si_tr_s/20c/20co0106.wav -1.3972\n"
        "wsj0/si_tr_s/01a/01aa010c.wav 0.0018920 wsj0/si_tr_s/20c/20co0106.wav -0.0018920\n"
    )
    return tmp_path


def test_ids_of_mixtures_name_their_utterances(corpus: Path):
    first, second = read_wsj0_mixtures(corpus / "min/tr")
    assert first.utterance_ids == ("01aa010b", "20co0106") and second.mixture_id == SECOND
    assert utterance_ids_of_mixture("01aa010b_1_20co0106_2_02ba0101_-3") == ("01aa010b", "20co0106", "02ba0101")
    for wrong in ("198-126831-0006_1040-133433-0072", "01aa010b_1.3972_20co0106"):
        with pytest.raises(InputError, match="is not the name of a WSJ0-mix mixture"):
            utterance_ids_of_mixture(wrong)


def test_utterances_come_from_wsj0_a_list_or_a_rendered_set(corpus: Path):
    recorded = read_wsj0mix(corpus / "wsj0/si_tr_s")
    assert [(u.utterance_id, u.speaker_id) for u in recorded][1:3] == [("01aa010c", "01a"), ("20co0106", "20c")]
    listed = read_wsj0mix(corpus / "mix_2_spk_tr.txt")
    assert [u.utterance_id for u in listed] == ["01aa010b", "20co0106", "01aa010c"]
    assert listed[1].path == corpus / "wsj0/si_tr_s/20c/20co0106.wav"
    images = read_wsj0mix(corpus / "min/tr")
    assert [(u.utterance_id, u.speaker_id) for u in images][1] == (f"{FIRST}-s2", "20c")


def test_an_enrollment_list_of_spex(corpus: Path):
    mixtures = read_wsj0_mixtures(corpus / "min/tr")
    (corpus / "aux.scp").write_text(
        f"{FIRST}_20co0107 /home/somebody/wsj0/si_tr_s_8k/20c/20co0107.wav\n"
        f"{FIRST}_01aa010c\t{corpus}/wsj0/si_tr_s/01a/01aa010c.wav\n"
        "01aa010d_1_20co0106_-1_20co0107 /home/somebody/wsj0/si_tr_s_8k/20c/20co0107.wav\n"
    )
    lines = convert_enrollment_list(mixtures, corpus / "aux.scp", corpus / "wsj0").splitlines()
    assert lines == [
        f"{FIRST} 20co0106 {corpus}/wsj0/si_tr_s/20c/20co0107.wav",
        f"{FIRST} 01aa010b {corpus}/wsj0/si_tr_s/01a/01aa010c.wav",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{FIRST}_02aa0101 wsj0/02aa0101.wav", "'02aa0101' is nowhere in"),
        (f"{FIRST}_20co0106 wsj0/20co0106.wav", "is what is said in the mixture"),
        (f"{FIRST}_20co0107", "<mixture>_<utterance> and a path are needed"),
        ("01aa010d_1_20co0106_-1_20co0107 20co0107.wav", "none of its lines is of the mixtures given"),
    ],
)
def test_errors_name_a_bad_enrollment_list(corpus: Path, line: str, message: str):
    (corpus / "aux.scp").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        convert_enrollment_list(read_wsj0_mixtures(corpus / "min/tr"), corpus / "aux.scp", corpus / "wsj0")


def test_drawn_enrollments_are_other_utterances(corpus: Path):
    mixtures = read_wsj0_mixtures(corpus / "min/tr")
    lines = [line.split() for line in draw_enrollment_map(mixtures, corpus / "wsj0").splitlines()]
    assert len(lines) == 4
    for mixture_id, target, enrollment in lines:
        assert target in mixture_id and Path(enrollment).stem[:3] == target[:3] and Path(enrollment).stem != target
    second = draw_enrollment_map(mixtures[1:], corpus / "wsj0").splitlines()
    assert second == [" ".join(line) for line in lines[2:]]


def test_a_set_without_all_mixtures_of_its_list_is_refused(corpus: Path):
    mixtures = read_wsj0_mixtures(corpus / "min/tr")
    check_set_is_complete(mixtures, corpus / "mix_2_spk_tr.txt")
    with pytest.raises(InputError, match=r"1 of its mixtures are not there, the first 01aa010c_0\.0018920"):
        check_set_is_complete(mixtures[:1], corpus / "mix_2_spk_tr.txt")
    (corpus / "min/tr/s2" / f"{SECOND}.wav").unlink()
    with pytest.raises(InputError, match="render the set again"):
        read_wsj0_mixtures(corpus / "min/tr")


def test_the_commands_write_what_training_and_evaluation_read(corpus: Path, wesep: Callable):
    ran = wesep("prepare", "wsj0mix", corpus / "wsj0", "-o", corpus / "wsj0.jsonl")
    assert ran.out == f"{corpus}/wsj0.jsonl: 2 speakers, 4 utterances, 0.00 hours\n"
    ran = wesep("prepare", "wsj0mix-trials", corpus / "min/tr", "--wsj0", corpus / "wsj0", "-o", corpus / "tr.csv")
    assert ran.out == f"{corpus}/tr.csv: 2 mixtures\n{corpus}/tr.map_mixture2enrollment: 4 trials\n"
    trials = read_trials(corpus / "tr.csv", corpus / "tr.map_mixture2enrollment")
    assert [trial.target.speaker_id for trial in trials] == ["01a", "20c"] * 2
    assert trials[0].rendered["clean"] == corpus / "min/tr/mix" / f"{FIRST}.wav"
    learned = read_mixture_corpus([corpus / "tr.csv"], speech=read_manifest(corpus / "wsj0.jsonl"))
    assert [source.recording_id for source in learned.mixtures[1].sources] == ["01aa010c", "20co0106"]
    command = ["prepare", "wsj0mix-trials", corpus / "min/tr", "-o", corpus / "new.csv"]
    assert "--wsj0 where it lies" in wesep(*command, "--enrollment", corpus / "aux.scp").message
    assert "already" in wesep("prepare", "wsj0mix-trials", corpus / "min/tr", "-o", corpus / "tr.csv").message


def test_a_mixture_of_one_speaker_is_refused(tmp_path: Path):
    for part in ("mix", "s1", "s2"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "01aa010b_1.3_01ac0106_-1.3.wav").touch()
    with pytest.raises(InputError, match="two of its sources are of one speaker"):
        read_wsj0_mixtures(tmp_path)
