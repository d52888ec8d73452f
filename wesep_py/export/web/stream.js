/**
 * Target speaker extraction from a live signal, in a browser: blocks of a mixture in, the voice out.
 *
 * Runs a folder that `wesep export MODEL --stream -o FOLDER` wrote with onnxruntime-web, as `wesep_py.runtime` runs it
 * in Python. Signals have the sample rate of the model and one channel.
 *
 *     block ─► NaN → 0 ─► wait for whole hops ─► graph `stream` ─► drop the leading samples ─► block
 */

const FORMAT = "wesep-export";
const FORMAT_VERSION = 1;
const MIN_ENROLLMENT_S = 0.1;
// Hops that the graph gets at once: a block of an hour then needs the memory of some seconds.
const MAX_HOPS = 500;
// Names in the graph.
const FIRST = "state.high_pass.first";
const LOW = "state.high_pass.low";
const SAMPLES = "state.samples";
const OVERLAP = "state.overlap";
const WEIGHT = "state.weight";
const LEVEL = "state.level";

/**
 * An enrolled voice. It holds plain values only, so it can be posted to a worker, or stored in a database.
 * @typedef {{modelHash: string, tensors: Object<string, {type: string, dims: number[], data: TypedArray}>}} Voice
 */

/** A stream of one voice. `process` and `flush` may be called without waiting for the call before. */
export class TargetSpeakerStream {
  #ort;
  #about;
  #sessions;
  #voice = null; // tensors under the names of the graph
  #recording = newRecording();
  #queue = Promise.resolve(); // ends with the last call: a session runs one call at a time

  /**
   * Load an exported model.
   * @param {string|URL} folderUrl - of the folder; one relative to the page is allowed.
   * @param {object} ort - the module `onnxruntime-web`. Its settings (`ort.env.wasm`) are left as they are.
   * @returns {Promise<TargetSpeakerStream>} a stream without a voice; call `setVoice` next.
   * @throws {Error} a file is missing or damaged, of another format version, or no graph of a stream.
   */
  static async load(folderUrl, ort) {
    const page = globalThis.document?.baseURI ?? globalThis.location?.href;
    const folder = new URL(`${String(folderUrl).replace(/\/+$/, "")}/`, page);
    const about = await (await fetched(new URL("wesep.json", folder))).json().catch(() => ({}));
    check(about, folder);
    const sessions = {};
    for (const name of ["enroll", "stream"]) {
      const { file, sha256 } = about.graphs[name];
      const content = await (await fetched(new URL(file, folder))).arrayBuffer();
      await checkDigest(content, sha256, file);
      sessions[name] = await ort.InferenceSession.create(new Uint8Array(content), { executionProviders: ["wasm"] });
    }
    return new TargetSpeakerStream(ort, about, sessions);
  }

  /** Use `load`. */
  constructor(ort, about, sessions) {
    this.#ort = ort;
    this.#about = about;
    this.#sessions = sessions;
  }

  /** Sample rate of the model in Hz, and of every signal here. */
  get sampleRate() {
    return this.#about.sample_rate;
  }

  /** Number of samples from one frame to the next. */
  get hopLength() {
    return this.#about.stride;
  }

  /** Algorithmic latency in samples: output sample n depends on input samples up to n + latency. */
  get latency() {
    return this.#about.latency;
  }

  /** Largest number of samples that have arrived and are not returned yet, for blocks of any size. */
  get delay() {
    return this.#about.max_delay;
  }

  /** Probability that the voice speaks in the last frame, 0 to 1; null before it, or without a presence head. */
  get presence() {
    return this.#recording.presence;
  }

  /** Number of samples that were NaN or infinite and became 0. */
  get numReplaced() {
    return this.#recording.numReplaced;
  }

  /**
   * Enroll a voice; `setVoice` then uses it.
   * @param {Float32Array} samples - a recording of the voice alone, −1 to 1, at least 0.1 s. Cut off silence before.
   * @returns {Promise<Voice>} valid for this model.
   * @throws {Error} too short, or samples that are not finite.
   */
  async enroll(samples) {
    const enrollment = Float32Array.from(samples);
    const minimum = Math.ceil(MIN_ENROLLMENT_S * this.sampleRate);
    if (enrollment.length < minimum) {
      throw new Error(`samples: are ${enrollment.length}; an enrollment needs at least ${minimum}`);
    }
    if (!enrollment.every(Number.isFinite)) {
      throw new Error("samples: some are NaN or infinite; an enrollment needs finite ones");
    }
    const feeds = { enrollment: this.#row(enrollment) };
    const outputs = await this.#afterOthers(() => this.#sessions.enroll.run(feeds));
    const tensors = Object.entries(outputs).map(([name, { type, dims, data }]) => [
      name,
      { type, dims: [...dims], data: data.slice() },
    ]);
    return { modelHash: this.#about.model_hash, tensors: Object.fromEntries(tensors) };
  }

  /**
   * Extract this voice from the next block on; the network keeps what it knows of the recording.
   * @param {Voice} voice - of this model.
   * @throws {Error} no voice, or a voice of another model.
   */
  setVoice(voice) {
    if (!voice?.tensors) {
      throw new Error("voice: is no voice; enroll() returns one");
    }
    if (voice.modelHash !== this.#about.model_hash) {
      throw new Error(`voice: was enrolled with another model than ${this.#about.model}; enroll it again`);
    }
    const tensors = Object.entries(voice.tensors);
    this.#voice = Object.fromEntries(
      tensors.map(([name, { type, data, dims }]) => [name, new this.#ort.Tensor(type, data, dims)]),
    );
  }

  /**
   * Take the next samples, and return those that are finished.
   * @param {Float32Array} samples - any number, also none; −1 to 1. It is copied, so it may be used again at once.
   * @returns {Promise<Float32Array>} the samples of the voice that follow those of the call before.
   * @throws {Error} no voice yet, or the stream was flushed.
   */
  async process(samples) {
    const [recording, voice] = this.#next();
    const block = Float32Array.from(samples);
    return this.#afterOthers(() => this.#advance(recording, voice, block));
  }

  /**
   * End the recording: return all samples that `process` has not returned.
   * Afterwards the stream takes no more samples until `reset`.
   * @returns {Promise<Float32Array>}
   */
  async flush() {
    if (this.#recording.isFlushed) {
      return new Float32Array(0);
    }
    const [recording, voice] = this.#next();
    recording.isFlushed = true;
    return this.#afterOthers(() => this.#end(recording, voice));
  }

  /** Begin a new recording with the same voice. */
  reset() {
    this.#recording = newRecording();
  }

  /** Return what a call works on: `reset` and `setVoice` then concern the calls after it only. */
  #next() {
    if (this.#voice === null) {
      throw new Error("the stream has no voice yet; call setVoice() first");
    }
    if (this.#recording.isFlushed) {
      throw new Error("the stream was flushed; call reset() before the next recording");
    }
    return [this.#recording, this.#voice];
  }

  #afterOthers(work) {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {}); // a call that fails concerns its own caller
    return result;
  }

  /** Take samples, and run the graph on all hops that are complete. */
  async #advance(recording, voice, block) {
    const { stride, first_block: firstBlock } = this.#about;
    const finite = block.map((value) => (Number.isFinite(value) ? value : 0));
    const numReplaced = recording.numReplaced + block.reduce((count, value) => count + !Number.isFinite(value), 0);
    const pending = joined([recording.pending, finite]);
    const parts = [];
    let start = 0;
    let now = { ...recording, numReplaced, numIn: recording.numIn + block.length };
    for (;;) {
      // The first call takes `firstBlock` samples and maybe hops, each later one hops only.
      const first = now.state === null ? firstBlock : 0;
      const numHops = Math.min(Math.floor((pending.length - start - first) / stride), MAX_HOPS);
      if (numHops < (first > 0 ? 0 : 1)) {
        break;
      }
      const stop = start + first + numHops * stride;
      const finished = await this.#run(now, voice, pending.subarray(start, stop));
      parts.push(finished.samples);
      now = finished.recording;
      start = stop;
    }
    // Only now, so that a call that fails leaves the recording as it was.
    const { isFlushed } = recording;
    Object.assign(recording, now, { pending: pending.slice(start), isFlushed });
    return joined(parts);
  }

  /** Return all samples that follow those that were returned. */
  async #end(recording, voice) {
    const { stride, first_block: firstBlock, num_leading: numLeading } = this.#about;
    const { numIn, numOut, pending } = recording;
    const numLeft = numLeading + numIn - numOut;
    if (numIn === 0 || numLeft <= 0) {
      return new Float32Array(0);
    }
    // The frames that reach beyond the end see zeros there, as offline: samples that the high-pass makes zeros.
    const numFrames = frameCount(this.#about.num_frames, numIn) - Math.floor(numOut / stride);
    let { state } = recording;
    const parts = [];
    if (numFrames > 0) {
      const needed = state === null ? firstBlock + (numFrames - 1) * stride : numFrames * stride;
      const segment = new Float32Array(needed).fill(this.#silence(recording));
      segment.set(pending.subarray(0, needed));
      const finished = await this.#run(recording, voice, segment);
      parts.push(finished.samples);
      state = finished.recording.state;
      recording.presence = finished.recording.presence;
    }
    // No frame follows: what the last frames have left is finished.
    if (state !== null) {
      parts.push(this.#tail(state));
    }
    const ended = new Float32Array(numIn - Math.max(0, numOut - numLeading));
    ended.set(joined(parts).subarray(0, ended.length));
    return ended;
  }

  /** Run the graph on the next samples; return finished samples, and the recording after them. */
  async #run(recording, voice, samples) {
    const state = recording.state ?? this.#initialState(samples[0]);
    const all = { samples: this.#row(samples.slice()), ...state, ...voice };
    // The exporter leaves out inputs that nothing depends on.
    const feeds = Object.fromEntries(this.#sessions.stream.inputNames.map((name) => [name, all[name]]));
    const outputs = await this.#sessions.stream.run(feeds);
    const estimate = outputs.estimate.data;
    const logit = outputs.presence_logits?.data.at(-1);
    const { frame_scale, frame_offset } = this.#about.live_presence ?? { frame_scale: 1, frame_offset: 0 };
    return {
      samples: estimate.slice(Math.max(0, this.#about.num_leading - recording.numOut)),
      recording: {
        ...recording,
        state: Object.fromEntries(this.#about.graphs.stream.state.map(({ input, output }) => [input, outputs[output]])),
        numOut: recording.numOut + estimate.length,
        presence: logit === undefined ? recording.presence : 1 / (1 + Math.exp(-frame_scale * logit - frame_offset)),
      },
    };
  }

  /** Return the tensors of the state before the first sample. */
  #initialState(firstSample) {
    const values = { zeros: 0, ones: 1, first_sample: firstSample };
    const tensors = this.#about.graphs.stream.state.map(({ input, shape, dtype, initial }) => {
      const size = shape.reduce((product, length) => product * length, 1);
      const data = new (dtype === "bool" ? Uint8Array : Float32Array)(size).fill(values[initial]);
      return [input, new this.#ort.Tensor(dtype, data, shape)];
    });
    return Object.fromEntries(tensors);
  }

  /**
   * Return the sample that the high-pass makes zero, as often as it is repeated.
   *
   * The high-pass subtracts `low[n] = a · low[n−1] + (1 − a) · (x[n] − first)` from `x[n] − first`. That is zero if
   * `x[n]` is `first + low[n−1]`, and then `low` stays as it is. The pending samples come before.
   */
  #silence({ state, pending }) {
    const cutoff = this.#about.end.high_pass_hz;
    if (cutoff === null) {
      return 0;
    }
    const first = state === null ? pending[0] : state[FIRST].data[0];
    const decay = Math.exp((-2 * Math.PI * cutoff) / this.sampleRate);
    let low = state === null ? 0 : state[LOW].data[0];
    for (const sample of pending) {
      low = decay * low + (1 - decay) * (sample - first);
    }
    return first + low;
  }

  /** Return the samples to which only the frames until now contribute. */
  #tail(state) {
    const { min_weight: minWeight, offset } = this.#about.end;
    const weight = state[WEIGHT]?.data;
    // The history of the level begins with that of the samples, the tail later by the same as the first frame.
    const numBefore = this.#about.graphs.stream.state.find(({ input }) => input === SAMPLES).shape[1];
    const levels = state[LEVEL]?.data.subarray(numBefore - this.#about.num_leading);
    return Float32Array.from(
      state[OVERLAP].data,
      (sum, n) => (sum / (weight ? Math.max(weight[n], minWeight) : 1) + offset) * (levels?.[n] ?? 1),
    );
  }

  #row(samples) {
    return new this.#ort.Tensor("float32", samples, [1, samples.length]);
  }
}

/** Return the state before the first sample; `numOut` includes the leading samples that are dropped. */
function newRecording() {
  return {
    pending: new Float32Array(0), // fewer samples than the next call of the graph needs
    state: null, // tensors of the graph
    numIn: 0,
    numOut: 0,
    numReplaced: 0,
    presence: null,
    isFlushed: false,
  };
}

/** Return the number of frames of a recording, by the rule in `wesep.json`. */
function frameCount({ kind, stride, kernel, drop_last: dropLast }, numSamples) {
  if (kind === "centred") {
    return Math.floor(numSamples / stride) + 1;
  }
  const beyond = Math.max(0, numSamples - kernel) / stride;
  return 1 + (dropLast ? Math.floor(beyond) : Math.ceil(beyond));
}

function joined(parts) {
  const whole = new Float32Array(parts.reduce((count, part) => count + part.length, 0));
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  return whole;
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(`${url}: cannot be read (HTTP ${response.status}); give the address of an exported folder`);
  }
  return response;
}

/** Refuse a description that this program does not read. */
function check(about, folder) {
  if (about.format !== FORMAT) {
    throw new Error(`${folder}: is no exported model; make one with \`wesep export\``);
  }
  if (about.format_version !== FORMAT_VERSION) {
    throw new Error(
      `${folder}: has format version ${about.format_version}; this program reads version ${FORMAT_VERSION}: ` +
        "export the model again",
    );
  }
  if (about.type !== "onnx" || !about.graphs.stream) {
    throw new Error(`${folder}: has no ONNX graph of a stream; export the model with \`wesep export MODEL --stream\``);
  }
  if (!["centred", "filled"].includes(about.num_frames.kind)) {
    throw new Error(`${folder}: counts frames in an unknown way (${about.num_frames.kind}); update this program`);
  }
}

/** Refuse a file that is not the one that was exported, such as an older one from the browser's cache. */
async function checkDigest(content, expected, file) {
  if (!globalThis.crypto?.subtle) {
    return; // a page without HTTPS
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  if ([...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== expected) {
    throw new Error(`${file}: is not the file that wesep.json names (another sha256); copy the whole folder again`);
  }
}
