"""Measure the cost of each speaker encoder of `conf/speaker`, for the table in `docs/speaker_encoders.md`.

    python -m bench.encoders --write             # counts and times, into the page
    python -m bench.encoders --no-time --write   # counts only
    python -m bench.encoders 'resnet*' xvector   # some encoders, on the terminal

Each encoder is measured in its own process, with random weights, and the result is appended to `--results`. The same
command again measures only what is missing. On an idle machine, counts take two minutes and times ten. Self-supervised
encoders need the package transformers; without it they are skipped.
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
"""Publication of each network."""
SELF_SUPERVISED_SOURCE = "Chen et al., JSTSP 2022"
WAVLM_SIZES: dict[str, dict[str, Any]] = {
    "wavlm_base_ecapa": {},
    "wavlm_large_ecapa": {
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        **{"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    },
}
"""Differences of the published `config.json` from the defaults of transformers, which are those of the base model."""


def block(name: str) -> dict[str, Any]:
    """Return `speaker` of a block; for a self-supervised model, its sizes replace the path of its weights."""
    speaker = load_yaml(conf_folder() / "speaker" / f"{name}.yaml")["speaker"]
    if name in WAVLM_SIZES:
        speaker["self_supervised"] |= {"path": None, "config": WAVLM_SIZES[name]}
    return speaker


def measure(name: str, what: str, threads: int) -> dict[str, Any]:
    """Measure an encoder on 3 s of audio.

    Args:
        name: name of the block in `conf/speaker`.
        what: `counts`: parameters, multiply-accumulates, size of the embedding; `time`: real-time factor, and the share
            of time in which the process waited.
        threads: number of threads of torch.
    """
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


def result_key(name: str, what: str, threads: int) -> dict[str, Any]:
    """Return everything that a result depends on. A result with the same key is not measured again."""
    from bench.models import machine

    configuration = hashlib.sha256(json.dumps(block(name), sort_keys=True).encode()).hexdigest()[:16]
    key: dict[str, Any] = {"block": name, "configuration": configuration, "what": what}
    if what == "time":
        key |= {"threads": threads, "torch": metadata.version("torch"), "machine": machine()}
    return key


def table(names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Return the results as a Markdown table, one row per block; a dash marks what was not measured."""
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
            SELF_SUPERVISED_SOURCE if name in WAVLM_SIZES else SOURCES[block(name)["network"]["name"]],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing; print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "blocks", nargs="*", metavar="PATTERN", help="patterns of names in conf/speaker; by default all"
    )
    parser.add_argument(
        "--no-time", action="store_true", help="measure counts only; show times that were measured before"
    )
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
    names = sorted((name for name in names if any(fnmatch(name, pattern) for pattern in patterns)), key=_natural)
    if not names:
        raise SystemExit(f"no YAML file in conf/speaker matches {' or '.join(patterns)}")
    if arguments.write and arguments.blocks:
        raise SystemExit("--write writes the whole table; leave out the patterns")
    results = run(names, arguments)
    if not arguments.write:
        print(table(names, results))
        return
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE}: there is no place for the table; add the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{begin}\n\n{table(names, results)}\n\n{end}{after}", encoding="utf-8")


def run(names: list[str], arguments: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the results by block and kind; measure those that are missing, and append them to the file."""
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.touch()
    lines = arguments.results.read_text(encoding="utf-8").splitlines()
    known = {json.dumps(entry["key"], sort_keys=True): entry["result"] for entry in map(json.loads, lines)}
    results = {}
    for what in ("counts", "time"):
        for name in names:
            key = result_key(name, what, arguments.threads)
            result = known.get(json.dumps(key, sort_keys=True))
            missing = name in WAVLM_SIZES and find_spec("transformers") is None
            if result is None and not missing and not (arguments.no_time and what == "time"):
                print(f"{name}: {what}", file=sys.stderr, flush=True)
                command = [sys.executable, "-m", "bench.encoders", name, "--one", what]
                command += ["--threads", str(arguments.threads)]
                finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
                if finished.returncode:
                    raise SystemExit(f"{name}: {what} failed\n{finished.stderr}")
                result = json.loads(finished.stdout.splitlines()[-1])
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "result": result}) + "\n")
            if result is not None:
                results[name, what] = result
    return results


def _natural(name: str) -> list[Any]:
    """Return a key that sorts numbers in names by value: 34 before 101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


if __name__ == "__main__":
    main()
