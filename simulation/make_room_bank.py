"""Make a room bank from a YAML file; the same command again resumes an interrupted one.

python simulation/make_room_bank.py simulation/room_bank.yaml -o rooms --jobs 16 simulated.count=5000
python simulation/make_room_bank.py simulation/room_bank.yaml -o rooms.tar
"""

from __future__ import annotations

import argparse
import logging
import sys

from wesep_py.common.config import construct, load_yaml
from wesep_py.common.errors import WesepError
from wesep_py.simulation.rooms.bank_making import RoomBankConfig, make_bank


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file with the rooms")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys to change")
    parser.add_argument("-o", "--output", required=True, help="folder to write, or one file, NAME.tar")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace another bank")
    arguments = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        config = construct(RoomBankConfig, load_yaml(arguments.config, arguments.overrides))
        bank = make_bank(config, arguments.output, arguments.jobs, arguments.overwrite, _show)
    except WesepError as error:
        print(f"make_room_bank: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{arguments.output}: {len(bank.rooms)} rooms, {len(bank.responses)} responses ({bank.fingerprint[:12]})")
    return 0


def _show(done: int, of: int) -> None:
    if sys.stderr.isatty() or done == of:
        print(f"\r{done} of {of} rooms", end="\n" if done == of else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
