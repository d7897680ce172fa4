"""Record a profile: a recording and settings in, a run on the visitor's shelf out.

In: measurements of a studio. Out: components, wired; ``done`` follows a recording that ended well,
``keys`` then names its run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app.components.arm_panel import ArmPanel, build_arm
from app.components.events import MODEL_EVENT, PAGE_EVENT, Updates, session_of
from app.components.failures import gradio_error
from app.components.recording_field import build_recording
from app.service.deployment import Deployment
from app.service.measurement import MeasurementService
from app.service.measurement_job import MeasurementOptions, MeasurementProgress, MeasurementResult
from app.wording import comparison as words
from app.wording import phrases

BLOCKS, MOST_BLOCKS, TOKENS = 6, 40, 200
NOTE = (
    "Each block runs the recording twice with the profiler off; those are the times. Then it runs "
    "with the profiler on, which makes the trace."
)
RECORDED = "Recorded; it is the run shown above."


@dataclass(frozen=True)
class RecordPanel:
    """What the tab around it needs."""

    done: Dependency
    arm: ArmPanel
    keys: gr.State


def build_record(measuring: MeasurementService, deployment: Deployment) -> RecordPanel | None:
    """Lay the panel out; None where nothing can be timed, which the page then says."""
    if measuring.refusal is not None:
        gr.HTML(phrases.status_html(measuring.refusal), elem_id="record-status")
        return None
    gr.HTML(phrases.aside_html(NOTE))
    with gr.Row(elem_classes="two-columns"):
        with gr.Column():
            field = build_recording("record-", "Or an example")
            field.fill_from_examples()
        with gr.Column():
            arm = build_arm(measuring.service, deployment, "record")
            blocks = gr.Slider(
                1, MOST_BLOCKS, BLOCKS, step=1, label="Blocks", elem_id="record-blocks"
            )
            with gr.Row():
                go = gr.Button("Record", variant="primary", min_width=120, elem_id="record-go")
                stop = gr.Button("Stop", interactive=False, min_width=120, elem_id="record-stop")
    status = gr.HTML(elem_id="record-status")
    keys = gr.State([])

    def begin(request: gr.Request) -> Updates:
        measuring.begin(session_of(request))
        return {status: phrases.status_html(words.WAITING), stop: gr.update(interactive=True)}

    def run(request: gr.Request, sound: str | None, blocks: int, *values: Any) -> Iterator[Updates]:
        try:
            settings = arm.read(values, TOKENS)
            how = MeasurementOptions(int(blocks))
            for report in measuring.profile(session_of(request), sound, settings, how):
                if isinstance(report, MeasurementProgress):
                    yield {status: words.progress_html(report)}
                elif isinstance(report, MeasurementResult):
                    yield {status: phrases.status_html(RECORDED), keys: list(report.keys)}
                else:
                    yield {status: phrases.status_html(words.NOT_BEGUN)}
        except Exception as error:
            yield {status: phrases.status_html(phrases.failure(error), "error")}
            raise gradio_error(error) from error

    def halt(request: gr.Request) -> Updates:
        running = measuring.stop(session_of(request))
        return {status: phrases.status_html(words.STOPPING) if running else gr.skip()}

    ran = go.click(begin, None, [status, stop], **PAGE_EVENT).then(
        run,
        [field.audio, blocks, *arm.inputs],
        [status, keys],
        show_progress="full",
        show_progress_on=[status],
        api_visibility="private",
        **MODEL_EVENT,
    )
    # Gradio 6.31 does not call what follows with `then` after an error, though it says so.
    for ended in (ran.then, ran.failure):
        ended(lambda: gr.update(interactive=False), None, [stop], **PAGE_EVENT)
    stop.click(halt, None, [status], **PAGE_EVENT)
    return RecordPanel(ran, arm, keys)
