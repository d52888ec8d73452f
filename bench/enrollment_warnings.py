"""How often the warnings about an enrollment are right, for a trained speaker encoder and several thresholds.

    python bench/enrollment_warnings.py DATA/speech/dev.csv DATA/speech/dev_ls.csv --root DATA --model exp/ecapa

Recordings of 8 s are put together from the manifests' utterances: of one voice, of one in white noise at 10 dB, of
two voices in turn (4 s each; 2 s of one between 3 s and 3 s of the other), of two voices at once. Then sets of four
utterances of one voice, and such sets with a fourth of somebody else, who should be named.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.data import FileReader, Utterance, read_manifest
from wesep_py.inference.enrollment import EnrollmentAudio, assess_recordings
from wesep_py.network.speaker import SpeakerEncoder, load_encoder

LENGTH_S, GAP_S, SET_SIZE = 8.0, 0.3, 4
KINDS = ("one voice", "one voice in noise", "two in turn", "one between another", "two at once")
Waveform = NDArray[np.float32]


class Voices:
    """The recordings of a manifest, by speaker, in an order of their own for every seed."""

    def __init__(self, manifest: Path, root: Path, sample_rate: int, seed: int) -> None:
        self.reader, self.rate, self.random = FileReader(sample_rate), sample_rate, np.random.default_rng(seed)
        self.of: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in read_manifest(manifest, root):
            self.of[utterance.speaker_id].append(utterance)

    def speakers(self, count: int, least: int = 1) -> list[str]:
        """So many different speakers, with that many utterances at least."""
        able = [speaker for speaker, own in self.of.items() if len(own) >= least]
        return [str(one) for one in self.random.choice(able, count, replace=False)]

    def utterances(self, speaker: str, count: int) -> list[Waveform]:
        own = self.of[speaker]
        return [self._read(own[i]) for i in self.random.permutation(len(own))[:count]]

    def stretch(self, speaker: str, duration_s: float) -> Waveform:
        """Utterances of a speaker, one after another, until there is so much; at one level."""
        parts: list[Waveform] = []
        own, size = self.of[speaker], round(duration_s * self.rate)
        for i in self.random.permutation(len(own)):
            parts += [self._read(own[i]), np.zeros(round(GAP_S * self.rate), np.float32)]
            if sum(map(len, parts)) >= size:
                break
        joined = np.concatenate(parts)[:size]
        return joined / np.sqrt(np.mean(joined**2) + 1e-12) * 0.05

    def recording(self, kind: str) -> Waveform:
        one, other = self.speakers(2)
        if kind == "two in turn":
            return np.concatenate([self.stretch(one, LENGTH_S / 2), self.stretch(other, LENGTH_S / 2)])
        if kind == "one between another":
            parts = [self.stretch(speaker, length_s) for speaker, length_s in ((one, 3.0), (other, 2.0), (one, 3.0))]
            return np.concatenate(parts)
        if kind == "two at once":
            pair = [self.stretch(speaker, LENGTH_S) for speaker in (one, other)]
            size = min(map(len, pair))
            return pair[0][:size] + pair[1][:size]
        alone = self.stretch(one, LENGTH_S)
        noise = self.random.standard_normal(len(alone)).astype(np.float32) * 0.05 * 10 ** (-10 / 20)
        return alone + noise if kind == "one voice in noise" else alone

    def sets(self, count: int) -> Iterator[tuple[list[Waveform], list[Waveform]]]:
        """Utterances of one voice, and the same with somebody else's as the last."""
        for _ in range(count):
            one = self.speakers(1, least=SET_SIZE)[0]
            own = self.utterances(one, SET_SIZE)
            stranger = next(speaker for speaker in self.speakers(2) if speaker != one)
            yield own, [*own[:-1], *self.utterances(stranger, 1)]

    def _read(self, utterance: Utterance) -> Waveform:
        return np.asarray(self.reader.read(utterance), np.float32)


def embedder(encoder: SpeakerEncoder) -> Callable[[Sequence[Waveform]], NDArray[np.float32]]:
    """Windows → embeddings."""

    def embed(windows: Sequence[Waveform]) -> NDArray[np.float32]:
        with torch.inference_mode():
            lengths = torch.tensor([len(window) for window in windows])
            return encoder(torch.from_numpy(np.stack(windows)), lengths).embedding.numpy()

    return embed


def heard(waveform: Waveform, rate: int) -> EnrollmentAudio:
    return EnrollmentAudio("recording", waveform, rate, waveform, len(waveform) / rate)


def second_voices(voices: Voices, encoder: SpeakerEncoder, count: int) -> dict[str, list[float | None]]:
    """Likeness of the most unlike stretch to the rest, for recordings of each kind."""
    embed = embedder(encoder)
    found: dict[str, list[float | None]] = {}
    for kind in KINDS:
        made = [heard(voices.recording(kind), voices.rate) for _ in range(count)]
        found[kind] = [assess_recordings([one], embed).recordings[0].likeness for one in made]
    return found


def outliers(voices: Voices, encoder: SpeakerEncoder, count: int, threshold: float) -> tuple[float, float]:
    """Share of clean sets in which somebody is named, and of sets with a stranger in which only the stranger is."""
    embed, wrong, right = embedder(encoder), 0, 0
    for own, mixed in voices.sets(count):
        told = [
            assess_recordings([heard(w, voices.rate) for w in one], embed, unlike=threshold).recordings
            for one in (own, mixed)
        ]
        named = [[i for i, recording in enumerate(one) if recording.outlier] for one in told]
        wrong, right = wrong + bool(named[0]), right + (named[1] == [SET_SIZE - 1])
    return wrong / count, right / count


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="where paths in the manifests start")
    parser.add_argument("--model", required=True, help="an encoder's checkpoint, or that of an extractor with one")
    parser.add_argument("--count", type=int, default=100, help="recordings of each kind, and sets; 100")
    parser.add_argument("--second-voice", nargs="+", type=float, default=[0.0, 0.1, 0.15, 0.2, 0.3], help="thresholds")
    parser.add_argument("--outlier", nargs="+", type=float, default=[0.4, 0.5, 0.6, 0.7], help="thresholds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(arguments.model)
    for manifest in arguments.manifests:
        voices = Voices(manifest, arguments.root, encoder.config.sample_rate, seed=0)
        found = second_voices(voices, encoder, arguments.count)
        rows = []
        for threshold in arguments.second_voice:
            told = [[value < threshold for value in values if value is not None] for values in found.values()]
            rows.append([f"{threshold:g}", *(f"{100 * np.mean(one):.0f}" if one else "" for one in told)])
        print(f"\n{manifest.stem}: a second voice is suspected (% of {arguments.count})\n")
        print(table(["threshold", *KINDS], rows))
        if max(map(len, voices.of.values())) < SET_SIZE:
            continue
        print(f"\n{manifest.stem}: an outlier among {SET_SIZE} recordings (% of {arguments.count})\n")
        rates = [outliers(voices, encoder, arguments.count, threshold) for threshold in arguments.outlier]
        shown = [
            [f"{t:g}", *(f"{100 * r:.0f}" for r in rate)] for t, rate in zip(arguments.outlier, rates, strict=True)
        ]
        print(table(["threshold", "none is one, but one is named", "the stranger, and nobody else, is named"], shown))


if __name__ == "__main__":
    main()
