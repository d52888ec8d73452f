/** Mark a part of a recording: on its waveform with a pointer, with the arrow keys, or as numbers. */

import { clock, durationOf, monoOf } from "./recordings.js";
import { keepDrawn, waveformOf } from "./pictures.js";

const MIN_S = 0.1;
const DEFAULT_S = 3;

export class Marker {
  #durationS = 0;
  #rangeS = [0, 0];
  #elements = {};
  #onChange;
  #player = null;

  /**
   * @param {HTMLElement} place
   * @param {() => void} onChange - called when another part is marked.
   */
  constructor(place, onChange) {
    this.#onChange = onChange;
    place.innerHTML = `
      <p class="note empty">Choose a recording first (1); then mark a part of it in which only this person speaks.</p>
      <div class="filled" hidden>
        <div class="picture marker"><canvas></canvas><div class="marked"></div>
          <div class="handle" role="slider" tabindex="0" aria-label="Start of the marked part"></div>
          <div class="handle" role="slider" tabindex="0" aria-label="End of the marked part"></div></div>
        <div class="fields">
          <label>Start, s<input type="number" step="0.1" min="0"></label>
          <label>End, s<input type="number" step="0.1" min="0"></label>
          <button type="button">Play the marked part</button>
        </div>
        <p class="note length"></p>
      </div>`;
    const find = (selector) => place.querySelector(selector);
    this.#elements = {
      empty: find(".empty"),
      filled: find(".filled"),
      picture: find(".picture"),
      canvas: find("canvas"),
      marked: find(".marked"),
      handles: [...place.querySelectorAll(".handle")],
      fields: [...place.querySelectorAll("input")],
      length: find(".length"),
    };
    find("button").addEventListener("click", () => this.#player?.playFrom(...this.#rangeS));
    this.#listen();
  }

  /** Marked part in seconds: `[start, end]`; null without a recording. */
  get range() {
    return this.#durationS > 0 ? [...this.#rangeS] : null;
  }

  /** Mark in another recording, which a player plays. */
  setRecording(recording, player) {
    this.#durationS = durationOf(recording);
    this.#player = player;
    this.#elements.empty.hidden = true;
    this.#elements.filled.hidden = false;
    const fresh = this.#elements.canvas.cloneNode(); // the old one is drawn no more
    this.#elements.canvas.replaceWith(fresh);
    this.#elements.canvas = fresh;
    keepDrawn(fresh, waveformOf(monoOf(recording.channels)));
    this.#set(0, Math.min(DEFAULT_S, this.#durationS));
  }

  #listen() {
    const { picture, handles, fields } = this.#elements;
    let anchorS = null; // end that stays while the other is dragged
    picture.addEventListener("pointerdown", (event) => {
      const handle = handles.indexOf(event.target);
      anchorS = handle >= 0 ? this.#rangeS[1 - handle] : this.#timeAt(event);
      picture.setPointerCapture(event.pointerId);
      event.preventDefault();
      (handles[handle] ?? handles[1]).focus({ preventScroll: true });
    });
    picture.addEventListener("pointermove", (event) => {
      if (picture.hasPointerCapture(event.pointerId)) {
        const timeS = this.#timeAt(event);
        this.#set(Math.min(anchorS, timeS), Math.max(anchorS, timeS));
      }
    });
    handles.forEach((handle, end) =>
      handle.addEventListener("keydown", (event) => {
        const stepS = event.shiftKey ? 1 : 0.1;
        const steps = { ArrowLeft: -stepS, ArrowDown: -stepS, ArrowRight: stepS, ArrowUp: stepS, Home: -Infinity, End: Infinity };
        if (event.key in steps) {
          this.#move(end, this.#rangeS[end] + steps[event.key]);
          event.preventDefault();
        }
      }),
    );
    fields.forEach((field, end) =>
      field.addEventListener("change", () => {
        const value = field.valueAsNumber;
        this.#move(end, Number.isFinite(value) ? value : this.#rangeS[end]);
      }),
    );
  }

  #timeAt({ clientX }) {
    const { left, width } = this.#elements.picture.getBoundingClientRect();
    return Math.max(0, Math.min(1, (clientX - left) / width)) * this.#durationS;
  }

  /** Move the start (0) or the end (1), at most up to the other. */
  #move(end, timeS) {
    const [startS, endS] = this.#rangeS;
    if (end === 0) {
      this.#set(Math.min(timeS, endS - MIN_S), endS);
    } else {
      this.#set(startS, Math.max(timeS, startS + MIN_S));
    }
  }

  #set(startS, endS) {
    const round = (timeS) => Math.round(timeS * 100) / 100;
    const start = Math.max(0, Math.min(round(startS), this.#durationS - MIN_S));
    this.#rangeS = [start, Math.min(this.#durationS, Math.max(round(endS), start + MIN_S))];
    const { marked, handles, fields, length } = this.#elements;
    const shares = this.#rangeS.map((timeS) => (100 * timeS) / this.#durationS);
    Object.assign(marked.style, { left: `${shares[0]}%`, right: `${100 - shares[1]}%` });
    this.#rangeS.forEach((timeS, end) => {
      handles[end].style.left = `${shares[end]}%`;
      handles[end].setAttribute("aria-valuemin", "0");
      handles[end].setAttribute("aria-valuemax", this.#durationS.toFixed(1));
      handles[end].setAttribute("aria-valuenow", timeS.toFixed(2));
      handles[end].setAttribute("aria-valuetext", `${timeS.toFixed(2)} seconds`);
      fields[end].value = timeS.toFixed(2).replace(/0$/, "");
      fields[end].max = this.#durationS.toFixed(2);
    });
    length.textContent = `${(this.#rangeS[1] - this.#rangeS[0]).toFixed(1)} s are marked, from ${clock(this.#rangeS[0])} to ${clock(this.#rangeS[1])}.`;
    this.#onChange();
  }
}
