/** Spectrograms for pictures: one column for each pixel. */

const FRAME = 512;
const window_ = Float64Array.from({ length: FRAME }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FRAME));
// Frames of long columns that count.
const MAX_FRAMES = 4;

/**
 * Return a spectrogram.
 * @param {Float32Array} samples
 * @param {number} numColumns - along time.
 * @returns {{columns: Float32Array, numBins: number}} levels in dB relative to a full-scale sine, `numBins` for each
 *   column, from 0 Hz to the Nyquist frequency; −∞ for silence.
 */
export function spectrogram(samples, numColumns) {
  const numBins = FRAME / 2 + 1;
  const columns = new Float32Array(numColumns * numBins);
  const width = samples.length / numColumns;
  const numFrames = Math.max(1, Math.min(MAX_FRAMES, Math.round((2 * width) / FRAME)));
  const real = new Float64Array(FRAME);
  const imaginary = new Float64Array(FRAME);
  for (let column = 0; column < numColumns; column++) {
    const power = columns.subarray(column * numBins, (column + 1) * numBins);
    for (let frame = 0; frame < numFrames; frame++) {
      const start = Math.round((column + (frame + 0.5) / numFrames) * width) - FRAME / 2;
      for (let n = 0; n < FRAME; n++) {
        real[n] = window_[n] * (samples[start + n] ?? 0);
      }
      imaginary.fill(0);
      transform(real, imaginary);
      for (let bin = 0; bin < numBins; bin++) {
        power[bin] += (real[bin] ** 2 + imaginary[bin] ** 2) / numFrames;
      }
    }
    for (let bin = 0; bin < numBins; bin++) {
      // A full-scale sine has the magnitude FRAME / 4 under this window.
      power[bin] = 10 * Math.log10(power[bin]) - 20 * Math.log10(FRAME / 4);
    }
  }
  return { columns, numBins };
}

/** Replace a signal by its Fourier transform (Cooley & Tukey, 1965); the length is a power of 2. */
export function transform(real, imaginary) {
  const size = real.length;
  for (let n = 0, reversed = 0; n < size; n++) {
    if (n < reversed) {
      [real[n], real[reversed]] = [real[reversed], real[n]];
      [imaginary[n], imaginary[reversed]] = [imaginary[reversed], imaginary[n]];
    }
    let bit = size >> 1;
    for (; reversed & bit; bit >>= 1) {
      reversed ^= bit;
    }
    reversed |= bit;
  }
  for (let length = 2; length <= size; length *= 2) {
    const half = length / 2;
    for (let k = 0; k < half; k++) {
      const angle = (-2 * Math.PI * k) / length;
      const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
      for (let n = k; n < size; n += length) {
        const other = n + half;
        const re = real[other] * cosine - imaginary[other] * sine;
        const im = real[other] * sine + imaginary[other] * cosine;
        [real[other], imaginary[other]] = [real[n] - re, imaginary[n] - im];
        [real[n], imaginary[n]] = [real[n] + re, imaginary[n] + im];
      }
    }
  }
}

/**
 * Return the lowest and the highest sample of each column, for a picture of the waveform.
 * @param {Float32Array} samples
 * @param {number} numColumns
 * @returns {Float32Array} lowest and highest in turn.
 */
export function envelope(samples, numColumns) {
  const result = new Float32Array(2 * numColumns);
  for (let column = 0; column < numColumns; column++) {
    const start = Math.floor((column * samples.length) / numColumns);
    const stop = Math.max(start + 1, Math.floor(((column + 1) * samples.length) / numColumns));
    let [lowest, highest] = [0, 0];
    for (let n = start; n < Math.min(stop, samples.length); n++) {
      lowest = Math.min(lowest, samples[n]);
      highest = Math.max(highest, samples[n]);
    }
    result.set([lowest, highest], 2 * column);
  }
  return result;
}
