/** Hear one person through the microphone: an AudioWorklet, and the worker that runs the stream. */

import { Engine, Stopped } from "./engine.js";
import { openMicrophone } from "./microphone.js";

/** Seconds of finished samples that wait to be played: they cover for blocks that take longer. */
const LEAD_S = 0.064;

/** One session; make another to listen again. */
export class LiveVoice {
  #microphone = null;
  #isStopped = false;
  #engine = new Engine();

  /**
   * Begin to listen.
   * @param {import("../model/extractor.js").Recording} enrollment - of the person.
   * @param {number} modelRate - Hz.
   * @param {(figures: {delayS: number, dropped: number, presence: number|null}) => void} onFigures - four times a second.
   * @param {(error: Error) => void} onProblem - called when the stream fails.
   * @returns {Promise<{latencyS: number}>} algorithmic latency of the model.
   */
  async start(enrollment, modelRate, onFigures, onProblem) {
    const { port1, port2 } = new MessageChannel();
    try {
      // The voice first: the microphone is open only while somebody listens.
      const { latency } = await this.#engine.live(enrollment, port1);
      this.#microphone = await openMicrophone({ sampleRate: modelRate, latencyHint: "interactive" });
      if (this.#isStopped) {
        throw new Stopped("Stopped."); // while the browser asked whether the microphone may be used
      }
      const { context, source } = this.#microphone;
      const node = new AudioWorkletNode(context, "live-voice", {
        outputChannelCount: [1],
        processorOptions: { lead: Math.round(LEAD_S * modelRate) },
      });
      node.port.onmessage = ({ data }) => {
        if (data.problem) {
          this.stop();
          onProblem(new Error(data.problem));
        } else {
          onFigures({ ...data, delayS: data.delayS + (context.baseLatency || 0) + (context.outputLatency || 0) });
        }
      };
      node.port.postMessage({ worker: port2 }, [port2]);
      source.connect(node).connect(context.destination);
      await context.resume();
      return { latencyS: latency / modelRate };
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /** Stop listening; the microphone is closed. */
  stop() {
    this.#isStopped = true;
    this.#microphone?.close();
    this.#microphone = null;
    this.#engine.stop();
  }
}
