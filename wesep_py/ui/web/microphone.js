// Record the microphone as it is. Browsers suppress echo and noise and control the gain by default, which takes away the
// voices of others and changes levels within a word; the extraction wants what people said.
if (navigator.mediaDevices) {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  navigator.mediaDevices.getUserMedia = (wanted) => ask(wanted && wanted.audio
    ? { ...wanted, audio: { ...(wanted.audio === true ? {} : wanted.audio), ...plain } } : wanted);
}
