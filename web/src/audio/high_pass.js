/** The zero-phase high-pass at 40 Hz below which there is no speech, as `wesep_py.features.array_high_pass`. */

import { besselI0, roundHalfEven, sinc } from "./numeric.js";

const CUTOFF_HZ = 40;
// Attenuation of the low-pass in its stop band; that band begins at this multiple of the cutoff.
const ATTENUATION_DB = 80;
const STOP_RATIO = 1.5;
// The low-pass is computed at about 50 times the cutoff, and then at a quarter of that rate.
const FIRST_RATE_RATIO = 50;
const SECOND_STEP = 4;
const designs = new Map();

/**
 * Remove what lies below speech: a constant, or a rumble.
 * @param {Float32Array} samples
 * @param {number} sampleRate - in Hz; at 640 Hz or less, the signal is returned as it is.
 * @returns {Float32Array}
 */
export function removeLowFrequencies(samples, sampleRate) {
  if (samples.length === 0 || sampleRate <= 16 * CUTOFF_HZ) {
    return samples;
  }
  const { firstStep, step, inner, reach, first, second, phases } = designOf(sampleRate);
  // The mean is removed first: it is most of what is to be removed, and otherwise costs precision.
  const mean = Math.fround(samples.reduce((sum, sample) => sum + sample, 0) / samples.length);
  const centred = samples.map((sample) => sample - mean);
  const low = decimated(
    decimated(reflected(centred, reach, reach + step), first, firstStep),
    second,
    SECOND_STEP,
  );
  // The low-pass between two of its samples: the phases of the interpolating filter, one after the other.
  const numTaps = phases[0].length;
  const padded = new Float64Array(low.length + 2 * (numTaps - 1));
  padded.set(low, numTaps - 1);
  return centred.map((sample, n) => {
    const at = n + 2 * inner;
    const taps = phases[at % step];
    const start = Math.floor(at / step);
    let sum = 0;
    for (let k = 0; k < numTaps; k++) {
      sum += padded[start + k] * taps[k];
    }
    return sample - sum;
  });
}

function designOf(sampleRate) {
  if (!designs.has(sampleRate)) {
    const stopHz = STOP_RATIO * CUTOFF_HZ;
    const firstStep = Math.max(1, roundHalfEven(sampleRate / (FIRST_RATE_RATIO * CUTOFF_HZ)));
    const step = firstStep * SECOND_STEP;
    const [firstRate, lowRate] = [sampleRate / firstStep, sampleRate / step];
    const first = lowPassKernel(sampleRate, stopHz, firstRate - stopHz);
    const second = lowPassKernel(firstRate, CUTOFF_HZ, stopHz);
    const between = lowPassKernel(sampleRate, stopHz, lowRate - stopHz, step);
    const [halfFirst, halfSecond, inner] = [first, second, between].map((kernel) => (kernel.length - 1) / 2);
    // The taps of a phase in reverse order: phases[p][k] multiplies the sample that comes k after the first.
    const numTaps = Math.ceil(between.length / step);
    const phases = Array.from({ length: step }, (_, phase) =>
      Float64Array.from({ length: numTaps }, (_, k) => between[(numTaps - 1 - k) * step + phase] ?? 0),
    );
    const reach = halfFirst + halfSecond * firstStep + inner;
    designs.set(sampleRate, { firstStep, step, inner, reach, first, second, phases });
  }
  return designs.get(sampleRate);
}

/** Return a linear-phase low-pass of odd length, by Kaiser's design; every `step`-th tap sums to 1. */
function lowPassKernel(sampleRate, passHz, stopHz, step = 1) {
  const width = (2 * Math.PI * (stopHz - passHz)) / sampleRate;
  const reach = Math.ceil((ATTENUATION_DB - 8) / (2.285 * width) / 2);
  const beta = 0.1102 * (ATTENUATION_DB - 8.7);
  const kernel = Float64Array.from({ length: 2 * reach + 1 }, (_, n) => {
    const time = n - reach;
    return (
      sinc((time * (passHz + stopHz)) / sampleRate) * besselI0(beta * Math.sqrt(Math.max(1 - (time / reach) ** 2, 0)))
    );
  });
  for (let phase = 0; phase < step; phase++) {
    let sum = 0;
    for (let n = phase; n < kernel.length; n += step) {
      sum += kernel[n];
    }
    for (let n = phase; n < kernel.length; n += step) {
      kernel[n] /= sum;
    }
  }
  return kernel;
}

/** Return a signal continued by its mirror images: `before` samples in front, `after` behind. */
function reflected(samples, before, after) {
  const last = samples.length - 1;
  return Float64Array.from({ length: before + samples.length + after }, (_, n) => {
    if (last === 0) {
      return samples[0];
    }
    const position = (((n - before) % (2 * last)) + 2 * last) % (2 * last);
    return samples[position <= last ? position : 2 * last - position];
  });
}

/** Return every `step`-th sample of the filtered signal, from the first that the kernel covers on. */
function decimated(samples, kernel, step) {
  const count = Math.floor((samples.length - kernel.length) / step) + 1;
  return Float64Array.from({ length: count }, (_, m) => {
    let sum = 0;
    for (let k = 0; k < kernel.length; k++) {
      sum += samples[m * step + k] * kernel[k];
    }
    return sum;
  });
}
