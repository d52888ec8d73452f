import assert from "node:assert/strict";
import { test } from "node:test";
import { sampleRateOf } from "../src/audio/sniff.js";
import { encodeWav } from "../src/audio/wav.js";

const bytes = (...parts) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...part].map((c) => c.charCodeAt(0)) : part))).buffer;
const zeros = (count) => Array(count).fill(0);
const FILES = {
  "wav of 22050 Hz": [encodeWav([new Int16Array(4)], 22050), 22050],
  "wav with another chunk first": [
    bytes("RIFF", zeros(4), "WAVE", "LIST", [3, 0, 0, 0], zeros(4), "fmt ", zeros(4), zeros(4), [0x80, 0xbb, 0, 0], zeros(8)),
    48000,
  ],
  "flac of 44100 Hz": [bytes("fLaC", zeros(14), [0x0a, 0xc4, 0x40, 0xf0], zeros(8)), 44100],
  "ogg vorbis of 16000 Hz": [bytes("OggS", zeros(22), [1, 30], [1], "vorbis", zeros(4), [1], [0x80, 0x3e, 0, 0], zeros(9)), 16000],
  opus: [bytes("OggS", zeros(22), [1, 19], "OpusHead", zeros(11)), 48000],
  "mp3 of 44100 Hz": [bytes([0xff, 0xfb, 0x90, 0x00], zeros(60)), 44100],
  "mp3 of 24000 Hz behind a tag": [bytes("ID3", [4, 0, 0, 0, 0, 0, 4], zeros(4), [0xff, 0xf3, 0x84, 0x00], zeros(60)), 24000],
  "wav of an unusual rate": [encodeWav([new Int16Array(4)], 44101), 48000],
  "another file": [bytes("hello, this is text and no sound"), 48000],
  "an empty file": [bytes(), 48000],
};

for (const [name, [content, rate]] of Object.entries(FILES)) {
  test(`the rate of a file: ${name}`, () => assert.equal(sampleRateOf(content), rate));
}
