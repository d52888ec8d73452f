"""What every speaker encoder of `conf/speaker` costs, as the table in `docs/speaker_encoders.md`.

    python -m bench.encoders --write             # counts and times, into the page
    python -m bench.encoders --no-time --write   # counts only
    python -m bench.encoders 'resnet*' xvector   # some of them, to the terminal

Each encoder is measured in a process of its own, with random weights, and the result appended to `--results`; the same
command again measures only what is not there yet. Counts take two minutes, times ten on an idle machine. The
self-supervised ones need the package transformers, and are not measured where it is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import sys
import time
from fnmatch import fnmatch
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wesep_py.common.config import conf_folder, load_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speaker_encoders.md"
BEGIN, END = "<!-- the table begins: python -m bench.encoders -->", "<!-- the table ends -->"
DURATION_S, REPEATS = 3.0, 3
COLUMNS = ("block", "parameters (M)", "GMAC for 3 s", "RTF", "embedding", "WeSpeaker's name", "source")
SOURCES = {
    "campplus": "Wang et al., Interspeech 2023",
    "dvector": "Wan et al., ICASSP 2018",
    "ecapa_tdnn": "Desplanques et al., Interspeech 2020",
    "eres2net": "Chen et al., Interspeech 2023",
    "gemini_df_resnet": "Liu et al., TASLP 2024",
    "redimnet": "Yakovlev et al., Interspeech 2024",
    "repvgg": "Ding et al., CVPR 2021",
    "res2net": "Gao et al., TPAMI 2021",
    "resnet": "Zeinali et al., 2019",
    "simam_resnet": "Qin et al., ICASSP 2022",
    "xvector": "Snyder et al., ICASSP 2018",
}
"""Of each network; of the self-supervised front ends, `SELF_SUPERVISED`."""

SELF_SUPERVISED = "Chen et al., JSTSP 2022"
FORMS: dict[str, dict[str, Any]] = {
    "wavlm_base_ecapa": {},
    "wavlm_large_ecapa": {
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        **{"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    },
}
"""What differs from the package's defaults, which are the base model's, in the published models' `config.json`."""


def block(name: str) -> dict[str, Any]:
    """The `speaker` of a block, with the form of a self-supervised model in place of the path of its folder."""
    speaker = load_yaml(conf_folder() / "speaker" / f"{name}.yaml")["speaker"]
    if name in FORMS:
        speaker["self_supervised"] |= {"path": None, "config": FORMS[name]}
    return speaker


def measure(name: str, what: str, threads: int) -> dict[str, Any]:
    """`counts`: parameters, multiply-accumulates, size of the embedding; `time`: seconds for a second of audio."""
    import torch

    from bench.model_cost import count_macs
    from wesep_py.network.speaker import build_encoder

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = build_encoder(block(name), 16000)
    assert encoder is not None
    encoder.eval()
    waveform = 0.1 * torch.randn(1, round(DURATION_S * 16000))
    lengths = torch.tensor([waveform.shape[1]])
    if what == "counts":
        return {
            "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
            "macs": count_macs(encoder, waveform, lengths),
            "embedding_dim": encoder.embedding_dim,
        }
    seconds = []
    with torch.inference_mode():
        encoder(waveform, lengths)
        computed = time.process_time()
        for _ in range(REPEATS):
            began = time.perf_counter()
            encoder(waveform, lengths)
            seconds.append(time.perf_counter() - began)
        computed = time.process_time() - computed
    waited = max(0.0, 1 - computed / sum(seconds)) if threads == 1 else 0.0
    return {"rtf": statistics.median(seconds) / DURATION_S, "waited": waited}


def key_of(name: str, what: str, threads: int) -> dict[str, Any]:
    """What a result depends on: one with the same key is not measured again."""
    from bench.models import machine

    form = hashlib.sha256(json.dumps(block(name), sort_keys=True).encode()).hexdigest()[:16]
    key: dict[str, Any] = {"block": name, "configuration": form, "what": what}
    if what == "time":
        key |= {"threads": threads, "torch": metadata.version("torch"), "machine": machine()}
    return key


def table(names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The results as Markdown, a row a block, ordered as given; a dash for what was not measured."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    for name in names:
        counts, timed = (results.get((name, what), {}) for what in ("counts", "time"))
        comment = (conf_folder() / "speaker" / f"{name}.yaml").read_text(encoding="utf-8")
        public = re.search(r"WeSpeaker's\s(?:#\s)?(\w+)", comment)
        cells = [
            f"`{name}`",
            f"{counts['parameters'] / 1e6:.2f}" if counts else "–",
            f"{counts['macs'] / 1e9:.2f}" if counts else "–",
            f"{timed['rtf']:.3f}{' †' * (timed['waited'] > 0.1)}" if timed else "–",
            str(counts.get("embedding_dim", "–")),
            f"`{public[1]}`" if public else "–",
            SELF_SUPERVISED if name in FORMS else SOURCES[block(name)["network"]["name"]],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blocks", nargs="*", metavar="PATTERN", help="names of YAML files in conf/speaker; all")
    parser.add_argument("--no-time", action="store_true", help="counts only; times measured before are still shown")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "exp" / "bench_encoders.jsonl")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--one", choices=["counts", "time"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.blocks[0], arguments.one, arguments.threads)))
        return
    patterns = arguments.blocks or ["*"]
    names = [path.stem for path in (conf_folder() / "speaker").glob("*.yaml")]
    names = sorted((name for name in names if any(fnmatch(name, each) for each in patterns)), key=_natural)
    if not names:
        raise SystemExit(f"no YAML of conf/speaker is called {' or '.join(patterns)}")
    if arguments.write and arguments.blocks:
        raise SystemExit("--write: is for the whole table; leave the patterns out")
    results = run(names, arguments)
    if not arguments.write:
        print(table(names, results))
        return
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE}: has no place for the table; it needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{begin}\n\n{table(names, results)}\n\n{end}{after}", encoding="utf-8")


def run(names: list[str], arguments: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """Results by block and kind: those in the file, and the missing ones measured and appended to it."""
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.touch()
    lines = arguments.results.read_text(encoding="utf-8").splitlines()
    known = {json.dumps(entry["key"], sort_keys=True): entry["result"] for entry in map(json.loads, lines)}
    results = {}
    for what in ("counts", "time"):
        for name in names:
            key = key_of(name, what, arguments.threads)
            result = known.get(json.dumps(key, sort_keys=True))
            missing = name in FORMS and find_spec("transformers") is None
            if result is None and not missing and not (arguments.no_time and what == "time"):
                print(f"{name}: {what}", file=sys.stderr, flush=True)
                command = [sys.executable, "-m", "bench.encoders", name, "--one", what]
                command += ["--threads", str(arguments.threads)]
                ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
                if ran.returncode:
                    raise SystemExit(f"{name}: {what} failed\n{ran.stderr}")
                result = json.loads(ran.stdout.splitlines()[-1])
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "result": result}) + "\n")
            if result is not None:
                results[name, what] = result
    return results


def _natural(name: str) -> list[Any]:
    """A key to sort by that has 34 before 101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


if __name__ == "__main__":
    main()
