/** Waveforms, spectrograms and timelines on canvases, in the colours of the page. */

import { envelope, spectrogram } from "../audio/spectrogram.js";

const RANGE_DB = 62;
const MAX_HZ = 8000;
const MAX_COLUMNS = 1200;

const drawn = new Map(); // of each canvas: the function that draws it
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((redraw) => redraw()));

/**
 * Keep a canvas drawn: now, and when its size or the colours of the page change.
 * @param {HTMLCanvasElement} canvas - in the page.
 * @param {(context: CanvasRenderingContext2D, width: number, height: number) => void} draw - in pixels.
 */
export function keepDrawn(canvas, draw) {
  const redraw = () => {
    const scale = globalThis.devicePixelRatio ?? 1;
    const width = Math.min(MAX_COLUMNS * scale, Math.round(canvas.clientWidth * scale));
    const height = Math.round(canvas.clientHeight * scale);
    if (width > 0 && height > 0) {
      Object.assign(canvas, { width, height });
      draw(canvas.getContext("2d"), width, height);
    }
  };
  // Those that have left the page are forgotten, and with them their samples.
  [...drawn.keys()].filter((other) => !other.isConnected).forEach((other) => drawn.delete(other));
  drawn.set(canvas, redraw);
  new ResizeObserver(redraw).observe(canvas);
}

/** Return a function that draws the waveform of samples. */
export function waveformOf(samples) {
  return (context, width, height) => {
    const peaks = envelope(samples, width);
    const peak = Math.max(1e-3, peaks.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    context.fillStyle = colour("--wave");
    for (let x = 0; x < width; x++) {
      const [low, high] = [peaks[2 * x] / peak, peaks[2 * x + 1] / peak];
      const top = (0.5 - 0.46 * high) * height;
      context.fillRect(x, top, 1, Math.max(1, (0.5 - 0.46 * low) * height - top));
    }
  };
}

/**
 * Return a function that draws the spectrogram of samples, up to 8 kHz.
 * @param {Float32Array} samples
 * @param {number} sampleRate - Hz.
 * @param {number} loudestDb - level of the strongest colour, so that pictures can be compared.
 */
export function spectrogramOf(samples, sampleRate, loudestDb) {
  return (context, width, height) => {
    const numColumns = Math.min(MAX_COLUMNS, width);
    const { columns, numBins } = spectrogram(samples, numColumns);
    const lastBin = (numBins - 1) * Math.min(1, (2 * MAX_HZ) / sampleRate);
    const ramp = colourRamp();
    const image = context.createImageData(numColumns, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let y = 0; y < height; y++) {
      const bin = Math.min(numBins - 1, Math.round(((height - 1 - y) / (height - 1)) * lastBin));
      for (let x = 0; x < numColumns; x++) {
        const share = 1 + (columns[x * numBins + bin] - loudestDb) / RANGE_DB;
        pixels[y * numColumns + x] = ramp[Math.round(255 * Math.max(0, Math.min(1, share)))];
      }
    }
    context.canvas.width = numColumns; // the style stretches it
    context.putImageData(image, 0, 0);
  };
}

/** Return the level in dB that is exceeded nowhere in the spectrogram of samples. */
export function loudestOf(samples) {
  const { columns } = spectrogram(samples, Math.min(MAX_COLUMNS, Math.ceil(samples.length / 256)));
  return columns.reduce((most, value) => Math.max(most, value), -60);
}

/**
 * Return a function that draws the probability over time, and the segments in which the person speaks.
 * @param {ArrayLike<number>|null} track - probability of each frame; null without a presence head.
 * @param {number} durationS - of the recording.
 * @param {number} frameS - seconds from one frame to the next.
 * @param {import("../model/timeline.js").Segment[]} segments
 */
export function timelineOf(track, frameS, durationS, segments) {
  return (context, width, height) => {
    const bar = Math.round(height * 0.22);
    const curve = height - bar - Math.round(height * 0.1);
    context.fillStyle = colour("--accent");
    for (const { startS, endS } of segments) {
      const [left, right] = [startS, endS].map((timeS) => (timeS / durationS) * width);
      context.beginPath();
      context.roundRect(left, height - bar, Math.max(2, right - left), bar, bar / 3);
      context.fill();
    }
    if (track === null) {
      return;
    }
    context.beginPath();
    context.moveTo(0, curve);
    for (let x = 0; x <= width; x++) {
      const frame = Math.min(track.length - 1, Math.floor(((x / width) * durationS) / frameS));
      context.lineTo(x, curve * (1 - 0.94 * track[frame]));
    }
    context.lineTo(width, curve);
    context.fillStyle = colour("--wave");
    context.globalAlpha = 0.5;
    context.fill();
    context.globalAlpha = 1;
  };
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return 256 colours as pixels of an image, between the colours of the style `--ramp`. */
function colourRamp() {
  const stops = colour("--ramp")
    .split(",")
    .map((text) => text.trim().match(/[0-9a-f]{2}/gi).map((digits) => parseInt(digits, 16)));
  return Uint32Array.from({ length: 256 }, (_, n) => {
    const position = (n / 255) * (stops.length - 1);
    const below = Math.min(stops.length - 2, Math.floor(position));
    const [red, green, blue] = stops[below].map((value, k) =>
      Math.round(value + (position - below) * (stops[below + 1][k] - value)),
    );
    // The bytes of a pixel are red, green, blue and alpha; the processors of browsers are little-endian.
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}
