"""The extractions of `wesep extract` in processes: one that is killed loses only its recording."""

from __future__ import annotations

import os

from wesep_py.cli.file_tasks import FileTask, Worker, run_all
from wesep_py.inference.file_extraction import FileResult
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget


class FragileWorker(Worker):
    """Worker without a model; one recording kills each process that extracts it."""

    def __call__(self, task: FileTask) -> list[FileResult]:
        if task.mixture.stem == "bert-1":
            os._exit(9)
        return [FileResult(t.name, t.output, None, 16000, 1.0, None, None, False, False) for t in task.targets]


def test_a_killed_process_loses_only_its_recording(tmp_path):
    tasks = [
        FileTask(tmp_path / f"bert-{i}.wav", [ExtractionTarget("anna", None, tmp_path / f"{i}.wav")]) for i in range(4)
    ]
    done, failed = run_all(None, tasks, 2, FragileWorker(None, "cpu", 1))
    assert [task.mixture.stem for task, _ in done] == ["bert-0", "bert-2", "bert-3"]
    ((task, error),) = failed
    assert task.mixture.stem == "bert-1" and str(error) == "the process that extracted it ended unexpectedly"
