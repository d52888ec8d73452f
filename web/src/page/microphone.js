/** Record the microphone: samples as the sound card gives them, without what calls do to speech. */

/** Recordings end here. */
export const MAX_RECORDING_S = 300;
const AS_IT_IS = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/**
 * Open the microphone in a context with the page's AudioWorklets.
 * @param {object} options - of the `AudioContext`.
 * @returns {Promise<{context: AudioContext, source: MediaStreamAudioSourceNode, close: () => void}>}
 * @throws {Error} it is not there, or not allowed.
 */
export async function openMicrophone(options = {}) {
  if (!navigator.mediaDevices) {
    throw new Error("The microphone needs a page that is opened over https.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: AS_IT_IS });
  } catch (error) {
    throw new Error(
      error.name === "NotFoundError"
        ? "There is no microphone; connect one, or choose a file."
        : "The microphone is not allowed; allow it in the address bar, or choose a file.",
    );
  }
  const context = new AudioContext(options);
  const close = () => {
    stream.getTracks().forEach((track) => track.stop());
    context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("worklets.js", document.baseURI));
    return { context, source: context.createMediaStreamSource(stream), close };
  } catch {
    close();
    throw new Error("This browser cannot read the microphone at the rate of the model; try Chrome or Edge.");
  }
}

export class Recording {
  #microphone;
  #blocks = [];

  /**
   * Begin.
   * @param {(durationS: number, level: number) => void} onBlock - level from 0 to 1.
   */
  static async begin(onBlock) {
    const recording = new Recording();
    recording.#microphone = await openMicrophone();
    const { context, source } = recording.#microphone;
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    let numSamples = 0;
    node.port.onmessage = ({ data: [samples] }) => {
      recording.#blocks.push(samples);
      numSamples += samples.length;
      onBlock(numSamples / context.sampleRate, Math.max(...samples.map(Math.abs)));
    };
    source.connect(node);
    return recording;
  }

  /** End, and return the recording. */
  finish(name) {
    const { sampleRate } = this.#microphone.context;
    this.#microphone.close();
    const samples = new Float32Array(this.#blocks.reduce((count, block) => count + block.length, 0));
    let position = 0;
    for (const block of this.#blocks) {
      samples.set(block, position);
      position += block.length;
    }
    if (samples.length === 0) {
      throw new Error("The microphone gave no sound; check it, and record again.");
    }
    return { name, channels: [samples], sampleRate };
  }
}
