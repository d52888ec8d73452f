/** Enrollment recordings: the loudest channel, and of long ones the segments with the most speech, as in Python. */

import { removeLowFrequencies } from "../audio/high_pass.js";
import { concatenate, energy, isConstant, quantile, roundHalfEven } from "../audio/numeric.js";
import { resample } from "../audio/resample.js";

/**
 * A longer recording enters the network with its segments of most speech. Python takes 30 s; here the attention between a
 * block of 30 s and so long an enrollment would need more memory than a phone gives.
 */
export const MAX_ENROLLMENT_S = 10;
/** Shorter recordings are refused. */
export const MIN_ENROLLMENT_S = 0.1;
const FRAME_S = 0.02;
const SPEECH_RANGE_DB = 40;
const ABOVE_FLOOR_DB = 4;
const SILENCE_DB = -90;
const GAP_S = 0.1;
const SEGMENT_S = 3;
const BLOCK_S = 60;
const FADE_S = 0.005;

/**
 * Return what of a recording enters the network.
 * @param {{channels: Float32Array[], sampleRate: number}} recording
 * @param {number} modelRate - sample rate of the model in Hz.
 * @returns {Float32Array} at the model's rate.
 * @throws {Error} the recording is silent, or shorter than 0.1 s.
 */
export function enrollmentSamples({ channels, sampleRate }, modelRate) {
  const durationS = channels[0].length / sampleRate;
  if (durationS < MIN_ENROLLMENT_S) {
    throw new Error(
      `The voice sample lasts ${durationS.toFixed(3)} s; at least ${MIN_ENROLLMENT_S} s are needed, and 5 to 10 s are better.`,
    );
  }
  if (channels.every(isConstant)) {
    throw new Error("The voice sample is silent; choose a recording in which the person speaks.");
  }
  if (durationS > MAX_ENROLLMENT_S) {
    return bestSegments(channels, sampleRate, modelRate);
  }
  const filtered = channels.length > 1 ? channels.map((samples) => removeLowFrequencies(samples, sampleRate)) : channels;
  return resample(channels[loudest(filtered.map(energy))], sampleRate, modelRate);
}

function bestSegments(channels, sampleRate, modelRate) {
  const { channel, speech } = scanSpeech(channels, sampleRate);
  const samples = channels[channel];
  const segments = selectSegments(speech, samples.length, sampleRate, MAX_ENROLLMENT_S).map(([start, stop]) =>
    faded(samples.slice(start, stop), roundHalfEven(FADE_S * sampleRate), start > 0, stop < samples.length),
  );
  if (segments.every(isConstant)) {
    throw new Error("The voice sample is silent; choose a recording in which the person speaks.");
  }
  return concatenate(segments.map((segment) => resample(segment, sampleRate, modelRate)));
}

/** Return the loudest channel, and for each frame of 20 ms in it whether somebody speaks. */
export function scanSpeech(channels, sampleRate) {
  const frame = Math.max(1, roundHalfEven(FRAME_S * sampleRate));
  const size = frame * roundHalfEven(BLOCK_S / FRAME_S);
  const meanSquares = channels.map((samples) => {
    const values = [];
    for (let start = 0; start < samples.length; start += size) {
      const filtered = removeLowFrequencies(samples.slice(start, start + size), sampleRate);
      for (let at = 0; at < filtered.length; at += frame) {
        const part = filtered.subarray(at, at + frame);
        values.push(energy(part) / part.length);
      }
    }
    return values;
  });
  const channel = loudest(meanSquares.map((values) => values.reduce((sum, value) => sum + value, 0)));
  const levels = meanSquares[channel].map((value) => 10 * Math.log10(value));
  const threshold = speechThresholdDb(levels);
  return {
    channel,
    speech: withoutGaps(levels.map((level) => level >= threshold), roundHalfEven(GAP_S / FRAME_S)),
  };
}

/** Return the level from which a frame is speech: relative to the other frames, not to full scale. */
function speechThresholdDb(levels) {
  const limited = levels.map((level) => Math.max(level, -200));
  const [floor, loud] = [quantile(limited, 0.05), quantile(limited, 0.95)];
  if (loud < SILENCE_DB) {
    return Infinity;
  }
  return Math.max(loud - SPEECH_RANGE_DB, Math.min(floor + ABOVE_FLOOR_DB, loud - ABOVE_FLOOR_DB));
}

/** Close every gap between frames of speech that has at most `most` frames. */
function withoutGaps(mask, most) {
  const closed = [...mask];
  let last = -1; // last frame of speech
  mask.forEach((isSpeech, n) => {
    if (isSpeech) {
      if (last >= 0 && n - last - 1 <= most) {
        closed.fill(true, last, n);
      }
      last = n;
    }
  });
  return closed;
}

/** Return first sample and the one after the last of the segments with the most speech, about 3 s each, in order. */
export function selectSegments(speech, numSamples, sampleRate, shareS) {
  const frame = Math.max(1, roundHalfEven(FRAME_S * sampleRate));
  const count = Math.max(1, roundHalfEven(shareS / SEGMENT_S));
  const size = Math.max(1, Math.floor(shareS / count / FRAME_S + 1e-6));
  const starts = [];
  for (let start = 0; start < Math.max(1, speech.length - size + 1); start += size) {
    starts.push(start);
  }
  const spoken = starts.map((start) => speech.slice(start, start + size).filter(Boolean).length);
  const best = starts
    .map((_, n) => n)
    .sort((a, b) => spoken[b] - spoken[a] || a - b)
    .slice(0, count)
    .sort((a, b) => a - b);
  const segments = [];
  for (const n of best) {
    const start = starts[n] * frame;
    const stop = Math.min(start + size * frame, numSamples);
    const before = segments.at(-1);
    if (before?.[1] === start) {
      before[1] = stop;
    } else {
      segments.push([start, stop]);
    }
  }
  return segments;
}

/** Fade cut ends to the mean: a click is a broadband sound that a voice does not have. */
function faded(samples, fade, atStart, atEnd) {
  const size = Math.min(Math.floor(samples.length / 2), fade);
  const mean = samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
  for (let n = 0; n < size; n++) {
    const weight = 0.5 - 0.5 * Math.cos((Math.PI * (n + 0.5)) / size);
    const last = samples.length - 1 - n;
    samples[n] = atStart ? mean + (samples[n] - mean) * weight : samples[n];
    samples[last] = atEnd ? mean + (samples[last] - mean) * weight : samples[last];
  }
  return samples;
}

function loudest(energies) {
  return energies.indexOf(Math.max(...energies));
}
