"""`stream.js` gives in Chromium what a `Stream` gives in Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.docs.desk import blocks_of
from tests.export.chromium import ROOT, Page, ScriptError, missing, open_page
from tests.export.exportable_networks import STREAMING, calibrated_extractor, random_network, sound
from wesep_py.export.graph_runner import GraphRunner
from wesep_py.inference import Stream, Voice

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
TOLERANCE = 1e-3
NETWORKS = ("live", "causal", "td_speakerbeam causal", "no high-pass")
CUTS = {"128": [128], "odd": [1, 0, 777, 31, 2500, 5]}
ENROLLMENT = sound(12000, seed=1)
MIXTURE = sound(20011, seed=2) + 0.02
LOAD = """
const stream = await TargetSpeakerStream.load(`/models/${name}`, ort);
const voice = await stream.enroll(Float32Array.from(enrollment));
stream.setVoice(voice);
"""
STREAM = """
const parts = [];
for (let start = 0, k = 0; start < mixture.length; start += sizes[k++ % sizes.length]) {
  const stop = start + sizes[k % sizes.length];
  parts.push(...await stream.process(Float32Array.from(mixture.slice(start, stop))));
}
const presence = stream.presence;
parts.push(...await stream.flush());
"""


@pytest.fixture(scope="module")
def page(runner_of: Callable[..., GraphRunner], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page that finds the exported networks."""
    folder = tmp_path_factory.mktemp("models")
    for name in NETWORKS:
        (folder / short(name)).symlink_to(runner_of(name).folder)
    with open_page(folder, tmp_path_factory.mktemp("profile")) as page:
        yield page


def short(name: str) -> str:
    """Return a name without spaces."""
    return name.replace(" ", "_")


def in_torch(name: str) -> tuple[Stream, Voice]:
    """Return a stream of a network in torch, and its voice."""
    extractor = calibrated_extractor(random_network(STREAMING[name]))
    with torch.inference_mode():
        tensors = extractor.network.prepare(ENROLLMENT)
    voice = Voice(tensors, extractor.model_hash, 1.0)
    return extractor.stream(voice), voice


def relative_difference(ours: object, theirs: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    ours = np.asarray(ours, np.float64).reshape(theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def values(name: str, **others: object) -> dict[str, object]:
    """Return the values of a piece of JavaScript."""
    return {"name": short(name), "enrollment": ENROLLMENT[0].tolist(), **others}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_voice_enrolled_in_the_browser_equals_that_of_python(page: Page, name: str):
    voice = page.run(LOAD + "return voice;", **values(name))
    expected = in_torch(name)[1]
    assert voice["modelHash"] == expected.model_hash
    assert voice["tensors"].keys() == {f"cue.{key}" for key in expected.tensors}
    for key, tensor in expected.tensors.items():
        found = voice["tensors"][f"cue.{key}"]
        assert found["dims"] == list(tensor.shape)
        assert relative_difference(found["data"], tensor.float().numpy()) <= TOLERANCE


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stream_in_the_browser_equals_that_of_python(page: Page, name: str, cut: str):
    stream, _ = in_torch(name)
    code = LOAD + STREAM + "return { parts, presence, delays: [stream.latency, stream.delay] };"
    result = page.run(code, **values(name, mixture=MIXTURE[0].tolist(), sizes=CUTS[cut]))
    before = stream.process(MIXTURE[0].numpy())
    presence = stream.presence
    expected = np.concatenate([before, stream.flush()])
    assert len(result["parts"]) == len(expected) == MIXTURE.shape[1]
    assert relative_difference(result["parts"], expected) <= TOLERANCE
    assert result["presence"] == (None if presence is None else pytest.approx(presence, abs=TOLERANCE))
    assert result["delays"] == [stream.latency, stream.delay]


@pytest.mark.parametrize("length", [0, 1, 100, 512, 700])
def test_a_short_recording_is_returned_by_flush(page: Page, length: int):
    for name in NETWORKS:
        stream, _ = in_torch(name)
        mixture = MIXTURE[0, :length].numpy()
        expected = np.concatenate([stream.process(mixture), stream.flush()])
        parts = page.run(LOAD + STREAM + "return parts;", **values(name, mixture=mixture.tolist(), sizes=[128]))
        assert len(parts) == len(expected) == length
        assert np.abs(np.asarray(parts) - expected).max(initial=0) <= TOLERANCE * np.abs(expected).max(initial=1e-3)


def test_hops_of_one_block_each_are_timed(page: Page, capsys: pytest.CaptureFixture[str]):
    mixture = np.resize(MIXTURE[0].numpy(), 256 * 250)
    times = page.time_hops("live", mixture, ENROLLMENT[0].numpy())
    with capsys.disabled():
        print(
            "\nms per hop in Chromium (a tiny network): p50 {:.2f}, p95 {:.2f}, p99 {:.2f}".format(*times.percentiles())
        )
    stream, _ = in_torch("live")
    expected = stream.process(mixture)
    assert len(times.hops) == 250 and times.hops.max() > 0
    assert len(times.samples) == len(expected)
    assert relative_difference(times.samples, expected) <= TOLERANCE


def test_the_example_of_the_documentation_runs(page: Page):
    (block,) = [block for block in blocks_of(ROOT / "docs" / "export.md") if block.language == "js"]
    example = "\n".join(line for line in block.text.splitlines() if not line.startswith("import "))
    code = f"""
    const parts = [], play = (samples) => parts.push(...samples), blocks = [Float32Array.from(mixture)];
    {example.replace("live_onnx", "models/live")}
    return parts;
    """
    parts = page.run(code, **values("live", mixture=MIXTURE[0].tolist()))
    stream, _ = in_torch("live")
    expected = np.concatenate([stream.process(MIXTURE[0].numpy()), stream.flush()])
    assert relative_difference(parts, expected) <= TOLERANCE


def test_calls_need_not_wait_and_reset_begins_again(page: Page):
    code = f"""{LOAD}
    const once = () => {{
      const block = new Float32Array(sizes[0]), results = [];
      for (let start = 0; start + block.length <= mixture.length; start += block.length) {{
        block.set(mixture.slice(start, start + block.length));
        results.push(stream.process(block));
      }}
      results.push(stream.flush());
      stream.reset();
      return results;
    }};
    const collected = async (results) => (await Promise.all(results)).flatMap((part) => [...part]);
    const [first, second] = [once(), once()];
    return [await collected(first), await collected(second)];
    """
    first, second = page.run(code, **values("live", mixture=MIXTURE[0].tolist(), sizes=[160]))
    stream, _ = in_torch("live")
    count = MIXTURE.shape[1] // 160 * 160
    expected = np.concatenate([stream.process(MIXTURE[0, :count].numpy()), stream.flush()])
    assert first == second
    assert relative_difference(first, expected) <= TOLERANCE


def test_samples_that_are_not_finite_become_zero(page: Page):
    code = LOAD + "mixture[3] = NaN; mixture[900] = Infinity;" + STREAM + "return [parts, stream.numReplaced];"
    parts, count = page.run(code, **values("live", mixture=MIXTURE[0, :3000].tolist(), sizes=[128]))
    stream, _ = in_torch("live")
    mixture = MIXTURE[0, :3000].numpy().copy()
    mixture[[3, 900]] = 0
    assert count == 2
    assert relative_difference(parts, np.concatenate([stream.process(mixture), stream.flush()])) <= TOLERANCE


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("await stream.flush(); await stream.process(new Float32Array(9));", r"was flushed; call reset\(\)"),
        ("stream.setVoice({ ...voice, modelHash: 'other' });", "enrolled with another model"),
        ("stream.setVoice(null);", "is no voice"),
        ("await stream.enroll(new Float32Array(1599));", "at least 1600"),
        ("await (await TargetSpeakerStream.load('/models/live/', ort)).process(new Float32Array(9));", "no voice yet"),
        ("await TargetSpeakerStream.load('/models/none', ort);", "cannot be read"),
    ],
)
def test_a_mistake_is_one_clear_error(page: Page, code: str, message: str):
    with pytest.raises(ScriptError, match=message):
        page.run(LOAD + code, **values("live"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "has format version 99; this program reads version 1"),
        ({"format": "other"}, "is no exported model"),
        ({"graphs": {}}, "no ONNX graph of a stream"),
        (None, "another sha256"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    page: Page, runner_of: Callable[..., GraphRunner], tmp_path: Path, change: dict[str, object] | None, message: str
):
    folder = tmp_path / "folder"
    shutil.copytree(runner_of("live").folder, folder)
    if change is None:
        with (folder / "stream.onnx").open("ab") as file:
            file.write(b"\0")
    else:
        about = json.loads((folder / "wesep.json").read_text("utf-8"))
        (folder / "wesep.json").write_text(json.dumps(about | change), "utf-8")
    link = page.folder / "damaged"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    with pytest.raises(ScriptError, match=message):
        page.run("await TargetSpeakerStream.load('/models/damaged', ort);")
