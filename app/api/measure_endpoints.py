"""Endpoints that measure and read: ``/compare``, ``/profile`` and ``/read_trace``.

In: a recording and settings by name, or a trace. Out: the JSON objects of ``python -m profiling``'s
``run``, ``compare`` and ``read``. Nothing of it stays here. The components below are never on the
page; they give the API its types, its documentation, and Gradio's checks of uploaded files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from app.components.events import MEASURE_EVENT, callers_token
from app.components.failures import plain_errors
from app.service.api_settings import settings_of
from app.service.measurement import MOST, MeasurementService
from app.service.measurement_job import MeasurementOptions
from app.service.settings import whole
from app.wording import phrases
from core.errors import UserError
from profiling.trace import events as traces
from profiling.trace.trace_tables import trace_json

READ_EVENT: dict[str, Any] = {"concurrency_id": "reading", "concurrency_limit": 1}
SETTINGS = (
    f"an object of engine ({', '.join(phrases.ENGINES)}), lora (true, false), "
    f"adapter (one added on the Models page), decoding "
    f"({', '.join(phrases.DECODINGS)}), dtype, quantize, model, max_new_tokens"
)


def build_measure_endpoints(
    measuring: MeasurementService, max_json_bytes: int = traces.MAX_JSON_BYTES
) -> None:
    """Add the API names to the current Blocks."""

    def compare(
        audio: str | None,
        a: dict[str, Any],
        b: dict[str, Any],
        model: str,
        blocks: int,
        fixed: bool,
    ) -> dict[str, Any]:
        """Time two ways of transcribing one recording; ratios below 1 mean that b is faster."""
        with plain_errors(on_page=False), tempfile.TemporaryDirectory() as folder:
            arms = (settings_of(model, a), settings_of(model, b))
            plan = MeasurementOptions(whole("blocks", blocks), fixed)
            found = measuring.once(audio, arms, plan, Path(folder), callers_token())
            first, second = map(_told, found.runs)
            return {"comparison": found.comparison, "a": first, "b": second}

    def profile(
        audio: str | None, settings: dict[str, Any], model: str, blocks: int
    ) -> dict[str, Any]:
        """Time and trace one way of transcribing a recording; returns the run as JSON."""
        with plain_errors(on_page=False), tempfile.TemporaryDirectory() as folder:
            arms = (settings_of(model, settings),)
            plan = MeasurementOptions(whole("blocks", blocks))
            return _told(measuring.once(audio, arms, plan, Path(folder), callers_token()).runs[0])

    # Its name is the tool's of MCP.
    def read_trace(trace: str | None) -> dict[str, Any]:
        """Tabulate a Chrome trace, whoever recorded it; no model is needed."""
        with plain_errors(on_page=False):
            if not trace:
                raise UserError("no trace was sent; send a .json or .json.gz of torch.profiler")
            with measuring.quiet.reading():
                return trace_json(traces.read_trace(trace, max_json_bytes=max_json_bytes))

    with gr.Column(visible=False):
        audio = gr.Audio(type="filepath", label="audio: the recording, any common format")
        model = gr.Textbox(measuring.service.model, label="model: used where settings name none")
        blocks = gr.Slider(1, MOST, 10, step=1, label="blocks: of two runs each")
        a = gr.JSON({"engine": "eager"}, label=f"a: the baseline's settings, {SETTINGS}")
        b = gr.JSON({"engine": "compile"}, label="b: the other's settings")
        one = gr.JSON({}, label=f"settings: {SETTINGS}")
        fixed = gr.Checkbox(False, label="fixed: always write max_new_tokens tokens")
        trace = gr.File(type="filepath", label="trace: .json or .json.gz")
        out = gr.JSON(label="Result")
        gr.Button().click(
            compare, [audio, a, b, model, blocks, fixed], [out], api_name="compare", **MEASURE_EVENT
        )
        gr.Button().click(
            profile, [audio, one, model, blocks], [out], api_name="profile", **MEASURE_EVENT
        )
        gr.Button().click(read_trace, [trace], [out], api_name="read_trace", **READ_EVENT)


def _told(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run without its clip's "path", which clients take for a file to fetch."""
    workload = run["workload"]
    clip = {key: value for key, value in workload["clip"].items() if key != "path"}
    return {**run, "workload": {**workload, "clip": clip}}
