/** The page: what can be done when, and what is said about it. */

import { MAX_ENROLLMENT_S } from "../model/enrollment.js";
import { Engine, Stopped } from "./engine.js";
import { LiveVoice } from "./live.js";
import { Marker } from "./marker.js";
import { cut, durationOf } from "./recordings.js";
import { clearResult, showResult } from "./results.js";
import { Source } from "./source.js";

const find = (selector) => document.querySelector(selector);
const engine = new Engine();
let model = null; // what the worker says of it, once it is loaded
let isExtracting = false;
let live = null;

const mixture = new Source(find('[data-source="mixture"]'), {
  label: "Recording",
  recordedName: "recording",
  onChange: () => {
    marker.setRecording(mixture.recording, mixture.player);
    update();
  },
  onError: showError,
});
const enrollment = new Source(find('[data-source="enrollment"]'), {
  label: "Voice of the person",
  recordedName: "voice",
  onChange: update,
  onError: showError,
});
const marker = new Marker(find("#voice-part"), update);

/** Return the recording of the voice that is chosen; null if there is none yet. */
function chosenVoice() {
  if (find('[name="voice-from"]:checked').value === "file") {
    return enrollment.recording;
  }
  return marker.range === null ? null : cut(mixture.recording, ...marker.range);
}

/** Enable what is possible, and say what is missing. */
function update() {
  const fromFile = find('[name="voice-from"]:checked').value === "file";
  find("#voice-file").hidden = !fromFile;
  find("#voice-part").hidden = fromFile;
  const hasVoice = fromFile ? enrollment.recording !== null : marker.range !== null;
  find("#extract").disabled = isExtracting || mixture.recording === null || !hasVoice;
  find("#stop").hidden = !isExtracting;
  find("#example").hidden = isExtracting || mixture.recording !== null || enrollment.recording !== null;
  find("#progress").hidden = !isExtracting;
  if (!isExtracting) {
    const missing = [mixture.recording === null && "a recording", !hasVoice && "a voice"].filter(Boolean);
    say(missing.length > 0 ? `Choose ${missing.join(" and ")} first.` : "Ready to extract.");
  }
  find("#live").hidden = model !== null && !model.worksLive;
  find("#live-start").disabled = !hasVoice || model === null;
  if (live === null) {
    find("#live-status").textContent = hasVoice ? "Ready to listen." : "Choose the voice of the person first (2).";
  }
}

function say(text) {
  find("#status").textContent = text;
}

function showError(error) {
  find("#error").hidden = error === null;
  find("#error").textContent = error?.message ?? "";
  find("#error").scrollIntoView({ block: "nearest" }); // on a phone it may be far below what was touched
}

function showProgress(stage, done, total) {
  const texts = {
    load: "Loading the model …", // how much of it, the bar shows: a screen reader would read every number
    enroll: "Listening to the voice …",
    extract: total > 1 ? `Extracting the voice: part ${done + 1} of ${total} …` : "Extracting the voice …",
  };
  say(texts[stage]);
  if (stage === "extract" && total > 1) {
    find("#progress").value = done / total;
  } else if (stage === "load") {
    find("#progress").value = done / total;
  } else {
    find("#progress").removeAttribute("value"); // nobody knows how long it takes
  }
}

async function extract() {
  const [recording, voice] = [mixture.recording, chosenVoice()];
  const began = performance.now();
  isExtracting = true;
  clearResult();
  showError(null);
  update();
  find("#progress").removeAttribute("value");
  say("Listening to the voice …");
  find("#stop").focus();
  let ending = null;
  try {
    const plain = ({ channels, sampleRate }) => ({ channels, sampleRate });
    const result = await engine.extract(plain(recording), plain(voice), showProgress);
    showResult(recording, result);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    ending = `Done: ${durationOf(recording).toFixed(1)} s of sound in ${seconds} s.`;
    if (durationOf(voice) > MAX_ENROLLMENT_S) {
      ending += ` Of the voice, the ${MAX_ENROLLMENT_S} s with the most speech were used.`;
    }
  } catch (error) {
    if (error instanceof Stopped) {
      ending = "Stopped.";
    } else {
      showError(error);
    }
  }
  isExtracting = false;
  update();
  if (ending !== null) {
    say(ending);
  }
  find(find("#result").hidden ? "#extract" : "#result").focus({ preventScroll: true });
  if (!find("#result").hidden) {
    find("#result").scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

async function tryExample() {
  find("#example").disabled = true;
  try {
    for (const [source, name] of [[mixture, "mixture.ogg"], [enrollment, "enrollment.ogg"]]) {
      const response = await fetch(`example/${name}`);
      if (!response.ok) {
        throw new Error(`example/${name}: is missing on the server (HTTP ${response.status}).`);
      }
      await source.take(new File([await response.blob()], name));
    }
    find("#voice-title").parentElement.querySelector('[value="file"]').checked = true;
    update();
    showError(null);
    find("#extract").focus();
  } catch (error) {
    showError(error instanceof TypeError ? new Error("The example cannot be loaded: the connection failed.") : error);
  }
  find("#example").disabled = false;
}

async function startLive() {
  live = new LiveVoice();
  find("#live-start").hidden = true;
  find("#live-stop").hidden = false;
  find("#live-status").textContent = "Preparing …";
  showError(null);
  const format = { delay: (s) => `${Math.round(1000 * s)} ms`, share: (p) => (p === null ? "–" : `${Math.round(100 * p)} %`) };
  try {
    const { latencyS } = await live.start(
      chosenVoice(),
      model.sampleRate,
      ({ delayS, dropped, presence }) => {
        find("#live-delay").textContent = format.delay(delayS);
        find("#live-dropped").textContent = String(dropped);
        find("#live-presence").textContent = format.share(presence);
      },
      (error) => {
        endLive();
        showError(error);
      },
    );
    find("#live-figures").hidden = false;
    find("#live-status").textContent = `Listening. The model itself needs ${format.delay(latencyS)} of the delay.`;
    find("#live-stop").focus();
  } catch (error) {
    endLive();
    if (!(error instanceof Stopped)) {
      showError(error);
    }
  }
}

function endLive() {
  live?.stop();
  live = null;
  find("#live-start").hidden = false;
  find("#live-stop").hidden = true;
  find("#live-figures").hidden = true;
  update();
}

async function loadModel() {
  const pill = find("#model");
  try {
    model = await engine.load((stage, done, total) => {
      pill.textContent = `Loading the model: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
    });
    pill.textContent = "Model loaded";
    pill.classList.add("ready");
    update();
  } catch (error) {
    pill.textContent = "Model not loaded";
    pill.classList.add("failed");
    showError(error);
  }
}

find("#extract").addEventListener("click", extract);
find("#stop").addEventListener("click", () => engine.stop());
find("#example").addEventListener("click", tryExample);
find("#live-start").addEventListener("click", startLive);
find("#live-stop").addEventListener("click", endLive);
document.querySelectorAll('[name="voice-from"]').forEach((choice) => choice.addEventListener("change", update));
// A file that is dropped beside its place would replace the page.
for (const event of ["dragover", "drop"]) {
  document.addEventListener(event, (dropped) => dropped.preventDefault());
}
update();
loadModel();
if (navigator.serviceWorker && location.protocol !== "file:") {
  navigator.serviceWorker
    .register("service_worker.js")
    .catch((error) => console.warn(`The page will not work without a connection: ${error.message}`));
}
