"""The folder in which the code blocks of the documentation run: small recordings under the names that the pages use.

`wesep` is the forked command with less work for what takes long (trainings of two steps, lists of two trials); `python`
runs the scripts of `recipes/`, and asks those of `bench/` whether they know the options; `make`, `pip`, `torchrun` and
`python3 -m venv` are checked against the repository, since continuous integration runs them itself. Programs that
record and play (`arecord`, `ffmpeg`, …) record a second of silence.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from tests.cli.test_convert_import import extractor_config, extractor_weights
from tests.conftest import SAMPLE_RATE, VOICES, make_voice
from tests.data.public_layouts import make_espnet, make_lmdb, make_speakerbeam, make_voxceleb, make_wesep
from tests.forked_commands import search_path
from tests.interop.espnet_reference import espnet_config, espnet_weights
from tests.interop.public_configs import ESPNET as ESPNET_CONFIGS
from tests.interop.public_configs import WESEP as WESEP_CONFIGS
from tests.recipes.miniature_default import make_data
from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml
from wesep_py.data import read_speaker_folders, write_manifest
from wesep_py.network.extraction_network import build_network

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("conf", "recipes", "simulation", "bench", "constraints.txt", "pyproject.toml", "Makefile")
TRAINING = "train.steps=2 train.batch_size=1 data.workers=0 train.device=cpu checkpoint.every_steps=1 log.every_steps=1"

WESEP = r"""#!/bin/sh
# The forked command, with less to do.
real="{real}"
case " $* " in *" --help "*) exec "$real" "$@" ;; esac
case "$1" in
  train)
    exec "$real" "$@" {training} ;;
  evaluate) exec "$real" "$@" --limit 2 --jobs 0 ;;
  score) exec "$real" "$@" --jobs 0 ;;
  simulate) exec "$real" "$@" --count 2 --jobs 1 ;;
  calibrate|live|find|ui) exec "{python}" "{checker}" command "$@" ;;
  demo) mkdir -p demo_again; exec "$real" models ;;
  *) exec "$real" "$@" ;;
esac
"""
PYTHON = r"""#!/bin/sh
# These scripts take minutes, and have tests of their own: their options are looked up in their help.
case "$1" in
  bench/*|recipes/ablation/run.py|recipes/speaker/compare.py|simulation/*) exec "{python}" "{checker}" options "$@" ;;
  *) exec "{python}" "$@" ;;
esac
"""
SOUND_PROGRAMS = {
    "arecord": {"-t", "-f", "-r", "-c"},
    "aplay": {"-t", "-f", "-r", "-c"},
    "parec": {"--raw", "--format", "--rate", "--channels", "--latency-msec"},
    "pacat": {"--raw", "--format", "--rate", "--channels", "--latency-msec"},
    "ffmpeg": {"-loglevel", "-y", "-i", "-f", "-ac", "-ar", "-"},
}
"""Programs that record and play, and the options that pages use."""
CHECKED = '#!/bin/sh\nexec "{python}" "{checker}" {name} "$@"\n'


class Block(NamedTuple):
    """A fenced code block of a page."""

    page: str
    line: int
    language: str
    text: str
    file: str | None
    """The file that the line before the block names (`` `name.py`: ``)."""


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    pattern = r"(?:^`([\w.]+)`:\n\n)?^[ ]*```([\w-]*)[^\n]*\n(.*?)^[ ]*```$"
    return [
        Block(page.name, text[: match.start()].count("\n") + 1, match[2], match[3], match[1])
        for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def lay_out(folder: Path, model: Path) -> None:
    """Fill a folder with what the pages name.

    Args:
        folder: empty, or missing.
        model: a checkpoint folder with a presence head, which pages call `exp/mine`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    make_data(folder / "DATA")
    speakers = {
        name: [make_voice(*voice, 3.0, seed=10 * k + take) for take in range(4)]
        for k, (name, voice) in enumerate(VOICES.items())
    }
    for name, takes in speakers.items():
        for take, waveform in enumerate(takes):
            write(folder / "demo" / "voices" / name / f"{name}-{take}.wav", waveform)
    alice, bob = speakers["anna"], speakers["bert"]
    mixture = (alice[0] + bob[0]) / 2
    for name in (
        "demo/mixture.wav",
        "mixture.wav",
        "meeting.wav",
        "interview.wav",
        "recordings/one.wav",
        "recordings/two.wav",
    ):
        write(folder / name, mixture)
    lay_out_video(folder / "talk.mp4", mixture)
    for name in ("demo/enrollment.wav", "alice.wav", "alice1.wav", "alice_1.wav", "anna.wav"):
        write(folder / name, alice[1])
    for name in ("alice2.wav", "alice_2.wav"):
        write(folder / name, alice[2])
    write(folder / "bob.wav", bob[1])
    write(
        folder / "noise" / "hiss.wav",
        0.1 * np.random.default_rng(0).standard_normal(4 * SAMPLE_RATE).astype(np.float32),
    )
    (folder / "exp").mkdir()
    (folder / "exp" / "mine").symlink_to(model)
    write_manifest(read_speaker_folders(folder / "demo" / "voices"), folder / "speech.jsonl", relative_to=folder)
    (folder / "conf.yaml").write_text(
        "include: [conf/train/example.yaml]\nexperiment: exp/conf\ndata: {train: [speech.jsonl]}\n", encoding="utf-8"
    )
    lay_out_tree(folder, [takes[3] for takes in speakers.values()][:3])
    lay_out_meetings(folder, mixture, alice[0])
    lay_out_embeddings(folder)
    lay_out_live_model(folder)
    lay_out_public_checkpoint(folder)
    lay_out_public_recipes(folder)
    _commands(folder)


def lay_out_video(path: Path, waveform: np.ndarray) -> None:
    """Write a video with that sound, if PyAV is installed."""
    if find_spec("av") is not None:
        from tests.media_files import write_media

        write_media(path, "mp4", "aac", [waveform[None].astype(np.float32)], SAMPLE_RATE, "mpeg4")


def lay_out_tree(folder: Path, sources: list[np.ndarray]) -> None:
    """Write a LibriMix tree `test` of one mixture of three speakers, and estimates of them in `mine`."""
    for number, source in enumerate(sources, start=1):
        write(folder / "test" / f"s{number}" / "mixture1.wav", source / 3)
        write(folder / "mine" / f"s{number}" / "mixture1.wav", source / 3 + 0.01 * sum(sources))
    for name in ("mix_clean", "mix_both"):
        write(folder / "test" / name / "mixture1.wav", sum(sources) / 3)


def lay_out_meetings(folder: Path, mixture: np.ndarray, alice: np.ndarray) -> None:
    """Write a meeting without references, with labels, an enrollment and an estimate."""
    write(folder / "meetings" / "meeting1.wav", mixture)
    write(folder / "meetings_alice" / "meeting1.wav", alice / 2)
    (folder / "recordings.csv").write_text(
        "mixture_ID,mixture_path\nmeeting1,meetings/meeting1.wav\n", encoding="utf-8"
    )
    (folder / "recordings.map").write_text("meeting1 alice alice.wav\n", encoding="utf-8")
    line = "SPEAKER meeting1 1 {:.2f} 1.00 <NA> <NA> alice <NA> <NA>\n"
    (folder / "meetings.rttm").write_text(line.format(0.2) + line.format(1.6), encoding="utf-8")


def lay_out_embeddings(folder: Path) -> None:
    """Write a model that takes precomputed embeddings (`exp/vectors`), and embeddings of the enrollments of a list."""
    torch.manual_seed(0)
    cue = {"name": "embedding", "embedding_dim": 8}
    network = build_network({"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [cue]})
    checkpoint.save(folder / "exp" / "vectors", network.config, network.state_dict())
    np.save(folder / "alice.npy", np.ones(8, np.float32))
    for suffix, name in (("csv", "dev_2mix.csv"), ("map", "dev_2mix.map_mixture2enrollment")):
        (folder / f"dev.{suffix}").write_text((folder / "DATA" / "trials" / name).read_text("utf-8"), encoding="utf-8")
    rng = np.random.default_rng(0)
    (folder / "vectors").mkdir()
    for line in (folder / "dev.map").read_text("utf-8").splitlines():
        utterance = Path(line.split()[2]).stem
        np.save(folder / "vectors" / f"{utterance}.npy", rng.standard_normal(8).astype(np.float32))


def lay_out_live_model(folder: Path) -> None:
    """Write a model with a live mode, which pages call `exp/live`."""
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "live": True, "norm": "frame"}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "live_presence": {}})
    checkpoint.save(folder / "exp" / "live", network.config, network.state_dict())


def lay_out_public_checkpoint(folder: Path) -> None:
    """Write a small network in ESPnet's layout, with random weights and a configuration that states no sample rate."""
    config = {key: value for key, value in espnet_config().items() if key != "fs"}
    (folder / "espnet").mkdir()
    torch.save(espnet_weights(config), folder / "espnet" / "99epoch.pth")
    (folder / "espnet" / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")


def lay_out_public_recipes(folder: Path) -> None:
    """Write the recipes of WeSep, ESPnet and SpeakerBeam in miniature: data, small configurations, a checkpoint."""
    data = make_wesep(folder / "wesep_recipe")
    make_lmdb(folder / "wesep_recipe" / "musan", {"noise/n0.wav": 0.1 * np.ones(4000)})
    make_voxceleb(folder / "wesep_recipe")
    make_espnet(folder / "espnet_recipe")
    make_speakerbeam(folder / "speakerbeam_recipe")
    bsrnn = copy.deepcopy(WESEP_CONFIGS["librimix/v2/bsrnn"])
    bsrnn["model_args"]["tse_model"] |= {"feature_dim": 8, "num_repeat": 1}
    bsrnn["dataset_args"]["chunk_len"], bsrnn["exp_dir"] = 16000, "exp/BSRNN"
    td_speakerbeam = copy.deepcopy(ESPNET_CONFIGS["librimix/train_enh_tse_td_speakerbeam_16k"])
    td_speakerbeam["extractor_conf"] |= {"layer": 2, "stack": 1, "i_adapt_layer": 1, "hidden_dim": 16}
    experiment = folder / "wesep_recipe" / "exp" / "ConvTasNet"
    for path, config in {
        folder / "wesep_recipe" / "confs" / "bsrnn.yaml": bsrnn,
        folder / "espnet_recipe" / "conf" / "train.yaml": td_speakerbeam,
        experiment / "config.yaml": extractor_config(),
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_yaml(config), encoding="utf-8")
    torch.save({"models": [extractor_weights()]}, experiment / "avg_best_model.pt")
    shutil.copytree(data / "dev", folder / "wesep_recipe" / "data" / "clean" / "test")


def write(path: Path, waveform: np.ndarray) -> None:
    """Write a recording of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")


def _commands(folder: Path) -> None:
    real = Path(search_path().split(os.pathsep)[0]) / "wesep"
    words = {"python": sys.executable, "checker": __file__, "real": real, "training": TRAINING}
    programs = folder / ".bin"
    programs.mkdir()
    scripts = {
        "wesep": WESEP,
        "python": PYTHON,
        **dict.fromkeys(("make", "pip", "python3", "torchrun", *SOUND_PROGRAMS), CHECKED),
    }
    for name, script in scripts.items():
        (programs / name).write_text(script.format(name=name, **words), encoding="utf-8")
        (programs / name).chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("wesep", "pip", "python"):
        (folder / ".venv" / "bin" / name).symlink_to(programs / name)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a block of shell commands."""
    path = os.pathsep.join([str(folder / ".bin"), search_path()])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WESEP_NO_HINTS": "1"}


def missing_framework(block: Block) -> str | None:
    """Return the first optional module that a block of Python imports and that is not installed."""
    if "wesep_py.ui" in block.text and find_spec("gradio") is None:
        return "gradio"
    for name in re.findall(r"^(?:from|import) ((?:pipecat|livekit)(?:\.agents)?)\b", block.text, re.MULTILINE):
        if find_spec(name.partition(".")[0]) is None or find_spec(name) is None:
            return name
    return None


def run_shell(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block of shell commands, up to the first that fails."""
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False
    )


# What stands for programs that are not run here.


def check_make(arguments: list[str]) -> None:
    """Let make say what it would do: the target has to exist."""
    subprocess.run(["/usr/bin/make", "-C", str(ROOT), "-n", *arguments], check=True, stdout=subprocess.DEVNULL)


def check_pip(arguments: list[str]) -> None:
    """The constraints are a file, and the extras of this package exist."""
    assert arguments[0] == "install", arguments
    extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {extra for group in extras for extra in group.split(",")} <= set(known), extras
    if "-c" in arguments:
        assert Path(arguments[arguments.index("-c") + 1]).is_file()


def check_python3(arguments: list[str]) -> None:
    """Only the making of a virtual environment."""
    assert arguments[:2] == ["-m", "venv"], arguments


def check_torchrun(arguments: list[str]) -> None:
    """The training that it would start is run by one process."""
    module = arguments.index("-m")
    assert arguments[module + 1] == "wesep_py.cli.train", arguments
    subprocess.run(["wesep", "train", *arguments[module + 2 :]], check=True)


def check_command(arguments: list[str]) -> None:
    """Every option of a command is in its help: two trials are too few to calibrate with."""
    shown = subprocess.run(["wesep", arguments[0], "--help"], check=True, capture_output=True, text=True).stdout
    assert not [word for word in arguments if word.startswith("--") and word not in shown], arguments


def check_options(arguments: list[str]) -> None:
    """Every option of a script is in its help."""
    script, *rest = arguments
    shown = subprocess.run([sys.executable, script, "--help"], check=True, capture_output=True, text=True).stdout
    options = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert not (unknown := sorted(option for option in options if option not in shown)), f"{script}: {unknown}"


def check_sound(name: str, arguments: list[str]) -> None:
    """Record a second of silence, or play it: as many samples have to come, unless a backlog is skipped."""
    options = {word.split("=")[0] for word in arguments if word.startswith("-")}
    assert options <= SOUND_PROGRAMS[name], f"{name}: {sorted(options - SOUND_PROGRAMS[name])}"
    text = " ".join(arguments)
    frames = next(int(rate) for rate in re.findall(r"(?:-r|-ar|--rate)[ =](\d+)", text))
    size = frames * (4 if "f32le" in text else 2)
    if name in ("arecord", "parec") or (name == "ffmpeg" and arguments[-1] == "-"):
        os.write(1, bytes(1000))  # in pieces
        sys.stdout.buffer.write(bytes(size - 1000))
    else:  # less if `wesep stream` skips what came while the model was loading
        num_bytes = len(sys.stdin.buffer.read())
        assert num_bytes == size if name == "ffmpeg" else num_bytes <= size, f"{name}: {num_bytes} bytes"


if __name__ == "__main__":
    if sys.argv[1] in SOUND_PROGRAMS:
        check_sound(sys.argv[1], sys.argv[2:])
        sys.exit()
    {
        "make": check_make,
        "pip": check_pip,
        "python3": check_python3,
        "torchrun": check_torchrun,
        "options": check_options,
        "command": check_command,
    }[sys.argv[1]](sys.argv[2:])
