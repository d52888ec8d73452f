"""Pack noise corpora as LMDB files, by a YAML file; the same command again makes the missing ones.

python simulation/make_noise_lmdb.py simulation/noise_lmdb.yaml root=DATA -o DATA/lmdb
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wesep_py.cli.main import main as wesep
from wesep_py.common.config import construct, load_yaml
from wesep_py.common.errors import InputError, WesepError


@dataclass(frozen=True)
class NoiseStores:
    """LMDB files to write: `stores` has the folder of each file, relative to `root`."""

    root: str
    stores: dict[str, str] = field(default_factory=dict)
    format: Literal["flac", "wav", "opus-as-is"] = "flac"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file with the folders")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys to change")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--jobs", type=int, default=0, help="recordings encoded at once (default: one per core)")
    arguments = parser.parse_intermixed_args()
    try:
        config = construct(NoiseStores, load_yaml(arguments.config, arguments.overrides))
        return pack(config, arguments.output, arguments.jobs)
    except WesepError as error:
        print(f"make_noise_lmdb: {error}", file=sys.stderr)
        return error.exit_status


def pack(config: NoiseStores, output: Path, jobs: int) -> int:
    """Run `wesep lmdb` on every existing folder, and return the largest exit status."""
    folders = {name: Path(config.root, folder) for name, folder in config.stores.items()}
    if not any(folder.is_dir() for folder in folders.values()):
        names = ", ".join(map(str, folders.values()))
        raise InputError(f"root: none of its noise folders is there ({names}); set root, or stores")
    output.mkdir(parents=True, exist_ok=True)
    statuses = [0]
    for name, folder in folders.items():
        if not folder.is_dir() or (output / name).exists():
            print(f"{output / name}: {'is there' if folder.is_dir() else f'{folder} is not there'}, passed over")
            continue
        options = ["--root", config.root, "--format", config.format, *(["--jobs", str(jobs)] if jobs else [])]
        statuses.append(wesep(["lmdb", str(folder), "-o", str(output / name), *options]))
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
