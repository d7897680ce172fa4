"""Record a profile: a recording and settings in, a run in the visitor's library out.

In: the measurement service. Out: components, wired; each of ``done`` follows a recording that ended
well, ``keys`` then names its run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app.components.arm_panel import ArmPanel, build_arm
from app.components.clip_actions import ClipActions
from app.components.events import MEASURE_EVENT, PageJob, wire_job
from app.components.failures import Updates
from app.components.recording_field import build_recording
from app.service.deployment import Deployment
from app.service.measurement import MeasurementService
from app.service.measurement_job import (
    MeasurementOptions,
    MeasurementProgress,
    MeasurementResult,
    MeasurementUpdate,
)
from app.service.updates import QueuePlace
from app.wording import comparison as words
from app.wording import phrases
from app.wording.progress import waiting_html

BLOCKS, MOST_BLOCKS, TOKENS = 6, 40, 200
NOTE = (
    "Each block runs the recording twice with the profiler off; those are the times. Then it runs "
    "with the profiler on, which makes the trace."
)
MODULES = "Name modules in the trace"
MODULES_NOTE = (
    "Eager only: compiled code has no calls of modules. The traced run gets slower and the trace "
    "larger; the timed runs stay as they are."
)
RECORDED = "Recorded; it is the run shown below."


@dataclass(frozen=True)
class RecordPanel:
    """The components the tab around it needs. done: the ends of a recording."""

    done: list[Dependency]
    arm: ArmPanel
    keys: gr.State


def build_record(
    measuring: MeasurementService, deployment: Deployment, clip: ClipActions
) -> RecordPanel | None:
    """Lay the panel out; None where nothing can be timed, which the page then says.

    Returns:
        The components; a press on ``clip.profile`` starts them too.
    """
    if measuring.refusal is not None:
        gr.HTML(phrases.status_html(measuring.refusal), elem_id="record-status")
        return None
    gr.HTML("<h2>Record this clip</h2>")
    with gr.Row(elem_classes="two-columns", elem_id="record"):
        with gr.Column():
            field = build_recording("record-", "Or an example")
            field.fill_from_examples()
        with gr.Column():
            arm = build_arm(measuring.service, deployment, "record")
            with gr.Row():
                go = gr.Button("Record", variant="primary", min_width=120, elem_id="record-go")
                stop = gr.Button("Stop", interactive=False, min_width=80, elem_id="record-stop")
            status = gr.HTML(elem_id="record-status")
            with gr.Accordion("How thoroughly", open=False, elem_id="record-how"):
                gr.HTML(phrases.aside_html(NOTE))
                blocks = gr.Slider(
                    1, MOST_BLOCKS, BLOCKS, step=1, label="Blocks", elem_id="record-blocks"
                )
                modules = gr.Checkbox(label=MODULES, info=MODULES_NOTE, elem_id="record-modules")
    keys = gr.State([])

    def shown(report: MeasurementUpdate) -> Updates:
        if isinstance(report, MeasurementProgress):
            return {status: words.measuring_html(report)}
        if isinstance(report, MeasurementResult):
            return {status: phrases.status_html(RECORDED), keys: list(report.keys)}
        if isinstance(report, QueuePlace):
            return {status: waiting_html(report)}
        return {status: phrases.status_html(words.NOT_BEGUN)}

    def run(
        session: str, sound: str | None, blocks: int, modules: bool, *values: Any
    ) -> Iterator[Updates]:
        options = MeasurementOptions(int(blocks), modules=bool(modules))
        return map(shown, measuring.profile(session, sound, arm.read(values, TOKENS), options))

    job = PageJob(
        begin=measuring.begin,
        run=run,
        stop=measuring.stop,
        stopping=words.STOPPING,
        waiting=lambda: {status: phrases.status_html(words.WAITING)},
        failed=lambda message: {status: phrases.status_html(message, "error")},
        inputs=[field.audio, blocks, modules, *arm.inputs],
        outputs=[status, keys],
        status=status,
        stop_button=stop,
        event=MEASURE_EVENT,
    )
    moved = clip.take(clip.profile, "profile", field.audio, {arm: {}})
    return RecordPanel(wire_job(job, go.click, moved.then), arm, keys)
