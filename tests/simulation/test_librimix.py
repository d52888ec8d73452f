"""LibriMix from its metadata, against a slow version of its scripts; layout, lists, errors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.data import read_mixtures, read_trials
from wesep_py.data.mixture_lists import speakers_of
from wesep_py.simulation import render_trial
from wesep_py.simulation.librimix import LibriMixTree, render_librimix

RATE = 16000
HEAD = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"
# As in LibriMix's own files: gains with all their digits, WHAM!'s names with dots and minus signs.
ROWS = (
    "198-126831-0006_1040-133433-0072,train-clean-100/198/126831/198-126831-0006.flac,1.011496427269507,"
    "train-clean-100/1040/133433/1040-133433-0072.flac,1.0978411631972202,tr/01ga010e_0.67686_016c020s_-0.67686.wav,"
    "0.3175738454757897\n"
    "1040-133433-0072_198-126831-0007,train-clean-100/1040/133433/1040-133433-0072.flac,0.565258263191565,"
    "train-clean-100/198/126831/198-126831-0007.flac,0.7895395788353361,"
    "tr/01ga010e_0.67686_016c020s_-0.67686sp08.wav,0.331982390445737\n"
)
LENGTHS = {"198/126831/198-126831-0006": 2.3, "1040/133433/1040-133433-0072": 3.1, "198/126831/198-126831-0007": 2.05}


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """`LibriSpeech`, `wham_noise` (two channels, 1.2 s) and `libri2mix_train-clean-100.csv`."""
    rng = np.random.default_rng(0)
    for name, seconds in LENGTHS.items():
        path = tmp_path / f"LibriSpeech/train-clean-100/{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(round(RATE * seconds)), RATE)
    noise = tmp_path / "wham_noise/tr/01ga010e_0.67686_016c020s_-0.67686.wav"
    noise.parent.mkdir(parents=True)
    soundfile.write(noise, 0.05 * rng.standard_normal((round(RATE * 1.2), 2)), RATE)
    (tmp_path / "libri2mix_train-clean-100.csv").write_text(HEAD + ROWS)
    return tmp_path


def render(corpora: Path, tree: LibriMixTree, **more: object) -> tuple[int, list]:
    metadata = corpora / "libri2mix_train-clean-100.csv"
    return render_librimix(metadata, tree, corpora / "LibriSpeech", corpora / "wham_noise", **more)


def slow_mixture(corpora: Path, mode: str, to_rate: int) -> dict[str, np.ndarray]:
    """Compute the first row sample by sample."""
    from scipy.signal import resample_poly

    first = HEAD.strip().split(",")
    row = dict(zip(first, ROWS.split("\n")[0].split(","), strict=True))
    parts = [soundfile.read(corpora / "LibriSpeech" / row[f"source_{k}_path"], dtype="float32")[0] for k in (1, 2)]
    longest = max(map(len, parts))
    noise = soundfile.read(corpora / "wham_noise" / row["noise_path"], dtype="float32")[0][:, 0].astype(np.float64)
    looped = list(noise)
    while len(looped) < longest:
        joined = len(looped) - 8001
        for i in range(8001):
            share = 0.5 - 0.5 * np.cos(2 * np.pi * i / RATE)
            looped[joined + i] = looped[joined + i] * (0.5 + 0.5 * np.cos(2 * np.pi * i / RATE)) + noise[i] * share
        looped.extend(noise[8001:])
    parts.append(np.array(looped[:longest]))
    gains = [float(row[name]) for name in ("source_1_gain", "source_2_gain", "noise_gain")]
    parts = [resample_poly(part * gain, to_rate, RATE) for part, gain in zip(parts, gains, strict=True)]
    end = (min if mode == "min" else max)(map(len, parts))
    parts = [np.pad(part[:end], (0, end - len(part[:end]))) for part in parts]
    s1, s2, noise = parts
    return {
        "s1": s1,
        "s2": s2,
        "noise": noise,
        "mix_clean": s1 + s2,
        "mix_both": s1 + s2 + noise,
        "mix_single": s1 + noise,
    }


@pytest.mark.parametrize(("mode", "rate"), [("min", 16000), ("max", 16000), ("min", 8000)])
def test_mixture_equals_that_of_librimix_scripts(corpora: Path, mode: str, rate: int):
    tree = LibriMixTree(corpora / "out" / "train-100", rate, mode)
    assert render(corpora, tree) == (2, [])
    for part, expected in slow_mixture(corpora, mode, rate).items():
        written, written_rate = soundfile.read(
            tree.folder / part / "198-126831-0006_1040-133433-0072.wav", dtype="int16"
        )
        assert written_rate == rate and written.size == expected.size
        clipped = np.clip(expected, -1, 1 - 2**-15) * 32768
        assert np.abs(written - clipped).max() < 1.01, part
        assert soundfile.info(tree.folder / part / "198-126831-0006_1040-133433-0072.wav").subtype == "PCM_16"


def test_noise_at_another_speed_is_computed_from_original(corpora: Path):
    tree = LibriMixTree(corpora / "out" / "train-100")
    render(corpora, tree)
    name = "1040-133433-0072_198-126831-0007.wav"
    noise, _ = soundfile.read(tree.folder / "noise" / name)
    original, _ = soundfile.read(corpora / "wham_noise/tr/01ga010e_0.67686_016c020s_-0.67686.wav")
    slow = np.interp(np.arange(8000) * 0.8, np.arange(len(original)), original[:, 0])
    assert np.corrcoef(noise[:8000], slow)[0, 1] > 0.8
    assert np.abs(np.corrcoef(noise[:8000], original[:8000, 0])[0, 1]) < 0.1


def test_tree_and_lists_are_read_back(corpora: Path):
    tree = LibriMixTree(corpora / "Libri2Mix/wav16k/min/train-100", types=("mix_clean", "mix_both"))
    render(corpora, tree, jobs=2)
    metadata = corpora / "Libri2Mix/wav16k/min/metadata/mixture_train-100_mix_both.csv"
    with metadata.open() as lines:
        (row, _) = csv.DictReader(lines)
    assert list(row) == ["mixture_ID", "mixture_path", "source_1_path", "source_2_path", "noise_path", "length"]
    assert row["length"] == str(round(2.3 * RATE)) and Path(row["noise_path"]).is_file()
    assert read_mixtures(metadata).keys() == read_mixtures(tree.folder).keys()
    mapped = corpora / "map"
    mapped.write_text("198-126831-0006_1040-133433-0072 198-126831-0006 s2/1040-133433-0072_198-126831-0007\n")
    (trial,) = read_trials(tree.folder, mapped)
    audio = render_trial(trial, "noisy")
    assert np.abs(audio.mixture - audio.reference - audio.interferers.sum(0) - audio.noise).max() < 2e-4


def test_interrupted_run_is_completed(corpora: Path):
    tree = LibriMixTree(corpora / "out" / "train-100")
    render(corpora, tree)
    gone, kept = (sorted((tree.folder / "mix_both").iterdir())[k] for k in (0, 1))
    before, written = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    render(corpora, tree)
    assert gone.read_bytes() == before and kept.stat().st_mtime_ns == written


def test_unreadable_recording_is_named_and_left_out(corpora: Path):
    (corpora / "LibriSpeech/train-clean-100/198/126831/198-126831-0007.flac").unlink()
    tree = LibriMixTree(corpora / "out" / "train-100")
    count, (failure,) = render(corpora, tree)
    assert count == 2 and failure.mixture == "1040-133433-0072_198-126831-0007" and "no such file" in failure.reason
    assert len((corpora / "out/metadata/mixture_train-100_mix_clean.csv").read_text().splitlines()) == 2


def test_unrenderable_metadata_is_refused(corpora: Path):
    tree = LibriMixTree(corpora / "out" / "train-100")
    render(corpora, tree)
    rendered = corpora / "out/metadata/mixture_train-100_mix_clean.csv"
    with pytest.raises(InputError, match="was rendered already; give the metadata with gains"):
        render_librimix(rendered, LibriMixTree(corpora / "again"))
    (corpora / "libri2mix_train-clean-100.csv").write_text(HEAD + ROWS.split("\n")[0] + "\n")
    with pytest.raises(OutputExistsError, match="lists other mixtures"):
        render(corpora, tree)
    with pytest.raises(InputError, match="mix_clean"):
        render(corpora, LibriMixTree(corpora / "other", types=("mixclean",)))


def test_mixture_ids_cannot_leave_the_folder(corpora: Path):
    rows = ROWS.splitlines()[0].split(",", 1)[1]
    ids = [str(corpora / "evil"), "../../../evil", "..", "a/b", "x" * 400, "nu%00l", ".hidden"]
    metadata = corpora / "evil.csv"
    metadata.write_text(HEAD + "".join(f"{name},{rows}\n" for name in ids))
    before = {path for path in corpora.rglob("*") if path.is_file()}
    tree = LibriMixTree(corpora / "out/train", types=("mix_clean",))
    assert render_librimix(metadata, tree, corpora / "LibriSpeech", corpora / "wham_noise") == (len(ids), [])
    written = {path for path in corpora.rglob("*") if path.is_file()} - before
    listed = corpora / "out/metadata/mixture_train_mix_clean.csv"
    assert len(written) == 3 * len(ids) + 1 and all(path.parents[1] == tree.folder for path in written - {listed})
    mixtures = read_mixtures(listed)
    assert list(mixtures) == ids and all(source.path.is_file() for m in mixtures.values() for source in m.sources)


def test_existing_files_stay_and_temporary_ones_are_removed(corpora: Path):
    tree = LibriMixTree(corpora / "out/train-100", types=("mix_clean",))
    mine = tree.folder / "s1/198-126831-0006_1040-133433-0072.wav"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    left = mine.with_name(".198-126831-0006_1040-133433-0072.abcdefgh.wav")
    left.touch()
    render(corpora, tree)
    assert mine.read_bytes() == b"mine" and not left.exists()
    render(corpora, tree, overwrite=True)
    assert soundfile.info(mine).frames == round(2.3 * RATE)


def test_speakers_of_metadata_are_in_the_lists(corpora: Path):
    head, row = HEAD.strip() + ",source_1_speaker_id,source_2_speaker_id\n", ROWS.splitlines()[0]
    (corpora / "speakers.csv").write_text(head + f"first,{row.split(',', 1)[1]},anna,bert\n")
    tree = LibriMixTree(corpora / "out/train", types=("mix_clean",))
    render_librimix(corpora / "speakers.csv", tree, corpora / "LibriSpeech", corpora / "wham_noise")
    for place in (tree.folder, corpora / "out/metadata/mixture_train_mix_clean.csv"):
        assert speakers_of(read_mixtures(place)["first"]) == ("anna", "bert")
