"""The Profile tab: one's own clip recorded; then a run or a trace from anywhere, laid open.

In: the measurement service, the runs a visitor may look at. Out: components, wired. Works without
a model. ``?run=KEY`` in the page's address opens a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.components.clip_actions import ClipActions
from app.components.downloads import FETCH_FILE, build_fetched, write_file
from app.components.events import PAGE_EVENT, session_of
from app.components.failures import Updates, plain_errors
from app.components.many_runs_panel import build_many_runs
from app.components.profile_sections import Sections, build_sections
from app.components.record_panel import RecordPanel, build_record
from app.service.deployment import Deployment
from app.service.measurement import MeasurementService
from app.service.profiles.reader import ProfileReader
from app.service.user_errors import user_message
from app.wording import phrases
from app.wording.perfetto import perfetto_html
from app.wording.runs import EMPTY, runs_html
from core.checkpoint.catalog import ASSETS
from core.errors import UserError

READ_EVENT: dict[str, Any] = {
    "concurrency_id": "reading",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
INTRO = (
    "Where the milliseconds and megabytes of a run went. Choose one, or drop in a file: a run "
    "saved here or by python -m profiling (zip), any trace of torch.profiler (json, json.gz), or a "
    "memory snapshot of CUDA (pickle, json)."
)
READING = "Reading the trace…"
BUSY = "Something is being timed; the trace is read once that is done, so as not to disturb it."
SAVES = {
    "trace": "Trace, for Perfetto",
    "speedscope": "Flame graph, for speedscope",
    "tables": "Tables (csv)",
    "code": "Generated code (zip)",
    "report": "Report (HTML)",
    "run": "Run (zip)",
}
SCRIPT = ASSETS / "runs.js"
PERFETTO_SCRIPT = ASSETS / "perfetto.js"
HAND_OVER = """(file, why) => {
  dispatchEvent(new CustomEvent("trace-for-perfetto", { detail: [file, why] }));
}"""
LINKED = "(shown, linked) => [shown, new URLSearchParams(location.search).get('run') || '']"


@dataclass(frozen=True)
class ProfileTab:
    """Its components. shown: the key of what is on the page, empty for nothing yet.

    linked: the key that the page's address names.
    """

    runs: gr.HTML
    drop: gr.File
    status: gr.HTML
    shown: gr.State
    linked: gr.Textbox
    sections: Sections
    perfetto: gr.HTML
    record: RecordPanel | None


def build_profile_tab(
    measuring: MeasurementService,
    viewer: ProfileReader,
    clip: ClipActions,
    deployment: Deployment,
    page: gr.Tab,
) -> ProfileTab:
    """Lay the tab out and wire it.

    Args:
        measuring: records profiles.
        viewer: reads runs and traces.
        clip: the one on the Transcribe tab, which can be profiled from there.
        deployment: what is allowed here.
        page: the tab around it.

    Returns:
        The components.
    """
    record = build_record(measuring, deployment, clip)
    gr.HTML(f"<h2>Recorded runs</h2>{phrases.aside_html(INTRO)}")
    with gr.Row(elem_id="profile-choice"):
        runs = gr.HTML(
            js_on_load=SCRIPT.read_text(encoding="utf-8"), elem_id="profile-runs", min_width=240
        )
        drop = gr.File(
            label="Or drop in a run, a trace or a memory snapshot",
            type="filepath",
            height=150,
            elem_id="profile-drop",
            min_width=200,
        )
    status = gr.HTML(elem_id="profile-status")
    sections = build_sections()
    with gr.Row(elem_id="profile-saves", visible=True):
        saves = {kind: gr.Button(f"Save {t}", size="sm") for kind, t in SAVES.items()}
    perfetto = gr.HTML(
        perfetto_html(deployment.perfetto, "", has_trace=False),
        js_on_load=PERFETTO_SCRIPT.read_text(encoding="utf-8"),
        elem_id="profile-perfetto",
    )
    fetched, linked = build_fetched(), gr.Textbox(label="Run", elem_classes="never-shown")
    build_many_runs(viewer)
    tab = ProfileTab(runs, drop, status, gr.State(""), linked, sections, perfetto, record)
    _wire(viewer, tab, page, deployment.perfetto)
    _wire_perfetto(viewer, tab)
    for kind, button in saves.items():
        _wire_save(viewer, tab, kind, button, fetched)
    return tab


def _wire(viewer: ProfileReader, tab: ProfileTab, page: gr.Tab, perfetto: str | None) -> None:
    library = viewer.library
    outputs = [tab.runs, tab.status, tab.shown, tab.perfetto, *tab.sections.outputs]

    def listed(session: str, key: str) -> Updates:
        return {tab.runs: runs_html(library.choices(session), key)}

    def show(session: str, key: str, before: str = "") -> Iterator[Updates]:
        """Lay a run open; what cannot be read is said in place and the page stays as it was."""
        said = phrases.status_html(BUSY if viewer.busy else READING)
        yield listed(session, before) | {tab.status: said}
        try:
            view = viewer.view(session, key)
        except Exception as error:
            said = phrases.status_html(user_message(error), "error")
            yield listed(session, before) | {tab.status: said}
            return
        filled = tab.sections.filled(view)
        filled[tab.perfetto] = perfetto_html(perfetto, key, has_trace=bool(view.flames))
        yield listed(session, key) | filled | {tab.status: "", tab.shown: key}

    def open_tab(request: gr.Request, shown: str, linked: str) -> Iterator[Updates]:
        session = session_of(request)
        found = library.choices(session)
        if shown:
            yield listed(session, shown)
        elif linked or found:
            yield from show(session, linked or found[0].key)
        else:
            yield listed(session, "")

    def choose(request: gr.Request, shown: str, event: gr.EventData) -> Iterator[Updates]:
        yield from show(session_of(request), str(event.key), shown)

    def add(request: gr.Request, file: str | None, shown: str) -> Iterator[Updates]:
        if not file:
            return
        session = session_of(request)
        try:
            key = library.add(session, Path(file))
        except Exception as error:
            yield {tab.status: phrases.status_html(user_message(error), "error")}
            return
        yield from show(session, key, shown)

    def changed(
        change: Callable[[str, gr.EventData], None],
    ) -> Callable[[gr.Request, str, gr.EventData], Updates]:
        def handler(request: gr.Request, shown: str, event: gr.EventData) -> Updates:
            session = session_of(request)
            try:
                change(session, event)
            except Exception as error:
                return {tab.status: phrases.status_html(user_message(error), "error")}
            viewer.forget(str(event.key))
            return listed(session, shown) | {tab.status: ""}

        return handler

    rename = changed(lambda session, e: library.rename(session, str(e.key), str(e.name)))
    delete = changed(lambda session, e: library.delete(session, str(e.key)))

    def recorded(request: gr.Request, keys: list[str], shown: str) -> Iterator[Updates]:
        if keys and keys[-1] != shown:
            yield from show(session_of(request), keys[-1], shown)

    usual = {"show_progress": "hidden", **READ_EVENT}
    page.select(open_tab, [tab.shown, tab.linked], outputs, js=LINKED, **usual)
    tab.runs.select(choose, [tab.shown], outputs, **usual)
    tab.runs.edit(rename, [tab.shown], [tab.runs, tab.status], **usual)
    tab.runs.delete(delete, [tab.shown], [tab.runs, tab.status], **usual)
    tab.drop.upload(add, [tab.drop, tab.shown], outputs, **usual)
    tab.sections.wire_find(**usual)
    if tab.record is not None:
        for done in tab.record.done:
            done.then(recorded, [tab.record.keys, tab.shown], outputs, **usual)


def _wire_save(
    viewer: ProfileReader, tab: ProfileTab, kind: str, button: gr.Button, fetched: gr.File
) -> None:
    def save(request: gr.Request, key: str) -> str:
        with plain_errors():
            if not key:
                raise UserError(EMPTY)
            session = session_of(request)
            return write_file(viewer.library.scratch(session), *viewer.file(session, key, kind))

    made = button.click(save, [tab.shown], [fetched], show_progress="hidden", **READ_EVENT)
    made.then(None, [fetched], None, js=FETCH_FILE, **PAGE_EVENT)


def _wire_perfetto(viewer: ProfileReader, tab: ProfileTab) -> None:
    handed = build_fetched()
    why = gr.Textbox(label="Why not", elem_classes="never-shown")

    def hand_over(request: gr.Request, key: str) -> tuple[str | None, str]:
        session = session_of(request)
        try:
            file = viewer.file(session, key, "trace")
            return write_file(viewer.library.scratch(session), *file), ""
        except Exception as error:
            return None, user_message(error)

    usual = {"show_progress": "hidden", **READ_EVENT}
    made = tab.perfetto.select(hand_over, [tab.shown], [handed, why], **usual)
    made.then(None, [handed, why], None, js=HAND_OVER, **PAGE_EVENT)
