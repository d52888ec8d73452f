"""Mixtures that workers draw and read, and a device renders in batch (`data.render: device`): what each takes."""

from __future__ import annotations

import time

from bench.simulation_cases import NOISY_ROOM
from bench.simulation_corpus import SAMPLE_RATE, BenchCorpus
from wesep_py.data import pack
from wesep_py.simulation.batched_rendering import render_on_device
from wesep_py.simulation.dry_batch import DrySimulator, collate_dry

BATCH = 16


def device_line(corpus: BenchCorpus, count: int, rounds: int) -> str:
    """The figures of noise and rooms, decoded before, in batches; on a GPU where there is one."""
    import torch

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reader = pack([*corpus.speech, *corpus.noises], corpus.folder / "packed", SAMPLE_RATE)
    simulator = DrySimulator(NOISY_ROOM, corpus.speech, corpus.noises, reader)
    batches = max(1, count // BATCH)
    drawing, rendering = [], []
    for each in range(rounds + 1):  # the first knows no level of a recording yet, and does not count
        drawn = rendered = 0.0
        for first in range(0, batches * BATCH, BATCH):
            began = time.process_time()
            batch = collate_dry([simulator.dry(1, index) for index in range(first, first + BATCH)], SAMPLE_RATE)
            drawn += time.process_time() - began
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            began = clock()
            samples = render_on_device(batch.to(device))
            _ = float(samples[-1].mixture[0])  # waits for the device
            rendered += clock() - began
        if each:
            drawing.append(drawn)
            rendering.append(rendered)
    worker_ms, device_ms = (1000 * min(took) / (batches * BATCH) for took in (drawing, rendering))
    what = f"{torch.cuda.get_device_name()}, wall clock" if device.type == "cuda" else "the CPU, one thread"
    return (
        f"Noise and room, decoded before, batched on the device ({BATCH} at once): {worker_ms:.1f} ms CPU a mixture "
        f"for the worker, which draws, reads and pads ({1000 / worker_ms:.0f} a second), and {device_ms:.1f} ms for "
        f"the device, {what} ({1000 / device_ms:.0f} a second)."
    )
