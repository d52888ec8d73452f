"""Every reader returns a value or raises one line that names the file: a hundred damaged files each."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.damaged_files import damaged_bytes, damaged_object, hundred, value_or_line
from wesep_py.data import read_manifest, read_trials
from wesep_py.data.corpora import read_kaldi
from wesep_py.data.packed import read_pack_index
from wesep_py.data.store import parse_index_lines, utterance_from_record
from wesep_py.evaluation.activity_labels import read_labels
from wesep_py.evaluation.calibration import read_presence_scores
from wesep_py.evaluation.comparison import compare
from wesep_py.evaluation.frame_calibration import read_frame_counts
from wesep_py.evaluation.report_page import build_report
from wesep_py.evaluation.results import Journal, check_reportable, read_results
from wesep_py.simulation.description.recipe import read_recipes
from wesep_py.simulation.rooms.room_bank import RoomBank
from wesep_py.training.provenance import ancestors
from wesep_py.training.run_log import RunLog
from wesep_py.training.state import Progress, TrainingState, load_state, save_state

MANIFEST = [
    {"utterance_id": f"a-{n}", "speaker_id": "a", "path": f"a/{n}.wav", "duration_s": 2.5, "gender": "f", "age": 30}
    for n in range(3)
]
CSV = 'utterance_id,speaker_id,path,duration_s,text\na-1,a,1.wav,2.0,hello\na-2,a,2.wav,3.5,"one, ""two"""\n'
MIXTURES = (
    "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"
    "a-0_b-0,a-0.wav,0.5,b-0.wav,0.5,n.wav,0.1\na-1_b-1,a-1.wav,0.5,b-1.wav,0.25,n.wav,0.1\n"
)
MAP = "a-0_b-0 a-0 a-1.wav\na-0_b-0 b-0 s2/a-1_b-1\na-1_b-1 - c.wav\n"
UTTERANCE = {"utterance_id": "a-1", "speaker_id": "a", "path": "1.wav", "duration_s": 2.0}
STRETCH = {"utterance": UTTERANCE, "start": 0, "num_samples": 100, "gain": 0.5}
RECIPE = {
    "seed": 1, "epoch": 0, "index": 3, "attempt": 0, "sample_rate": 16000, "num_samples": 100, "target": 0,
    "sources": [{"excerpt": STRETCH, "offset": 0, "enrollments": [STRETCH]}], "sir_db": [0.0], "snr_db": 5.0,
    "noise": {"kind": "coloured", "gain": 0.1, "seed": 4, "slope_db": -3.0},
    "room": {
        "size_m": [4.0, 5.0, 3.0], "rt60_s": 0.3, "microphone_m": [1.0, 1.0, 1.0], "sources_m": [[2.0, 2.0, 1.5]],
        "num_reflections": 50, "early_ms": 50.0, "seed": 2,
    },
    "version": 1,
}  # fmt: skip
TRIALS = [
    {
        "mixture_id": f"m{n}", "target_utterance_id": "u", "enrollment": "e.wav", "num_speakers": 2, "number": n,
        "outcome": "absent" if n % 3 == 2 else "scored", "duration_s": 4.0, "presence": 0.2 + 0.1 * n,
        "presence_frames": {"lowest": -2, "active": [1, 2, 3], "inactive": [3, 2, 1]},
        "missing": {"pesq": "no package"}, "weights": {"wer": 2.0}, "si_sdr": 3.0 + n, "si_sdri": 1.0 + n,
    }
    for n in range(4)
]  # fmt: skip
INTERVAL = {"mean": 4.5, "low": 3.0, "high": 6.0, "count": 3}
NOTHING = {"count": 1, "attenuation_db": INTERVAL, "false_alarm_rate": {"by_level": INTERVAL}}
SUMMARY = {
    "si_sdr": INTERVAL, "si_sdri": INTERVAL,
    "counts": {"trials": 4, "scored": 3, "silent_reference": 0, "absent": 1, "failed": 0, "silent_estimate": 0},
    "missing": {"pesq": {"no package": 3}}, "absent": {**NOTHING, "retention": {"by_level": INTERVAL}},
    "silent_reference": {**NOTHING, "count": 0},
    "failed": [{"mixture_id": "m", "target_utterance_id": "u", "error": "gone"}],
    "speed": {"rtf": 0.1, "audio_s": 16.0, "threads": 1, "device": "cpu"},
    "breakdown": {"sir_db": {"0 to 5": {"trials": 3, "si_sdr": INTERVAL, "si_sdri": INTERVAL}}},
    "protocol": {
        "model": {"name": "exp/mine", "hash": "ab"}, "condition": "clean", "date": "2026-01-01T00:00:00+00:00",
        "trials": {"sha256": "cd"}, "metrics": {"si_sdr": "defined", "si_sdri": "defined"}, "command": ["wesep"],
        "presence_calibration": {"scale": 1.0, "offset": 0.0, "threshold": 0.5},
    },
}  # fmt: skip
RESPONSES = [{"offset": 4 * n, "taps": 2, "direct_taps": [0, 1], "direct_gains": [1.0, 0.5]} for n in (0, 1)]
BANK = {
    "fingerprint": "ab", "format": 1, "sample_rate": 16000, "made_from": {}, "direct_tap": 96, "num_samples": 8,
    "rooms": [{"rt60_s": 0.3, "index": 0, "responses": RESPONSES}],
}  # fmt: skip
PACKED = {
    "format": 1, "fingerprint": "ab", "sample_rate": 16000, "samples": "samples-ab.int16", "num_samples": 30,
    "utterances": {"a-1": [0, 10, 3], "a-2": [10, 20, -2]}, "left_out": {"a-3": "damaged"},
}  # fmt: skip


def lines(objects: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in objects).encode()


def damaged_lines(objects: list[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    """JSONL with a fault in its bytes, or in the values of one line."""
    values = st.sampled_from(range(len(objects))).flatmap(
        lambda n: damaged_object(objects[n]).map(lambda item: lines([*objects[:n], item, *objects[n + 1 :]]))
    )
    return st.one_of(damaged_bytes(lines(objects)), values)


def damaged_json(value: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """JSON with a fault in its bytes or its values."""
    text = json.dumps(value).encode()
    return st.one_of(damaged_bytes(text), damaged_object(value).map(lambda item: json.dumps(item).encode()))


@pytest.fixture
def quiet():
    """Ignore warnings of skipped content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@hundred
@given(content=damaged_lines(MANIFEST))
def test_manifests_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "m.jsonl").write_bytes(content)
    utterances = value_or_line(lambda: read_manifest(tmp_path / "m.jsonl", check_files=False), tmp_path / "m.jsonl")
    for utterance in utterances or []:
        assert utterance.utterance_id and 0 < utterance.duration_s <= 1e15 and math.isfinite(utterance.start_s)


@hundred
@given(content=damaged_bytes(CSV.encode()))
def test_manifests_in_csv_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "m.csv").write_bytes(content)
    value_or_line(lambda: read_manifest(tmp_path / "m.csv", check_files=False), tmp_path / "m.csv")


@hundred
@given(content=damaged_bytes(MIXTURES.encode()), of_map=st.booleans(), map_content=damaged_bytes(MAP.encode()))
def test_trials_give_a_value_or_one_line(tmp_path: Path, content: bytes, of_map: bool, map_content: bytes):
    (tmp_path / "trials.csv").write_bytes(MIXTURES.encode() if of_map else content)
    (tmp_path / "trials.map").write_bytes(map_content if of_map else MAP.encode())
    value_or_line(
        lambda: read_trials(tmp_path / "trials.csv", tmp_path / "trials.map", check_files=False),
        tmp_path / ("trials.map" if of_map else "trials.csv"),
    )


@hundred
@given(content=damaged_lines([RECIPE, RECIPE]))
def test_recipes_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "recipes.jsonl").write_bytes(content)
    value_or_line(lambda: list(read_recipes(tmp_path / "recipes.jsonl")), tmp_path / "recipes.jsonl")


@hundred
@given(content=damaged_json(SUMMARY), trials=damaged_lines(TRIALS), of_summary=st.booleans())
def test_results_give_a_value_or_one_line(tmp_path: Path, content: bytes, trials: bytes, of_summary: bool, quiet):
    """Accepted results can be reported and compared."""
    (tmp_path / "summary.json").write_bytes(content if of_summary else json.dumps(SUMMARY).encode())
    (tmp_path / "per_trial.jsonl").write_bytes(lines(TRIALS) if of_summary else trials)
    path = tmp_path / ("summary.json" if of_summary else "per_trial.jsonl")

    def read() -> None:
        results = read_results(tmp_path)
        check_reportable(results)
        build_report(results)
        compare(results, results)

    value_or_line(read, path)
    value_or_line(lambda: read_presence_scores([tmp_path]), path)
    value_or_line(lambda: read_frame_counts([tmp_path]), path)


@hundred
@given(run=damaged_json({"protocol": {"model": "m", "date": "d"}}), trials=damaged_lines(TRIALS), of_run=st.booleans())
def test_unfinished_results_give_a_value_or_one_line(tmp_path: Path, run: bytes, trials: bytes, of_run: bool, quiet):
    (tmp_path / "run.json").write_bytes(run if of_run else b'{"protocol": {"model": "m"}}')
    (tmp_path / "per_trial.jsonl").write_bytes(lines(TRIALS) if of_run else trials)
    journal = value_or_line(lambda: Journal(tmp_path, {"model": "m"}), tmp_path / "run.json")
    if journal is not None:
        assert all(record.outcome != "failed" for record in journal.done.values())
        journal.close()


@hundred
@given(content=damaged_lines([{"kind": "train", "step": n, "loss": 1.0, "elapsed_s": 2.0 * n} for n in (1, 2, 3)]))
def test_logs_give_a_value_or_one_line(tmp_path: Path, content: bytes, quiet):
    (tmp_path / "log.jsonl").write_bytes(content)
    RunLog(tmp_path / "log.jsonl", [], 2).close()
    remaining = [json.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().decode().split("\n")[:-1]]
    assert all(float(line["step"]) <= 2 for line in remaining)


@hundred
@given(content=damaged_json({"sessions": [{"step": 0, "data": {"a": "1"}, "went_on_from": [{"hash": "ab"}]}]}))
def test_provenance_of_runs_give_a_value_or_one_line(tmp_path: Path, content: bytes, quiet):
    file = tmp_path / "provenance.json"
    file.write_bytes(content)
    assert all(isinstance(entry, dict) for entry in ancestors(file))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Save two states of a tiny run, and return their files."""
    folder = tmp_path_factory.mktemp("state")
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    for step in (1, 2):
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        save_state(folder, TrainingState(Progress(step, best=step / 2), layer.state_dict(), optimizer.state_dict()))
    return {name: (folder / name).read_bytes() for name in ("last.pt", "previous.pt")}


@hundred
@given(data=st.data())
def test_training_states_give_a_value_or_one_line(tmp_path: Path, saved: dict[str, bytes], data: st.DataObject, quiet):
    """A damaged state is replaced by the one before; if both are damaged, there is one line."""
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content)
    whole = {2: load_state(tmp_path)}
    (tmp_path / "last.pt").write_bytes(data.draw(damaged_bytes(saved["last.pt"])))
    loaded = load_state(tmp_path)
    assert loaded is not None and loaded.progress.step in (1, 2)
    if loaded.progress.step == 2:
        assert all(torch.equal(loaded.model[key], value) for key, value in whole[2].model.items())
    (tmp_path / "previous.pt").write_bytes(data.draw(damaged_bytes(saved["previous.pt"])))
    value_or_line(lambda: load_state(tmp_path), tmp_path / "last.pt")


@hundred
@given(content=damaged_json(BANK))
def test_banks_of_rooms_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "index.json").write_bytes(content)
    (tmp_path / "responses.float32").write_bytes(bytes(32))

    def read() -> None:
        bank = RoomBank(tmp_path)
        for index in range(len(bank.responses)):
            bank.response(index)

    value_or_line(read, tmp_path / "index.json")


@hundred
@given(content=damaged_json(PACKED))
def test_packed_corpora_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    """A damaged index counts as missing, so that the corpus is packed again."""
    (tmp_path / "index.json").write_bytes(content)
    (tmp_path / "samples-ab.int16").write_bytes(bytes(60))
    index = read_pack_index(tmp_path)
    for offset, length, _ in (index or {"utterances": {}})["utterances"].values():
        assert 0 <= offset <= offset + length <= 30


@hundred
@given(content=damaged_lines([{**line, "sample_rate": 16000, "num_samples": 40000, "crc32": 7} for line in MANIFEST]))
def test_indexes_of_stores_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "index.jsonl"

    def read() -> list[Any]:
        records = parse_index_lines(content.splitlines(), str(path))
        return [utterance_from_record(record, f"{path}:{n}") for n, record in enumerate(records, start=1)]

    value_or_line(read, path)


RTTM = b"SPEAKER meeting 1 0.50 2.25 <NA> <NA> alice <NA> <NA>\nSPEAKER meeting 1 3.00 1.00 <NA> <NA> bob <NA> <NA>\n"


@hundred
@given(content=damaged_bytes(RTTM))
def test_labels_give_a_value_or_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "l.rttm").write_bytes(content)
    value_or_line(lambda: read_labels(tmp_path / "l.rttm"), tmp_path / "l.rttm")


@hundred
@given(name=st.sampled_from(["wav.scp", "utt2spk", "segments", "utt2dur", "text"]), data=st.data())
def test_kaldi_folders_give_a_value_or_one_line(tmp_path: Path, name: str, data: st.DataObject):
    files = {
        "wav.scp": b"r1 r1.wav\nr2 r2.wav\n",
        "utt2spk": b"u1 alice\nu2 bob\n",
        "segments": b"u1 r1 0.5 2.0\nu2 r2 1.0 2.5\n",
        "utt2dur": b"u1 1.5\nu2 1.5\n",
        "text": b"u1 hello\nu2\n",
    }
    for other, content in files.items():
        (tmp_path / other).write_bytes(data.draw(damaged_bytes(content)) if other == name else content)
    value_or_line(lambda: read_kaldi(tmp_path, on_skip=lambda path, line: None), tmp_path / name)
