/** Long recordings in overlapping blocks, cross-faded into one result, as `wesep_py.inference.long_recordings.blocks`. */

import { concatenate, energy, isConstant, product, roundHalfEven } from "../audio/numeric.js";
import { SILENT_LOGIT } from "./presence.js";

const BLOCK_S = 30;
const OVERLAP_S = 4;
const FADE_S = 2;
const ENERGY_FRAME_S = 0.02;
// Two estimates are of the same voice if the cosine between them is at least this.
const MIN_COSINE = 0.5;
// An estimate with less than this share of the mixture's energy holds no speech to compare.
const SILENT_SHARE = 1e-3;
// Levels are matched if they differ by more than this, and the cosine is above that.
const MIN_STEP_DB = 1;
const MATCHING_COSINE = 0.9;

/**
 * Estimate of a network.
 * @typedef {{estimates: Float32Array[], logits: Float32Array[]|null}} Estimate - of each channel.
 */

/**
 * Return the lengths of blocks in samples, rounded to whole frames of the network.
 *
 *     block 0  |------- step -------|--overlap--|
 *     block 1                       |------- step -------|--overlap--|
 */
export function blockGrid(sampleRate, stride) {
  const frame = stride * Math.max(1, roundHalfEven((ENERGY_FRAME_S * sampleRate) / stride));
  // An even number of frames, because presence logits are cut in the middle of the overlap.
  const overlap = 2 * frame * Math.max(1, Math.ceil((OVERLAP_S * sampleRate) / (2 * frame)));
  const step = frame * Math.max(Math.floor(overlap / frame), roundHalfEven((BLOCK_S * sampleRate - overlap) / frame));
  return { step, overlap, fade: Math.min(overlap, roundHalfEven(FADE_S * sampleRate)), stride, block: step + overlap };
}

/** Return the first sample of each block, and the one after its last. */
export function blockSpans(numSamples, grid) {
  const spans = [];
  let start = 0;
  for (; numSamples > start + grid.block; start += grid.step) {
    spans.push([start, start + grid.block]);
  }
  // The last block starts earlier than the grid says, so that it is a whole block too.
  const whole = Math.floor(Math.max(0, numSamples - grid.block) / grid.stride) * grid.stride;
  spans.push([Math.min(start, whole), numSamples]);
  return spans;
}

/**
 * Run a network on the blocks of a recording, and cross-fade them.
 * @param {Float32Array[]} mixture - of each channel, at the network's rate.
 * @param {object} grid - of `blockGrid`.
 * @param {boolean} matchLevels - bring each block to the level and polarity of the one before: for a network that did
 *   not learn the level.
 * @param {(block: Float32Array[], number: number, count: number) => Promise<Estimate>} run - the network on a block.
 * @returns {Promise<Estimate>}
 */
export async function runBlocks(mixture, grid, matchLevels, run) {
  const spans = blockSpans(mixture[0].length, grid);
  if (spans.length === 1) {
    return run(mixture, 0, 1);
  }
  const finished = mixture.map(() => []);
  const tracks = mixture.map(() => []);
  let tails = null; // of each channel: estimates that the next block is cross-faded with
  let hasPresence = false;
  for (const [number, [start, stop]] of spans.entries()) {
    const isLast = number === spans.length - 1;
    const block = mixture.map((samples) => samples.subarray(start, stop));
    const { estimates, logits } = await run(block, number, spans.length);
    // Only the last block starts before its place in the grid; the samples before that are finished already.
    const skipped = number * grid.step - start;
    const half = grid.overlap / 2;
    const parts = estimates.map((estimate) => estimate.slice(skipped));
    if (tails !== null) {
      crossFade(tails, parts, block.map((samples) => samples.subarray(skipped)), grid, matchLevels);
    }
    parts.forEach((part, channel) => finished[channel].push(isLast ? part : part.subarray(0, grid.step)));
    tails = parts.map((part) => part.slice(part.length - grid.overlap));
    hasPresence = logits !== null;
    // Logits are not cross-faded: two blocks meet in the middle of their overlap.
    const first = number > 0 ? Math.floor((skipped + half) / grid.stride) : 0;
    const end = isLast ? undefined : Math.floor((grid.step + half) / grid.stride);
    logits?.forEach((track, channel) => tracks[channel].push(track.subarray(first, end)));
  }
  return { estimates: finished.map(concatenate), logits: hasPresence ? tracks.map(concatenate) : null };
}

/** Match a block to the tail of the block before and cross-fade it, in place. */
function crossFade(tails, parts, mixture, grid, matchLevels) {
  const { overlap } = grid;
  const heads = (channels) => channels.map((samples) => samples.subarray(0, overlap));
  const gain = matchLevels ? matchBlocks(tails, heads(parts), heads(mixture)) : 1;
  const rise = riseOf(grid);
  parts.forEach((part, channel) => {
    const tail = tails[channel];
    if (gain !== 1) {
      part.forEach((sample, n) => (part[n] = gain * sample));
    }
    for (let n = 0; n < overlap; n++) {
      part[n] = tail[n] + (part[n] - tail[n]) * rise[n];
    }
  });
}

/** Return the weight of the later block, from 0 to 1: a raised cosine in the middle of the overlap. */
export function riseOf({ overlap, fade }) {
  const before = Math.floor((overlap - fade) / 2);
  return Float32Array.from({ length: overlap }, (_, n) => {
    const position = n - before;
    if (position < 0) {
      return 0;
    }
    return position < fade ? 0.5 - 0.5 * Math.cos((Math.PI * (position + 0.5)) / fade) : 1;
  });
}

/**
 * Return the gain that brings the later of two estimates of the same samples to the level and polarity of the earlier;
 * 1 if they do not hold the same voice, and for levels that hardly differ.
 */
export function matchBlocks(earlier, later, mixture) {
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const [first, second, whole] = [earlier, later, mixture].map((channels) => total(channels.map(energy)));
  if (Math.min(first, second) <= Math.max(0, SILENT_SHARE * whole)) {
    return 1;
  }
  const cosine = total(earlier.map((samples, channel) => product(samples, later[channel]))) / Math.sqrt(first * second);
  if (Math.abs(cosine) < MIN_COSINE) {
    return 1;
  }
  const ratio = Math.sqrt(first / second);
  const isStep = Math.abs(20 * Math.log10(ratio)) > MIN_STEP_DB && Math.abs(cosine) > MATCHING_COSINE;
  return Math.sign(cosine) * (isStep ? ratio : 1);
}

/**
 * Run a network on each channel; a channel that is silent or constant gives silence.
 * @param {Float32Array[]} mixture
 * @param {number|null} numFrames - of the mixture; `null` for a network without a presence head.
 * @param {(samples: Float32Array) => Promise<{estimate: Float32Array, logits: Float32Array|null}>} extract
 * @returns {Promise<Estimate>}
 */
export async function extractChannels(mixture, numFrames, extract) {
  const estimates = [];
  const logits = [];
  for (const samples of mixture) {
    const silent = isConstant(samples);
    const result = silent ? { estimate: new Float32Array(samples.length), logits: null } : await extract(samples);
    estimates.push(result.estimate);
    logits.push(result.logits);
  }
  const frames = logits.find((track) => track !== null)?.length ?? numFrames;
  if (frames === null) {
    return { estimates, logits: null };
  }
  return { estimates, logits: logits.map((track) => track ?? new Float32Array(frames).fill(SILENT_LOGIT)) };
}
