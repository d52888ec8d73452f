/** Recordings as the page handles them: decoded from a file, recorded, or cut out of another. */

import { sampleRateOf } from "../audio/sniff.js";

/** Samples of all channels: 30 minutes at 48 kHz, or 15 in stereo. More needs more memory than a browser gives. */
const MAX_SAMPLES = 30 * 60 * 48000;
const MAX_BYTES = 1 << 30;

/**
 * @typedef {object} NamedRecording
 * @property {string} name - for people.
 * @property {Float32Array[]} channels - from −1 to 1.
 * @property {number} sampleRate - Hz.
 */

/**
 * Decode a file at its own sample rate.
 * @param {File} file - audio or video, in any format that the browser knows.
 * @returns {Promise<NamedRecording>}
 * @throws {Error} too long, or not to be decoded.
 */
export async function decode(file) {
  if (file.size > MAX_BYTES) {
    throw new Error(`${file.name}: has ${(file.size / 1e9).toFixed(1)} GB; at most 1 GB is possible here: use wesep extract.`);
  }
  let content;
  try {
    content = await file.arrayBuffer();
  } catch {
    throw new Error(`${file.name}: cannot be read; choose a file, no folder.`);
  }
  // The rate of the context is that to which the browser decodes.
  const context = new OfflineAudioContext(1, 1, sampleRateOf(content));
  let decoded;
  try {
    decoded = await context.decodeAudioData(content);
  } catch {
    throw new Error(`${file.name}: is no recording that this browser can decode; choose a wav, flac, mp3, ogg or m4a file.`);
  }
  checkLength(file.name, decoded);
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, n) => decoded.getChannelData(n));
  return { name: file.name, channels, sampleRate: decoded.sampleRate };
}

/** Refuse a recording that is too long for a browser. */
export function checkLength(name, { duration, sampleRate, numberOfChannels }) {
  const most = Math.floor(MAX_SAMPLES / sampleRate / numberOfChannels / 60);
  if (duration * sampleRate * numberOfChannels > MAX_SAMPLES) {
    throw new Error(
      `${name}: lasts ${Math.ceil(duration / 60)} minutes at ${sampleRate / 1000} kHz in ${numberOfChannels} channels; ` +
        `at most ${most} are possible here: use wesep extract.`,
    );
  }
}

/** Cut a part out of a recording; times are in seconds. */
export function cut({ name, channels, sampleRate }, startS, endS) {
  const [start, stop] = [startS, endS].map((timeS) => Math.floor(timeS * sampleRate + 0.5));
  return {
    name: `${name} (${clock(startS)} to ${clock(endS)})`,
    channels: channels.map((samples) => samples.slice(start, stop)),
    sampleRate,
  };
}

/** Return the duration in seconds. */
export function durationOf({ channels, sampleRate }) {
  return channels[0].length / sampleRate;
}

/** Return the mean of all channels. */
export function monoOf(channels) {
  if (channels.length === 1) {
    return channels[0];
  }
  return channels[0].map((_, n) => channels.reduce((sum, samples) => sum + samples[n], 0) / channels.length);
}

/** Return a time as `1:02.5`. */
export function clock(timeS) {
  const tenths = Math.round(timeS * 10);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}
