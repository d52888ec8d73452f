// The microphone through the server and back: samples go out over a WebSocket as they are recorded, those of the voice
// come back and are played. `props.value` is {token} once a voice is enrolled; `submit` tells that a stream ended.
const find = (selector) => element.querySelector(selector);
const start = find(".ws-start"), end = find(".ws-end"), line = find(".ws-live-line"), meters = find(".ws-meters");
const LEAD_S = 0.15, MAX_BEHIND_S = 1.5;
// Records blocks of 1,024 samples, and plays what it is sent, after a lead that evens out the network.
const WORKLET = `
registerProcessor("wesep-live", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(1024); this.filled = 0;
    this.queue = []; this.queued = 0; this.offset = 0; this.playing = false;
    this.lead = ${LEAD_S} * sampleRate;
    this.port.onmessage = ({ data }) => { this.queue.push(data); this.queued += data.length; };
  }
  process(inputs, outputs) {
    const input = inputs[0][0];
    if (input) for (const sample of input) {
      this.block[this.filled++] = sample;
      if (this.filled === this.block.length) { this.port.postMessage(this.block.slice()); this.filled = 0; }
    }
    const output = outputs[0][0];
    if (!this.playing && this.queued >= this.lead) this.playing = true;
    for (let i = 0; this.playing && i < output.length; i += 1) {
      if (!this.queue.length) { this.playing = false; break; }
      output[i] = this.queue[0][this.offset++]; this.queued -= 1;
      if (this.offset >= this.queue[0].length) { this.queue.shift(); this.offset = 0; }
    }
    return true;
  }
});`;
let session = null;

const level = (samples) => {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const db = 10 * Math.log10(sum / Math.max(1, samples.length) + 1e-10);
  return Math.min(1, Math.max(0, 1 + db / 60));
};
const say = (text, isError = false) => {
  line.textContent = text;
  line.classList.toggle("ws-error", isError);
  line.setAttribute("role", isError ? "alert" : "status");
};

function ready() {
  const token = props.value && props.value.token;
  if (session) return;
  start.disabled = !token;
  if (token) say("Ready. Put headphones on, then start.");
  else say("Give a recording of the voice first.");
}

async function begin() {
  start.disabled = true;
  const next = { out: 0, back: 0, dropped: 0, latency: 0 };
  session = next;
  try {
    if (!navigator.mediaDevices) throw new Error("the browser gives microphones to https pages and to localhost only");
    next.microphone = await navigator.mediaDevices.getUserMedia({ audio: true });  // as microphone.js has it
    next.context = new AudioContext();
    const code = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
    await next.context.audioWorklet.addModule(code);
    URL.revokeObjectURL(code);
    next.node = new AudioWorkletNode(next.context, "wesep-live", { numberOfOutputs: 1, outputChannelCount: [1] });
    next.gain = new GainNode(next.context, { gain: find(".ws-listen").checked ? 1 : 0 });
    next.node.connect(next.gain).connect(next.context.destination);
    const base = new URL("live", document.baseURI);
    base.protocol = base.protocol === "https:" ? "wss:" : "ws:";
    next.socket = new WebSocket(base);
    next.socket.binaryType = "arraybuffer";
    next.socket.onmessage = (event) => receive(next, event.data);
    next.socket.onclose = () => finish(next, next.error || (next.isDone ? "" : "the connection to the server was lost"));
    await new Promise((resolve, reject) => {
      next.socket.onopen = resolve;
      next.socket.onerror = () => reject(new Error("the server cannot be reached"));
    });
    next.socket.send(JSON.stringify({ token: props.value.token, rate: next.context.sampleRate }));
    end.disabled = false;
    meters.hidden = false;
    say("Starting …");
  } catch (error) {
    finish(next, error.name === "NotAllowedError" ? "the microphone was not allowed; allow it for this page" : error.message);
  }
}

function record(live, block) {
  find(".ws-in-level").value = level(block);
  if ((live.out - live.back) / live.context.sampleRate > MAX_BEHIND_S) { live.dropped += 1; return; }
  live.out += block.length;
  if (live.socket.readyState === WebSocket.OPEN) live.socket.send(block);
}

function receive(live, data) {
  if (typeof data !== "string") {
    const samples = new Float32Array(data);
    live.back += samples.length;
    if (samples.length) { live.node.port.postMessage(samples); find(".ws-out-level").value = level(samples); }
    return;
  }
  const told = JSON.parse(data);
  if ("latency_ms" in told) {  // the model is ready: from here on the microphone is sent
    live.latency = told.latency_ms;
    live.node.port.onmessage = ({ data: block }) => record(live, block);
    live.context.createMediaStreamSource(live.microphone).connect(live.node);
  }
  if ("presence" in told) {
    if (told.presence !== null) find(".ws-presence").value = told.presence;
    const rate = live.context.sampleRate, behind = Math.max(0, live.out - live.back) / rate;
    const dropped = live.dropped ? `; ${live.dropped} blocks were left out, the server is too slow` : "";
    say(`${(live.back / rate).toFixed(0)} s, model ${live.latency.toFixed(0)} ms, `
      + `${Math.round(1000 * (behind + LEAD_S))} ms until you hear it${dropped}`);
  }
  if ("error" in told) live.error = told.error;
  if ("done" in told) live.isDone = true;
}

function stop() {
  end.disabled = true;
  if (!session) return;
  session.node.port.onmessage = null;
  for (const track of session.microphone.getTracks()) track.stop();
  if (session.socket.readyState === WebSocket.OPEN) session.socket.send(JSON.stringify({ stop: true }));
}

function finish(live, problem) {
  if (session !== live) return;
  session = null;
  for (const track of live.microphone ? live.microphone.getTracks() : []) track.stop();
  if (live.context) live.context.close();
  if (live.socket && live.socket.readyState < WebSocket.CLOSING) live.socket.close();
  end.disabled = true;
  start.disabled = !(props.value && props.value.token);
  if (problem) say(problem, true);
  else say("Ended.");
  if (live.isDone) trigger("submit");
}

start.addEventListener("click", begin);
end.addEventListener("click", stop);
find(".ws-listen").addEventListener("change", (event) => {
  if (session && session.gain) session.gain.gain.value = event.target.checked ? 1 : 0;
});
watch("value", ready);
ready();
