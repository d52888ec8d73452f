"""Functions of the page's modules, called from Python with node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
MIN_NODE = 20
# Arrays of numbers become Float32Array, as signals are; −∞ is not in JSON and does not occur.
CALL = """
const { file, name, values } = JSON.parse(await new Response(process.stdin).text());
const revive = (value) =>
  Array.isArray(value) && typeof value[0] === "number" ? Float32Array.from(value)
  : Array.isArray(value) ? value.map(revive) : value;
const entries = (value) => Object.entries(value).map(([key, part]) => [key, revive(part)]);
const revived = values.map((value) =>
  value?.constructor === Object ? Object.fromEntries(entries(value)) : revive(value));
const result = await (await import(file))[name](...revived);
const plain = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify(result ?? null, plain));
"""


def missing_node() -> str | None:
    """Return why node cannot run the modules; `None` if it can."""
    if shutil.which("node") is None:
        return "node is not installed"
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return None if int(version[1:].split(".")[0]) >= MIN_NODE else f"node {version.strip()} is older than {MIN_NODE}"


def call(module: str, name: str, *values: Any) -> Any:
    """Call a function of a module below `web/src`, and return what it returns.

    Args:
        module: file name, such as `audio/resample.js`.
        name: of the function.
        values: arguments: plain values and arrays.
    """
    file = (WEB / "src" / module).as_uri()  # an absolute path stays as it is
    job = {"file": file, "name": name, "values": values}
    done = subprocess.run(
        ["node", "--input-type=module", "-e", CALL],
        input=json.dumps(job, default=lambda value: np.asarray(value).tolist()),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
