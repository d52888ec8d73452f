"""The three graphs of an exported network as modules: tensors in, tensors out, everything by name.

| graph | inputs | outputs |
| --- | --- | --- |
| `EnrollGraph` | `enrollment` `[1, samples]` | `cue.…`: what the cues need of the voice |
| `ExtractGraph` | `mixture` `[1, samples]`, `cue.…` | `estimate` `[1, samples]`, `presence_logits` `[1, frames]` |
| `StreamGraph` | `samples` `[1, samples]`, `state.…`, `cue.…` | `estimate`, `presence_logits`, `next.…` |

A graph has no presence logits if the network has no head. The state of a stream, a nested structure in the network, is
a list of tensors here, with an initial value that a program without torch can make.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.export.traceable import overlap_add, traceable
from wesep_py.features import ComplexPair
from wesep_py.network.backbones import Analysis
from wesep_py.network.cues import PreparedEnrollment
from wesep_py.network.extraction_network import TargetSpeakerExtractor
from wesep_py.network.preprocessing import MAX_SAMPLE
from wesep_py.network.streaming_network import StreamingNetwork, StreamState

Initial = Literal["zeros", "ones", "first_sample"]
ESTIMATE, PRESENCE = "estimate", "presence_logits"
EXAMPLE_SAMPLES = (17000, 24400)
"""Lengths of two example enrollments: axes of the prepared tensors that differ between them are axes of time."""
_FIRST_SAMPLE = "state.high_pass.first"


@dataclass
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        name: of the tensor.
        shape: sizes; a name for each that depends on the recording.
        dtype: `float32` or `bool`.
    """

    name: str
    shape: list[int | str]
    dtype: str

    @classmethod
    def of(cls, name: str, tensor: Tensor, dynamic: dict[int, str] | None = None) -> TensorSpec:
        """Return the specification of a tensor, with names for the sizes of its dynamic axes."""
        shape: list[int | str] = [(dynamic or {}).get(axis, int(size)) for axis, size in enumerate(tensor.shape)]
        return cls(name, shape, str(tensor.dtype).removeprefix("torch."))

    @property
    def dynamic(self) -> dict[int, str]:
        """Names of the dynamic axes."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass
class StateSpec:
    """A tensor of a stream's state.

    Attributes:
        input, output: names.
        shape: of the initial value.
        dtype: of the tensor.
        initial: `zeros`, `ones`, or `first_sample`, that of the recording.
    """

    input: str
    output: str
    shape: list[int]
    dtype: str
    initial: Initial


@dataclass
class Graph:
    """A module with the names of what goes in and out.

    Attributes:
        name: `extract`, `enroll` or `stream`.
        module: takes and returns the tensors in the order of `inputs` and `outputs`.
        inputs, outputs: specifications.
        example: tensors to trace the module with.
        check: tensors of other lengths.
        state: of a stream.
    """

    name: str
    module: nn.Module
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    example: tuple[Tensor, ...]
    check: tuple[Tensor, ...]
    state: list[StateSpec] = field(default_factory=list)


class EnrollGraph(nn.Module):
    """From an enrollment to the prepared tensors."""

    def __init__(self, network: TargetSpeakerExtractor) -> None:
        super().__init__()
        self.network = network

    def forward(self, enrollment: Tensor) -> tuple[Tensor, ...]:
        """`[1, samples]` → the prepared tensors, in their order."""
        # Two cues may return the same tensor (the mask of the frames); two outputs need two tensors.
        return tuple(tensor.clone() for tensor in self.network.prepare(enrollment).values())


class ExtractGraph(nn.Module):
    """From a whole mixture and the prepared tensors to the estimate."""

    def __init__(self, network: TargetSpeakerExtractor, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, list(names)

    def forward(self, mixture: Tensor, *prepared: Tensor) -> tuple[Tensor, ...]:
        """`[1, samples]` and the prepared tensors → estimate `[1, samples]`, presence logits `[1, frames]`."""
        output = self.network.extract(mixture, dict(zip(self.names, prepared, strict=True)))
        presence = output.presence_logits
        return (output.waveforms[0],) if presence is None else (output.waveforms[0], presence)


class TraceableStreamingNetwork(StreamingNetwork):
    """`StreamingNetwork` without `fold`, for which runtimes have no operation, or a new one."""

    def _overlap_add(self, signals: Tensor, overlap: Tensor) -> Tensor:
        added = overlap_add(signals, self.stride)
        return added + nn.functional.pad(overlap, (0, added.shape[1] - overlap.shape[1]))


class StreamGraph(nn.Module):
    """One step of a stream.

    Args:
        network: that streams.
        names: of the prepared tensors.
        template: a state whose structure is that of every later one.
    """

    def __init__(self, network: TraceableStreamingNetwork, names: Sequence[str], template: StreamState) -> None:
        super().__init__()
        self.network, self.names, self.template = network, list(names), template
        self.state_names = list(name_tensors(template))

    def forward(self, samples: Tensor, *state_and_prepared: Tensor) -> tuple[Tensor, ...]:
        """Samples, state and prepared tensors → estimate, presence logits (if there are any), next state."""
        tensors = iter(state_and_prepared)
        state = {name: next(tensors) for name in self.state_names}
        if _FIRST_SAMPLE in state:  # the recording is limited to this range, too
            state[_FIRST_SAMPLE] = state[_FIRST_SAMPLE].clamp(-MAX_SAMPLE, MAX_SAMPLE)
        prepared = dict(zip(self.names, tensors, strict=True))
        output = self.network(samples, _rebuild(self.template, iter(state.values())), prepared)
        presence = () if output.presence_logits is None else (output.presence_logits,)
        return (output.waveform, *presence, *name_tensors(output.state).values())


def name_tensors(state: StreamState) -> dict[str, Tensor]:
    """Return the tensors of a state by name, in a fixed order."""
    return {_readable(name): tensor for name, tensor in _named(state, "state")}


# Where a tensor is in the nested state, and what it is called.
_READABLE = (
    ("state.network.backbone.0", "state.past"),
    ("state.network.backbone.1", "state.blocks"),
    ("state.network.presence", "state.presence"),
    ("state.network.front_end.high_pass", "state.high_pass"),
    ("state.network.front_end.level", "state.level_tracker"),
)


def _readable(name: str) -> str:
    return next((short + name[len(long) :] for long, short in _READABLE if name.startswith(long)), name)


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    if value is None:
        return
    for key, part in _parts(value):
        yield from _named(part, f"{name}.{key}")


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return the parts of a structure, each with its name."""
    if isinstance(value, ComplexPair):
        return [("real", value.real), ("imag", value.imag)]
    if isinstance(value, Analysis):
        return [("features", value.features), ("spectrum", value.spectrum)]
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if len(value) == 2 and all(isinstance(part, Tensor) for part in value) and isinstance(value, tuple):
        return list(zip("hc", value, strict=True))  # of an LSTM
    return [(str(i), part) for i, part in enumerate(value)]


def _rebuild(template: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a structure like the template, with the next tensors."""
    if isinstance(template, Tensor):
        return next(tensors)
    if template is None:
        return None
    parts = [_rebuild(part, tensors) for _, part in _parts(template)]
    if hasattr(template, "_fields") or isinstance(template, (ComplexPair, Analysis)):
        return type(template)(*parts)
    return type(template)(parts)


class Example(NamedTuple):
    """Tensors to trace with: a mixture, an enrollment and what is prepared of it."""

    samples: Tensor
    enrollment: Tensor
    prepared: PreparedEnrollment


def offline_graphs(network: TargetSpeakerExtractor) -> list[Graph]:
    """Return the graphs `enroll` and `extract` of a network."""
    network = traceable(network)
    example, check = examples(network)
    cue_specs = prepared_specs(network)
    keys = list(example.prepared)
    enroll = Graph(
        "enroll",
        EnrollGraph(network).eval(),
        [TensorSpec.of("enrollment", example.enrollment, {1: "enrollment_samples"})],
        cue_specs,
        (example.enrollment,),
        (check.enrollment,),
    )
    module = ExtractGraph(network, keys).eval()
    with torch.inference_mode():
        outputs = module(example.samples, *example.prepared.values())
    sizes: list[dict[int, str]] = [{1: "samples"}, {1: "frames"}]
    extract = Graph(
        "extract",
        module,
        [TensorSpec.of("mixture", example.samples, {1: "samples"}), *cue_specs],
        [TensorSpec.of(*pair) for pair in zip((ESTIMATE, PRESENCE), outputs, sizes, strict=False)],
        (example.samples, *example.prepared.values()),
        (check.samples, *check.prepared.values()),
    )
    return [enroll, extract]


def stream_graph(network: TargetSpeakerExtractor) -> Graph:
    """Return the graph `stream` of a network that streams.

    Raises:
        ConfigError: it cannot stream; the message names the part that looks ahead.
    """
    streaming = TraceableStreamingNetwork(traceable(network.live()))
    example, check = examples(streaming.network)
    first, stride = streaming.first_block, streaming.stride
    num_samples = first + (-first % stride) + 3 * stride
    blocks = [example.samples[:, :first], example.samples[:, first : first + 3 * stride]]
    assert example.samples.shape[1] >= num_samples, "a window of a second and more"
    initial = streaming.initial_state(1)
    with torch.no_grad():
        template = streaming(blocks[0], initial, example.prepared).state
        module = StreamGraph(streaming, list(example.prepared), template).eval()
        tensors = name_tensors(template)
        outputs = module(blocks[1], *tensors.values(), *example.prepared.values())
    head = [ESTIMATE] if streaming.network.presence is None else [ESTIMATE, PRESENCE]
    sizes: list[dict[int, str]] = [{1: "finished_samples"}, {1: "frames"}]
    specs, inputs = [], []
    dynamic = {name: _dynamic_axes(name, tensor) for name, tensor in tensors.items()}
    start = dict(_initial_tensors(initial, tensors))
    for name, tensor in tensors.items():
        inputs.append(TensorSpec.of(name, tensor, dynamic[name]))
        value: Initial = "first_sample" if name == _FIRST_SAMPLE else "ones" if name == "state.level" else "zeros"
        specs.append(
            StateSpec(name, f"next.{name.removeprefix('state.')}", list(start[name].shape), inputs[-1].dtype, value)
        )
    after = [
        TensorSpec.of(spec.output, tensor, {axis: f"next_{size}" for axis, size in dynamic[spec.input].items()})
        for spec, tensor in zip(specs, outputs[len(head) :], strict=True)
    ]
    cue_specs = prepared_specs(streaming.network)
    begin = {**start, **({_FIRST_SAMPLE: check.samples[:, :1]} if _FIRST_SAMPLE in start else {})}
    return Graph(
        "stream",
        module,
        [TensorSpec.of("samples", blocks[1], {1: "block_samples"}), *inputs, *cue_specs],
        [*(TensorSpec.of(*triple) for triple in zip(head, outputs, sizes, strict=False)), *after],
        (blocks[1], *tensors.values(), *example.prepared.values()),
        (check.samples[:, : first + stride], *begin.values(), *check.prepared.values()),
        specs,
    )


def _dynamic_axes(name: str, tensor: Tensor) -> dict[int, str]:
    """Return the axes of a state tensor whose size depends on the blocks before."""
    if name in ("state.samples", "state.level"):
        return {1: "history"}
    return {tensor.dim() - 1: "past_frames"} if name.startswith("state.past.") else {}


def _initial_tensors(initial: StreamState, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Return the initial value of each tensor; there are no past frames yet."""
    known = name_tensors(initial)
    for name, tensor in tensors.items():
        zeros = tensor.new_zeros(*tensor.shape[:-1], 0 if name.startswith("state.past.") else tensor.shape[-1])
        yield name, known.get(name, zeros)


def examples(network: TargetSpeakerExtractor) -> tuple[Example, Example]:
    """Return two examples of different lengths: coloured noise that comes and goes, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)

    def signal(num_samples: int) -> Tensor:
        noise = torch.randn(1, num_samples, generator=generator).cumsum(dim=1)
        noise = noise - torch.nn.functional.avg_pool1d(noise, 201, 1, 100, count_include_pad=False)
        return 0.02 * noise * (1 + torch.sin(torch.arange(num_samples) / 900.0))

    pair = []
    with torch.no_grad():
        for num_samples in EXAMPLE_SAMPLES:
            enrollment = signal(num_samples)
            pair.append(Example(signal(num_samples + 5003), enrollment, network.prepare(enrollment)))
    return pair[0], pair[1]


def prepared_specs(network: TargetSpeakerExtractor) -> list[TensorSpec]:
    """Return the specifications of the prepared tensors; sizes that vary together have one name."""
    short, long = (example.prepared for example in examples(network))
    names: dict[tuple[int, int], str] = {}
    specs = []
    for key, tensor in short.items():
        dynamic = {}
        for axis, pair in enumerate(zip(tensor.shape, long[key].shape, strict=True)):
            if pair[0] != pair[1]:
                number = "" if not names or pair in names else f"_{len(names) + 1}"
                dynamic[axis] = names.setdefault((int(pair[0]), int(pair[1])), f"enrollment_frames{number}")
        specs.append(TensorSpec.of(f"cue.{key}", tensor, dynamic))
    return specs
