/** Find out the sample rate of a file from its first bytes: a browser decodes to any rate, but does not tell that one. */

/** Rate of what is not recognised: that of Opus, of videos, and of most sound cards. */
export const USUAL_RATE = 48000;
// A file of another rate is decoded at the usual one.
const RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000];
const MP3_RATES = { 3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000] };

/**
 * Return the sample rate at which to decode a file, in Hz.
 * @param {ArrayBuffer} content - of a wav, FLAC, Ogg (Vorbis, Opus) or MP3 file, or of any other.
 * @returns {number} its own rate, if it is a usual one, else 48000.
 */
export function sampleRateOf(content) {
  const view = new DataView(content, 0, Math.min(content.byteLength, 1 << 20));
  try {
    const rate = wavRate(view) ?? flacRate(view) ?? oggRate(view) ?? mp3Rate(view);
    return RATES.includes(rate) ? rate : USUAL_RATE;
  } catch (error) {
    if (error instanceof RangeError) {
      return USUAL_RATE; // shorter than its header: decoding it says so
    }
    throw error;
  }
}

function hasText(view, at, text) {
  return [...text].every((letter, n) => view.getUint8(at + n) === letter.charCodeAt(0));
}

function wavRate(view) {
  if (!hasText(view, 0, "RIFF") || !hasText(view, 8, "WAVE")) {
    return null;
  }
  let at = 12;
  while (!hasText(view, at, "fmt ")) {
    const size = view.getUint32(at + 4, true);
    at += 8 + size + (size % 2);
  }
  return view.getUint32(at + 12, true);
}

function flacRate(view) {
  // 20 bits of the block STREAMINFO, which comes first.
  return hasText(view, 0, "fLaC") ? view.getUint32(18) >>> 12 : null;
}

function oggRate(view) {
  if (!hasText(view, 0, "OggS")) {
    return null;
  }
  const first = 27 + view.getUint8(26); // after the table of segments
  return hasText(view, first + 1, "vorbis") ? view.getUint32(first + 12, true) : USUAL_RATE;
}

function mp3Rate(view) {
  let at = 0;
  if (hasText(view, 0, "ID3")) {
    // Four bytes of 7 bits each.
    at = 10 + [6, 7, 8, 9].reduce((size, n) => (size << 7) | view.getUint8(n), 0);
  }
  const header = view.getUint32(at);
  const isFrame = header >>> 21 === 0x7ff && ((header >>> 17) & 3) !== 0;
  return isFrame ? MP3_RATES[(header >>> 19) & 3]?.[(header >>> 10) & 3] : null;
}
