"""Miniatures of AMI, LibriCSS and REAL-T in their real layouts, of speech-like sounds and made-up annotations."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import soundfile

from tests.conftest import SAMPLE_RATE, make_voice
from tests.recipes.miniature import voice_of

Turn = tuple[int, float, float]
"""Number of the speaker; start and end in seconds."""

# A conversation of three people; the third is silent until 26 s, the first is alone at the beginning and at the end.
TURNS: Sequence[Turn] = (
    (1, 0.5, 5.5), (2, 6.0, 11.0), (1, 10.0, 13.0), (2, 14.0, 16.0), (1, 15.0, 18.0), (3, 26.0, 31.0), (2, 30.0, 33.0),
    (1, 33.5, 37.5),
)  # fmt: skip
MEETING_S = 38.0


def make_conversation(turns: Sequence[Turn], duration_s: float, seed: int) -> np.ndarray:
    """Return a recording, float32 `[samples]`: the voices of the turns, with noise 50 dB below full scale."""
    recording = 0.003 * np.random.default_rng(seed).standard_normal(round(duration_s * SAMPLE_RATE)).astype(np.float32)
    for number, (speaker, start_s, end_s) in enumerate(turns):
        voice = 0.5 * make_voice(*voice_of(speaker), end_s - start_s, seed=1000 * seed + number)
        first = round(start_s * SAMPLE_RATE)
        recording[first : first + len(voice)] += voice[: len(recording) - first]
    return recording


def words_of(turn: Turn) -> list[tuple[float, float, str]]:
    """Return start, end and text of the words of a turn, half a second each."""
    speaker, start_s, end_s = turn
    starts = np.arange(start_s, end_s - 0.25, 0.5)
    return [(float(s), float(min(s + 0.5, end_s)), f"word{speaker}x{round(10 * s)}") for s in starts]


AMI_MEETINGS = {"ES2004a": {"A": (1, "MEE001"), "B": (2, "FEE002"), "C": (3, "MEO003")}}
NITE = 'xmlns:nite="http://nite.sourceforge.net/"'


def make_ami(folder: Path) -> Path:
    """`amicorpus/ES2004a/audio/*.wav`, `ami_public_manual_1.6.2/{words,corpusResources}`, RTTM files of the words."""
    annotations = folder / "ami_public_manual_1.6.2"
    for name in ("words", "corpusResources"):
        (annotations / name).mkdir(parents=True)
    listed = []
    for seed, (meeting, participants) in enumerate(AMI_MEETINGS.items()):
        audio = folder / "amicorpus" / meeting / "audio"
        audio.mkdir(parents=True)
        recording = make_conversation(TURNS, MEETING_S, seed)
        for gain, microphone in ((1.0, "Mix-Headset"), (0.2, "Array1-01")):
            path = audio / f"{meeting}.{microphone}.wav"
            soundfile.write(path, gain * recording, SAMPLE_RATE, subtype="PCM_16")
        rttm = []
        for letter, (speaker, name) in participants.items():
            elements = []
            for turn in (turn for turn in TURNS if turn[0] == speaker):
                for start_s, end_s, text in words_of(turn):
                    times = f'starttime="{start_s:.2f}" endtime="{end_s:.2f}"'
                    identity = f'nite:id="{meeting}.{letter}.words{len(elements)}"'
                    elements.append(f"   <w {identity} {times}>{escape(text)}</w>")
                rttm.append(f"SPEAKER {meeting} 1 {turn[1]:.2f} {turn[2] - turn[1]:.2f} <NA> <NA> {name} <NA> <NA>\n")
                elements.append(
                    f'   <w nite:id="{meeting}.{letter}.words{len(elements)}" starttime="{turn[2]:.2f}" '
                    f'endtime="{turn[2]:.2f}" punc="true">.</w>'
                )
            elements.append(
                f'   <vocalsound nite:id="{meeting}.{letter}.words{len(elements)}" starttime="20.0" endtime="24.0" '
                'type="laugh"/>'
            )
            (annotations / "words" / f"{meeting}.{letter}.words.xml").write_text(
                '<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>\n'
                f'<nite:root nite:id="{meeting}.{letter}.words" {NITE}>\n' + "\n".join(elements) + "\n</nite:root>\n"
            )
        (folder / "rttms").mkdir()
        (folder / "rttms" / f"{meeting}.rttm").write_text("".join(rttm))
        speakers = "".join(
            f'<speaker nite:id="{meeting}_{number}" channel="{number}" nxt_agent="{letter}" global_name="{name}"/>'
            for number, (letter, (_, name)) in enumerate(participants.items())
        )
        listed.append(
            f'<meeting nite:id="meet_{seed}" observation="{meeting}" duration="{MEETING_S}">{speakers}</meeting>'
        )
    (annotations / "corpusResources" / "meetings.xml").write_text(
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<nite:root {NITE}>\n' + "\n".join(listed) + "\n</nite:root>\n"
    )
    return folder


LIBRICSS_SESSIONS = {
    "0S": "overlap_ratio_0.0_sil0.1_0.5_session0_actual0.0",
    "OV20": "overlap_ratio_20.0_sil0.1_1.0_session1_actual20.5",
}


def make_libricss(folder: Path) -> Path:
    """`for_release/OV20/overlap_ratio_…/{record/raw_recording.wav,transcription/meeting_info.txt}`, seven channels."""
    for seed, (condition, name) in enumerate(LIBRICSS_SESSIONS.items()):
        session = folder / "for_release" / condition / name
        (session / "record").mkdir(parents=True)
        (session / "transcription").mkdir()
        recording = make_conversation(TURNS, MEETING_S, 10 + seed)
        channels = np.stack([gain * recording for gain in np.linspace(1.0, 0.4, 7)], axis=1)
        soundfile.write(session / "record" / "raw_recording.wav", channels, SAMPLE_RATE, subtype="PCM_16")
        lines = ["start_time\tend_time\tspeaker\tutterance_id\ttranscription"]
        for number, (speaker, start_s, end_s) in enumerate(TURNS):
            words = " ".join(text.upper() for _, _, text in words_of((speaker, start_s, end_s)))
            utterance = f"{1000 + speaker}-{2000 + speaker}-{number:04d}"
            lines.append(f"{start_s:.6f}\t{end_s:.6f}\t{1000 + speaker}\t{utterance}\t{words}")
        (session / "transcription" / "meeting_info.txt").write_text("\n".join(lines) + "\n")
    return folder / "for_release"


REAL_T_COLUMNS = (
    "mixture_utterance", "enrolment_speakers_utterance", "source", "language", "total_number_of_speaker", "speaker",
    "gender", "speaker_ratio", "mixture_ratio", "enrolment_speakers_duration", "mixture_overlap_duration",
    "mixture_duration", "ground_truth_transcript",
)  # fmt: skip
# Corpus, language, session, its speakers, and what they say in the mixture.
REAL_T_SESSIONS = (
    ("AMI", "en", "ES2011a", ("FEE041", "MEE042"), ("Well, I'd say (uh) twenty-one.", "Okay.")),
    ("AMI", "en", "IS1008b", ("MIO018", "FIE081"), ("The colour is grey.", "No, it isn't.")),
    ("AliMeeting", "zh", "R8002_M8003_MS803", ("N_SPK8011", "N_SPK8012"), ("这个颜色 很好", "我們看一下")),
)


def make_real_t(folder: Path, name: str = "DEV") -> Path:
    """`REAL-T-dev/{mixtures,enrolment_speakers,mapping.csv}`, `DEV/CORPUS_meta.csv`, `DEV/json/CORPUS/…json`."""
    root = folder / f"REAL-T-{name.lower()}"
    for part in ("mixtures", "enrolment_speakers"):
        (root / part).mkdir(parents=True)
    tables: dict[str, list[list[object]]] = {}
    records: dict[str, dict[str, list[object]]] = {}
    for number, (corpus, language, session, speakers, texts) in enumerate(REAL_T_SESSIONS):
        start_s, end_s = 100.0 + number, 109.0 + number
        turns = [(10 * number, 0.5, 5.0), (10 * number + 1, 4.0, 8.5)]
        mixture = f"{session}_mixture_{start_s:.2f}_{end_s:.2f}"
        recording = make_conversation(turns, end_s - start_s, 20 + number)
        soundfile.write(root / "mixtures" / f"{mixture}.wav", recording, SAMPLE_RATE, subtype="PCM_16")
        segments = []
        for (voice, first_s, last_s), speaker, text in zip(turns, speakers, texts, strict=True):
            enrollment = f"{session}_{speaker}_10.00_15.00"
            alone = make_conversation([(voice, 0.0, 5.0)], 5.0, 30 + voice)
            soundfile.write(root / "enrolment_speakers" / f"{enrollment}.wav", alone, SAMPLE_RATE, subtype="PCM_16")
            row = [mixture, enrollment, corpus, language, 2, speaker, "f", 0.5, 0.11, 5.0, 1.0, 9.0, text]
            tables.setdefault(corpus, []).append(row)
            segments.append({"speaker": speaker, "start_time": start_s + first_s, "end_time": start_s + last_s})
        info = {"overlap_start_time": start_s, "overlap_end_time": end_s + 0.004, "overlap_ratio": 0.11}
        records.setdefault(corpus, {})[session] = [{"overlap_info": info, "overlap_segments": segments}]
    for corpus, rows in tables.items():
        (root / name / "json" / corpus).mkdir(parents=True)
        (root / name / "json" / corpus / "overlap_records.json").write_text(json.dumps(records[corpus]))
        with (root / name / f"{corpus}_meta.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([REAL_T_COLUMNS, *rows])
    return root
