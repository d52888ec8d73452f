// Players of the results: one plays at a time, a cursor runs over its spectrogram, a click on spectrogram or segment seeks.
const panelOf = (node) => node.closest(".ws-panel");
element.addEventListener("play", (event) => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);
element.addEventListener("timeupdate", (event) => {
  const picture = panelOf(event.target)?.querySelector(".ws-spectrogram");
  if (!picture) return;
  picture.querySelector(".ws-cursor").style.left = `${100 * event.target.currentTime / picture.dataset.duration}%`;
}, true);
element.addEventListener("click", (event) => {
  const picture = event.target.closest(".ws-spectrogram"), segment = event.target.closest(".ws-segment");
  if (picture) {
    const place = picture.getBoundingClientRect();
    panelOf(picture).querySelector("audio").currentTime = (event.clientX - place.left) / place.width * picture.dataset.duration;
  } else if (segment) {
    const audio = segment.closest(".ws-voice").querySelectorAll("audio")[1];
    audio.currentTime = Number(segment.dataset.start);
    audio.play();
  }
});
