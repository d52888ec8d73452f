/** The gain that brings an estimate to the level that its voice has in the mixture, as `wesep_py.inference.result`. */

import { energy, product } from "../audio/numeric.js";

/** Largest correction of a level that the network learned. */
const MAX_CORRECTION_DB = 6;
const SMALLEST = 1.1754943508222875e-38; // normal number of 32 bits

/**
 * Return the gain, one for all channels; 0 for a silent estimate.
 * @param {Float32Array[]} estimate - of each channel, at any level.
 * @param {Float32Array[]} mixture - of each channel.
 * @param {"fitted"|"learned"|"kept"} level - least squares; the same, at most 6 dB up or down; none.
 */
export function levelGain(estimate, mixture, level) {
  if (level === "kept") {
    return 1;
  }
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const size = sum(estimate.map((samples) => samples.length));
  const energies = sum(estimate.map(energy));
  if (energies <= SMALLEST * size) {
    return 0;
  }
  const gain = sum(estimate.map((samples, channel) => product(samples, mixture[channel]))) / energies;
  const most = 10 ** (MAX_CORRECTION_DB / 20);
  return level === "fitted" ? gain : Math.min(Math.max(gain, 1 / most), most);
}
