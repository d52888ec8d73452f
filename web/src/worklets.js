/** Processors that run in the thread of the sound: record a microphone, and pass it through a stream. */

/** Posts each block of the first input: its channels. */
class Recorder extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length > 0) {
      this.port.postMessage(channels.map((samples) => samples.slice()));
    }
    return true;
  }
}

const HOP = 256;
const REPORT_S = 0.25;
// More than this waits at the worker only if it is slower than the microphone: then hops are not sent at all.
const MAX_BACKLOG_S = 0.5;

/**
 * Sends the microphone to the worker, and plays what comes back:
 *
 *     input ─► hops of 256 ─► port ─► worker (stream.js) ─► port ─► queue ─► output
 *
 * Playing begins when `lead` samples wait in the queue; they cover for hops that take longer. A block for which the queue
 * is empty is silent and counts as dropped; the samples that come too late for it are left out, so that the delay stays. A
 * computer that is too slow altogether leaves out hops of the microphone.
 */
class LiveVoice extends AudioWorkletProcessor {
  constructor({ processorOptions: { lead } }) {
    super();
    this.lead = lead;
    this.hop = new Float32Array(HOP);
    this.filled = 0;
    this.queue = [];
    this.waiting = 0; // samples in the queue
    this.isPlaying = false;
    this.numIn = 0;
    this.numOut = 0; // samples of the voice that were played or left out
    this.late = 0; // samples to leave out
    this.backlog = 0; // samples at the worker
    this.dropped = 0;
    this.sinceReport = 0;
    this.presence = null;
    this.port.onmessage = ({ data }) => {
      this.worker = data.worker;
      this.worker.onmessage = ({ data: answer }) => this.take(answer);
    };
  }

  take({ samples, presence, problem }) {
    if (problem) {
      this.port.postMessage({ problem });
      return;
    }
    this.presence = presence;
    this.backlog -= HOP;
    const skipped = Math.min(this.late, samples.length);
    this.late -= skipped;
    this.numOut += skipped;
    if (skipped < samples.length) {
      this.queue.push(samples.subarray(skipped));
      this.waiting += samples.length - skipped;
    }
  }

  process([[input]], [[output]]) {
    if (!this.worker) {
      return true;
    }
    this.send(input ?? new Float32Array(output.length));
    this.isPlaying ||= this.waiting >= this.lead;
    if (this.isPlaying) {
      this.play(output);
    }
    this.sinceReport += output.length;
    if (this.sinceReport >= REPORT_S * sampleRate) {
      this.sinceReport = 0;
      const { dropped, presence } = this;
      this.port.postMessage({ delayS: (this.numIn - this.numOut) / sampleRate, dropped, presence });
    }
    return true;
  }

  send(input) {
    this.numIn += input.length;
    for (const sample of input) {
      this.hop[this.filled++] = sample;
      if (this.filled === HOP) {
        this.filled = 0;
        if (this.backlog + HOP > MAX_BACKLOG_S * sampleRate) {
          this.numOut += HOP;
          this.late = Math.max(0, this.late - HOP);
          continue;
        }
        this.backlog += HOP;
        const hop = this.hop.slice();
        this.worker.postMessage(hop, [hop.buffer]);
      }
    }
  }

  play(output) {
    let position = 0;
    while (position < output.length && this.queue.length > 0) {
      const part = this.queue[0].subarray(0, output.length - position);
      output.set(part, position);
      position += part.length;
      if (part.length === this.queue[0].length) {
        this.queue.shift();
      } else {
        this.queue[0] = this.queue[0].subarray(part.length);
      }
    }
    this.waiting -= position;
    this.numOut += position;
    if (position < output.length) {
      this.late += output.length - position;
      this.dropped += 1;
    }
  }
}

registerProcessor("recorder", Recorder);
registerProcessor("live-voice", LiveVoice);
