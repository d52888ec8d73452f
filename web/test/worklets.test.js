import assert from "node:assert/strict";
import { test } from "node:test";

const BLOCK = 128;
const processors = {};
globalThis.sampleRate = 16000;
globalThis.AudioWorkletProcessor = class {
  port = { posted: [], postMessage: (message) => this.port.posted.push(message) };
};
globalThis.registerProcessor = (name, processor) => (processors[name] = processor);
await import("../src/worklets.js");

/** A processor whose worker returns what it gets, at once or when it is told to. */
function started(lead) {
  const live = new processors["live-voice"]({ processorOptions: { lead } });
  const worker = { isBusy: false, waiting: [] };
  worker.deliver = () => worker.waiting.splice(0).forEach((samples) => live.take({ samples, presence: 0.5 }));
  worker.postMessage = (samples) => {
    worker.waiting.push(samples);
    if (!worker.isBusy) {
      worker.deliver();
    }
  };
  live.port.onmessage({ data: { worker } });
  let position = 0;
  const run = (numBlocks) =>
    Array.from({ length: numBlocks }, () => {
      const input = Float32Array.from({ length: BLOCK }, () => ++position);
      const output = new Float32Array(BLOCK);
      assert.equal(live.process([[input]], [[output]]), true);
      return output;
    }).flatMap((output) => [...output]);
  return { live, worker, run };
}

test("the voice is played with a constant delay", () => {
  const { run } = started(512);
  const played = run(40);
  const first = played.findIndex((sample) => sample !== 0);
  assert.equal(first, 512 - BLOCK); // the block that completes the lead is played already
  played.slice(first).forEach((sample, n) => assert.equal(sample, n + 1));
});

test("blocks that come too late are left out, and the delay stays", () => {
  const { live, worker, run } = started(512);
  run(20);
  worker.isBusy = true;
  const stalled = run(10); // the lead lasts for 3 more blocks
  worker.isBusy = false;
  worker.deliver();
  const after = run(10);
  assert.ok(stalled.slice(0, 3 * BLOCK).every((sample) => sample !== 0));
  assert.ok(stalled.slice(4 * BLOCK).every((sample) => sample === 0));
  assert.equal(after[0], 30 * BLOCK - (512 - BLOCK) + 1);
  after.forEach((sample, n) => assert.equal(sample, after[0] + n));
  assert.equal(live.dropped, stalled.filter((sample, n) => sample === 0 && n % BLOCK === 0).length);
});

test("a worker that is too slow gets no more than half a second, and the delay comes back", () => {
  const { live, worker, run } = started(512);
  run(20);
  worker.isBusy = true;
  run(200);
  assert.ok(worker.waiting.length * 256 <= 8000 && worker.waiting.length * 256 > 7000);
  worker.isBusy = false;
  worker.deliver();
  run(10); // what was sent before is too late
  const after = run(10);
  assert.equal(after[0], 230 * BLOCK - (512 - BLOCK) + 1);
  after.forEach((sample, n) => assert.equal(sample, after[0] + n));
  assert.equal(live.backlog, 0);
});

test("delay, dropped blocks and presence are reported", () => {
  const { live, run } = started(256);
  run(70);
  const report = live.port.posted.at(-1);
  assert.deepEqual([report.dropped, report.presence], [0, 0.5]);
  assert.ok(Math.abs(report.delayS - BLOCK / 16000) < 1e-9);
});

test("a problem of the worker is passed on, and a recording is posted", () => {
  const { live } = started(256);
  live.take({ problem: "broken" });
  assert.deepEqual(live.port.posted, [{ problem: "broken" }]);
  const recorder = new processors.recorder();
  recorder.process([[Float32Array.of(1, 2)]]);
  recorder.process([[]]);
  assert.deepEqual(recorder.port.posted, [[Float32Array.of(1, 2)]]);
});
