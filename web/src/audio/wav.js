/** Write signals as wav files of 16 bits. */

const STEPS = 32768;

/**
 * Round a mixture and a voice to 16 bits, and return the voice and the residual: as written, the two sum to the mixture.
 *
 * A voice beyond full scale is scaled down to it. Where the residual would be beyond full scale, these samples of the
 * voice are changed instead.
 * @param {Float32Array[]} mixture - of each channel.
 * @param {Float32Array[]} voice - of each channel, at its level in the mixture.
 * @returns {{mixture: Int16Array[], voice: Int16Array[], residual: Int16Array[]}}
 */
export function splitMixture(mixture, voice) {
  let peak = 1;
  for (const samples of voice) {
    peak = samples.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), peak);
  }
  const whole = mixture.map((samples) => toPcm16(samples));
  const part = voice.map((samples) => toPcm16(samples, 1 / peak));
  const residual = whole.map((samples, channel) => {
    const rest = new Int16Array(samples.length);
    for (let n = 0; n < samples.length; n++) {
      rest[n] = clipped(samples[n] - part[channel][n]);
      part[channel][n] = samples[n] - rest[n];
    }
    return rest;
  });
  return { mixture: whole, voice: part, residual };
}

/** Return samples from −1 to 1, times a gain, as integers of 16 bits; what is beyond is clipped. */
export function toPcm16(samples, gain = 1) {
  // Loops, not `from`: half an hour is 86 million samples.
  const result = new Int16Array(samples.length);
  for (let n = 0; n < samples.length; n++) {
    result[n] = clipped(Math.round(samples[n] * gain * STEPS));
  }
  return result;
}

/** Return integers of 16 bits as samples from −1 to 1. */
export function fromPcm16(samples) {
  const result = new Float32Array(samples.length);
  for (let n = 0; n < samples.length; n++) {
    result[n] = samples[n] / STEPS;
  }
  return result;
}

/**
 * Return a wav file.
 * @param {Int16Array[]} channels - of one length.
 * @param {number} sampleRate - in Hz.
 * @returns {ArrayBuffer}
 */
export function encodeWav(channels, sampleRate) {
  const [numChannels, numSamples] = [channels.length, channels[0].length];
  const numBytes = 2 * numChannels * numSamples;
  const view = new DataView(new ArrayBuffer(44 + numBytes));
  const text = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + numBytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of this chunk
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, numChannels, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * numChannels * sampleRate, true); // bytes per second
  view.setUint16(32, 2 * numChannels, true); // bytes of a sample of all channels
  view.setUint16(34, 16, true); // bits
  text(36, "data");
  view.setUint32(40, numBytes, true);
  let at = 44;
  for (let n = 0; n < numSamples; n++) {
    for (const samples of channels) {
      view.setInt16(at, samples[n], true);
      at += 2;
    }
  }
  return view.buffer;
}

function clipped(value) {
  return Math.max(-STEPS, Math.min(STEPS - 1, value));
}
