"""An exported folder: `wesep.json`, read and checked, and the graphs, opened when they are first used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from wesep_py.common.errors import InputError, WesepError, shorten
from wesep_py.common.textfiles import read_json
from wesep_py.inference.presence_decision.presence import UNCALIBRATED, Calibration

FORMAT_NAME, FORMAT_VERSION = "wesep-export", 1
DESCRIPTION, WHAT = "wesep.json", "the description of an exported model"
Arrays = dict[str, NDArray[Any]]


def read_description(folder: str | PathLike[str]) -> dict[str, Any]:
    """Return the content of `wesep.json` of an exported folder.

    Raises:
        InputError: there is none, or it is damaged or of another format version.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise InputError(f"{folder}: is no exported model (it has no {DESCRIPTION}); make one with `wesep export`")
    description = dict(read_json(path, WHAT, "export the model again").values)
    if description.get("format") != FORMAT_NAME:
        raise InputError(f"{path}: is no description of an exported model; export the model again")
    if description.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {shorten(description.get('format_version'), 40)}; this program reads version "
            f"{FORMAT_VERSION}: export the model again"
        )
    return description


@dataclass(frozen=True)
class ArraySpec:
    """An input or output of a graph.

    Attributes:
        name: of the tensor.
        shape: sizes; a name for each that depends on the recording.
        dtype: `float32` or `bool`.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def problem(self, array: Any, sizes: dict[str, int]) -> str | None:
        """Return why an array does not fit; `None` if it does.

        Args:
            array: to check.
            sizes: of the named axes, as far as they are known; new ones are added.
        """
        if str(array.dtype) != self.dtype or array.ndim != len(self.shape):
            return f"{self.name} is {array.dtype} of {array.ndim} axes; {self.dtype} of {len(self.shape)} is needed"
        for size, expected in zip(array.shape, self.shape, strict=True):
            if size < 1 or size != (sizes.setdefault(expected, size) if isinstance(expected, str) else expected):
                return f"{self.name} has size {list(array.shape)}; one like {list(self.shape)} is needed"
        return None


@dataclass(frozen=True)
class InitialArray:
    """A tensor of a stream's state: its names in the graph, and its value before the first sample."""

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    initial: str


@dataclass(frozen=True)
class StreamDescription:
    """Describe the graph of a stream, from `wesep.json`.

    Attributes:
        first_block: number of samples of the first call.
        num_leading, max_delay, latency: as `StreamEngine`.
        high_pass_hz: cutoff of the causal high-pass; `None` without one.
        min_weight: smallest divisor of the samples after the last frame.
        offset: that is added to each sample.
        state: tensors that go from call to call.
    """

    first_block: int
    num_leading: int
    max_delay: int
    latency: int
    high_pass_hz: float | None
    min_weight: float
    offset: float
    state: tuple[InitialArray, ...]


class ModelFolder:
    """An exported model: what its description says, and its graphs.

    Args:
        folder: that `wesep export --format onnx` wrote.
        threads: processor threads of a graph; `None` is one for a stream, and all for recordings.

    Raises:
        InputError: it is no such folder; damaged; of another format or format version. Or onnxruntime is missing.
    """

    def __init__(self, folder: str | PathLike[str], threads: int | None = None) -> None:
        self.path, self.threads = Path(folder), threads
        description = read_description(folder)
        if description.get("type") != "onnx":
            raise InputError(
                f"{self.path}: is exported as {shorten(description.get('type'), 40)}, and onnx is needed; export the "
                "model again with --format onnx"
            )
        try:
            self._read(description)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.path / DESCRIPTION}: is damaged, or of an older version ({type(error).__name__}: "
                f"{shorten(error)}); export the model again"
            ) from error
        _onnxruntime()
        for name, entry in self._files.items():
            self._check_file(name, entry["sha256"])
        self._sessions: dict[str, Any] = {}

    def _read(self, description: Mapping[str, Any]) -> None:
        self.name, self.model_hash = str(description["model"]), str(description["model_hash"])
        self.sample_rate, self.stride = int(description["sample_rate"]), int(description["stride"])
        self.precision, self.level = str(description["precision"]), description["level"]
        self.is_causal = bool(description["causal"])
        if self.level not in ("fitted", "learned", "kept") or min(self.sample_rate, self.stride) < 1:
            raise ValueError("level, sample_rate or stride")
        calibration = description["presence"]
        self.calibration = Calibration(**calibration) if calibration is not None else None
        live_calibration = description.get("live_presence")  # of a stream; earlier exports have none
        self.live_calibration = UNCALIBRATED if live_calibration is None else Calibration(**live_calibration)
        self._frame_rule = dict(description["num_frames"])
        self.num_frames(1)
        self.combinations = {rule["name"]: rule for rule in description["cues"]}
        self._files = {name: dict(entry) for name, entry in description["graphs"].items()}
        self.inputs = {name: _specs(entry["inputs"]) for name, entry in self._files.items()}
        self.outputs = {name: _specs(entry["outputs"]) for name, entry in self._files.items()}
        self.cues = [spec for spec in self.inputs["extract"] if spec.name.startswith("cue.")]
        self.stream: StreamDescription | None = None
        if "stream" in self._files:
            numbers = {key: int(description[key]) for key in ("first_block", "num_leading", "max_delay", "latency")}
            end = description["end"]
            self.stream = StreamDescription(
                **numbers,
                high_pass_hz=None if end["high_pass_hz"] is None else float(end["high_pass_hz"]),
                min_weight=float(end["min_weight"]),
                offset=float(end["offset"]),
                state=tuple(
                    InitialArray(**{**state, "shape": tuple(state["shape"])})
                    for state in self._files["stream"]["state"]
                ),
            )

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a recording.

        >>> ModelFolder("exported").num_frames(16000)                                           # doctest: +SKIP
        126
        """
        stride, kind = int(self._frame_rule["stride"]), self._frame_rule["kind"]
        if kind == "centred":
            return num_samples // stride + 1
        if kind != "filled":
            raise ValueError(f"num_frames: kind {kind!r}")
        beyond = num_samples - int(self._frame_rule["kernel"])
        if self._frame_rule["drop_last"]:
            return 1 + max(0, beyond) // stride
        return 1 + -(-max(0, beyond) // stride)

    def has_presence(self, graph: str) -> bool:
        """True if the graph returns presence logits."""
        return any(spec.name == "presence_logits" for spec in self.outputs[graph])

    def run(self, graph: str, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run a graph once.

        Args:
            graph: `enroll`, `extract` or `stream`.
            feed: all inputs, and maybe more.

        Raises:
            WesepError: onnxruntime fails.
        """
        session = self._session(graph)
        names = [output.name for output in self.outputs[graph]]
        try:
            return dict(zip(names, session.run(names, {key: feed[key] for key in self._needed[graph]}), strict=True))
        except Exception as error:  # the library has many classes of errors, none of them public
            raise WesepError(
                f"{self.path}: the graph {graph!r} cannot be computed ({shorten(error)}); export the model again"
            ) from error

    @cached_property
    def _needed(self) -> dict[str, list[str]]:
        """Names of the inputs of each opened graph: the exporter leaves out those that nothing depends on."""
        return {}

    def _session(self, graph: str) -> Any:
        if graph not in self._sessions:
            runtime, path = _onnxruntime(), self.path / self._files[graph]["file"]
            options = runtime.SessionOptions()
            options.log_severity_level = 4
            options.inter_op_num_threads = 1
            options.intra_op_num_threads = (1 if graph == "stream" else 0) if self.threads is None else self.threads
            try:
                session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # as above
                raise InputError(
                    f"{path}: onnxruntime {runtime.__version__} cannot open it, precision {self.precision} "
                    f"({shorten(error)}); update onnxruntime, or export the model as float32"
                ) from error
            self._needed[graph] = [tensor.name for tensor in session.get_inputs()]
            self._sessions[graph] = session
        return self._sessions[graph]

    def _check_file(self, graph: str, digest: str) -> None:
        """Refuse a file that is missing, or not the one that was exported."""
        name = self._files[graph]["file"]
        path = self.path / name
        if Path(name).name != name:
            raise InputError(f"{self.path / DESCRIPTION}: names {shorten(name)}, outside its folder; export again")
        if not path.is_file():
            raise InputError(f"{path}: is missing; copy the whole folder, or export the model again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(f"{path}: is damaged (its sha256 is another than {DESCRIPTION} says); copy it again")


def _specs(entries: list[dict[str, Any]]) -> list[ArraySpec]:
    return [ArraySpec(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries]


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "the package onnxruntime is not installed, and an exported model needs it; pip install 'wesep-py[onnx]', "
            "or pip install onnxruntime"
        ) from error
    return onnxruntime
