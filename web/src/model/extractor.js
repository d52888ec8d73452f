/**
 * Extract a voice from a recording with an exported model, as `wesep_py.runtime` does in Python:
 *
 *     enrollment ─► loudest channel, best segments, model's rate ─► graph `enroll` ─► voice
 *     mixture ─► model's rate ─► blocks of 30 s ─► graph `extract` ─► cross-fade ─► level ─► rate of the mixture
 *                                                             └─► presence: whether, and when
 */

import { isConstant } from "../audio/numeric.js";
import { resample } from "../audio/resample.js";
import { blockGrid, extractChannels, runBlocks } from "./blocks.js";
import { enrollmentSamples } from "./enrollment.js";
import { levelGain } from "./level.js";
import { presenceOfChannels, UNCALIBRATED } from "./presence.js";
import { segmentsFromEnergies, segmentsFromPresence } from "./timeline.js";

/**
 * Recording of any rate and number of channels.
 * @typedef {{channels: Float32Array[], sampleRate: number}} Recording
 */

/**
 * Voice extracted from a recording.
 * @typedef {object} Result
 * @property {Float32Array[]} channels - of the rate, length and number of channels of the mixture.
 * @property {number} sampleRate - Hz.
 * @property {import("./presence.js").Presence|null} presence - null for a model without a presence head.
 * @property {import("./timeline.js").Segment[]} segments - in which the voice speaks.
 */

export class Extractor {
  #ort;
  #about;
  #sessions;

  /**
   * @param {object} ort - the module `onnxruntime-web`.
   * @param {object} about - content of `wesep.json`.
   * @param {{enroll: object, extract: object}} sessions - of the graphs.
   */
  constructor(ort, about, sessions) {
    this.#ort = ort;
    this.#about = about;
    this.#sessions = sessions;
  }

  /**
   * Enroll a voice.
   * @param {Recording} recording - of that person alone.
   * @returns {Promise<Object<string, object>>} tensors for `extract`, and for a stream.
   * @throws {Error} the recording is silent or too short.
   */
  async enroll(recording) {
    const samples = enrollmentSamples(recording, this.#about.sample_rate);
    return this.#sessions.enroll.run({ enrollment: this.#row(samples) });
  }

  /**
   * Extract a voice.
   * @param {Recording} mixture
   * @param {Object<string, object>} voice - of `enroll`.
   * @param {(done: number, total: number) => void} onProgress - called before each run of the graph.
   * @returns {Promise<Result>}
   * @throws {Error} the model returned samples that are not finite.
   */
  async extract(mixture, voice, onProgress = () => {}) {
    const { sample_rate: modelRate, stride, level, presence: calibration } = this.#about;
    const { channels, sampleRate } = mixture;
    const samples = channels.map((channel) => resample(channel, sampleRate, modelRate));
    const grid = blockGrid(modelRate, stride);
    const { estimates, logits } = await runBlocks(samples, grid, level === "fitted", (block, number, count) => {
      let numRuns = 0;
      return extractChannels(block, this.#numFrames(block[0].length), (channel) => {
        onProgress(number * channels.length + numRuns++, count * channels.length);
        return this.#run(channel, voice);
      });
    });
    if (!estimates.every((estimate) => estimate.every(Number.isFinite))) {
      throw new Error("The model returned samples that are not finite; try another recording.");
    }
    const gain = levelGain(estimates, samples, level);
    const extracted = estimates.map((estimate, channel) => {
      const atRate = resample(estimate.map((value) => gain * value), modelRate, sampleRate);
      // Resampling there and back may differ by a sample.
      const result = new Float32Array(channels[channel].length);
      result.set(atRate.subarray(0, result.length));
      return result;
    });
    const presence = this.#presence(samples, logits, calibration ?? UNCALIBRATED);
    const durationS = channels[0].length / sampleRate;
    const segments = presence
      ? presence.isPresent
        ? segmentsFromPresence(presence.track, presence.frameS, durationS)
        : [] // a voice that is absent speaks nowhere, whatever the probabilities of single frames
      : segmentsFromEnergies(extracted, channels, sampleRate);
    return { channels: extracted, sampleRate, presence, segments };
  }

  #presence(samples, logits, calibration) {
    if (logits === null) {
      return null;
    }
    // A silent channel does not count, unless all are silent.
    const spoken = logits.filter((_, channel) => !isConstant(samples[channel]));
    const { stride, sample_rate: modelRate } = this.#about;
    return presenceOfChannels(spoken.length > 0 ? spoken : logits, stride / modelRate, calibration);
  }

  async #run(samples, voice) {
    const all = { mixture: this.#row(samples), ...voice };
    // The exporter leaves out inputs that nothing depends on.
    const feeds = Object.fromEntries(this.#sessions.extract.inputNames.map((name) => [name, all[name]]));
    const outputs = await this.#sessions.extract.run(feeds);
    return { estimate: outputs.estimate.data, logits: outputs.presence_logits?.data ?? null };
  }

  /** Return the number of frames of a recording, by the rule in `wesep.json`; `null` without a presence head. */
  #numFrames(numSamples) {
    if (!this.#sessions.extract.outputNames.includes("presence_logits")) {
      return null;
    }
    const { kind, stride, kernel, drop_last: dropLast } = this.#about.num_frames;
    if (kind === "centred") {
      return Math.floor(numSamples / stride) + 1;
    }
    const beyond = Math.max(0, numSamples - kernel) / stride;
    return 1 + (dropLast ? Math.floor(beyond) : Math.ceil(beyond));
  }

  #row(samples) {
    return new this.#ort.Tensor("float32", Float32Array.from(samples), [1, samples.length]);
  }
}
