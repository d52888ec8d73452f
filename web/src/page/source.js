/** A place for a recording: choose a file, drop one, or record. */

import { MAX_RECORDING_S, Recording } from "./microphone.js";
import { Player } from "./players.js";
import { clock, decode } from "./recordings.js";

export class Source {
  #place;
  #recordedName;
  #label;
  #onChange;
  #onError;
  #active = null; // recording of the microphone
  recording = null;
  player = null;

  /**
   * @param {HTMLElement} place - gets the content of the template `source`.
   * @param {object} options
   * @param {string} options.label - of the player.
   * @param {string} options.recordedName - name of what is recorded here.
   * @param {() => void} options.onChange - called when there is another recording.
   * @param {(error: Error|null) => void} options.onError - called with a problem, and with null when something is chosen.
   */
  constructor(place, { label, recordedName, onChange, onError }) {
    this.#place = place;
    this.#label = label;
    this.#recordedName = recordedName;
    this.#onChange = onChange;
    this.#onError = onError;
    place.append(document.querySelector("#source").content.cloneNode(true));
    const input = this.#find("input");
    input.setAttribute("aria-label", `Choose a file: ${label}`);
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = ""; // the same file may be chosen again
      this.#attempt(() => this.take(file));
    });
    this.#find(".record").setAttribute("aria-label", `Record: ${label}`);
    this.#find(".record").addEventListener("click", () => this.#attempt(() => this.#record()));
    this.#find(".finish").addEventListener("click", () => this.#attempt(() => this.#finish()));
    this.#listenToDrops();
  }

  /** Take a file. */
  async take(file) {
    this.set(await decode(file));
  }

  /** Take a recording. */
  set(recording) {
    this.recording = recording;
    this.player?.remove();
    const { channels, sampleRate } = recording;
    const kind = { 1: "mono", 2: "stereo" }[channels.length] ?? `${channels.length} channels`;
    this.#find(".loaded").hidden = false;
    this.#find(".choose").textContent = "Another file";
    this.#find(".drop-text").hidden = true;
    this.#place.classList.add("filled");
    this.player = new Player(this.#find(".player"), {
      recording,
      label: this.#label,
      title: recording.name,
      facts: `${sampleRate / 1000} kHz, ${kind}`,
    });
    this.#onChange();
  }

  #find(selector) {
    return this.#place.querySelector(selector);
  }

  async #attempt(work) {
    this.#place.setAttribute("aria-busy", "true");
    try {
      await work();
      this.#onError(null);
    } catch (error) {
      this.#onError(error);
    }
    this.#place.removeAttribute("aria-busy");
  }

  #listenToDrops() {
    const drop = this.#find(".drop");
    this.#place.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    this.#place.addEventListener("dragleave", (event) => {
      if (!this.#place.contains(event.relatedTarget)) {
        drop.classList.remove("over");
      }
    });
    this.#place.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      const [file] = event.dataTransfer.files;
      this.#attempt(() => {
        if (!file) {
          throw new Error("What was dropped is no file; drop a recording.");
        }
        return this.take(file);
      });
    });
  }

  async #record() {
    this.player?.pause();
    const [time, meter] = [this.#find(".time"), this.#find("meter")];
    time.textContent = clock(0);
    const button = this.#find(".record");
    button.disabled = true; // while the browser asks whether the microphone may be used
    try {
      this.#active = await Recording.begin((durationS, level) => {
        time.textContent = clock(durationS);
        meter.value = Math.max(level, 0.85 * meter.value);
        if (durationS >= MAX_RECORDING_S) {
          this.#attempt(() => this.#finish());
        }
      });
    } finally {
      button.disabled = false;
    }
    this.#showRecording(true);
    this.#find(".finish").focus();
  }

  #finish() {
    const active = this.#active;
    this.#active = null;
    this.#showRecording(false);
    if (active !== null) {
      this.set(active.finish(this.#recordedName));
      this.#find(".record").focus();
    }
  }

  #showRecording(isActive) {
    this.#find(".recording").hidden = !isActive;
    this.#find(".drop").hidden = isActive;
    this.#find(".loaded").hidden = isActive || this.recording === null;
  }
}
