"""Runs and traces as the Profile tab opens them: what is shown, what is read, what is saved.

Run alone: ``python -m pytest tests/test_app_profile.py``. Needs no model.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import gradio as gr
import pytest

from app.components.profile_sections import FIGURES, build_sections
from app.service.profiles.library import SHIPPED, ProfileLibrary, SelectedProfile
from app.service.profiles.reader import FILES, ProfileReader
from app.service.profiles.view import NO_TRACE, NOT_IN_TRACE, SECTIONS, ProfileView, view_of
from app.service.quiet_time import QuietTime
from app.wording.perfetto import perfetto_html
from profiling.measure.compiled_code import CODE_FILE, GeneratedCode, pack_code
from profiling.measure.memory_history import packed_snapshot
from profiling.runs.store import RunStore
from profiling.trace.memory_snapshot import SNAPSHOT_FILE
from profiling.trace.trace_file import TraceError
from recorded import RUN, TRACE, dropped, store_with
from snapshots import snapshot

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
        kinds = [kind for kind in FILES if kind != "code"]
        saved = {kind: viewer.file("me", "kept:20261122-eager", kind) for kind in kinds}
        assert {kind: name for kind, (name, _) in saved.items()} == {
            "trace": "20261122-eager.trace.json.gz",
            "speedscope": "20261122-eager.speedscope.json",
            "tables": "20261122-eager-tables.zip",
            "report": "20261122-eager.html",
            "run": "20261122-eager.zip",
        }
        assert json.loads(gzip.decompress(saved["trace"][1]))["traceEvents"]
        with zipfile.ZipFile(io.BytesIO(saved["tables"][1])) as archive:
            assert {"phases.csv", "operators.csv", "memory.csv"} <= set(archive.namelist())
            assert archive.read("phases.csv").startswith(b"phase,")
        assert saved["report"][1].lstrip().lower().startswith(b"<!doctype html")

    def test_generated_code_is_shown_and_saved_where_it_was_kept(self, tmp_path: Path) -> None:
        store = RunStore(tmp_path / "kept")
        code = GeneratedCode("decode", "module", "python", "def call(args): pass")
        ledger = {"graphs": 1, "seconds": 1.0, "guards": 3, "entries": [], "breaks": {}}
        store.write({**RUN, "compile": ledger}, files={CODE_FILE: pack_code([code])})
        viewer = ProfileReader(ProfileLibrary(store.root), QuietTime(), MAX)
        key = f"kept:{RUN['id']}"
        assert "def call(args)" in text_of(viewer.view("me", key), "Compiling")
        name, content = viewer.file("me", key, "code")
        assert name == f"{RUN['id']}-code.zip"
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.namelist() == ["decode.module.py"]
        kept = store_with(tmp_path / "other")
        with pytest.raises(ValueError, match="no generated code"):
            ProfileReader(ProfileLibrary(kept.root), QuietTime(), MAX).file("me", key, "code")

    def test_a_memory_snapshot_is_laid_open_under_memory(
        self, viewer: ProfileReader, tmp_path: Path
    ) -> None:
        key = viewer.library.add("me", dropped(tmp_path, "gpu.pickle", pickle.dumps(snapshot())))
        view = viewer.view("me", key)
        assert "a memory snapshot" in view.head
        assert [one.figure is not None for one in view.sections["Memory"]] == [True, True]
        assert "decoder.py:90 forward" in text_of(view, "Memory")
        assert "does not hold this" in text_of(view, "Operators")
        assert view.flames == ()
        with pytest.raises(ValueError, match="does not hold this"):
            viewer.file("me", key, "trace")
        bad = viewer.library.add("me", dropped(tmp_path, "bad.pickle", b"\x80\x04cos\nsystem\n."))
        with pytest.raises(TraceError, match="is no memory snapshot"):
            viewer.view("me", bad)
        assert [one.key for one in viewer.library.choices("me")] == [key]

    def test_a_run_of_a_gpu_shows_its_snapshot_beside_its_curve(self, tmp_path: Path) -> None:
        store = RunStore(tmp_path / "kept")
        packed = packed_snapshot(snapshot())
        store.write(RUN, trace=gzip.compress(TRACE.read_bytes()), files={SNAPSHOT_FILE: packed})
        viewer = ProfileReader(ProfileLibrary(store.root), QuietTime(), MAX)
        shown = viewer.view("me", f"kept:{RUN['id']}").sections["Memory"]
        assert sum(one.figure is not None for one in shown) == FIGURES["Memory"]
        assert b"Blocks at the peak" in viewer.file("me", f"kept:{RUN['id']}", "report")[1]

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


def test_perfetto_is_off_with_a_reason_where_it_cannot_be_opened() -> None:
    on = perfetto_html("https://ui.perfetto.dev", "own:x", has_trace=True)
    assert " disabled" not in on
    assert "Opens ui.perfetto.dev in a new window" in on
    without = perfetto_html("https://ui.perfetto.dev", "own:x", has_trace=False)
    assert " disabled" in without
    assert "has no trace" in without
    switched_off = perfetto_html(None, "own:x", has_trace=True)
    assert " disabled" in switched_off
    assert "GSL_PERFETTO" in switched_off
    assert "perfetto.dev" not in switched_off
    assert "<img" not in perfetto_html("https://x.org", HOSTILE, has_trace=True)
