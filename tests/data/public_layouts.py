"""Write the data of WeSep, ESPnet and SpeakerBeam in miniature, in those projects' own layouts.

Written from the facts of their preparation scripts, and without this package: WeSep's `local/prepare_data.sh`,
`local/prepare_spk2enroll_librispeech.py`, `local/prepare_librimix_enroll.py`, `tools/make_shard_list_premix.py`,
`tools/make_shard_online.py` and `tools/make_lmdb.py`; ESPnet's `egs2/librimix/tse1/local/data.sh`; SpeakerBeam's
`egs/libri2mix`.

    RECIPE/Libri2Mix/wav16k/min/{train-100,dev}/{mix_clean,s1,s2}/MIX.wav
    RECIPE/data/clean/{train-100,dev}/wav.scp, …        with paths relative to RECIPE
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
PAIRS = {
    "train-100": [("84-1-0", "174-2-0"), ("174-2-1", "84-1-1"), ("84-1-2", "251-3-0"), ("251-3-1", "174-2-2")],
    "dev": [("777-5-0", "888-6-0"), ("888-6-1", "777-5-1")],
}
PITCH_HZ = {"84": 110, "174": 150, "251": 190, "777": 130, "888": 210}


def voice(utterance: str, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A buzz at the pitch of the speaker, with syllables; float64 `[samples]`."""
    speaker = utterance.split("-")[0]
    rng = np.random.default_rng(sum(map(ord, utterance)))
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * k * PITCH_HZ.get(speaker, 170) * t) / k for k in range(1, 9))
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6))
    return 0.1 * syllables * tone + 0.002 * rng.standard_normal(t.size)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")


def make_libri2mix(recipe: Path, rate: int = RATE) -> Path:
    """LibriMix's rendered tree: `mix_clean`, `s1`, `s2` of each set; noise and `mix_both` of dev."""
    root = recipe / "Libri2Mix" / f"wav{rate // 1000}k" / "min"
    for subset, pairs in PAIRS.items():
        for number, pair in enumerate(pairs):
            name, sources = "_".join(pair) + ".wav", [voice(utterance, rate=rate) for utterance in pair]
            for k, source in enumerate(sources, start=1):
                write_wav(root / subset / f"s{k}" / name, source, rate)
            write_wav(root / subset / "mix_clean" / name, sources[0] + sources[1], rate)
            noise = 0.02 * np.random.default_rng(number).standard_normal(sources[0].size)
            write_wav(root / subset / "noise" / name, noise, rate)
            write_wav(root / subset / "mix_both" / name, sources[0] + sources[1] + noise, rate)
    return root


def lines(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows))


def make_wesep(recipe: Path, kind: str = "clean") -> Path:
    """WeSep's data folders of Libri2Mix; paths are relative to the recipe's folder."""
    make_libri2mix(recipe)
    for subset, pairs in PAIRS.items():
        tree, folder = f"Libri2Mix/wav16k/min/{subset}", recipe / "data" / kind / subset
        mixtures = ["_".join(pair) for pair in pairs]
        lines(
            folder / "wav.scp", [f"{m} {tree}/mix_{kind}/{m}.wav {tree}/s1/{m}.wav {tree}/s2/{m}.wav" for m in mixtures]
        )
        lines(
            folder / "utt2spk",
            [f"{m} {a.split('-')[0]} {b.split('-')[0]}" for m, (a, b) in zip(mixtures, pairs, strict=True)],
        )
        single = [
            (f"s{k}/{m}.wav", f"{tree}/s{k}/{m}.wav", u) for k in (1, 2) for m, u in _numbered(mixtures, pairs, k)
        ]
        lines(folder / "single.wav.scp", [f"{name} {path}" for name, path, _ in single])
        lines(folder / "single.utt2spk", [f"{name} {utterance.split('-')[0]}" for name, _, utterance in single])
        enroll: dict[str, list[list[str]]] = {}
        for _, path, utterance in single:
            enroll.setdefault(utterance.split("-")[0], []).append([utterance, path])
        (folder / "spk2enroll.json").write_text(json.dumps(enroll))
        if subset == "dev":  # the enrollment of a speaker is its other recording
            others = {u: name for name, _, u in single}
            for k in (1, 2):
                rows = []
                for m, utterance in _numbered(mixtures, pairs, k):
                    speaker = utterance.split("-")[0]
                    rows.append(f"{m} {next(others[u] for u in others if u != utterance and u.startswith(speaker))}")
                lines(folder / f"spk{k}.enroll", rows)
        shards = folder / "shards" / "shards_000000000.tar"
        write_premixed_shard(recipe, shards, mixtures, pairs, tree, kind)
        lines(folder / "shard.list", [shards.relative_to(recipe).as_posix()])
        rows = [
            {
                "key": m,
                "spk": [u.split("-")[0] for u in pair],
                "mix": {"default": [f"{tree}/mix_{kind}/{m}.wav"]},
                "src": {u.split("-")[0]: [f"{tree}/s{k}/{m}.wav"] for k, u in enumerate(pair, start=1)},
            }
            for m, pair in zip(mixtures, pairs, strict=True)
        ]
        lines(folder / "raw.list", [json.dumps(row) for row in rows])
    return recipe / "data" / kind


def make_embeddings(recipe: Path, folder: Path, dim: int = 256) -> Path:
    """Kaldi's embed.ark and embed.scp of all names in single.wav.scp, as WeSpeaker writes them."""
    names = [line.split()[0] for line in (folder / "single.wav.scp").read_text().splitlines()]
    places = []
    with (folder / "embed.ark").open("wb") as archive:
        for number, name in enumerate(names):
            archive.write(f"{name} ".encode())
            places.append(f"{name} {(folder / 'embed.ark').relative_to(recipe)}:{archive.tell()}")
            vector = np.random.default_rng(number).standard_normal(dim).astype("<f4")
            archive.write(b"\0BFV \4" + np.int32(dim).tobytes() + vector.tobytes())
    lines(folder / "embed.scp", places)
    return folder / "embed.scp"


def _numbered(mixtures: list[str], pairs: list[tuple[str, str]], k: int) -> list[tuple[str, str]]:
    return [(m, pair[k - 1]) for m, pair in zip(mixtures, pairs, strict=True)]


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_premixed_shard(
    recipe: Path, path: Path, mixtures: list[str], pairs: list[tuple[str, str]], tree: str, kind: str
) -> None:
    """A shard of fixed mixtures: the speakers, the mixture, the sources."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for m, pair in zip(mixtures, pairs, strict=True):
            for k, utterance in enumerate(pair, start=1):
                add_bytes(tar, f"{m}.spk{k}", utterance.split("-")[0].encode())
            add_bytes(tar, f"{m}.wav", (recipe / tree / f"mix_{kind}" / f"{m}.wav").read_bytes())
            for k in (1, 2):
                add_bytes(tar, f"{m}_spk{k}.wav", (recipe / tree / f"s{k}" / f"{m}.wav").read_bytes())


def make_voxceleb(recipe: Path) -> Path:
    """WeSep's data folder of single utterances, its online shards and its raw list."""
    folder, rows, speakers = recipe / "data" / "clean" / "train-vox1", [], []
    for speaker in ("id10001", "id10002", "id10003"):
        for take in (1, 2):
            key = f"{speaker}/video{take}/0000{take}.wav"
            write_wav(recipe / "VoxCeleb1" / "wav" / key, voice(f"{speaker}-{take}"))
            rows.append(f"{key} VoxCeleb1/wav/{key}")
            speakers.append(f"{key} {speaker}")
    lines(folder / "wav.scp", rows)
    lines(folder / "utt2spk", speakers)
    enroll: dict[str, list[list[str]]] = {}
    for row in rows:
        enroll.setdefault(row.split("/")[0], []).append(row.split())
    (folder / "spk2enroll.json").write_text(json.dumps(enroll))
    shard = folder / "shards_online" / "shards_000000000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for row, speaker in zip(rows, speakers, strict=True):
            key, wav = row.split()
            add_bytes(tar, f"{key}.spk", speaker.split()[1].encode())
            add_bytes(tar, f"{key}.wav", (recipe / wav).read_bytes())
    lines(folder / "shard_online.list", [shard.relative_to(recipe).as_posix()])
    raw = [{"key": r.split()[0], "wav": r.split()[1], "spk": s.split()[1]} for r, s in zip(rows, speakers, strict=True)]
    lines(folder / "raw_online.list", [json.dumps(row) for row in raw])
    return folder


def make_lmdb(folder: Path, recordings: dict[str, np.ndarray], rate: int = RATE) -> Path:
    """An LMDB of WeSep: keys straight to encoded audio, and `__keys__` pickled."""
    import lmdb

    environment = lmdb.open(str(folder), map_size=2**26)
    with environment.begin(write=True) as transaction:
        for key, samples in recordings.items():
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
            transaction.put(key.encode(), buffer.getvalue())
        transaction.put(b"__keys__", pickle.dumps(list(recordings)))
    environment.close()
    return folder


def make_espnet(recipe: Path) -> Path:
    """ESPnet's data folders of Libri2Mix: a file for each source; training leaves the enrollment open."""
    make_libri2mix(recipe)
    for name, subset in (("train", "train-100"), ("dev", "dev")):
        tree, folder = recipe / "Libri2Mix" / "wav16k" / "min" / subset, recipe / "data" / name
        pairs = PAIRS[subset]
        mixtures = ["_".join(pair) for pair in pairs]
        lines(folder / "wav.scp", [f"{m} {tree}/mix_both/{m}.wav" for m in mixtures])
        lines(folder / "utt2spk", [f"{m} {m}" for m in mixtures])
        lines(folder / "spk2utt", [f"{m} {m}" for m in mixtures])
        lines(folder / "noise1.scp", [f"{m} {tree}/noise/{m}.wav" for m in mixtures])
        enroll: dict[str, list[list[str]]] = {}
        for speaker in {u.split("-")[0] for pair in pairs for u in pair}:
            for take in range(2):
                utterance = f"{speaker}-99-{take}"
                path = recipe / "LibriSpeech" / subset / speaker / "99" / f"{utterance}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, voice(utterance), RATE)
                enroll.setdefault(speaker, []).append([utterance, str(path)])
        (folder / "spk2enroll.json").write_text(json.dumps(enroll))
        for k in (1, 2):
            lines(folder / f"spk{k}.scp", [f"{m} {tree}/s{k}/{m}.wav" for m in mixtures])
            rows = []
            for m, utterance in _numbered(mixtures, pairs, k):
                speaker = utterance.split("-")[0]
                rows.append(f"{m} *{utterance} {speaker}" if name == "train" else f"{m} {enroll[speaker][0][1]}")
            lines(folder / f"enroll_spk{k}.scp", rows)
    return recipe / "data"


def make_speakerbeam(recipe: Path) -> Path:
    """SpeakerBeam's lists of Libri2Mix at 8 kHz: LibriMix's metadata with absolute paths, and its enrollment lists."""
    root = make_libri2mix(recipe, rate=8000)
    for subset, pairs in PAIRS.items():
        folder, tree = recipe / "data" / "wav8k" / "min" / subset, root / subset
        mixtures = ["_".join(pair) for pair in pairs]
        head = "mixture_ID,mixture_path,source_1_path,source_2_path,noise_path,length"
        rows = [
            f"{m},{tree}/mix_both/{m}.wav,{tree}/s1/{m}.wav,{tree}/s2/{m}.wav,{tree}/noise/{m}.wav,24000"
            for m in mixtures
        ]
        lines(folder / f"mixture_{subset}_mix_both.csv", [head, *rows])
        others = {u: f"s{k}/{m}" for k in (1, 2) for m, u in _numbered(mixtures, pairs, k)}
        rows = []
        for m, pair in zip(mixtures, pairs, strict=True):
            for utterance in pair:
                speaker = utterance.split("-")[0]
                rows.append(
                    f"{m} {utterance} {next(others[u] for u in others if u != utterance and u.startswith(speaker))}"
                )
        lines(folder / "map_mixture2enrollment", rows)
        paths = [(*row.split()[:2], f"{tree}/{row.split()[2]}.wav") for row in rows]
        lines(
            folder / "mixture2enrollment.csv",
            ["mixture_id,utterance_id,enrollment,length"] + [",".join((*row, "24000")) for row in paths],
        )
    return recipe / "data" / "wav8k" / "min"
