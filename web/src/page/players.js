/** Recordings with a picture, which are played, and compared at the same position. */

import { encodeWav, toPcm16 } from "../audio/wav.js";
import { clock, durationOf, monoOf } from "./recordings.js";
import { keepDrawn, spectrogramOf, waveformOf } from "./pictures.js";

const PLAY = '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.500v11l9-5.500z"/></svg>';
const PAUSE = '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M3.500 2.500h3v11h-3zM9.500 2.500h3v11h-3z"/></svg>';
const players = new Set();

export class Player {
  #audio = new Audio();
  #button;
  #slider;
  #playhead;
  #clock;
  #group;
  #durationS;
  #stopAtS = null;

  /**
   * @param {HTMLElement} place - gets the player as its only content, or a further one in a group.
   * @param {object} options
   * @param {import("./recordings.js").NamedRecording} options.recording
   * @param {string} options.label - what it is, in a few words.
   * @param {string} [options.title] - shown instead of the label.
   * @param {string} [options.facts] - shown after it.
   * @param {Blob} [options.blob] - wav file, if there is one already.
   * @param {Player[]} [options.group] - of the same recording: playing one goes on where another stopped.
   * @param {number|null} [options.loudestDb] - of the colours of a spectrogram; null draws the waveform.
   */
  constructor(place, { recording, label, title = label, facts = "", blob, group = [], loudestDb = null }) {
    this.#group = group;
    group.push(this);
    players.add(this);
    this.#durationS = durationOf(recording);
    const { channels, sampleRate } = recording;
    this.#audio.src = URL.createObjectURL(blob ?? new Blob([encodeWav(channels.map((samples) => toPcm16(samples)), sampleRate)], { type: "audio/wav" }));
    const element = document.createElement("div");
    element.className = loudestDb === null ? "track waveform" : "track";
    element.innerHTML = `
      <div class="track-head"><span class="about"><span class="name"></span> <span class="facts"></span></span><span class="clock"></span></div>
      <button type="button">${PLAY}</button>
      <div class="picture" role="slider" tabindex="0" aria-valuemin="0"><canvas></canvas><div class="playhead"></div></div>`;
    element.querySelector(".name").textContent = title;
    element.querySelector(".facts").textContent = facts;
    this.#button = element.querySelector("button");
    this.#slider = element.querySelector(".picture");
    this.#playhead = element.querySelector(".playhead");
    this.#clock = element.querySelector(".clock");
    this.#slider.setAttribute("aria-label", `Position in: ${label}`);
    this.#slider.setAttribute("aria-valuemax", this.#durationS.toFixed(1));
    this.label = label;
    this.element = element;
    this.#listen();
    place.append(element);
    const samples = monoOf(channels);
    const draw = loudestDb === null ? waveformOf(samples) : spectrogramOf(samples, sampleRate, loudestDb);
    keepDrawn(element.querySelector("canvas"), draw);
    this.#show();
  }

  /** Position in seconds. */
  get positionS() {
    return this.#audio.currentTime;
  }

  /** Play from a time in seconds, up to another. */
  async playFrom(startS, endS = null) {
    this.#audio.currentTime = startS;
    this.#stopAtS = endS;
    await this.#audio.play();
  }

  /** Stop playing, and forget the recording. */
  remove() {
    this.#audio.pause();
    URL.revokeObjectURL(this.#audio.src);
    players.delete(this);
    this.element.remove();
  }

  pause() {
    this.#audio.pause();
  }

  #listen() {
    this.#button.addEventListener("click", () => this.#toggle());
    this.#audio.addEventListener("play", () => {
      players.forEach((player) => player !== this && player.pause());
      this.#group.last = this;
      this.#follow();
    });
    for (const event of ["pause", "ended", "seeked"]) {
      this.#audio.addEventListener(event, () => this.#show());
    }
    this.#slider.addEventListener("pointerdown", (event) => {
      this.#slider.setPointerCapture(event.pointerId);
      this.#seekTo(event);
    });
    this.#slider.addEventListener("pointermove", (event) => {
      if (this.#slider.hasPointerCapture(event.pointerId)) {
        this.#seekTo(event);
      }
    });
    this.#slider.addEventListener("keydown", (event) => {
      const stepS = event.shiftKey ? 5 : 1;
      const times = { ArrowLeft: -stepS, ArrowDown: -stepS, ArrowRight: stepS, ArrowUp: stepS, Home: -Infinity, End: Infinity };
      if (event.key in times) {
        this.#seek(this.#audio.currentTime + times[event.key]);
      } else if (event.key === " " || event.key === "Enter") {
        this.#toggle();
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  #toggle() {
    if (!this.#audio.paused) {
      this.#audio.pause();
      return;
    }
    const other = this.#group.last;
    if (other && other !== this && other.positionS < this.#durationS) {
      this.#audio.currentTime = other.positionS;
    }
    this.#stopAtS = null;
    this.#audio.play();
  }

  #seekTo({ clientX }) {
    const { left, width } = this.#slider.getBoundingClientRect();
    this.#seek(((clientX - left) / width) * this.#durationS);
  }

  #seek(timeS) {
    this.#group.last = this;
    this.#stopAtS = null;
    this.#audio.currentTime = Math.max(0, Math.min(this.#durationS, timeS));
    this.#show();
  }

  #follow() {
    if (this.#stopAtS !== null && this.#audio.currentTime >= this.#stopAtS) {
      this.#audio.pause();
    }
    this.#show();
    if (!this.#audio.paused) {
      requestAnimationFrame(() => this.#follow());
    }
  }

  #show() {
    const timeS = this.#audio.currentTime;
    const isPlaying = !this.#audio.paused;
    if (this.#button.dataset.playing !== String(isPlaying)) {
      this.#button.dataset.playing = String(isPlaying);
      this.#button.innerHTML = isPlaying ? PAUSE : PLAY;
      this.#button.setAttribute("aria-label", `${isPlaying ? "Pause" : "Play"}: ${this.label}`);
    }
    this.#playhead.style.left = `${100 * Math.min(1, timeS / this.#durationS)}%`;
    this.#clock.textContent = `${clock(timeS)} / ${clock(this.#durationS)}`;
    this.#slider.setAttribute("aria-valuenow", timeS.toFixed(1));
    this.#slider.setAttribute("aria-valuetext", `${timeS.toFixed(1)} of ${this.#durationS.toFixed(1)} seconds`);
  }
}
