"""`processes.map_processes` through Ray: on the cluster that `RAY_ADDRESS` names, else in processes that Ray starts.

Every machine of a cluster has to see the recordings and the output folder under the same paths, and have the package
installed. Results are the same as without Ray.

Ray puts the current folder on the path of its processes, which nothing here can prevent: other than the processes of
`--executor local`, they import what lies in it. So start them in a folder that holds your own files only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from wesep_py.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def import_ray() -> Any:
    """The module `ray`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--executor ray: Ray is not installed ({error}); pip install 'wesep-py[ray]', or use --executor local"
        ) from error
    return ray


def map_ray(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    """`work` on every item; position and result as they are done.

    Args:
        work: is sent to the cluster once.
        items: each is one task, of one core.
        jobs: tasks that are waited for at a time; without a cluster, processes too.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = import_ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _begin(ray, jobs)
    try:
        yield from _map(ray, work, items, jobs)
    finally:
        if is_ours:
            ray.shutdown()


def _begin(ray: Any, jobs: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(**quiet)
        else:
            ray.init(num_cpus=jobs, include_dashboard=False, **quiet)
    except Exception as error:  # the errors of a cluster that cannot be reached have no class in common
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"RAY_ADDRESS={address}" if address else "this machine"
        raise InputError(f"--executor ray: Ray cannot be started on {where} ({reason})") from error


def _map(ray: Any, work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    task = ray.remote(num_cpus=1)(_do)
    sent = ray.put(work)
    waiting = iter(enumerate(items))
    running: dict[Any, int] = {}
    try:
        while True:
            while len(running) < jobs and (more := next(waiting, None)) is not None:
                running[task.remote(sent, more[1])] = more[0]
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), _result(ray, done)
    finally:
        for reference in running:
            ray.cancel(reference)


def _do(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # as it was raised, without the lines that Ray adds
