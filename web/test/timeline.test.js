import assert from "node:assert/strict";
import { test } from "node:test";
import { asCsv, asSrt, findSegments, segmentsFromPresence } from "../src/model/timeline.js";

test("a segment begins at 0.5, ends below 0.35, and short pauses are closed", () => {
  assert.deepEqual(findSegments([0.1, 0.6, 0.4, 0.4, 0.2, 0.4], 0.1), [[1, 4]]);
  assert.deepEqual(findSegments([0.9, 0.9, 0, 0, 0.9, 0.9], 0.1), [[0, 6]]);
  assert.deepEqual(findSegments([0.9, 0, 0, 0, 0, 0.9, 0.9], 0.1), [[5, 7]]);
  assert.deepEqual(findSegments([], 0.1), []);
});

test("no segment goes beyond the recording", () => {
  const [segment] = segmentsFromPresence([0.9, 0.7, 0.8], 0.5, 1.2);
  assert.equal(segment.endS, 1.2);
  assert.ok(Math.abs(segment.probability - 0.8) < 1e-12);
});

test("subtitles and tables have the times of the segments", () => {
  const segments = [{ startS: 1, endS: 3662.5, probability: 0.5 }];
  assert.equal(asSrt(segments, "voice"), "1\n00:00:01,000 --> 01:01:02,500\nvoice\n\n");
  assert.equal(
    asCsv(segments, 'a "b", c'),
    'target,start_s,end_s,duration_s,probability\n"a ""b"", c",1.000,3662.500,3661.500,0.5000\n',
  );
});
