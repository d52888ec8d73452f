import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeWav, fromPcm16, splitMixture, toPcm16 } from "../src/audio/wav.js";

test("a wav file has the header and the samples of its channels in turn", () => {
  const view = new DataView(encodeWav([Int16Array.of(1, -2), Int16Array.of(3, 32767)], 44100));
  const text = (at, count) => String.fromCharCode(...new Uint8Array(view.buffer, at, count));
  assert.deepEqual([text(0, 4), text(8, 8), text(36, 4)], ["RIFF", "WAVEfmt ", "data"]);
  assert.equal(view.getUint32(4, true), view.byteLength - 8);
  assert.equal(view.getUint16(22, true), 2);
  assert.equal(view.getUint32(24, true), 44100);
  assert.equal(view.getUint32(28, true), 4 * 44100);
  assert.deepEqual([44, 46, 48, 50].map((at) => view.getInt16(at, true)), [1, 3, -2, 32767]);
});

test("samples beyond full scale are clipped", () => {
  assert.deepEqual([...toPcm16([1.5, -1.5, 0.5, -1])], [32767, -32768, 16384, -32768]);
  assert.deepEqual([...fromPcm16(Int16Array.of(16384, -32768))], [0.5, -1]);
});

test("voice and residual sum to the mixture, also at full scale", () => {
  const mixture = [Float32Array.of(0.5, -1, 0.999, 0.1)];
  const voice = [Float32Array.of(0.25, 0.5, -0.5, 0.100001)];
  const parts = splitMixture(mixture, voice);
  assert.deepEqual([...parts.mixture[0]], [16384, -32768, 32735, 3277]);
  parts.mixture[0].forEach((sample, n) => assert.equal(parts.voice[0][n] + parts.residual[0][n], sample));
  assert.deepEqual([...parts.voice[0]], [8192, 0, -32, 3277]); // the second and third would need a louder residual
});

test("a voice beyond full scale is scaled down as a whole", () => {
  const { voice } = splitMixture([Float32Array.of(0.5, 0.5)], [Float32Array.of(2, 1)]);
  assert.deepEqual([...voice[0]], [32767, 16384]);
});
