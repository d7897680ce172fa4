"""The Compare tab: one recording, two ways of transcribing it, side by side.

In: the measurement service. Out: components, wired. Handlers pass values on to
:class:`app.service.measurement.MeasurementService` and words to the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app.components.arm_panel import ArmPanel, build_arm
from app.components.clip_actions import ClipActions
from app.components.compare_result import CompareResult, build_compare_result
from app.components.events import MEASURE_EVENT, PAGE_EVENT, PageJob, wire_job
from app.components.failures import Updates
from app.components.recording_field import build_recording
from app.components.sweep_panel import build_sweep
from app.service.deployment import Deployment
from app.service.measurement import MeasurementService
from app.service.measurement_job import MeasurementOptions
from app.service.service import TranscriptionService
from app.wording import comparison as words
from app.wording import phrases
from profiling.statistics.intervals import FEWEST_BLOCKS

OWN_CHOICE, FAMILIES = "own", "families"
BUNDLED = ("tiny", "tiny-ctc")  # A and B of the preset that needs both
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "compile": ("Compiled against eager", {"engine": "compile"}),
    "drafts": ("Exact drafts against greedy", {"decoding": "speculative"}),
    "lora": ("LoRA off against on", {"lora": False}),
    "int8": ("int8 weights against full", {"quantize": "int8"}),
    FAMILIES: ("The CTC model against the first", {}),
    OWN_CHOICE: ("My own choice", {}),
}
_ARMS = {
    key: [ArmPanel.usual(), ArmPanel.usual(**values)]
    for key, (_, values) in PRESETS.items()
    if key != OWN_CHOICE
}
# Both arms get A's model, but for the preset of two families.
SET_ARMS = f"""(preset, ...now) => {{
  const arms = ({json.dumps(_ARMS)})[preset];
  const models = preset === {json.dumps(FAMILIES)} ? {json.dumps(BUNDLED)} : [now[0], now[0]];
  return arms ? [models[0], ...arms[0], models[1], ...arms[1]] : now;
}}"""
BLOCKS, MOST_BLOCKS, TOKENS = 10, 40, 200
SHOW_RESULT = """() => {
  document.querySelector("#compare-status")?.scrollIntoView({ block: "nearest" });
  return [];
}"""


@dataclass(frozen=True)
class CompareTab:
    """Its components. preset sets the arms; blocks, tokens and fixed say how thoroughly.

    said: what is really said in the recording, where the Transcribe tab knew it.
    """

    recording: gr.Audio
    said: gr.State
    preset: gr.Radio
    a: ArmPanel
    b: ArmPanel
    blocks: gr.Slider
    tokens: gr.Slider
    fixed: gr.Checkbox
    go: gr.Button
    stop: gr.Button
    result: CompareResult

    @property
    def inputs(self) -> list[Any]:
        """List what the handler of the button needs."""
        thorough = [self.blocks, self.tokens, self.fixed]
        return [self.recording, self.said, *thorough, *self.a.inputs, *self.b.inputs]


def build_compare_tab(
    measuring: MeasurementService, deployment: Deployment, clip: ClipActions
) -> CompareTab | None:
    """Lay the tab out; None where nothing can be timed, which the page then says.

    Returns:
        The components; a press on ``clip.compare`` starts them too.
    """
    if measuring.refusal is not None:
        gr.HTML(phrases.status_html(measuring.refusal), elem_id="compare-status")
        return None
    with gr.Row(elem_id="compare", elem_classes="two-columns"):
        with gr.Column():
            field = build_recording("compare-", "Or an example")
            field.fill_from_examples()
            parts = _build_choice(measuring, deployment)
            with gr.Row():
                go = gr.Button("Compare", variant="primary", min_width=120, elem_id="compare-go")
                stop = gr.Button("Stop", interactive=False, min_width=120, elem_id="compare-stop")
        beside = gr.Column()
    result = build_compare_result(measuring, beside, gr.Column())
    tab = CompareTab(field.audio, gr.State(""), *parts, go, stop, result)
    for changed in (field.audio.upload, field.audio.stop_recording, field.audio.clear):
        changed(lambda: "", None, [tab.said], **PAGE_EVENT)
    field.chips.click(lambda: "", None, [tab.said], **PAGE_EVENT)  # an example's text is known
    build_sweep(measuring, deployment.device, tab.recording, tab.a.model)
    moved = clip.take(
        clip.compare,
        "compare",
        tab.recording,
        {tab.a: {"engine": "eager"}, tab.b: {"engine": "compile"}},
        {tab.preset: "compile"},
        tab.said,
    )
    _wire(measuring, tab, moved)
    return tab


def _build_choice(
    measuring: MeasurementService, deployment: Deployment
) -> tuple[gr.Radio, ArmPanel, ArmPanel, gr.Slider, gr.Slider, gr.Checkbox]:
    service = measuring.service
    choices = preset_choices(service, service.model)
    first = choices[0][1]
    preset = gr.Radio(
        choices,
        value=first,
        label="What to compare",
        elem_id="compare-preset",
    )
    with gr.Accordion("A and B in detail", open=False, elem_id="compare-arms"), gr.Row():
        with gr.Column(min_width=150):
            gr.HTML("<h3>A, the baseline</h3>")
            a = build_arm(service, deployment, "a")
        with gr.Column(min_width=150):
            gr.HTML("<h3>B</h3>")
            b = build_arm(service, deployment, "b", **PRESETS[first][1])
    blocks = gr.Slider(
        FEWEST_BLOCKS,
        MOST_BLOCKS,
        BLOCKS,
        step=1,
        label="Blocks",
        info="Two runs of A, of B, and of A again in each. Of slow runs as many as fit into "
        "20 s, but six.",
        elem_id="compare-blocks",
    )
    with gr.Accordion("Length of the text", open=False, elem_id="compare-length"):
        tokens = gr.Slider(
            10, 400, TOKENS, step=10, label="Maximum new tokens", elem_id="compare-tokens"
        )
        fixed = gr.Checkbox(
            False,
            label="Always generate that many tokens",
            info="Ignores the end-of-text token, so that both do equal work. The text runs past "
            "its end: only the times are meaningful.",
            elem_id="compare-fixed",
        )
    return preset, a, b, blocks, tokens, fixed


def preset_choices(service: TranscriptionService, model: str | None) -> list[tuple[str, str]]:
    """List (title, preset) of what can be compared with this model as A."""
    summary = service.summary(model or service.model)
    known = {one.name for one in service.summaries()}
    can = {
        "compile": service.limits.no_compile is None,
        "drafts": "speculative" in summary.decodings,
        "lora": summary.has_switch,
        "int8": summary.quantises,
        FAMILIES: known.issuperset(BUNDLED),
    }
    return [(title, key) for key, (title, _) in PRESETS.items() if can.get(key, True)]


def _wire(measuring: MeasurementService, tab: CompareTab, moved: Dependency) -> None:
    result, arm = tab.result, len(tab.a.inputs)

    def run(session: str, recording: str | None, said: str, *values: Any) -> Iterator[Updates]:
        blocks, tokens, fixed, *rest = values
        a, b = (tab.a.read(tuple(own), tokens) for own in (rest[:arm], rest[arm:]))
        options = MeasurementOptions(int(blocks), fixed, reference=said.strip())
        return map(result.shown, measuring.compare(session, recording, a, b, options))

    arms = [*tab.a.inputs, *tab.b.inputs]
    # In the browser: the button may be pressed before a server would have answered.
    tab.preset.input(None, [tab.preset, *arms], arms, js=SET_ARMS, **PAGE_EVENT)
    changed = [field.input for field in (*tab.a.inputs, *tab.b.inputs)]
    gr.on(changed, None, None, [tab.preset], js=f"() => {json.dumps(OWN_CHOICE)}", **PAGE_EVENT)

    def offer(name: str | None) -> Updates:
        return {tab.preset: gr.update(choices=preset_choices(measuring.service, name))}

    tab.a.model.change(offer, [tab.a.model], [tab.preset], **PAGE_EVENT)
    job = PageJob(
        begin=measuring.begin,
        run=run,
        stop=measuring.stop,
        stopping=words.STOPPING,
        waiting=result.waiting,
        failed=result.failed,
        inputs=tab.inputs,
        outputs=result.outputs,
        status=result.status,
        stop_button=tab.stop,
        event=MEASURE_EVENT,
    )
    wire_job(job, tab.go.click, moved.then, js=SHOW_RESULT)
