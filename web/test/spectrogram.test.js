import assert from "node:assert/strict";
import { test } from "node:test";
import { envelope, spectrogram, transform } from "../src/audio/spectrogram.js";

test("the transform is that of the definition", () => {
  const real = Float64Array.from({ length: 16 }, (_, n) => Math.sin(n * n));
  const imaginary = Float64Array.from({ length: 16 }, (_, n) => Math.cos(3 * n));
  const [x, y] = [real.slice(), imaginary.slice()];
  transform(real, imaginary);
  for (let k = 0; k < 16; k++) {
    let [re, im] = [0, 0];
    for (let n = 0; n < 16; n++) {
      const angle = (-2 * Math.PI * k * n) / 16;
      re += x[n] * Math.cos(angle) - y[n] * Math.sin(angle);
      im += x[n] * Math.sin(angle) + y[n] * Math.cos(angle);
    }
    assert.ok(Math.abs(re - real[k]) < 1e-9 && Math.abs(im - imaginary[k]) < 1e-9);
  }
});

test("a full-scale sine has 0 dB in its bin, and silence none", () => {
  const samples = new Float32Array(16000);
  for (let n = 0; n < 8000; n++) {
    samples[n] = Math.sin((2 * Math.PI * 32 * n) / 512);
  }
  const { columns, numBins } = spectrogram(samples, 10);
  const loud = columns.subarray(2 * numBins, 3 * numBins);
  assert.ok(Math.abs(loud[32]) < 0.01);
  assert.ok(loud[100] < -60);
  assert.equal(columns[8 * numBins + 32], -Infinity);
});

test("the envelope has the lowest and the highest sample of each column", () => {
  assert.deepEqual([...envelope(Float32Array.of(0.5, -0.5, 0.25, 0.75), 2)], [-0.5, 0.5, 0, 0.75]);
});
