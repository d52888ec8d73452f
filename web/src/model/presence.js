/** Presence of a voice: pooled from frames and calibrated, as `wesep_py.inference.presence_decision.presence`. */

import { roundHalfEven } from "../audio/numeric.js";

/** A voice counts as present if it speaks for this long anywhere in the recording. */
const PRESENCE_S = 0.5;
/** Duration at which the length correction of a calibration is 0. */
const REFERENCE_S = 4;
/** Logit of a frame of digital silence, in which nobody speaks. */
export const SILENT_LOGIT = -80;

/** Calibration of a model that has none: the head's own probabilities. */
export const UNCALIBRATED = { scale: 1, offset: 0, threshold: 0.5, frame_scale: 1, frame_offset: 0, growth: 0 };

/**
 * Whether and when a voice is in a recording.
 * @typedef {object} Presence
 * @property {number} probability - that the voice is in the recording, 0 to 1.
 * @property {number} threshold - lowest probability at which it counts as present.
 * @property {boolean} isPresent
 * @property {Float64Array} track - probability of each frame.
 * @property {number} frameS - seconds from one frame to the next.
 */

/**
 * Return the presence in the channel with the highest score.
 * @param {Float32Array[]} logits - of each channel, one for each frame; at least one channel.
 * @param {number} frameS - seconds from one frame to the next.
 * @param {object} calibration - as in `wesep.json`.
 * @returns {Presence}
 */
export function presenceOfChannels(logits, frameS, calibration) {
  const scores = logits.map((channel) => poolLogits(channel, frameS));
  const best = scores.indexOf(Math.max(...scores));
  const { scale, offset, threshold, growth, frame_scale: frameScale, frame_offset: frameOffset } = calibration;
  // The highest half second of a long recording has a higher score than that of a short one.
  const correction = growth * Math.log2((logits[best].length * frameS) / REFERENCE_S);
  const probability = sigmoid(scale * (scores[best] - correction) + offset);
  return {
    probability,
    threshold,
    isPresent: probability >= threshold,
    track: Float64Array.from(logits[best], (logit) => sigmoid(frameScale * logit + frameOffset)),
    frameS,
  };
}

/** Return a recording's score: the logit of the mean probability of the frames with the highest logits. */
export function poolLogits(logits, frameS) {
  const count = Math.min(logits.length, Math.max(1, roundHalfEven(PRESENCE_S / frameS)));
  const highest = Float64Array.from(logits).sort().subarray(logits.length - count);
  // logit(p) = log p − log(1 − p), from logarithms, because p rounds to 1 from logits of about 37 on.
  return logMeanSigmoid(highest) - logMeanSigmoid(highest.map((logit) => -logit));
}

/** Return 1 / (1 + exp(−x)). */
export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

function logMeanSigmoid(logits) {
  // −log(1 + exp(−x)), without overflow.
  const logs = logits.map((x) => Math.min(0, x) - Math.log1p(Math.exp(-Math.abs(x))));
  const highest = Math.max(...logs);
  return highest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - highest), 0) / logs.length);
}
