// The waveform of the mixture, on which a segment is marked: with the pointer, with two sliders, or as numbers.
// `props.recording` is {url, name, duration, peaks}; `props.value` is the mark, {start, end} in seconds, and `of`, the
// address of the recording, which changes with it: only the value is watched.
const find = (selector) => element.querySelector(selector);
const root = find(".ws-wave"), audio = find("audio"), box = find(".ws-wave-box"), canvas = find("canvas");
const markBox = find(".ws-wave-mark"), cursor = find(".ws-cursor"), scroll = find(".ws-wave-scroll");
const handles = [...element.querySelectorAll(".ws-handle")], numbers = [...element.querySelectorAll(".ws-number")];
const MIN_VIEW_S = 4;
let recording = null, view = { start: 0, length: 1 }, mark = { start: 0, end: 0 }, stopAt = null, dragFrom = null;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const isMarked = () => mark.end > mark.start;
const share = (s) => (s - view.start) / view.length;
const secondsAt = (event) => {
  const place = box.getBoundingClientRect();
  return clamp(view.start + (event.clientX - place.left) / place.width * view.length, 0, recording.duration);
};

function draw() {
  if (!recording || !box.clientWidth) return;
  const ratio = window.devicePixelRatio || 1, width = box.clientWidth, height = box.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d"), peaks = recording.peaks, perSecond = peaks.length / recording.duration;
  context.scale(ratio, ratio);
  context.fillStyle = getComputedStyle(box).color;
  for (let x = 0; x < width; x += 2) {
    const from = Math.floor((view.start + x / width * view.length) * perSecond);
    const to = Math.max(from + 1, Math.ceil((view.start + (x + 2) / width * view.length) * perSecond));
    let peak = 0;
    for (let i = from; i < to && i < peaks.length; i += 1) peak = Math.max(peak, peaks[i]);
    const bar = Math.max(1, peak / 100 * (height - 6));
    context.fillRect(x, (height - bar) / 2, 1.5, bar);
  }
  const left = clamp(share(mark.start), 0, 1), right = clamp(share(mark.end), 0, 1);
  markBox.hidden = !isMarked() || left === right;
  markBox.style.left = `${100 * left}%`;
  markBox.style.width = `${100 * (right - left)}%`;
  for (const handle of handles) {
    const at = share(mark[handle.dataset.edge]);
    handle.hidden = !isMarked() || at < -0.001 || at > 1.001;
    handle.style.left = `${100 * at}%`;
    handle.setAttribute("aria-valuemin", "0");
    handle.setAttribute("aria-valuemax", recording.duration.toFixed(2));
    handle.setAttribute("aria-valuenow", mark[handle.dataset.edge].toFixed(2));
    handle.setAttribute("aria-valuetext", `${mark[handle.dataset.edge].toFixed(2)} seconds`);
  }
  scroll.hidden = view.length >= recording.duration - 1e-6;
  scroll.value = Math.round(1000 * view.start / Math.max(1e-9, recording.duration - view.length));
  find(".ws-wave-left").textContent = clock(view.start);
  find(".ws-wave-right").textContent = clock(view.start + view.length);
  moveCursor();
}

function moveCursor() {
  const at = share(audio.currentTime);
  cursor.hidden = at < 0 || at > 1;
  cursor.style.left = `${100 * at}%`;
}

function setMark(start, end, tell = true) {
  const round = (s) => Math.round(clamp(s, 0, recording ? recording.duration : 0) * 100) / 100;
  mark = { start: Math.min(round(start), round(end)), end: Math.max(round(start), round(end)) };
  for (const number of numbers) {
    if (document.activeElement !== number || tell === "numbers") number.value = mark[number.dataset.edge];
  }
  draw();
  if (tell) props.value = { start: mark.start, end: mark.end, of: recording ? recording.url : "" };
}

function setView(start, length) {
  view.length = clamp(length, Math.min(MIN_VIEW_S, recording.duration), recording.duration);
  view.start = clamp(start, 0, recording.duration - view.length);
  draw();
}

function zoom(factor) {
  const middle = isMarked() ? (mark.start + mark.end) / 2 : view.start + view.length / 2;
  setView(middle - factor * view.length / 2, factor * view.length);
}

function show() {
  const next = props.recording;
  if (!next || (recording && next.url === recording.url)) return;
  recording = next;
  root.hidden = false;
  audio.src = recording.url;
  view = { start: 0, length: recording.duration };
  for (const number of numbers) number.max = recording.duration.toFixed(2);
  setMark(0, 0, false);
}

function showMark() {
  const value = props.value;
  if (recording && value && (value.start !== mark.start || value.end !== mark.end)) {
    setMark(value.start, value.end, false);
    if (isMarked() && (share(mark.start) < 0 || share(mark.end) > 1)) setView(mark.start - 1, view.length);
  }
}

box.addEventListener("pointerdown", (event) => {
  if (!recording || event.button > 0) return;
  const edge = event.target.dataset.edge;
  dragFrom = { at: edge ? mark[edge === "start" ? "end" : "start"] : secondsAt(event), x: event.clientX, moved: Boolean(edge) };
  box.setPointerCapture(event.pointerId);
});
box.addEventListener("pointermove", (event) => {
  if (!dragFrom) return;
  if (Math.abs(event.clientX - dragFrom.x) > 4) dragFrom.moved = true;
  if (dragFrom.moved) setMark(dragFrom.at, secondsAt(event), false);
});
box.addEventListener("pointerup", (event) => {
  if (!dragFrom) return;
  if (dragFrom.moved) setMark(mark.start, mark.end);
  else audio.currentTime = secondsAt(event);
  dragFrom = null;
});
box.addEventListener("pointercancel", () => { dragFrom = null; });
for (const handle of handles) {
  handle.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -0.1, ArrowDown: -0.1, ArrowRight: 0.1, ArrowUp: 0.1, PageDown: -1, PageUp: 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const edge = handle.dataset.edge, moved = mark[edge] + steps[event.key];
    if (edge === "start") setMark(Math.min(moved, mark.end - 0.1), mark.end);
    else setMark(mark.start, Math.max(moved, mark.start + 0.1));
  });
}
for (const number of numbers) {
  number.addEventListener("change", () => {
    const [start, end] = numbers.map((input) => Number(input.value) || 0);
    if (end > start) setMark(start, end, "numbers");
  });
}
find(".ws-play").addEventListener("click", () => {
  if (!isMarked()) return;
  audio.currentTime = mark.start;
  stopAt = mark.end;
  audio.play();
});
find(".ws-clear").addEventListener("click", () => setMark(0, 0, "numbers"));
find(".ws-in").addEventListener("click", () => recording && zoom(0.5));
find(".ws-out").addEventListener("click", () => recording && zoom(2));
scroll.addEventListener("input", () => setView(scroll.value / 1000 * (recording.duration - view.length), view.length));
audio.addEventListener("pause", () => { stopAt = null; });
audio.addEventListener("timeupdate", () => {
  moveCursor();
  if (stopAt !== null && audio.currentTime >= stopAt) audio.pause();
});
new ResizeObserver(draw).observe(box);
watch("value", () => { show(); showMark(); });
show();
