/** Show what was extracted: players, presence, segments, and files to save. */

import { encodeWav, fromPcm16, splitMixture } from "../audio/wav.js";
import { asCsv, asSrt } from "../model/timeline.js";
import { keepDrawn, loudestOf, timelineOf } from "./pictures.js";
import { Player } from "./players.js";
import { clock, durationOf, monoOf } from "./recordings.js";

const SAVE = '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M7 1.500h2v6h2.500L8 11.500 4.500 7.500H7zM2.500 12.500h11v2h-11z"/></svg>';
const find = (selector) => document.querySelector(selector);
let players = [];
let urls = [];

/**
 * Show a result.
 * @param {import("./recordings.js").NamedRecording} mixture
 * @param {import("../model/extractor.js").Result} result
 */
export function showResult(mixture, result) {
  clearResult();
  const { sampleRate } = mixture;
  // What is heard is what is saved.
  const parts = splitMixture(mixture.channels, result.channels);
  const wavs = Object.fromEntries(
    Object.entries(parts).map(([part, channels]) => [part, new Blob([encodeWav(channels, sampleRate)], { type: "audio/wav" })]),
  );
  const labels = { mixture: "Recording", voice: "Voice", residual: "Everything else" };
  const loudestDb = loudestOf(monoOf(mixture.channels));
  for (const [part, label] of Object.entries(labels)) {
    const recording = { channels: parts[part].map(fromPcm16), sampleRate };
    new Player(find("#tracks"), { recording, label, blob: wavs[part], group: players, loudestDb });
  }
  showPresence(result.presence);
  showTimeline(result, durationOf(mixture));
  showDownloads(mixture.name, wavs, result.segments);
  find("#result").hidden = false;
}

/** Remove the result that is shown. */
export function clearResult() {
  find("#result").hidden = true;
  players.forEach((player) => player.remove());
  urls.forEach((url) => URL.revokeObjectURL(url));
  players = [];
  urls = [];
}

function showPresence(presence) {
  const line = find("#presence");
  line.hidden = presence === null;
  if (presence === null) {
    return;
  }
  const { probability, threshold, isPresent } = presence;
  const [percent, limit] = [probability, threshold].map((share) => `${Math.round(100 * share)} %`);
  line.classList.toggle("absent", !isPresent);
  line.textContent = isPresent
    ? `The person is in the recording (probability ${percent}; at least ${limit} counts as present).`
    : `The person does not seem to be in the recording (probability ${percent}; at least ${limit} counts as present). ` +
      "What follows is what the model found all the same.";
}

function showTimeline({ presence, segments }, durationS) {
  const picture = document.createElement("div");
  picture.className = "picture";
  picture.append(document.createElement("canvas"));
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `Timeline; the person speaks in ${segments.length} segments, listed below.`);
  find("#timeline").className = "timeline";
  find("#timeline").replaceChildren(picture);
  keepDrawn(picture.firstChild, timelineOf(presence?.track ?? null, presence?.frameS ?? 1, durationS, segments));
  const items = segments.map(({ startS, endS }) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${clock(startS)} – ${clock(endS)}`;
    button.setAttribute("aria-label", `Play the voice from ${clock(startS)} to ${clock(endS)}`);
    button.addEventListener("click", () => players[1].playFrom(startS, endS));
    item.append(button);
    return item;
  });
  if (items.length === 0) {
    const item = document.createElement("li");
    item.textContent = "No segment was found.";
    items.push(item);
  }
  find("#segments").replaceChildren(...items);
}

function showDownloads(name, wavs, segments) {
  const stem = name.replace(/\.[^.]*$/, "");
  const files = {
    "Voice, wav": [`${stem}_voice.wav`, wavs.voice],
    "Everything else, wav": [`${stem}_residual.wav`, wavs.residual],
    "Timeline, srt": [`${stem}_voice.srt`, new Blob([asSrt(segments, "voice")], { type: "text/plain" })],
    "Timeline, csv": [`${stem}_voice.csv`, new Blob([asCsv(segments, "voice")], { type: "text/csv" })],
  };
  const links = Object.entries(files).map(([label, [file, blob]]) => {
    const url = URL.createObjectURL(blob);
    urls.push(url);
    const link = document.createElement("a");
    link.className = "button";
    link.href = url;
    link.download = file;
    link.innerHTML = SAVE;
    link.append(label);
    return link;
  });
  find("#downloads").replaceChildren(...links);
}
