import assert from "node:assert/strict";
import { test } from "node:test";
import { resample } from "../src/audio/resample.js";

const tone = (hz, rate, count) => Float32Array.from({ length: count }, (_, n) => Math.sin((2 * Math.PI * hz * n) / rate));
const RATES = [[48000, 16000], [44100, 16000], [16000, 44100], [8000, 16000], [22050, 16000]];

for (const [from, to] of RATES) {
  test(`a tone of 1 kHz stays the same tone from ${from} to ${to} Hz`, () => {
    const result = resample(tone(1000, from, from), from, to);
    const expected = tone(1000, to, to);
    assert.equal(result.length, to);
    for (let n = 1000; n < to - 1000; n++) {
      assert.ok(Math.abs(result[n] - expected[n]) < 1e-4, `sample ${n}`);
    }
  });
}

test("frequencies above the new Nyquist frequency leave no alias", () => {
  const result = resample(tone(9000, 48000, 48000), 48000, 16000).subarray(1000, 15000);
  assert.ok(result.every((sample) => Math.abs(sample) < 2e-5));
});

test("a constant stays that constant away from the ends", () => {
  const result = resample(new Float32Array(4410).fill(0.25), 44100, 16000).subarray(200, 1400);
  assert.ok(result.every((sample) => Math.abs(sample - 0.25) < 1e-6));
});

test("lengths are rounded up, and equal rates change nothing", () => {
  assert.equal(resample(new Float32Array(44101), 44100, 16000).length, 16001);
  const samples = Float32Array.of(1, 2);
  assert.equal(resample(samples, 16000, 16000), samples);
  assert.equal(resample(new Float32Array(0), 48000, 16000).length, 0);
});
