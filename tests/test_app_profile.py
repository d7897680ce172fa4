"""Runs and traces as the Profile tab opens them: what is shown, what is read, what is saved.

Run alone: ``python -m pytest tests/test_app_profile.py``. Needs no model.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import gradio as gr
import pytest

from app.components.profile_sections import FIGURES, build_sections
from app.service.profiles.library import SHIPPED, ProfileLibrary, SelectedProfile
from app.service.profiles.reader import FILES, ProfileReader
from app.service.profiles.view import NO_TRACE, NOT_IN_TRACE, SECTIONS, ProfileView, view_of
from app.service.quiet_time import QuietTime
from profiling.runs.store import RunStore
from profiling.trace.trace_file import TraceError
from recorded import RUN, TRACE, dropped, store_with

HOSTILE = "</script><img src=x onerror=alert(1)>"
MAX = 10_000_000


@pytest.fixture
def kept(tmp_path: Path) -> RunStore:
    return store_with(tmp_path / "kept")


@pytest.fixture
def library(tmp_path: Path) -> ProfileLibrary:
    return ProfileLibrary(None, shipped=tmp_path / "none")


@pytest.fixture
def viewer(library: ProfileLibrary) -> ProfileReader:
    return ProfileReader(library, QuietTime(), MAX)


def text_of(view: ProfileView, name: str) -> str:
    return "".join(one.lead + one.beside for one in view.sections[name])


class TestView:
    def test_a_run_with_a_trace_fills_every_section(self, kept: RunStore) -> None:
        chosen = ProfileLibrary(kept.root).chosen("me", "kept:20261122-eager")
        view = view_of(chosen, max_json_bytes=MAX)
        assert tuple(view.sections) == SECTIONS
        assert "three one eight" in view.head
        assert "Recorded on another machine" not in view.head
        figures = {
            name: sum(one.figure is not None for one in exhibits)
            for name, exhibits in view.sections.items()
        }
        assert figures["Phases"] == 2
        assert (figures["Timeline"], figures["Operators"], figures["Memory"]) == (1, 3, 2)
        assert all(number <= FIGURES.get(name, 0) for name, number in figures.items())
        assert "a fast one" in text_of(view, "Machine")

    def test_what_came_with_the_app_says_that_it_is_from_elsewhere(self, kept: RunStore) -> None:
        chosen = ProfileLibrary(None, shipped=kept.root).chosen("me", "shipped:20261122-eager")
        head = view_of(chosen, max_json_bytes=MAX).head
        assert "Recorded on another machine, a fast one" in head

    def test_a_trace_alone_says_what_it_does_not_hold(self) -> None:
        view = view_of(SelectedProfile("trace:x", "x.json", None, TRACE, True), max_json_bytes=MAX)
        assert "a trace without a run" in view.head
        assert NOT_IN_TRACE[:20] in text_of(view, "Roofline")
        assert view.sections["Timeline"][0].figure is not None

    def test_a_run_without_a_trace_says_so(self) -> None:
        view = view_of(SelectedProfile("own:x", "x", RUN, None, False), max_json_bytes=MAX)
        assert NO_TRACE[:20] in text_of(view, "Timeline")

    def test_a_run_of_no_length_is_shown(self) -> None:
        empty = {**RUN, "phases": [], "end_to_end_ms": 0.0, "other_ms": 0.0, "tokens": []}
        view = view_of(SelectedProfile("own:x", "x", empty, None, False), max_json_bytes=MAX)
        assert "clip.wav" in view.head

    def test_nothing_from_outside_becomes_html(self) -> None:
        work = {**RUN["workload"], "label": HOSTILE, "model": HOSTILE}
        bad = {**RUN, "id": HOSTILE, "workload": work, "machine": {"cpu": HOSTILE}}
        bad |= {"transcript_text": HOSTILE, "warnings": [HOSTILE], "created": HOSTILE}
        view = view_of(SelectedProfile("own:x", HOSTILE, bad, None, True), max_json_bytes=MAX)
        shown = view.head + "".join(text_of(view, name) for name in SECTIONS)
        assert "<img" not in shown
        assert "</script" not in shown
        alone = view_of(SelectedProfile("trace:x", HOSTILE, None, TRACE, True), max_json_bytes=MAX)
        assert "<img" not in alone.head


class TestViewer:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not JSON|ends in the middle"),
            (TRACE.read_bytes()[:2000], "ends in the middle"),
            (gzip.compress(TRACE.read_bytes())[:500], "damaged or truncated"),
            (b'{"traceEvents": []}', "none with a time"),
            (b'{"name": "a run of something else"}', "no Chrome trace"),
            (b"\x89PNG", "is not JSON|ends in the middle"),
            (b'{"traceEvents": [' + b" " * MAX + b"]}", "holds more than 10 MB"),
        ],
    )
    def test_what_is_no_trace_gets_a_sentence_and_leaves_nothing(
        self, viewer: ProfileReader, tmp_path: Path, content: bytes, message: str
    ) -> None:
        key = viewer.library.add("me", dropped(tmp_path, "t.json", content))
        with pytest.raises(TraceError, match=message) as caught:
            viewer.view("me", key)
        assert str(tmp_path) not in str(caught.value)
        assert viewer.library.choices("me") == []

    def test_the_common_runs_are_read_once(self, kept: RunStore) -> None:
        viewer = ProfileReader(ProfileLibrary(kept.root), QuietTime(), MAX)
        first = viewer.view("me", "kept:20261122-eager")
        assert viewer.view("somebody else", "kept:20261122-eager") is first

    def test_files_can_be_saved(self, kept: RunStore) -> None:
        viewer = ProfileReader(ProfileLibrary(kept.root), QuietTime(), MAX)
        saved = {kind: viewer.file("me", "kept:20261122-eager", kind) for kind in FILES}
        assert {kind: name for kind, (name, _) in saved.items()} == {
            "trace": "20261122-eager.trace.json.gz",
            "tables": "20261122-eager-tables.zip",
            "report": "20261122-eager.html",
            "run": "20261122-eager.zip",
        }
        assert json.loads(gzip.decompress(saved["trace"][1]))["traceEvents"]
        with zipfile.ZipFile(io.BytesIO(saved["tables"][1])) as archive:
            assert {"phases.csv", "operators.csv", "memory.csv"} <= set(archive.namelist())
            assert archive.read("phases.csv").startswith(b"phase,")
        assert saved["report"][1].lstrip().lower().startswith(b"<!doctype html")

    def test_what_a_trace_alone_cannot_give_is_said(
        self, viewer: ProfileReader, tmp_path: Path
    ) -> None:
        key = viewer.library.add("me", dropped(tmp_path, "t.json", TRACE.read_bytes()))
        name, content = viewer.file("me", key, "trace")
        assert (name, content) == ("t.json", TRACE.read_bytes())
        for kind in ("report", "run"):
            with pytest.raises(ValueError, match="trace without"):
                viewer.file("me", key, kind)


def test_the_page_has_a_slot_for_everything_and_hides_the_rest(kept: RunStore) -> None:
    view = view_of(
        ProfileLibrary(kept.root).chosen("me", "kept:20261122-eager"), max_json_bytes=MAX
    )
    with gr.Blocks():
        sections = build_sections()
    changes = sections.filled(view)
    assert set(changes) == set(sections.outputs)
    for name, row in sections.slots.items():
        exhibits = view.sections[name]
        assert len(exhibits) <= len(row)
        for number, slot in enumerate(row):
            parts = exhibits[number] if number < len(exhibits) else ("", None, "")
            there = [part not in ("", None) for part in parts]
            assert [changes[place]["visible"] for place in slot] == there


def test_a_table_stands_beside_the_figure_it_belongs_to(kept: RunStore) -> None:
    chosen = ProfileLibrary(kept.root).chosen("me", "kept:20261122-eager")
    first = view_of(chosen, max_json_bytes=MAX).sections["Phases"][0]
    assert "Time per phase" in first.lead
    assert "<table>" in first.beside
    assert "Time per token" not in first.beside


def test_the_run_that_comes_with_the_app_is_small_whole_and_private() -> None:
    store = RunStore(SHIPPED)
    names = store.names()
    assert names
    assert sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file()) < 1_500_000
    for name in names:
        run = store.read(name)
        assert run["workload"]["clip"]["path"] == run["workload"]["clip"]["name"]
        assert run["workload"]["model"] == "tiny"
        trace = store.trace_path(name)
        assert trace is not None
        metadata = json.loads(gzip.decompress(trace.read_bytes()))
        assert (metadata.get("host_name"), metadata.get("traceName")) == ("", "")
        chosen = ProfileLibrary(None).chosen("me", f"shipped:{name}")
        assert NO_TRACE not in str(view_of(chosen, max_json_bytes=400_000_000).sections["Timeline"])
