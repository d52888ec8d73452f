"""Parts of the page as HTML: status lines, the list of voices, and results with players, spectrograms and timelines."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from wesep_py.ui.extraction_job import Outcome, Step, VoiceOutcome, clock
from wesep_py.ui.page_figures import HIGHEST_HZ
from wesep_py.ui.sessions import NamedVoice, Session


def status_html(step: Step) -> str:
    """Return the progress of an extraction."""
    value = "" if step.share is None else f' value="{step.share:.3f}"'
    return (
        f'<div class="ws-status" role="status"><progress max="1"{value} aria-label="progress"></progress>'
        f"<span>{escape(step.text)}</span></div>"
    )


def message_html(text: str) -> str:
    """Return a line that says what was done."""
    return f'<p class="ws-message" role="status">{escape(text)}</p>'


def error_html(line: str) -> str:
    """Return the line of an error."""
    return f'<p class="ws-error" role="alert">{escape(line)}</p>'


def voices_html(session: Session) -> str:
    """Return the recordings of the voices of a session, each with a player."""
    items = []
    for voice in session.voices.values():
        players = "".join(
            f"<li><span>{escape(r.label)}</span>{_player(session.link(r.playable), r.label)}</li>"
            for r in voice.recordings
        )
        items.append(f"<li><strong>{escape(voice.name)}</strong><ul>{players}</ul></li>")
    return f'<ul class="ws-voices">{"".join(items)}</ul>' if items else ""


def choices_of(voices: Sequence[NamedVoice]) -> list[tuple[str, str]]:
    """Return the voices as choices of a check box group: label and name."""
    return [
        (voice.name if len(voice.recordings) == 1 else f"{voice.name} ({len(voice.recordings)} recordings)", voice.name)
        for voice in voices
    ]


def outcome_html(session: Session, outcome: Outcome) -> str:
    """Return the results of an extraction."""
    speed = outcome.took_s / max(outcome.duration_s, 1e-9)
    voices = "".join(_voice_html(session, voice, outcome.duration_s) for voice in outcome.voices)
    links = " ".join(_download(session, path, path.suffix[1:].upper()) for path in outcome.timelines)
    return (
        f'<div class="ws-results">{voices}<p class="ws-downloads"><span>Timeline of all voices:</span> {links}</p>'
        f'<p class="ws-soft">{clock(outcome.duration_s)} extracted in {outcome.took_s:.1f} s '
        f"({speed:.2f} s per second) with {escape(outcome.model)}.</p></div>"
    )


def _voice_html(session: Session, voice: VoiceOutcome, duration_s: float) -> str:
    result = voice.result
    assert session.mixture is not None and result.residual is not None
    name = escape(result.name)
    panels = "".join(
        _panel(title, session.link(path), picture, duration_s, result.sample_rate)
        for title, path, picture in zip(
            ("Mixture", f"Voice: {result.name}", "Residual"),
            (session.mixture.playable, result.output, result.residual),
            voice.spectrograms,
            strict=True,
        )
    )
    downloads = f"{_download(session, result.output, 'Voice')} {_download(session, result.residual, 'Residual')}"
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in voice.remarks)
    return (
        f'<section class="ws-voice" aria-label="{name}"><h3>{name} {_presence(voice)}</h3>'
        f'<div class="ws-panels">{panels}</div>{_timeline(voice, duration_s)}'
        f'<p class="ws-downloads"><span>Download:</span> {downloads}</p>'
        + (f'<ul class="ws-remarks">{remarks}</ul>' if remarks else "")
        + "</section>"
    )


def _presence(voice: VoiceOutcome) -> str:
    """Return whether the voice is in the recording, as a badge."""
    result = voice.result
    if result.presence is None:
        return '<span class="ws-badge">this model does not say whether the voice is there</span>'
    by = f", verified by {escape(result.verifier)}" if result.verifier else ""
    figures = f"probability {result.presence:.2f}, threshold {result.threshold:.2f}{by}"
    if not result.absent:
        return f'<span class="ws-badge ws-present">is there: {figures}</span>'
    written = "silence was written" if result.silenced else "the estimate is kept as asked"
    return f'<span class="ws-badge ws-absent">seems absent: {figures}; {written}</span>'


def _panel(title: str, link: str, picture: str, duration_s: float, sample_rate: int) -> str:
    """Return a player with a spectrogram, on which a click seeks."""
    highest_khz = min(HIGHEST_HZ, sample_rate / 2) / 1000
    alternative = f"Spectrogram of {title}, 0 to {highest_khz:g} kHz"
    return (
        f'<figure class="ws-panel"><figcaption>{escape(title)}</figcaption>{_player(link, title)}'
        f'<div class="ws-spectrogram" data-duration="{duration_s:.3f}"><img alt="{escape(alternative)}" '
        f'src="{picture}"><i class="ws-cursor"></i><span class="ws-khz">{highest_khz:g} kHz</span></div>'
        f'<div class="ws-axis"><span>0:00</span><span>{clock(duration_s)}</span></div>'
        "</figure>"
    )


def _timeline(voice: VoiceOutcome, duration_s: float) -> str:
    """Return when the voice speaks: a bar with the segments, and a table of them."""
    segments = voice.segments
    speech_s = sum(segment["end_s"] - segment["start_s"] for segment in segments)
    bars = "".join(
        f'<button type="button" class="ws-segment" data-start="{segment["start_s"]:.3f}" '
        f'style="left:{100 * segment["start_s"] / duration_s:.3f}%;'
        f'width:{max(0.3, 100 * (segment["end_s"] - segment["start_s"]) / duration_s):.3f}%" '
        f'title="{_span(segment)}" aria-label="play the voice from {segment["start_s"]:.1f} s"></button>'
        for segment in segments[:400]
    )
    rows = "".join(
        f"<tr><td>{segment['start_s']:.2f}</td><td>{segment['end_s']:.2f}</td><td>{_probability(segment)}</td></tr>"
        for segment in segments
    )
    count = f"{len(segments)} segment{'' if len(segments) == 1 else 's'}, {speech_s:.1f} s of speech"
    table = (
        f"<details><summary>{count}</summary><table><thead><tr><th>start (s)</th><th>end (s)</th>"
        f"<th>probability</th></tr></thead><tbody>{rows}</tbody></table></details>"
        if segments
        else "<p>The voice does not speak in this recording.</p>"
    )
    return f'<div class="ws-timeline"><span class="ws-label">Speaks</span><div class="ws-bar">{bars}</div>{table}</div>'


def _span(segment: dict[str, Any]) -> str:
    return f"{segment['start_s']:.2f} to {segment['end_s']:.2f} s"


def _probability(segment: dict[str, Any]) -> str:
    return f"{segment['probability']:.2f}" if "probability" in segment else "–"


def panels_html(session: Session, recordings: Sequence[tuple[str, Path, str]], duration_s: float, rate: int) -> str:
    """Return players with spectrograms side by side, each with a download.

    Args:
        session: of the files.
        recordings: title, file and spectrogram (a URI) of each.
        duration_s: of all of them.
        rate: their sample rate in Hz.
    """
    panels = "".join(
        _panel(title, session.link(path), picture, duration_s, rate) for title, path, picture in recordings
    )
    links = " ".join(_download(session, path, title) for title, path, _ in recordings)
    return (
        f'<div class="ws-results"><section class="ws-voice"><div class="ws-panels">{panels}</div>'
        f'<p class="ws-downloads"><span>Download:</span> {links}</p></section></div>'
    )


def _player(link: str, label: str) -> str:
    return f'<audio controls preload="metadata" src="{escape(link)}" aria-label="{escape(label)}"></audio>'


def _download(session: Session, path: Path, text: str) -> str:
    return (
        f'<a class="ws-download" href="{escape(session.link(path))}" download="{escape(path.name)}" '
        f'title="{escape(path.name)}">{escape(text)}</a>'
    )
