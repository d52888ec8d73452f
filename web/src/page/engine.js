/** The worker that runs the model, as promises. */

/** An extraction that was stopped. */
export class Stopped extends Error {}

export class Engine {
  #worker = null;
  #calls = new Map(); // of each message that was not answered: resolve, reject, onProgress
  #lastId = 0;

  /**
   * Load the model, if it is not loaded.
   * @param {(stage: string, done: number, total: number) => void} onProgress
   * @returns {Promise<{name: string, sampleRate: number, worksLive: boolean}>}
   */
  load(onProgress) {
    return this.#call({ type: "load" }, onProgress);
  }

  /**
   * Extract a voice; `stop` ends it.
   * @param {import("../model/extractor.js").Recording} mixture
   * @param {import("../model/extractor.js").Recording} enrollment
   * @param {(stage: string, done: number, total: number) => void} onProgress
   * @returns {Promise<import("../model/extractor.js").Result>}
   */
  extract(mixture, enrollment, onProgress) {
    return this.#call({ type: "extract", mixture, enrollment }, onProgress);
  }

  /** Connect a stream of a voice to the other side of a port; return its rate and delays in samples. */
  live(enrollment, port) {
    return this.#call({ type: "live", enrollment, port }, () => {}, [port]);
  }

  /** End all calls. A graph that runs cannot be interrupted, so the worker ends; the next call starts another. */
  stop() {
    this.#end(new Stopped("Stopped."));
  }

  #end(error) {
    this.#worker?.terminate();
    this.#worker = null;
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    calls.forEach(({ reject }) => reject(error));
  }

  #call(message, onProgress, transfer = []) {
    this.#worker ??= this.#start();
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, ...message }, transfer);
    });
  }

  #start() {
    const worker = new Worker(new URL("worker.js", document.baseURI), { type: "module" });
    worker.onmessage = ({ data: { id, type, ...rest } }) => {
      const call = this.#calls.get(id);
      if (type === "progress") {
        call?.onProgress(rest.stage, rest.done, rest.total);
        return;
      }
      this.#calls.delete(id);
      if (type === "done") {
        call?.resolve(rest.value);
      } else {
        call?.reject(new Error(rest.message));
      }
    };
    worker.onerror = () => this.#end(new Error("The program could not be started; reload the page."));
    return worker;
  }
}
