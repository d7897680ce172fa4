"""The Transcribe tab: a recording in, text as it grows, and what it cost.

In: the service. Out: components, wired. Handlers pass values on to the service and words to the
page; each request is announced first (:meth:`TranscriptionService.begin`), so that Stop reaches it
while it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.components.ask_panel import AskPanel, build_ask
from app.components.batch_panel import build_batch
from app.components.encoder_panel import build_encoder_panel
from app.components.events import PAGE_EVENT, PageJob, after, session_of, wire_job
from app.components.failures import Updates
from app.components.kept_settings import build_link
from app.components.recording_field import RecordingField, build_recording
from app.components.result_panel import ResultPanel, build_result
from app.components.settings_panel import SettingsPanel, build_settings
from app.components.switches import build_switches
from app.service.deployment import Deployment
from app.service.service import TranscriptionService
from app.service.user_errors import user_message
from app.wording import phrases
from app.wording.progress import ProgressLine

RUN_KEY = "granite-speech-lab-run"

# On a phone the text stands below what was just pressed; where it is in sight nothing moves.
SHOW_TEXT = """() => {
  document.querySelector("#status").scrollIntoView({ block: "nearest" });
  return [];
}"""


@dataclass(frozen=True)
class TranscribeTab:
    """Its components. run: the number of the last transcription, kept over a reload."""

    field: RecordingField
    go: gr.Button
    stop: gr.Button
    run: gr.BrowserState
    settings: SettingsPanel
    result: ResultPanel
    ask: AskPanel

    @property
    def recording(self) -> gr.Audio:
        """Return the field of the recording."""
        return self.field.audio


def build_transcribe_tab(service: TranscriptionService, deployment: Deployment) -> TranscribeTab:
    """Lay the tab out: recording and switches on the left, text and times on the right."""
    with gr.Row(elem_id="transcribe"):
        with gr.Column(elem_id="sound"):
            field = build_recording("", "Or click an example")
        with gr.Column(elem_id="how"):
            switches = build_switches(service)
            with gr.Row(elem_id="buttons"):
                go = gr.Button("Transcribe", variant="primary", min_width=120, elem_id="go")
                stop = gr.Button("Stop", interactive=False, min_width=80, elem_id="stop")
        with gr.Column(elem_id="result"):
            result = build_result(service, deployment)
            ask_here = gr.Column()
        with gr.Column(elem_id="settings"):
            with gr.Accordion("More settings", open=False, elem_id="more"):
                settings = build_settings(service, switches)
                build_link(settings)
            build_batch(service, settings, result.reference.normalizer)
        result.others.wire(service, settings)
        with ask_here:
            build_encoder_panel(service, field.audio, settings)
            ask = build_ask(service, settings.model, result.text)
    run = gr.BrowserState("", storage_key=RUN_KEY, secret=RUN_KEY)
    tab = TranscribeTab(field, go, stop, run, settings, result, ask)
    _wire(service, tab)
    return tab


def _wire(service: TranscriptionService, tab: TranscribeTab) -> None:
    result, settings = tab.result, tab.settings
    reference = result.reference

    def run(
        session: str, recording: str | None, said: str, normalizer: str, *values: Any
    ) -> Iterator[Updates]:
        chosen = settings.read(values)
        job = service.start(session, recording, chosen)
        job.recording, job.engine, job.reference = recording or "", chosen.engine, said
        yield {tab.run: job.id}
        line = ProgressLine(chosen.engine)
        for update in service.watch(session, job):
            yield result.shown(update, line, said, normalizer)

    def refresh(name: str | None, task: str, decoding: str, adapter: str | None) -> Updates:
        summary = settings.summary_of(name)
        changes = settings.refresh(summary, task, decoding, adapter) if summary.loaded else {}
        return changes | tab.ask.fit(summary)

    def fit_ask(name: str | None) -> Updates:
        return tab.ask.fit(settings.summary_of(name))

    settings.model.change(fit_ask, [settings.model], [tab.ask.group], **PAGE_EVENT)
    fields = settings.fields
    tab.recording.change(fields.fit_recording, [tab.recording], [fields.split], **PAGE_EVENT)
    chips = tab.field.chips

    def pick(number: int) -> Updates:
        path, text = tab.field.example(number)
        # What was made belongs to another recording than this text.
        return {tab.recording: path, reference.said: text, result.made: None}

    known = [tab.recording, reference.said, result.made]
    picked = chips.click(pick, [chips], known, **PAGE_EVENT)
    job = PageJob(
        begin=service.begin,
        run=run,
        stop=service.stop,
        stopping=phrases.STOPPING,
        waiting=result.waiting,
        failed=result.failed,
        inputs=[tab.recording, *reference.inputs, *settings.inputs],
        outputs=[*result.outputs, tab.run],
        status=result.status,
        stop_button=tab.stop,
    )
    chosen = [*settings.chosen, settings.field("adapter")]
    for ran in wire_job(job, tab.go.click, picked.then, js=SHOW_TEXT):
        after(ran, refresh, chosen, [*settings.outputs, tab.ask.group])
    for changed in (tab.recording.upload, tab.recording.stop_recording, tab.recording.clear):
        changed(lambda: "", None, [reference.said], **PAGE_EVENT)


def find_again(app: gr.Blocks, service: TranscriptionService, tab: TranscribeTab) -> None:
    """Show the transcription that a page began before it was loaded again, running or done."""
    result = tab.result

    def resume(request: gr.Request, job_id: str | None, normalizer: str) -> Iterator[Updates]:
        session = session_of(request)
        run = service.resume(session, job_id) if job_id else None
        if run is None:
            yield {tab.stop: gr.skip()}
            return
        there = run.recording if Path(run.recording).is_file() else None
        shown = {tab.recording: there, result.reference.said: run.reference}
        yield result.waiting() | {tab.stop: gr.update(interactive=True)} | shown
        try:
            line = ProgressLine(run.engine)
            for update in service.watch(session, run):
                yield result.shown(update, line, run.reference, normalizer)
        except Exception as error:  # its own page has shown it as an error already
            yield result.failed(user_message(error))
        yield {tab.stop: gr.update(interactive=False)}

    outputs = [tab.recording, result.reference.said, tab.stop, *result.outputs]
    app.load(
        resume,
        [tab.run, result.reference.normalizer],
        outputs,
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )
