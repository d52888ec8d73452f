/**
 * Resample a signal by a rational factor: a windowed sinc, one set of taps for each phase.
 *
 * A browser resamples what an `AudioBufferSourceNode` plays in an `OfflineAudioContext` without a filter: frequencies above the
 * new Nyquist frequency become aliases of the same level. Hence a filter of our own, with the pass band and about the
 * attenuation of soxr's high quality, which the Python package uses.
 */

import { besselI0, gcd, sinc } from "./numeric.js";

// The pass band ends here, the stop band begins at 1: shares of the Nyquist frequency of the lower rate.
const PASS_BAND = 0.913;
const ATTENUATION_DB = 110;
const tables = new Map();

/**
 * Resample a signal.
 * @param {Float32Array} samples
 * @param {number} fromRate - sample rate of the signal in Hz, an integer.
 * @param {number} toRate - sample rate of the result in Hz, an integer.
 * @returns {Float32Array} ⌈samples · toRate / fromRate⌉ samples; the same array for equal rates.
 */
export function resample(samples, fromRate, toRate) {
  if (fromRate === toRate || samples.length === 0) {
    return samples;
  }
  const divisor = gcd(fromRate, toRate);
  const [up, down] = [toRate / divisor, fromRate / divisor];
  const { reach, phases } = tapsOf(up, down);
  const result = new Float32Array(Math.ceil((samples.length * up) / down));
  // Output sample m lies at input position m · down / up = base + phase / up:
  //
  //   input    base−reach … base   base+1 … base+reach+1
  //   taps     0          … reach        …  2·reach+1
  let base = 0;
  let phase = 0;
  for (let m = 0; m < result.length; m++) {
    const taps = phases[phase];
    const first = base - reach;
    const start = Math.max(0, -first);
    const stop = Math.min(taps.length, samples.length - first);
    let sum = 0;
    for (let k = start; k < stop; k++) {
      sum += samples[first + k] * taps[k];
    }
    result[m] = sum;
    phase += down;
    base += Math.floor(phase / up);
    phase %= up;
  }
  return result;
}

/** Return the taps of each phase, by Kaiser's design, for `up` output samples on `down` input samples. */
function tapsOf(up, down) {
  const key = `${up}/${down}`;
  if (!tables.has(key)) {
    // In input samples: the lower Nyquist frequency, as a share of that of the input, stretches the filter.
    const share = Math.min(1, up / down);
    const width = Math.PI * (1 - PASS_BAND) * share;
    const half = (ATTENUATION_DB - 8) / (2.285 * width) / 2;
    const cutoff = ((1 + PASS_BAND) / 2) * share;
    const beta = 0.1102 * (ATTENUATION_DB - 8.7);
    const reach = Math.ceil(half);
    const phases = Array.from({ length: up }, (_, phase) => {
      const taps = Float64Array.from({ length: 2 * reach + 2 }, (_, k) => {
        const time = k - reach - phase / up;
        const inside = 1 - (time / half) ** 2;
        return inside < 0 ? 0 : sinc(cutoff * time) * besselI0(beta * Math.sqrt(inside));
      });
      // Each phase is normalised by itself, so that a constant stays exactly that constant.
      const sum = taps.reduce((total, tap) => total + tap, 0);
      return taps.map((tap) => tap / sum);
    });
    tables.set(key, { reach, phases });
  }
  return tables.get(key);
}
