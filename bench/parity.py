"""Measure how far our networks are from the public ones whose weights they load, and print the page `docs/parity.md`.

    python bench/parity.py FOLDER > docs/parity.md

The folder holds one safetensors file for each public network: its weights, its inputs, its outputs, and as metadata its
configuration. Files without a configuration, those of losses, and those of other toolkits are left out.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from wesep_py.interop import load_espnet, load_wesep, load_wespeaker

TOLERANCE = 1e-4
LOADERS = {"espnet": load_espnet, "realtse": load_wesep, "wesep": load_wesep, "wespeaker": load_wespeaker}
"""First word of a file's name → what loads its network."""
PAGE = """# Parity with the public implementations

Networks of WeSep, WeSep real-TSE, WeSpeaker and ESPnet, small and with random weights, were run once by their own code
in evaluation mode, in float32 on a CPU, and their inputs and outputs were saved with their weights. A network of ours,
built from the translated arguments and filled with the renamed weights, is given the same inputs. The figure is
‖ours − theirs‖ / ‖theirs‖, the largest over the outputs of a network, over the samples that both have (real-TSE returns
up to one hop less than its input). The tests require {tolerance:.0e} or less.

    {command}

{versions}, one thread of a CPU.

| network | outputs | relative error |
| --- | --- | --- |
{rows}

The largest is {worst:.1e}.
"""


def measure(path: Path) -> tuple[int, float] | None:
    """Return the number of outputs and the largest relative error; `None` if the file holds no network to compare."""
    load = LOADERS.get(path.stem.partition("_")[0])
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    if load is None or "model" not in config or "_loss_" in path.stem:
        return None
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    inputs, expected = (
        [tensors[key] for key in sorted(tensors) if key.startswith(kind)] for kind in ("input/", "output/")
    )
    with torch.no_grad():
        out = load(config, weights)(*inputs)
    outputs = out if isinstance(out, tuple) else (out,)
    return len(expected), max(_error(ours, theirs) for ours, theirs in zip(outputs, expected, strict=True))


def _error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours[..., : theirs.shape[-1]] - theirs).norm() / theirs.norm())


def main() -> None:
    """Print the page; exit with status 1 if the error of a network is above `TOLERANCE`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the safetensors files")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    results = {path.stem: measure(path) for path in sorted(folder.glob("*.safetensors"))}
    measured = {name: result for name, result in results.items() if result is not None}
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
