/**
 * Run the model outside of the page's thread.
 *
 * Takes messages `{ type, id, … }` and answers each by `{ id, type: "done", value }` or `{ id, type: "failed", message }`;
 * until then `{ id, type: "progress", stage, done, total }` may come.
 *
 * | type | further fields | value |
 * | --- | --- | --- |
 * | `load` | – | name and rate of the model, whether it works live |
 * | `extract` | `mixture`, `enrollment`: `{ channels, sampleRate }` | a `Result` |
 * | `live` | `enrollment`, `port` to the AudioWorklet | rate and delays of the stream |
 */

import * as ort from "onnxruntime-web/wasm";
import { TargetSpeakerStream } from "../../wesep_py/export/web/stream.js";
import { enrollmentSamples } from "./model/enrollment.js";
import { Extractor } from "./model/extractor.js";
import { ModelFiles } from "./model/model_files.js";

const base = new URL("./", import.meta.url);
let loading = null; // promise of the model, from the first message on

self.onmessage = async ({ data }) => {
  const { id, type } = data;
  const report = (stage, done, total) => self.postMessage({ id, type: "progress", stage, done, total });
  try {
    const value = await tasks[type](data, report);
    const buffers = type === "extract" ? value.channels.map((samples) => samples.buffer) : [];
    self.postMessage({ id, type: "done", value }, buffers);
  } catch (error) {
    console.error(error);
    self.postMessage({ id, type: "failed", message: error.message ?? String(error) });
  }
};

const tasks = {
  async load(_, report) {
    const { about } = await loaded(report);
    return { name: about.model, sampleRate: about.sample_rate, worksLive: "stream" in about.graphs };
  },

  async extract({ mixture, enrollment }, report) {
    const { extractor } = await loaded(report);
    report("enroll", 0, 1);
    const voice = await extractor.enroll(enrollment);
    return extractor.extract(mixture, voice, (done, total) => report("extract", done, total));
  },

  async live({ enrollment, port }, report) {
    const { about, files, sessions } = await loaded(report);
    sessions.stream ??= await createSession(await files.graph(about, "stream"));
    const stream = new TargetSpeakerStream(ort, about, sessions);
    stream.setVoice(await stream.enroll(enrollmentSamples(enrollment, stream.sampleRate)));
    port.onmessage = async ({ data }) => {
      try {
        const samples = await stream.process(data);
        port.postMessage({ samples, presence: stream.presence }, [samples.buffer]);
      } catch (error) {
        port.postMessage({ problem: error.message ?? String(error) });
      }
    };
    return { sampleRate: stream.sampleRate, latency: stream.latency, delay: stream.delay };
  },
};

/** Load the model with the first message that needs it; a failure is forgotten, so that the next message tries again. */
function loaded(report) {
  loading ??= load(report).catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

async function load(report) {
  const files = new ModelFiles(base, CACHE_NAME, LARGE_FILES, (done, total) => report("load", done, total));
  const [about, webAssembly] = await Promise.all([files.describe(), files.webAssembly()]);
  // More need a page that is isolated from other origins, and are no faster: the network is a chain of small LSTMs.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = webAssembly.buffer;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort/ort-wasm-simd-threaded.mjs", base) };
  const [enroll, extract] = await Promise.all([files.graph(about, "enroll"), files.graph(about, "extract")]);
  const sessions = { enroll: await createSession(enroll), extract: await createSession(extract) };
  return { about, files, sessions, extractor: new Extractor(ort, about, sessions) };
}

function createSession(content) {
  return ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
}
