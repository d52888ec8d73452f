import assert from "node:assert/strict";
import { test } from "node:test";
import { checkLength, clock, cut, monoOf } from "../src/page/recordings.js";

test("a recording that is too long is refused in one line", () => {
  checkLength("a.wav", { duration: 1800, sampleRate: 48000, numberOfChannels: 1 });
  assert.throws(
    () => checkLength("a.wav", { duration: 1000, sampleRate: 48000, numberOfChannels: 2 }),
    /^Error: a.wav: lasts 17 minutes at 48 kHz in 2 channels; at most 15 are possible here: use wesep extract.$/,
  );
});

test("a part is cut out at the nearest samples", () => {
  const recording = { name: "a", channels: [Float32Array.from({ length: 100 }, (_, n) => n)], sampleRate: 10 };
  const part = cut(recording, 1.04, 1.26);
  assert.deepEqual([...part.channels[0]], [10, 11, 12]);
  assert.equal(part.name, "a (0:01.0 to 0:01.3)");
});

test("times are minutes, seconds and tenths", () => {
  assert.deepEqual([0, 2.54, 59.96, 600].map(clock), ["0:00.0", "0:02.5", "1:00.0", "10:00.0"]);
});

test("the mean of channels is the middle", () => {
  assert.deepEqual([...monoOf([Float32Array.of(1, 0), Float32Array.of(0, 0.5)])], [0.5, 0.25]);
});
