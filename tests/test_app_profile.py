"""Runs and traces as the Profile tab opens them: whose they are, what is shown, what is refused.

Run alone: ``python -m pytest tests/test_app_profile.py``. Needs no model.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
import plotly.graph_objects as go
import pytest

from app.profile_sections import FIGURES, build_sections
from app.run_shelf import MOST_OWN, SHIPPED, Chosen, RunShelf
from app.run_view import NO_TRACE, NOT_IN_TRACE, SECTIONS, RunView, view_of
from app.run_viewer import FILES, RunViewer
from profiling.archive import ArchiveError
from profiling.run_file import RunError
from profiling.store import RunStore
from profiling.trace_file import TraceError

TRACE = Path(__file__).parent / "data" / "tiny_trace.json"
HOSTILE = "</script><img src=x onerror=alert(1)>"
MAX = 10_000_000
RUN: dict[str, Any] = {
    "schema_version": 1,
    "id": "20261122-eager",
    "created": "2026-11-22T10:00:00+00:00",
    "workload": {
        "label": "eager, LoRA on, greedy",
        "model": "tiny",
        "clip": {"name": "clip.wav", "path": "clip.wav", "seconds": 3.0},
        "engine": "eager",
        "dtype": "float32",
        "device": "cpu",
    },
    "machine": {"cpu": "a fast one", "memory_bytes": 16e9},
    "phases": [
        {"name": "encoder", "n": 4, "median_ms": 6.0, "p90_ms": 7.0, "iqr_ms": 0.5, "share": 0.3},
        {"name": "decode", "n": 4, "median_ms": 12.0, "p90_ms": 30.0, "iqr_ms": 1.0, "share": 0.6},
    ],
    "end_to_end_ms": 20.0,
    "other_ms": 2.0,
    "tokens": [{"index": number, "ms": 2.0} for number in range(1, 8)],
    "memory": [{"phase": "encoder", "peak_bytes": 3_000_000}],
    "metrics": {"rtf": 0.0067},
    "compile": None,
    "transcript_text": "three one eight",
    "warnings": [],
}


@pytest.fixture
def kept(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "kept")
    store.write(RUN, trace=gzip.compress(TRACE.read_bytes()))
    return store


@pytest.fixture
def shelf(tmp_path: Path) -> RunShelf:
    return RunShelf(None, shipped=tmp_path / "none")


@pytest.fixture
def viewer(shelf: RunShelf) -> RunViewer:
    return RunViewer(shelf, Lock(), MAX)


def dropped(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def text_of(view: RunView, name: str) -> str:
    return "".join(turn for turn in view.sections[name] if isinstance(turn, str))


class TestShelf:
    def test_a_fresh_copy_opens_with_the_run_it_came_with(self, kept: RunStore) -> None:
        found = RunShelf(None, shipped=kept.root).choices("me")
        assert [choice.key for choice in found] == ["shipped:20261122-eager"]
        assert "an example" in found[0].title

    def test_this_machines_runs_come_before_it_and_new_ones_join_them(
        self, kept: RunStore, tmp_path: Path
    ) -> None:
        shelf = RunShelf(kept.root, shipped=kept.root)
        assert [c.key.split(":")[0] for c in shelf.choices("me")] == ["kept", "shipped"]
        store, prefix = shelf.store("me")
        assert (store.root, prefix) == (kept.root, "kept:")

    def test_without_a_folder_runs_are_the_visitors_own(self, shelf: RunShelf) -> None:
        store, prefix = shelf.store("me")
        store.write(RUN)
        assert prefix == "own:"
        assert [choice.key for choice in shelf.choices("me")] == ["own:20261122-eager"]
        assert shelf.choices("somebody else") == []

    def test_a_run_goes_out_as_a_zip_and_comes_in_again(
        self, kept: RunStore, shelf: RunShelf, tmp_path: Path
    ) -> None:
        packed = RunShelf(kept.root).zip_of("me", "kept:20261122-eager")
        key = shelf.add("me", dropped(tmp_path, "run.zip", packed))
        assert key == "own:20261122-eager"
        chosen = shelf.chosen("me", key)
        assert chosen.run is not None
        assert chosen.run["phases"] == RUN["phases"]
        assert chosen.trace is not None

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"../run.json": "{}"}, "leads out of its folder"),
            ({"/etc/run.json": "{}"}, "leads out of its folder"),
            ({"letter.txt": "dear"}, "holds 'letter.txt'"),
            ({"trace.json.gz": "x"}, "has no run.json"),
            ({"run.json": "{}"}, "schema_version"),
        ],
    )
    def test_archives_that_could_do_harm_are_refused(
        self, shelf: RunShelf, tmp_path: Path, members: dict[str, str], message: str
    ) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        file = dropped(tmp_path, "bad.zip", packed.getvalue())
        with pytest.raises((ArchiveError, RunError), match=message):
            shelf.add("me", file)
        assert shelf.choices("me") == []

    def test_a_zip_by_name_only_is_refused(self, shelf: RunShelf, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="no zip archive"):
            shelf.add("me", dropped(tmp_path, "run.zip", b"not at all"))

    def test_a_trace_is_listed_by_its_name_and_seen_by_its_owner_alone(
        self, shelf: RunShelf, tmp_path: Path
    ) -> None:
        key = shelf.add("me", dropped(tmp_path, "mine.json", TRACE.read_bytes()))
        assert [choice.title for choice in shelf.choices("me")] == ["mine.json"]
        with pytest.raises(RunError, match="no such run"):
            shelf.chosen("somebody else", key)
        shelf.forget("me")
        assert shelf.choices("me") == []

    @pytest.mark.parametrize("key", ["", "own:", "own:../x", "trace:../../etc/passwd", "x:y"])
    def test_a_key_leads_nowhere_else(self, shelf: RunShelf, key: str) -> None:
        with pytest.raises(RunError):
            shelf.chosen("me", key)

    def test_the_oldest_makes_room(self, shelf: RunShelf, tmp_path: Path) -> None:
        for number in range(MOST_OWN + 3):
            shelf.add("me", dropped(tmp_path, f"t{number}.json", b"{}"))
        titles = [choice.title for choice in shelf.choices("me")]
        assert len(titles) == MOST_OWN
        assert titles[0] == f"t{MOST_OWN + 2}.json"
        assert "t0.json" not in titles


class TestView:
    def test_a_run_with_a_trace_fills_every_section(self, kept: RunStore) -> None:
        chosen = RunShelf(kept.root).chosen("me", "kept:20261122-eager")
        view = view_of(chosen, max_json_bytes=MAX)
        assert tuple(view.sections) == SECTIONS
        assert "three one eight" in view.head
        assert "Recorded elsewhere" not in view.head
        figures = {
            name: sum(isinstance(turn, go.Figure) for turn in turns)
            for name, turns in view.sections.items()
        }
        assert figures["Phases"] == 2
        assert (figures["Timeline"], figures["Operators"], figures["Memory"]) == (1, 2, 2)
        assert all(number <= FIGURES.get(name, 0) for name, number in figures.items())
        assert "a fast one" in text_of(view, "Machine")

    def test_what_came_with_the_app_says_that_it_is_from_elsewhere(self, kept: RunStore) -> None:
        chosen = RunShelf(None, shipped=kept.root).chosen("me", "shipped:20261122-eager")
        head = view_of(chosen, max_json_bytes=MAX).head
        assert "Recorded elsewhere, on a fast one" in head

    def test_a_trace_alone_says_what_it_does_not_hold(self) -> None:
        view = view_of(Chosen("trace:x", "x.json", None, TRACE, True), max_json_bytes=MAX)
        assert "a trace without a run" in view.head
        assert NOT_IN_TRACE[:20] in text_of(view, "Roofline")
        assert any(isinstance(turn, go.Figure) for turn in view.sections["Timeline"])

    def test_a_run_without_a_trace_says_so(self) -> None:
        view = view_of(Chosen("own:x", "x", RUN, None, False), max_json_bytes=MAX)
        assert NO_TRACE[:20] in text_of(view, "Timeline")

    def test_a_run_of_no_length_is_shown(self) -> None:
        empty = {**RUN, "phases": [], "end_to_end_ms": 0.0, "other_ms": 0.0, "tokens": []}
        view = view_of(Chosen("own:x", "x", empty, None, False), max_json_bytes=MAX)
        assert "clip.wav" in view.head

    def test_nothing_from_outside_becomes_html(self) -> None:
        work = {**RUN["workload"], "label": HOSTILE, "model": HOSTILE}
        bad = {**RUN, "id": HOSTILE, "workload": work, "machine": {"cpu": HOSTILE}}
        bad |= {"transcript_text": HOSTILE, "warnings": [HOSTILE], "created": HOSTILE}
        view = view_of(Chosen("own:x", HOSTILE, bad, None, True), max_json_bytes=MAX)
        shown = view.head + "".join(text_of(view, name) for name in SECTIONS)
        assert "<img" not in shown
        assert "</script" not in shown
        alone = view_of(Chosen("trace:x", HOSTILE, None, TRACE, True), max_json_bytes=MAX)
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
        self, viewer: RunViewer, tmp_path: Path, content: bytes, message: str
    ) -> None:
        key = viewer.shelf.add("me", dropped(tmp_path, "t.json", content))
        with pytest.raises(TraceError, match=message) as caught:
            viewer.view("me", key)
        assert str(tmp_path) not in str(caught.value)
        assert viewer.shelf.choices("me") == []

    def test_the_common_runs_are_read_once(self, kept: RunStore) -> None:
        viewer = RunViewer(RunShelf(kept.root), Lock(), MAX)
        first = viewer.view("me", "kept:20261122-eager")
        assert viewer.view("somebody else", "kept:20261122-eager") is first

    def test_files_can_be_saved(self, kept: RunStore) -> None:
        viewer = RunViewer(RunShelf(kept.root), Lock(), MAX)
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
        self, viewer: RunViewer, tmp_path: Path
    ) -> None:
        key = viewer.shelf.add("me", dropped(tmp_path, "t.json", TRACE.read_bytes()))
        name, content = viewer.file("me", key, "trace")
        assert (name, content) == ("t.json", TRACE.read_bytes())
        for kind in ("report", "run"):
            with pytest.raises(ValueError, match="trace without"):
                viewer.file("me", key, kind)


def test_the_page_has_a_place_for_everything_and_hides_the_rest(kept: RunStore) -> None:
    view = view_of(RunShelf(kept.root).chosen("me", "kept:20261122-eager"), max_json_bytes=MAX)
    with gr.Blocks():
        sections = build_sections()
    changes = sections.filled(view)
    assert set(changes) == set(sections.outputs)
    for name, row in sections.places.items():
        turns = view.sections[name]
        assert len(turns) <= len(row)
        assert [changes[place]["visible"] for place in row] == [
            number < len(turns) and turns[number] != "" for number in range(len(row))
        ]


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
        chosen = RunShelf(None).chosen("me", f"shipped:{name}")
        assert view_of(chosen, max_json_bytes=400_000_000).has_trace
