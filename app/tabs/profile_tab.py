"""The Profile tab: a recorded run or a trace from anywhere, laid open; and a new one recorded.

In: the measurement service, the runs a visitor may look at. Out: components, wired. Works without
a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.components.downloads import FETCH_FILE, build_fetched, write_file
from app.components.events import PAGE_EVENT, session_of
from app.components.failures import Updates, plain_errors
from app.components.profile_sections import Sections, build_sections
from app.components.record_panel import RecordPanel, build_record
from app.service.deployment import Deployment
from app.service.measurement import MeasurementService
from app.service.profiles.reader import ProfileReader
from app.service.user_errors import user_message
from app.wording import phrases
from core.errors import UserError

READ_EVENT: dict[str, Any] = {
    "concurrency_id": "reading",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
INTRO = (
    "Where the milliseconds and megabytes of a run went. Choose a run, or drop in a file: a run "
    "saved here or by python -m profiling (zip), or any trace of torch.profiler (json, json.gz)."
)
NOTHING = "There is no run yet. Record one below, or drop in a trace."
READING = "Reading the trace…"
BUSY = "Something is being timed; the trace is read once that is done, so as not to disturb it."
SAVES = {
    "trace": "Trace, for Perfetto",
    "tables": "Tables (csv)",
    "report": "Report (HTML)",
    "run": "Run (zip)",
}


@dataclass(frozen=True)
class ProfileTab:
    """Its components. shown: the key of what is on the page, empty for nothing yet."""

    runs: gr.Dropdown
    drop: gr.File
    status: gr.HTML
    shown: gr.State
    sections: Sections
    record: RecordPanel | None


def build_profile_tab(
    measuring: MeasurementService, viewer: ProfileReader, deployment: Deployment, page: gr.Tab
) -> ProfileTab:
    """Lay the tab out and wire it.

    Args:
        measuring: records profiles.
        viewer: reads runs and traces.
        deployment: what is allowed here.
        page: the tab around it.

    Returns:
        The components.
    """
    gr.HTML(phrases.aside_html(INTRO))
    with gr.Row(elem_id="profile-choice"):
        runs = gr.Dropdown(
            [], label="Run", filterable=False, elem_id="profile-runs", min_width=240, scale=3
        )
        drop = gr.File(
            label="Or drop in a run or a trace",
            type="filepath",
            height=150,
            elem_id="profile-drop",
            min_width=200,
            scale=2,
        )
    status = gr.HTML(elem_id="profile-status")
    sections = build_sections()
    with gr.Row(elem_id="profile-saves", visible=True):
        saves = {kind: gr.Button(f"Save {t}", size="sm") for kind, t in SAVES.items()}
    fetched = build_fetched()
    with gr.Accordion("Record a profile", open=False, elem_id="record"):
        record = build_record(measuring, deployment)
    tab = ProfileTab(runs, drop, status, gr.State(""), sections, record)
    _wire(measuring, viewer, tab, page)
    for kind, button in saves.items():
        _wire_save(viewer, tab, kind, button, fetched)
    return tab


def _wire(
    measuring: MeasurementService, viewer: ProfileReader, tab: ProfileTab, page: gr.Tab
) -> None:
    library = viewer.library
    outputs = [tab.runs, tab.status, tab.shown, *tab.sections.outputs]

    def listed(session: str, key: str) -> Updates:
        found = library.choices(session)
        return {tab.runs: gr.update(choices=[(c.title, c.key) for c in found], value=key or None)}

    def show(session: str, key: str) -> Iterator[Updates]:
        """Lay a run open; what cannot be read is said in place and the page stays as it was."""
        yield {tab.status: phrases.status_html(BUSY if viewer.busy else READING)}
        try:
            view = viewer.view(session, key)
        except Exception as error:
            yield {tab.status: phrases.status_html(user_message(error), "error")}
            return
        filled = tab.sections.filled(view)
        yield listed(session, key) | filled | {tab.status: "", tab.shown: key}

    def open_tab(request: gr.Request, shown: str) -> Iterator[Updates]:
        session = session_of(request)
        found = library.choices(session)
        if shown:
            yield listed(session, shown)
        elif not found:
            yield {tab.status: phrases.status_html(NOTHING)}
        else:
            yield from show(session, found[0].key)

    def choose(request: gr.Request, key: str | None) -> Iterator[Updates]:
        if key:
            yield from show(session_of(request), key)

    def add(request: gr.Request, file: str | None) -> Iterator[Updates]:
        if not file:
            return
        session = session_of(request)
        try:
            key = library.add(session, Path(file))
        except Exception as error:
            yield {tab.status: phrases.status_html(user_message(error), "error")}
            return
        yield from show(session, key)

    def recorded(request: gr.Request, keys: list[str], shown: str) -> Iterator[Updates]:
        if keys and keys[-1] != shown:
            yield from show(session_of(request), keys[-1])

    usual = {"show_progress": "hidden", **READ_EVENT}
    page.select(open_tab, [tab.shown], outputs, **usual)
    tab.runs.input(choose, [tab.runs], outputs, **usual)
    tab.drop.upload(add, [tab.drop], outputs, **usual)
    if tab.record is not None:
        tab.record.done.then(recorded, [tab.record.keys, tab.shown], outputs, **usual)


def _wire_save(
    viewer: ProfileReader, tab: ProfileTab, kind: str, button: gr.Button, fetched: gr.File
) -> None:
    def save(request: gr.Request, key: str) -> str:
        with plain_errors():
            if not key:
                raise UserError(NOTHING)
            session = session_of(request)
            return write_file(viewer.library.scratch(session), *viewer.file(session, key, kind))

    made = button.click(save, [tab.shown], [fetched], show_progress="hidden", **READ_EVENT)
    made.then(None, [fetched], None, js=FETCH_FILE, **PAGE_EVENT)
