"""How far networks of ours are from the public ones whose weights they load, as the page `docs/parity.md`.

    python bench/parity.py FOLDER > docs/parity.md

The folder holds one safetensors file a public network: its weights, what it was given, what it returned, and as
metadata its configuration. Files without a configuration, and those of losses, are passed over.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from wesep_py.interop import load_wesep, load_wespeaker

TOLERANCE = 1e-4
PAGE = """# Parity with the public implementations

Networks of WeSep, WeSep real-TSE and WeSpeaker, small and with random weights, were run once by their own code in
evaluation mode, in float32 on a CPU, and what went in and came out was kept with their weights. A network of ours,
built from the translated arguments and filled with the renamed weights, is given the same. The figure is
‖ours − theirs‖ / ‖theirs‖, the largest of a network's outputs, over the samples that both have (real-TSE's returns up
to a hop less than it is given); {tolerance:.0e} and less is what tests hold it to.

    {command}

{versions}, one thread of a CPU.

| network | outputs | relative error |
| --- | --- | --- |
{rows}

The largest is {worst:.1e}.
"""


def measure(path: Path) -> tuple[int, float] | None:
    """Number of outputs and the largest relative error; `None` where the file holds no network."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    if "model" not in config or "_loss_" in path.stem:
        return None
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    inputs, expected = (
        [tensors[key] for key in sorted(tensors) if key.startswith(kind)] for kind in ("input/", "output/")
    )
    load = load_wespeaker if path.stem.startswith("wespeaker") else load_wesep
    with torch.no_grad():
        out = load(config, weights)(*inputs)
    outputs = out if isinstance(out, tuple) else (out,)
    return len(expected), max(_error(ours, theirs) for ours, theirs in zip(outputs, expected, strict=True))


def _error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours[..., : theirs.shape[-1]] - theirs).norm() / theirs.norm())


def main() -> None:
    """Print the page; exit status 1 if a network is further away than `TOLERANCE`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files lie")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    found = {path.stem: measure(path) for path in sorted(folder.glob("*.safetensors"))}
    measured = {name: result for name, result in found.items() if result is not None}
    if not measured:
        parser.error(f"{folder}: holds no networks (*.safetensors with a configuration)")
    worst = max(error for _, error in measured.values())
    print(
        PAGE.format(
            tolerance=TOLERANCE,
            command="python bench/parity.py FOLDER > docs/parity.md",
            versions=f"wesep-py {metadata.version('wesep-py')}, torch {torch.__version__}",
            rows="\n".join(f"| `{name}` | {count} | {error:.1e} |" for name, (count, error) in measured.items()),
            worst=worst,
        ),
        end="",
    )
    raise SystemExit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
