"""Training of extractors and speaker encoders. `train` starts or resumes a run.

| module | contents |
| --- | --- |
| `trainer` | `train`, and the loop: step, log, validate, save, resume |
| `training_config` | the keys of a training's YAML; `load_config` |
| `data_config` | those of its data and its validation |
| `training_data` | recordings, task, dataset and batches from the configuration |
| `batches` | positions, data loader, and batches that survive dying workers |
| `task` | the interfaces `Task` and `Validator` between the loop and what is trained |
| `extraction_task` | an extractor: items, batches, network with losses, estimates as enrollments |
| `speaker_task` | a speaker encoder: items, batches, network with losses |
| `validation` | validation by extraction trials or by speaker verification |
| `losses` | losses of extractors |
| `step` | one optimiser step: accumulation, clipping, steps that are not finite |
| `optimisation` | optimiser, parameter groups, schedule, freezing, moving average of the weights |
| `muon` | the optimiser Muon for whole networks |
| `devices` | devices, precision, memory, compilation |
| `experiment` | the experiment folder and its checkpoints |
| `provenance` | commands, versions, code and data of a run |
| `state` | the training state, resuming from it, initial weights |
| `snapshots` | snapshots of the weights and their average; `average_run` |
| `run_log` | `log.jsonl`, TensorBoard and other trackers, the progress bar |
| `interruptions` | signals, full memory, full disk |
| `dry_run` | one step without writing anything |
"""

from __future__ import annotations

from wesep_py.training.interruptions import TrainingInterrupted
from wesep_py.training.trainer import TrainResult, train
from wesep_py.training.training_config import TrainConfig, load_config

__all__ = ["TrainConfig", "TrainResult", "TrainingInterrupted", "load_config", "train"]
