"""`wesep bench`: measure how fast an exported folder, or a model in PyTorch, is on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from wesep_py.cli.options import JsonOption

if TYPE_CHECKING:
    from wesep_py.export.benchmark import Benchmark


def bench(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]",
            help="A folder of wesep export; or a bundled model (by default base), a checkpoint or experiment folder.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads to compute with.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="Duration of the recording that is extracted.")] = 10.0,
    hops: Annotated[int, typer.Option("--hops", min=1, help="Hops of the stream that are timed.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Measure time and memory: of a hop of the stream, of a recording, and of the start of a program.

    Example: wesep bench base_onnx
    """
    from wesep_py.export.benchmark import bench as measure
    from wesep_py.export.benchmark import check_arguments

    check_arguments(threads, seconds, hops)
    result = measure(target, threads, seconds, hops)
    typer.echo(json.dumps(result.as_dict(), indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(result)))


def _lines(result: Benchmark) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"{result.model}: {result.runs_with}, {result.precision}; {result.processor}, threads: {result.threads}",
        f"versions     {packages}",
    ]
    if (stream := result.stream) is not None:
        lines.append(
            f"stream       {stream.num_hops} hops of {stream.hop_ms:g} ms: p50 {stream.p50_ms:.2f} ms, "
            f"p95 {stream.p95_ms:.2f} ms, p99 {stream.p99_ms:.2f} ms; RTF {stream.rtf:.3f}"
        )
        if stream.latency_ms is not None:
            lines.append(f"latency      {stream.latency_ms:.1f} ms (algorithmic)")
    memory = "unknown" if result.peak_memory_mb is None else f"{result.peak_memory_mb:.0f} MB"
    return [
        *lines,
        f"recording    of {result.recording_s:g} s: RTF {result.rtf:.3f}",
        f"cold start   {result.cold_start_s:.2f} s to the first result",
        f"peak memory  {memory}",
    ]
