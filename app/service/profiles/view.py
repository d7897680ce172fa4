"""A run, or a trace without one -> everything the Profile tab shows of it. No Gradio, no torch.

In: a run as its JSON states it, its trace, or one of them. Out: :class:`ProfileView`: a few lines
of HTML, and sections of figures with HTML. :mod:`profiling.report.sections` fills them, so
the page and the report say the same.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from app.service.profiles.library import SelectedProfile
from core.errors import UserError
from profiling.measure.compiled_code import GeneratedCode, code_archive, read_code
from profiling.report import sections
from profiling.report.compile_section import compiling
from profiling.report.page import Page
from profiling.report.report import run_report
from profiling.report.sections import FlameGraph
from profiling.report.snapshot_section import memory_snapshot
from profiling.trace.events import Trace, read_trace
from profiling.trace.memory_events import memory_peaks
from profiling.trace.memory_snapshot import read_snapshot
from profiling.trace.speedscope import speedscope
from profiling.trace.trace_tables import trace_tables

SECTIONS = ("Phases", "Timeline", "Operators", "Memory", "Roofline", "Compiling", "Machine")
ELSEWHERE = "Recorded on another machine, {cpu}: an example of a run, not of this machine's speed. "
ELSEWHERE += "Record one of your own above."
TRACE_ALONE = (
    "This is a trace without a run: it shows where time went; its times include the profiler."
)
SNAPSHOT_ALONE = (
    "This is a memory snapshot: the blocks of a GPU's memory, and who allocated them. See Memory."
)
NOT_IN_SNAPSHOT = "A memory snapshot does not hold this."
NO_CODE = "This run has no generated code: nothing was compiled, or it was not kept."
NOT_IN_TRACE = "A trace alone does not hold this; a run recorded under “Record this clip” does."
NO_TRACE = "This run has no trace: it was stopped early, or recorded with --no-trace."
NO_ROOFLINE = (
    "This run has no roofline: it is a batch, its recording is cut into several passes, or "
)
NO_ROOFLINE += "its weights are int8, whose work is not counted."


class Exhibit(NamedTuple):
    """HTML, the figure below it if there is one, and the HTML beside that figure."""

    lead: str
    figure: go.Figure | None
    beside: str


@dataclass
class CollectedPage(Page):
    """A page that keeps its figures instead of drawing them, each with what belongs beside it."""

    exhibits: list[Exhibit] = field(default_factory=list)
    _open: tuple[str, go.Figure] | None = None

    def heading(self, title: str, lead: str = "", *, level: int = 2) -> None:
        """Begin a section: what stands beside the figure before it is done."""
        self._close()
        super().heading(title, lead, level=level)

    def figure(self, figure: go.Figure, describe: str) -> None:
        """Keep ``figure``; what stands before it is its lead."""
        self._close()
        self._open = ("".join(self.parts), figure)
        self.parts.clear()

    def done(self) -> list[Exhibit]:
        """Return everything; only the last exhibit may lack a figure."""
        self._close()
        rest = [Exhibit("".join(self.parts), None, "")] if self.parts else []
        return [*self.exhibits, *rest]

    def _close(self) -> None:
        if self._open is not None:
            self.exhibits.append(Exhibit(*self._open, "".join(self.parts)))
            self.parts.clear()
        self._open = None


@dataclass(frozen=True)
class ProfileView:
    """Contents of the tab. head: title, date, warnings, numbers, text. sections: by name.

    flames: the trees that the first figures of Operators draw; empty without a trace.
    """

    key: str
    head: str
    sections: dict[str, list[Exhibit]]
    flames: tuple[FlameGraph, ...] = ()


def view_of(chosen: SelectedProfile, *, max_json_bytes: int) -> ProfileView:
    """Read what is behind an entry and lay it out.

    Returns:
        What is shown of it.

    Raises:
        TraceError: the trace cannot be read.
    """
    trace = None
    if chosen.trace is not None:
        trace = read_trace(chosen.trace, max_json_bytes=max_json_bytes)
    build = _of_trace if chosen.run is None else _of_run
    found = {name: CollectedPage(name, {}) for name in SECTIONS}
    flames = build(chosen, trace, found)
    if chosen.snapshot is not None:
        snapshot = read_snapshot(chosen.snapshot, max_bytes=max_json_bytes)
        memory_snapshot(found["Memory"], snapshot)
    shown = {name: page.done() for name, page in found.items()}
    return ProfileView(chosen.key, _head(chosen, trace), shown, tuple(flames))


def _of_run(
    chosen: SelectedProfile, trace: Trace | None, found: Mapping[str, CollectedPage]
) -> list[FlameGraph]:
    run = sections.without_path(chosen.run or {})
    sections.phases(found["Phases"], run)
    sections.token_times(found["Phases"], run)
    sections.drafts(found["Phases"], {"drafts": run})
    sections.memory(found["Memory"], run, trace)
    compiling(found["Compiling"], run, codes_of(chosen))
    sections.circumstances(found["Machine"], {"": run})
    if run.get("roofline"):
        sections.roofline(found["Roofline"], run)
    else:
        found["Roofline"].note(NO_ROOFLINE)
    return _of_events(run, trace, found)


def _of_trace(
    chosen: SelectedProfile, trace: Trace | None, found: Mapping[str, CollectedPage]
) -> list[FlameGraph]:
    if chosen.snapshot is not None:
        for name in SECTIONS:
            if name != "Memory":
                found[name].note(NOT_IN_SNAPSHOT)
        return []
    for name in ("Phases", "Roofline", "Compiling", "Machine"):
        found[name].note(NOT_IN_TRACE)
    if trace is not None:
        peaks = memory_peaks(trace.index)
        rows = [{"phase": p.phase, "peak_bytes": int(p.peak_bytes)} for p in peaks.itertuples()]
        sections.memory(found["Memory"], {"memory": rows}, trace)
    return _of_events({}, trace, found)


def _of_events(
    run: Mapping[str, Any], trace: Trace | None, found: Mapping[str, CollectedPage]
) -> list[FlameGraph]:
    if trace is None:
        for name in ("Timeline", "Operators"):
            found[name].note(NO_TRACE)
        return []
    sections.over_time(found["Timeline"], run, trace)
    sections.idle(found["Timeline"], trace)
    return sections.operators(found["Operators"], trace)


def _head(chosen: SelectedProfile, trace: Trace | None) -> str:
    """Format title, date and machine, warnings, the numbers, the text."""
    page = Page("", {})
    if chosen.run is None:
        page.heading(chosen.title)
        page.note(TRACE_ALONE if chosen.snapshot is None else SNAPSHOT_ALONE)
        sections.warnings(page, trace.notes if trace else ())
        return "".join(page.parts)
    run, machine = chosen.run, chosen.run.get("machine") or {}
    work = run.get("workload") or {}
    page.heading(sections.label_of(run))
    what = f"{work.get('model', 'a model')}, {work.get('dtype', '')} on {work.get('device', '')}"
    page.note(f"{what}; recorded {str(run.get('created', ''))[:10]}. Run {run.get('id', '')}.")
    if chosen.elsewhere:
        page.note(ELSEWHERE.format(cpu=machine.get("gpu") or machine.get("cpu") or "a machine"))
    sections.warnings(page, run.get("warnings") or ())
    page.tiles(sections.metrics(run))
    sections.transcript(page, run)
    return "".join(page.parts)


def trace_file(chosen: SelectedProfile) -> tuple[str, bytes]:
    """Read the trace as it was recorded; Perfetto opens it.

    Returns:
        Name and bytes.

    Raises:
        UserError: there is none.
    """
    if chosen.trace is None:
        raise UserError(NO_TRACE if chosen.run else NOT_IN_SNAPSHOT)
    name = chosen.title if chosen.run is None else f"{chosen.run['id']}.trace.json.gz"
    return name, chosen.trace.read_bytes()


def codes_of(chosen: SelectedProfile) -> list[GeneratedCode]:
    """Read the generated code of a run; none where it was not kept."""
    return [] if chosen.code is None else read_code(chosen.code)


def code_file(chosen: SelectedProfile) -> tuple[str, bytes]:
    """Pack the generated code.

    Returns:
        Name and bytes of a zip.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    codes = codes_of(chosen)
    if not codes:
        raise UserError(NO_CODE)
    return f"{_stem(chosen)}-code.zip", code_archive(codes)


def speedscope_file(chosen: SelectedProfile, *, max_json_bytes: int) -> tuple[str, bytes]:
    """Write the calls of the trace for speedscope.

    Returns:
        Name and bytes.

    Raises:
        UserError: there is no trace, or it cannot be read.
    """
    if chosen.trace is None:
        raise UserError(NO_TRACE)
    trace = read_trace(chosen.trace, max_json_bytes=max_json_bytes)
    content = json.dumps(speedscope(trace.index, chosen.title), separators=(",", ":"))
    return f"{_stem(chosen)}.speedscope.json", content.encode()


def tables_file(chosen: SelectedProfile, *, max_json_bytes: int) -> tuple[str, bytes]:
    """Pack every table of the trace as csv.

    Returns:
        Name and bytes of a zip.

    Raises:
        UserError: there is no trace, or it cannot be read.
    """
    if chosen.trace is None:
        raise UserError(NO_TRACE)
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        trace = read_trace(chosen.trace, max_json_bytes=max_json_bytes)
        for name, table in trace_tables(trace).items():
            archive.writestr(f"{name}.csv", table.to_csv(index=False))
    return f"{_stem(chosen)}-tables.zip", packed.getvalue()


def report_file(chosen: SelectedProfile, *, max_json_bytes: int) -> tuple[str, bytes]:
    """Render the report: one HTML page that needs nothing else.

    Returns:
        Name and bytes.

    Raises:
        UserError: a trace without a run, or one that cannot be read.
    """
    if chosen.run is None:
        raise UserError("a report is about a run; this is a trace without one")
    trace = None
    if chosen.trace is not None:
        trace = read_trace(chosen.trace, max_json_bytes=max_json_bytes)
    snapshot = None
    if chosen.snapshot is not None:
        snapshot = read_snapshot(chosen.snapshot, max_bytes=max_json_bytes)
    page = run_report(chosen.run, trace, codes_of(chosen), snapshot)
    return f"{_stem(chosen)}.html", page.encode()


def _stem(chosen: SelectedProfile) -> str:
    if chosen.run is not None:
        return str(chosen.run["id"])
    return Path(chosen.title).name.split(".")[0] or "trace"
