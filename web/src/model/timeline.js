/** When a voice speaks: segments, and the files that list them, as `wesep_py.inference.inputs_outputs.timeline`. */

import { removeLowFrequencies } from "../audio/high_pass.js";
import { quantile, roundHalfEven } from "../audio/numeric.js";

// A segment begins where the track reaches the first, and ends where it falls below the second.
const ONSET = 0.5;
const OFFSET = 0.35;
// Shorter pauses are closed first, then shorter segments are removed.
const MIN_SEGMENT_S = 0.2;
const MIN_PAUSE_S = 0.3;
// An estimate speaks where it is at most this far below its own loud frames, and below the mixture.
const RANGE_DB = 35;
const BELOW_MIXTURE_DB = 15;
const FLOOR_DB = -80;
const SMOOTH_S = 0.1;
const ENERGY_FRAME_S = 0.02;

/**
 * Segment in which a voice speaks.
 * @typedef {{startS: number, endS: number, probability: number|null}} Segment
 */

/**
 * Return the segments of a track of probabilities.
 * @param {ArrayLike<number>} track - of each frame, 0 to 1.
 * @param {number} frameS - seconds from one frame to the next.
 * @param {number} durationS - of the recording; no segment goes beyond.
 * @returns {Segment[]}
 */
export function segmentsFromPresence(track, frameS, durationS) {
  return findSegments(track, frameS)
    .filter(([start]) => start * frameS < durationS)
    .map(([start, end]) => {
      let sum = 0;
      for (let n = start; n < end; n++) {
        sum += track[n];
      }
      return { startS: start * frameS, endS: Math.min(end * frameS, durationS), probability: sum / (end - start) };
    });
}

/**
 * Return the segments of an estimate, for a model without a presence head: where it is neither far below its loud
 * frames nor far below the mixture.
 * @param {Float32Array[]} estimate - of each channel, at its level in the mixture.
 * @param {Float32Array[]} mixture - of each channel.
 * @param {number} sampleRate - of both, in Hz.
 * @returns {Segment[]}
 */
export function segmentsFromEnergies(estimate, mixture, sampleRate) {
  const frame = Math.max(1, roundHalfEven(ENERGY_FRAME_S * sampleRate));
  const [voiceDb, mixtureDb] = [estimate, mixture].map((channels) =>
    frameEnergies(channels.map((samples) => removeLowFrequencies(samples, sampleRate)), frame).map(
      (value) => 10 * Math.log10(Math.max(value, 1e-20)),
    ),
  );
  const least = Math.max(quantile(voiceDb, 0.995) - RANGE_DB, FLOOR_DB);
  const active = Array.from(voiceDb, (db, n) => Number(db >= least && db >= mixtureDb[n] - BELOW_MIXTURE_DB));
  const stepS = frame / sampleRate;
  const half = Math.floor(Math.max(1, Math.floor(roundHalfEven(SMOOTH_S / stepS) / 2) * 2 + 1) / 2);
  const track = active.map((_, n) => {
    let sum = 0;
    for (let k = n - half; k <= n + half; k++) {
      sum += active[Math.max(0, Math.min(active.length - 1, k))];
    }
    return sum / (2 * half + 1);
  });
  const durationS = mixture[0].length / sampleRate;
  return findSegments(track, stepS)
    .filter(([start]) => start * stepS < durationS)
    .map(([start, end]) => ({ startS: start * stepS, endS: Math.min(end * stepS, durationS), probability: null }));
}

/** Return the first frame of each segment and the one after its last, by hysteresis and minimum durations. */
export function findSegments(track, stepS) {
  // Each run of frames from OFFSET up counts from its first frame at ONSET on, if it has one.
  const spans = [];
  let begin = null; // first frame at ONSET of the run
  for (let n = 0; n <= track.length; n++) {
    if (n < track.length && track[n] >= OFFSET) {
      begin ??= track[n] >= ONSET ? n : null;
    } else if (begin !== null) {
      spans.push([begin, n]);
      begin = null;
    }
  }
  const joined = [];
  for (const [start, end] of spans) {
    const last = joined.at(-1);
    if (last && (start - last[1]) * stepS < MIN_PAUSE_S - 1e-9) {
      last[1] = end;
    } else {
      joined.push([start, end]);
    }
  }
  return joined.filter(([start, end]) => (end - start) * stepS >= MIN_SEGMENT_S - 1e-9);
}

/** Return the mean squares of frames, over all channels together; the last frame may be shorter. */
export function frameEnergies(channels, frame) {
  const numSamples = channels[0].length;
  return Float64Array.from({ length: Math.ceil(numSamples / frame) }, (_, n) => {
    const stop = Math.min((n + 1) * frame, numSamples);
    let sum = 0;
    for (const samples of channels) {
      for (let k = n * frame; k < stop; k++) {
        sum += samples[k] * samples[k];
      }
    }
    return sum / channels.length / (stop - n * frame);
  });
}

/** Return segments as SubRip subtitles, each with the name of the voice. */
export function asSrt(segments, name) {
  return segments
    .map(({ startS, endS }, n) => `${n + 1}\n${clock(startS)} --> ${clock(endS)}\n${name}\n\n`)
    .join("");
}

/** Return segments as CSV, with the columns of `wesep extract --timeline`. */
export function asCsv(segments, name) {
  const field = /[",\n\r]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
  const rows = segments.map(({ startS, endS, probability }) =>
    [field, startS.toFixed(3), endS.toFixed(3), (endS - startS).toFixed(3), probability?.toFixed(4) ?? ""].join(","),
  );
  return ["target,start_s,end_s,duration_s,probability", ...rows, ""].join("\n");
}

/** Return a time as `01:02:03,500`. */
function clock(timeS) {
  const thousandths = roundHalfEven(timeS * 1000);
  const seconds = Math.floor(thousandths / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return `${parts.map((part) => String(part).padStart(2, "0")).join(":")},${String(thousandths % 1000).padStart(3, "0")}`;
}
