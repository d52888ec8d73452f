"""The page: its components, and what happens on each click.

Handlers find the session of their visitor by `request.session_hash`, so nothing is shared between visitors but the
models. An error becomes a line on the page, the line that the command would print.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from wesep_py.common.errors import InputError, WesepError
from wesep_py.ui.extraction_job import Done, ExtractionStopped, Step, clock, extract_voices, steps_of
from wesep_py.ui.live_socket import live_files
from wesep_py.ui.model_choice import ModelChoice
from wesep_py.ui.page_figures import recording_spectrogram, spectrogram_uri, waveform_peaks
from wesep_py.ui.result_page import (
    choices_of,
    error_html,
    message_html,
    outcome_html,
    panels_html,
    status_html,
    voices_html,
)
from wesep_py.ui.sessions import NamedVoice, Session, SessionRecording, Sessions, checked_name

log = logging.getLogger(__name__)
WEB = Path(__file__).resolve().parent / "web"
OWN, MARKED = "a recording of it", "a segment of the mixture"
"""Where the voice comes from."""
RECORDING = "recording"
"""Name of what was recorded on the page, without suffix."""
NO_MARK = {"start": 0.0, "end": 0.0}
INTRODUCTION = """# Extract one voice

Give a **mixture**, in which several people talk, and a few seconds of **one person's voice**. You get that voice alone,
the residual without it, and the times at which the person speaks. Recordings stay on the machine that runs this page,
and are deleted when you leave."""
LIVE_INTRODUCTION = """The voice of one person out of your microphone, while people speak. Wear headphones: what a
loudspeaker plays would be picked up again."""
HOW_TO_MARK = """Drag over the waveform of the mixture above, or type start and end below it; listen before you
extract."""


def build_page(models: ModelChoice, sessions: Sessions, jobs: int, delete_cache: tuple[int, int]) -> gr.Blocks:
    """Return the page.

    Args:
        models: that can be chosen.
        sessions: of all visitors.
        jobs: number of extractions at a time.
        delete_cache: seconds between two deletions of uploads, and their age when they are deleted.
    """
    handlers = PageHandlers(models, sessions)
    with gr.Blocks(title="wesep", analytics_enabled=False, delete_cache=delete_cache) as blocks:
        gr.Markdown(INTRODUCTION, elem_classes="ws-introduction")
        model = gr.Dropdown(models.names, value=models.default, label="Model", elem_id="model", filterable=False)
        with gr.Tabs():
            with gr.Tab("Recordings", id="recordings"):
                _recordings_tab(handlers, model, jobs)
            with gr.Tab("Live", id="live"):
                _live_tab(handlers, model)
        blocks.unload(handlers.leave)
    blocks.queue(max_size=64, default_concurrency_limit=8)
    return blocks


def page_style() -> dict[str, Any]:
    """Return the arguments of Gradio's `launch` for look and microphone; fonts are those of the system."""
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    theme = gr.themes.Default(primary_hue="blue", font=fonts[0], font_mono=fonts[1])
    script = (WEB / "microphone.js").read_text(encoding="utf-8")
    return {"theme": theme, "css_paths": [WEB / "page.css"], "head": f"<script>{script}</script>"}


def _recordings_tab(handlers: PageHandlers, model: gr.Dropdown, jobs: int) -> None:
    compute: dict[str, Any] = {"concurrency_limit": jobs, "concurrency_id": "compute"}
    gr.Markdown("## 1. Mixture")
    with gr.Row(equal_height=True):
        upload = gr.File(label="Drop a recording or a video", elem_id="mixture-file", height=150)
        microphone = gr.Audio(
            sources=["microphone"], type="filepath", label="or record one", elem_id="mixture-microphone", buttons=[]
        )
    mixture_status = gr.HTML(elem_id="mixture-status", elem_classes="ws-slot")
    wave = gr.HTML(
        value={**NO_MARK, "of": ""},
        recording=None,
        html_template=(WEB / "waveform.html").read_text(encoding="utf-8"),
        js_on_load=(WEB / "waveform.js").read_text(encoding="utf-8"),
        elem_id="wave",
        elem_classes="ws-slot",
    )

    gr.Markdown("## 2. Voice")
    with gr.Row():
        name = gr.Textbox("Voice 1", label="Name", max_length=60, elem_id="voice-name", scale=1, min_width=200)
        source = gr.Radio([OWN, MARKED], value=OWN, label="Take the voice from", elem_id="voice-source", scale=2)
    enrollment = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="A few seconds of the voice alone",
        elem_id="enrollment",
        buttons=[],
    )
    with gr.Column(visible=False) as marking:
        gr.Markdown(HOW_TO_MARK)
        suggest = gr.Button("Suggest segments", elem_id="suggest", size="sm")
        suggest_status = gr.HTML(elem_id="suggest-status", elem_classes="ws-slot")
        suggestions = gr.Radio([], label="One person seems to speak alone here", visible=False, elem_id="suggestions")
    add = gr.Button("Add another voice", elem_id="add-voice", size="sm")
    add_status = gr.HTML(elem_id="voice-status", elem_classes="ws-slot")
    with gr.Column(visible=False) as added:
        chosen = gr.CheckboxGroup([], label="Voices to extract", elem_id="voices")
        players = gr.HTML(elem_id="voice-players", elem_classes="ws-slot")
        remove = gr.Button("Remove the voices that are not ticked", size="sm", elem_id="remove-voices")

    gr.Markdown("## 3. Extract")
    force = gr.Checkbox(False, label="Keep the estimate also where the voice seems absent", elem_id="force")
    with gr.Row():
        extract = gr.Button("Extract", variant="primary", elem_id="extract")
        stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
    status = gr.HTML(elem_id="status", elem_classes="ws-slot")
    results = gr.HTML(
        js_on_load=(WEB / "results.js").read_text(encoding="utf-8"), elem_id="results", elem_classes="ws-slot"
    )

    taken = [wave, mixture_status, suggestions, suggest_status, upload, microphone, status]
    upload.upload(handlers.use_mixture, upload, taken, api_name="use_mixture", show_progress_on=upload)
    microphone.input(handlers.use_recording, microphone, taken, api_name="use_recording")
    source.change(handlers.show_source, source, [enrollment, marking], api_name=False, queue=False)
    suggest.click(handlers.suggest, model, [suggest_status, suggestions], api_name="suggest", **compute)
    suggestions.input(handlers.mark_suggestion, suggestions, wave, api_name=False, queue=False)
    voice_inputs = [name, source, enrollment, wave]
    voice_outputs = [chosen, players, added, name, enrollment, wave, add_status]
    add.click(handlers.add_voice, [*voice_inputs, chosen], voice_outputs, api_name="add_voice")
    remove.click(handlers.remove_voices, chosen, [chosen, players, added], api_name="remove_voices")
    extract.click(
        handlers.extract,
        [model, chosen, *voice_inputs, force],
        [status, results, extract, stop],
        api_name="extract",
        show_progress_on=status,
        show_progress="minimal",
        **compute,
    )
    stop.click(handlers.stop, None, status, api_name="stop", queue=False)


def _live_tab(handlers: PageHandlers, model: gr.Dropdown) -> None:
    gr.Markdown(LIVE_INTRODUCTION)
    enrollment = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="A few seconds of the voice alone",
        elem_id="live-enrollment",
        buttons=[],
    )
    status = gr.HTML(elem_id="live-status", elem_classes="ws-slot")
    stream = gr.HTML(
        value=None,
        html_template=(WEB / "live.html").read_text(encoding="utf-8"),
        js_on_load=(WEB / "live.js").read_text(encoding="utf-8"),
        elem_id="live-stream",
        elem_classes="ws-slot",
    )
    results = gr.HTML(
        js_on_load=(WEB / "results.js").read_text(encoding="utf-8"), elem_id="live-results", elem_classes="ws-slot"
    )
    enrollment.change(handlers.enroll_live, [model, enrollment], [stream, status], api_name="enroll_live")
    model.change(handlers.enroll_live, [model, enrollment], [stream, status], api_name=False)
    stream.submit(handlers.show_live, None, results, api_name="show_live")


def with_line(*others: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a handler return the line of an error, in place of the output for which `others` holds `Ellipsis`."""

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def run(self: PageHandlers, *arguments: Any) -> Any:
            try:
                return handler(self, *arguments)
            except Exception as error:
                line = error_html(self.line_of(error, arguments[-1]))
                return [line if other is ... else other for other in others] if len(others) > 1 else line

        return run

    return decorate


class PageHandlers:
    """The handlers of all clicks.

    Args:
        models: that can be chosen.
        sessions: of all visitors.
    """

    def __init__(self, models: ModelChoice, sessions: Sessions) -> None:
        self.models, self.sessions = models, sessions

    def line_of(self, error: Exception, request: gr.Request) -> str:
        """Return the line for an error; one that is not written for users is logged with its traceback."""
        if not isinstance(error, (WesepError, OSError)):
            log.error("a request failed", exc_info=error)
        return self.sessions.of(request.session_hash).one_line(error)

    def leave(self, request: gr.Request) -> None:
        """Note that a page was closed."""
        self.sessions.leave(request.session_hash)

    @with_line(gr.skip(), ..., gr.skip(), gr.skip(), None, None, gr.skip())
    def use_mixture(self, upload: str | None, request: gr.Request) -> Any:
        """Take an uploaded file as the mixture; show its waveform."""
        return self._use_mixture(upload, None, request)

    @with_line(gr.skip(), ..., gr.skip(), gr.skip(), None, None, gr.skip())
    def use_recording(self, upload: str | None, request: gr.Request) -> Any:
        """Take what was recorded on the page as the mixture; show its waveform."""
        return self._use_mixture(upload, RECORDING, request)

    def _use_mixture(self, upload: str | None, stem: str | None, request: gr.Request) -> Any:
        session = self.sessions.of(request.session_hash)
        if upload is None:
            return [gr.skip() for _ in range(7)]
        if session.busy.locked():
            raise InputError("an extraction is running on this page; wait for it, or stop it")
        recording = session.take(upload, "mixture", stem)
        session.drop(session.mixture)
        session.mixture = recording
        wave = gr.HTML(value={**NO_MARK, "of": session.link(recording.path)}, recording=_wave(session, recording))
        about = recording.about
        channels = "mono" if about.num_channels == 1 else f"{about.num_channels} channels"
        text = f"{recording.label}: {clock(about.duration_s)}, {about.sample_rate} Hz, {channels}"
        return wave, message_html(text), gr.Radio([], visible=False), "", None, None, ""

    def show_source(self, source: str) -> Any:
        """Show what the chosen source of the voice needs."""
        return gr.Audio(visible=source == OWN), gr.Column(visible=source == MARKED)

    @with_line(..., gr.skip())
    def suggest(self, model: str, request: gr.Request) -> Any:
        """List segments of the mixture in which one person seems to speak alone, as `wesep find`."""
        from wesep_py.inference.single_speaker import find_encoder, find_solo_segments

        session = self.sessions.of(request.session_hash)
        mixture = _mixture(session)
        extractor = self.models.load(model)
        found = find_solo_segments(mixture.path, extractor, find_encoder(None, extractor.sample_rate))
        if not found:
            raise InputError("no segment in which one person surely speaks alone; mark one by ear")
        choices = [
            (
                f"voice {s.voice}: {s.start_s:.1f} to {s.end_s:.1f} s ({s.confidence:.0%})",
                f"{s.start_s:.2f}-{s.end_s:.2f}",
            )
            for s in found
        ]
        text = "Choose one and listen: about one in five holds a second voice."
        return message_html(text), gr.Radio(choices, value=None, visible=True)

    def mark_suggestion(self, suggestion: str) -> Any:
        """Mark a suggested segment."""
        start, end = (float(time_s) for time_s in suggestion.split("-"))
        return gr.HTML(value={"start": start, "end": end})

    @with_line(gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip(), ...)
    def add_voice(
        self,
        name: str,
        source: str,
        enrollment: str | None,
        mark: dict[str, Any] | None,
        chosen: list[str],
        request: gr.Request,
    ) -> Any:
        """Keep the voice that is given, and clear the form for the next one."""
        session = self.sessions.of(request.session_hash)
        voice = self._given_voice(session, name, source, enrollment, mark)
        if voice is None:
            raise InputError(f"{name or 'the voice'}: nothing was given; {_what_is_needed(source)}")
        session.add_voice(voice.name, voice.recordings[0])
        names = list(dict.fromkeys([*chosen, voice.name]))
        text = f"{voice.name}: {voice.recordings[0].label}"
        return [
            *self._voice_list(session, names),
            _next_name(session),
            None,
            gr.HTML(value=NO_MARK),
            message_html(text),
        ]

    def remove_voices(self, chosen: list[str], request: gr.Request) -> Any:
        """Remove the voices that are not chosen."""
        session = self.sessions.of(request.session_hash)
        for name in set(session.voices) - set(chosen):
            session.remove_voice(name)
        return self._voice_list(session, chosen)

    def extract(
        self,
        model: str,
        chosen: list[str],
        name: str,
        source: str,
        enrollment: str | None,
        mark: dict[str, Any] | None,
        force: bool,
        request: gr.Request,
    ) -> Iterator[Any]:
        """Extract the voices that are chosen, and the one in the form; show the progress, then the results."""
        session = self.sessions.of(request.session_hash)
        idle, running = (
            (gr.Button(interactive=True), gr.Button(visible=False)),
            (
                gr.Button(interactive=False),
                gr.Button(visible=True),
            ),
        )
        own: NamedVoice | None = None
        try:
            _mixture(session)
            own = self._given_voice(session, name, source, enrollment, mark)
            voices = _merged([session.voices[known] for known in chosen if known in session.voices], own)
            if not voices:
                raise InputError(f"no voice was given; {_what_is_needed(source)}")
            yield status_html(Step("loading the model")), "", *running
            extractor = self.models.load(model)
            for step in steps_of(lambda tell: extract_voices(session, extractor, voices, force, tell)):
                if isinstance(step, Done):
                    yield "", outcome_html(session, step.value), *idle
                else:
                    yield status_html(step), gr.skip(), *running
        except GeneratorExit:
            session.stop.set()  # the visitor has gone
            raise
        except ExtractionStopped as stopped:
            yield message_html(str(stopped)), gr.skip(), *idle
        except Exception as error:
            yield error_html(self.line_of(error, request)), gr.skip(), *idle
        finally:
            if own is not None:
                session.drop(own.recordings[0])

    def stop(self, request: gr.Request) -> Any:
        """Stop the extraction of a visitor; it ends after the block that is computed."""
        session = self.sessions.of(request.session_hash)
        if not session.busy.locked():  # it has ended in the meantime, and its status stays
            return gr.skip()
        session.stop.set()
        return status_html(Step("stopping after this block"))

    @with_line(None, ...)
    def enroll_live(self, model: str, enrollment: str | None, request: gr.Request) -> Any:
        """Enroll the voice of the live tab."""
        session = self.sessions.of(request.session_hash)
        session.live_voice = None
        if enrollment is None:
            return None, ""
        extractor = self.models.load(model)
        extractor.live()  # an error now, if the model cannot stream
        recording = session.take(enrollment, "live_enrollment")
        try:
            voice = extractor.enroll(recording.path)
            notes = [] if voice.quality is None else voice.quality.warnings
        finally:
            session.drop(recording)
        session.live_voice = model, voice
        text = " ".join([f"enrolled {voice.enrolled_s:.1f} s.", *map(session.one_line, map(WesepError, notes))])
        return {"token": session.token}, message_html(text)

    @with_line(...)
    def show_live(self, request: gr.Request) -> str:
        """Show the recordings of the live stream that ended."""
        from wesep_py import audio

        session = self.sessions.of(request.session_hash)
        if not (paths := live_files(session)):
            raise InputError("nothing was recorded")
        levels = [recording_spectrogram(path) for path in paths]
        pictures = [spectrogram_uri(level, float(levels[0].max())) for level in levels]
        about = audio.info(paths[0])
        rows = list(zip(("Microphone", "Voice"), paths, pictures, strict=True))
        return panels_html(session, rows, about.duration_s, about.sample_rate)

    def _given_voice(
        self, session: Session, name: str, source: str, enrollment: str | None, mark: dict[str, Any] | None
    ) -> NamedVoice | None:
        """Return the voice in the form, with its recording as a file of the session; `None` if nothing was given."""
        if source == OWN:
            if enrollment is None:
                return None
            return NamedVoice(checked_name(name), [session.take(enrollment, "enrollment")])
        start_s, end_s = float((mark or NO_MARK)["start"]), float((mark or NO_MARK)["end"])
        if start_s == end_s:
            return None
        return NamedVoice(checked_name(name), [session.cut(start_s, end_s)])

    def _voice_list(self, session: Session, names: list[str]) -> list[Any]:
        voices = list(session.voices.values())
        group = gr.CheckboxGroup(choices_of(voices), value=[name for name in names if name in session.voices])
        return [group, voices_html(session), gr.Column(visible=bool(voices))]


def _mixture(session: Session) -> SessionRecording:
    if session.mixture is None:
        raise InputError("no mixture is here; drop or record one (it is deleted when a page is idle for long)")
    return session.mixture


def _merged(voices: list[NamedVoice], own: NamedVoice | None) -> list[NamedVoice]:
    """Return the voices, with the one of the form added to that of the same name."""
    if own is None:
        return voices
    known = [NamedVoice(v.name, v.recordings + (own.recordings if v.name == own.name else [])) for v in voices]
    return known if any(voice.name == own.name for voice in voices) else [*known, own]


def _next_name(session: Session) -> str:
    number = len(session.voices) + 1
    while f"Voice {number}" in session.voices:
        number += 1
    return f"Voice {number}"


def _what_is_needed(source: str) -> str:
    return "record or drop some seconds of it" if source == OWN else "mark a segment in which it speaks alone"


def _wave(session: Session, recording: SessionRecording) -> dict[str, Any]:
    """Return what the waveform on the page shows."""
    return {
        "url": session.link(recording.playable),
        "name": recording.label,
        "duration": recording.about.duration_s,
        "peaks": waveform_peaks(recording.path),
    }
