"""Hash of the first mixtures of a training, as a table: equal for any number of workers and ranks.

    OMP_NUM_THREADS=1 python bench/exactness.py --data ../shared/data > bench/exactness.md
    OMP_NUM_THREADS=1 python bench/exactness.py --count 100            # synthetic voices; needs the extra demo

Every row is a separate run through the data loader of the training, with ranks started by torchrun (gloo). The hash of
a mixture is over its samples, those of target and enrollment, and the activity; that of a row is over the hashes of all
mixtures, in order.
Mixtures have two or three speakers, every kind of overlap, recorded, coloured and babble noise, rooms, and effects.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.simulation_corpus import SAMPLE_RATE, BenchCorpus, add_arguments, make_corpus
from wesep_py.data import FileReader
from wesep_py.simulation import EffectsConfig, EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig, Simulator
from wesep_py.simulation.description.effects import BandLimitConfig, ClipConfig, EqualiseConfig, LevelConfig

GLOBAL_BATCH, EPOCH_SIZE = 8, 400
RUNS = ((0, 1), (1, 1), (2, 1), (8, 1), (0, 2), (2, 2))  # workers of a rank, ranks
EFFECTS = EffectsConfig(LevelConfig(0.3), EqualiseConfig(0.3), BandLimitConfig(0.3), ClipConfig(0.3))
NOISE = NoiseConfig(probability=0.8, kinds={"recording": 1, "coloured": 1, "babble": 1})
CONFIG = SimulationConfig(
    num_speakers={1: 1, 2: 2, 3: 1},
    overlap={"full": 1, "longest": 1, "partial": 1, "conversation": 1},
    overlap_ratio=(0.0, 0.3),
    absent_probability=0.1,
    noise=NOISE,
    room=RoomConfig(probability=0.5),
    source_effects=EFFECTS,
    mixture_effects=EFFECTS,
    enrollment=EnrollmentConfig(effects=EFFECTS),
)


def hashes(corpus: BenchCorpus, count: int, workers: int, rank: int = 0, ranks: int = 1) -> dict[int, str]:
    """Return the hash of each mixture of a rank, by its position in the run."""
    from wesep_py.training.batches import PositionSampler, SimulatedMixtures, make_loader
    from wesep_py.training.extraction_task import collate_targets, target_items

    labels = {speaker: label for label, speaker in enumerate(sorted({u.speaker_id for u in corpus.speech}))}
    simulator = Simulator(CONFIG, corpus.speech, corpus.noises, FileReader(SAMPLE_RATE, 64), seed=1)
    batch_size = GLOBAL_BATCH // ranks
    sampler = PositionSampler(0, count // GLOBAL_BATCH, batch_size, EPOCH_SIZE, rank, ranks)
    digests = {}
    loader = make_loader(SimulatedMixtures(simulator, labels, target_items), sampler, collate_targets, workers, 2)
    for number, batch in enumerate(loader):
        if "failure" in batch:
            raise SystemExit(batch["failure"][0])
        for row in range(batch_size):
            enrollment = batch["enrollment"][row, : batch["enrollment_lengths"][row]]
            parts = [batch[name][row].numpy() for name in ("mixture", "target", "activity")]
            digest = hashlib.sha256(b"".join(part.tobytes() for part in (*parts, enrollment.numpy())))
            digests[(number * ranks + rank) * batch_size + row] = digest.hexdigest()
    return digests


def combined(digests: dict[int, str]) -> str:
    """Return one hash of all hashes, in the order of their positions."""
    return hashlib.sha256("".join(digests[position] for position in sorted(digests)).encode()).hexdigest()


def of_this_rank(corpus: BenchCorpus, count: int, workers: int) -> None:
    """Run one rank under torchrun; the first rank prints the hash of all mixtures."""
    from torch import distributed

    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    gathered: list[dict[int, str]] = [{} for _ in range(ranks)]
    distributed.all_gather_object(gathered, hashes(corpus, count, workers, rank, ranks))
    if rank == 0:
        everything = {position: digest for part in gathered for position, digest in part.items()}
        print(f"{len(everything)} {combined(everything)}")
    distributed.destroy_process_group()


def run(corpus_file: Path, count: int, workers: int, ranks: int) -> tuple[int, str]:
    """Return the number of mixtures and the hash of a run in separate processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*launch, __file__, "--count", str(count), "--row", str(corpus_file), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{command} failed")
    number, digest = done.stdout.split()[-2:]
    return int(number), digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--count", type=int, default=1000, help=f"mixtures, a multiple of {GLOBAL_BATCH}")
    parser.add_argument("--row", nargs=2, metavar=("CORPUS", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count % GLOBAL_BATCH:
        parser.error(f"--count {arguments.count}: has to be a multiple of {GLOBAL_BATCH}")
    if arguments.row:
        of_this_rank(pickle.loads(Path(arguments.row[0]).read_bytes()), arguments.count, int(arguments.row[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        corpus = make_corpus(arguments, arguments.folder or Path(temporary))
        corpus_file = Path(temporary) / "corpus.pickle"  # from this process to those that it starts
        corpus_file.write_bytes(pickle.dumps(corpus))
        print("# The same mixtures for any number of workers and ranks\n")
        command = " ".join(["OMP_NUM_THREADS=1 python bench/exactness.py", *sys.argv[1:]])
        print(f"`{command}`: {corpus.about}; batches of {GLOBAL_BATCH} mixtures over all ranks.\n")
        print(
            "| workers of a rank | ranks | mixtures | SHA-256 of all, in order |\n| --- | --- | --- | --- |", flush=True
        )
        digests = set()
        for workers, ranks in RUNS:
            number, digest = run(corpus_file, arguments.count, workers, ranks)
            digests.add(digest)
            print(f"| {workers} | {ranks} | {number:,} | `{digest[:32]}…` |", flush=True)
        print(f"\n{'All are the same.' if len(digests) == 1 else 'THEY DIFFER.'}")
    sys.exit(len(digests) > 1)


if __name__ == "__main__":
    main()
