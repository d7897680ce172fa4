"""Compare, Profile and Models in a real Chromium, every control once.

Each test also fails on a page error, a console error, or a request that leaves this machine. Run
alone: ``python -m pytest -m browser tests/test_browser_measure.py``.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from browser_page import IN_A_BROWSER, PATIENT_MS, SIZES, Visitor
from bundled import EXAMPLES
from profiling.runs.store import RunStore
from test_history import days

pytestmark = IN_A_BROWSER
TRACE = Path(__file__).parent / "data" / "tiny_trace.json"
SAID = "three six"
LONG_MS = 900_000  # measuring on two slow cores
SECTIONS = ("Phases", "Timeline", "Operators", "Memory", "Roofline", "Compiling", "Machine")


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_profile(page: Page) -> None:
    tab(page, "Profile")
    expect(page.locator("#profile-head .tiles")).to_be_visible(timeout=PATIENT_MS)


def drop(page: Page, file: Path) -> None:
    page.locator("#profile-drop input[type=file]").set_input_files(file)


def is_drawn(plot: Locator, widest: int) -> None:
    expect(plot).to_be_visible(timeout=PATIENT_MS)
    width = plot.evaluate("e => e.getBoundingClientRect().width")
    assert 200 < width <= widest


def choose_clip(page: Page, part: str) -> None:
    chips = page.locator(f"#{part}-examples")
    chips.get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator(f"#{part}-recording").get_by_label("Clear")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_first_visit_shows_a_whole_profile(guest: Visitor, size: str, scheme: str) -> None:
    page = guest.open(size, scheme)
    open_profile(page)
    expect(page.locator("#profile-head")).to_contain_text("Recorded on another machine")
    for section in SECTIONS:
        tab(page, section)
        if section not in ("Compiling", "Machine"):
            is_drawn(page.locator(f"#profile-{section.lower()}-0 .js-plotly-plot"), SIZES[size][0])
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], section
    expect(page.get_by_text("What the metrics mean")).to_be_visible()


def test_what_is_shown_can_be_saved(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    saved = {}
    for title in ("Trace, for Perfetto", "Tables (csv)", "Report (HTML)", "Run (zip)"):
        with page.expect_download() as caught:
            page.get_by_role("button", name=f"Save {title}").click()
        content = Path(caught.value.path()).read_bytes()
        saved[caught.value.suggested_filename.partition(".")[2]] = content
    assert json.loads(gzip.decompress(saved["trace.json.gz"]))["traceEvents"]
    assert saved["html"].startswith(b"<!DOCTYPE html>")
    assert any(b"run.json" in content for name, content in saved.items() if name == "zip")


def test_a_trace_from_elsewhere_is_laid_open(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    drop(page, TRACE)
    expect(page.locator("#profile-head")).to_contain_text("a trace without a run")
    expect(page.locator("#profile-runs tr[aria-current]")).to_contain_text("tiny_trace.json")
    tab(page, "Operators")
    is_drawn(page.locator("#profile-operators-0 .js-plotly-plot"), 1280)
    page.locator("#profile-runs tr", has_text="an example").first.get_by_role("button").click()
    expect(page.locator("#profile-head")).to_contain_text("Recorded on another machine")


def test_every_run_stands_in_one_table_and_runs_of_equal_work_in_a_history(
    guest: Visitor, tmp_path: Path
) -> None:
    page = guest.open()
    open_profile(page)
    store = RunStore(tmp_path)
    for run in days(1, 2):
        name = store.write(run)
        (tmp_path / f"{name}.zip").write_bytes(store.export_zip(name))
        drop(page, tmp_path / f"{name}.zip")
        expect(page.locator("#profile-head")).to_contain_text(f"Run {name}")
        page.locator("#profile-drop").get_by_label(re.compile("clear|remove", re.I)).first.click()
    drawer = page.locator("#many-runs")
    drawer.get_by_role("button", name="All runs").click()
    is_drawn(page.locator("#many-runs-chart .js-plotly-plot"), 1280)
    expect(page.locator("#many-runs-table")).to_contain_text("day-01")
    expect(page.locator("#history-said")).to_contain_text("2 runs on a quiet machine")
    is_drawn(page.locator("#history-line .js-plotly-plot"), 1280)
    with page.expect_download() as kept:
        drawer.get_by_role("button", name="Save this history").click()
    assert "day-01" in Path(kept.value.path()).read_text()


def test_files_that_are_no_traces_get_a_sentence_and_the_page_stays(
    guest: Visitor, tmp_path: Path
) -> None:
    page = guest.open()
    open_profile(page)
    title = page.locator("#profile-head h2")
    shown = title.inner_text()
    outside = io.BytesIO()
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../run.json", "{}")
    for name, content, said in (
        ("cut.json", TRACE.read_bytes()[:2000], "ends in the middle"),
        ("cut.json.gz", gzip.compress(TRACE.read_bytes())[:300], "damaged or truncated"),
        ("letter.json", b"dear sir or madam", "cut.json|letter.json|not JSON"),
        ("out.zip", outside.getvalue(), "leads out of its folder"),
        ("none.zip", b"PK\x03\x04 nothing", "no zip archive"),
    ):
        (tmp_path / name).write_bytes(content)
        drop(page, tmp_path / name)
        alert = page.locator("#profile-status").get_by_role("alert")
        expect(alert).to_contain_text(re.compile(said), timeout=PATIENT_MS)
        page.locator("#profile-drop").get_by_label(re.compile("clear|remove", re.I)).first.click()
    assert title.inner_text() == shown
    drop(page, TRACE)
    expect(page.locator("#profile-head")).to_contain_text("a trace without a run")


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("phone", "dark")])
def test_two_ways_are_compared(guest: Visitor, size: str, scheme: str) -> None:
    page = guest.open(size, scheme)
    tab(page, "Compare")
    choose_clip(page, "compare")
    page.locator("#compare-preset").get_by_label("LoRA off against on").check()
    page.locator("#compare-blocks input[type=number]").fill("6")
    page.locator("#compare-go").click()
    expect(page.locator("#compare-status progress")).to_be_visible(timeout=PATIENT_MS)
    expect(page.locator("#compare-status")).to_contain_text("Done.", timeout=LONG_MS)
    expect(page.locator("#compare-answer .verdict")).to_be_visible()
    expect(page.locator("#compare-texts mark").first).to_be_visible()
    expect(page.locator("#compare-texts .arm-a")).to_contain_text("LoRA on")
    for name in ("phases", "ratios"):
        is_drawn(page.locator(f"#compare-{name} .js-plotly-plot"), SIZES[size][0])
    expect(page.locator("#compare-break-even")).to_be_hidden()
    for name, table in (("phases", "table"), ("memory", "memory-table")):
        chart = page.locator(f"#compare-{name}").bounding_box()
        numbers = page.locator(f"#compare-{table} table").bounding_box()
        assert chart
        assert numbers
        if size == "wide":
            assert numbers["x"] >= chart["x"] + chart["width"]
            assert numbers["y"] < chart["y"] + chart["height"]
        else:
            assert numbers["y"] >= chart["y"] + chart["height"]
    expect(page.locator("#compare-stop")).to_be_disabled()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    with page.expect_download() as caught:
        page.locator("#compare-report").click()
    assert caught.value.suggested_filename == "comparison.html"
    open_profile(page)
    expect(page.locator("#profile-runs tr[aria-current]")).to_contain_text("LoRA")


def test_stop_keeps_what_was_measured(guest: Visitor) -> None:
    page = guest.open()
    tab(page, "Compare")
    choose_clip(page, "compare")
    page.locator("#compare-preset").get_by_label("Exact drafts against greedy").check()
    page.locator("#compare-blocks input[type=number]").fill("40")
    page.locator("#compare-go").click()
    status = page.locator("#compare-status")
    expect(status).to_contain_text(re.compile(r"Run (1\d|[2-9]\d) of"), timeout=LONG_MS)
    page.locator("#compare-stop").click()
    expect(status).to_contain_text("Stopped; this is what there was", timeout=LONG_MS)
    expect(page.locator("#compare-answer")).to_contain_text("blocks; nothing was traced")


def test_a_sweep_fills_a_table_is_saved_and_measures_nothing_twice(guest: Visitor) -> None:
    page = guest.open()
    tab(page, "Compare")
    choose_clip(page, "compare")
    page.get_by_role("button", name="Sweep: every combination").click()
    page.locator("#sweep-engines").get_by_label("Compiled").uncheck()
    page.locator("#sweep-lora").get_by_label("off").check()
    page.locator("#sweep-lengths").get_by_label("Lengths").fill("1")
    page.locator("#sweep-batches").get_by_label("Batches").fill("1, 2")
    page.locator("#sweep-blocks input[type=number]").fill("1")
    page.locator("#sweep-go").click()
    status = page.locator("#sweep-status")
    expect(status).to_contain_text("4 to measure, 0 measured before", timeout=LONG_MS)
    expect(status).to_contain_text("Done.", timeout=LONG_MS)
    rows = page.locator("#sweep-table tbody tr")
    expect(rows).to_have_count(4)
    for name in ("lines", "heat"):
        is_drawn(page.locator(f"#sweep-{name} .js-plotly-plot"), 1280)
    with page.expect_download() as caught:
        page.locator("#sweep-save").click()
    assert caught.value.suggested_filename == "sweep.html"
    page.locator("#sweep-batches").get_by_label("Batches").fill("1")
    page.locator("#sweep-go").click()
    expect(rows).to_have_count(2, timeout=LONG_MS)
    expect(status).to_contain_text("Done.")


def test_who_waits_for_a_measurement_is_told_their_place_and_what_runs(guest: Visitor) -> None:
    page, other = guest.open(), guest.open()
    tab(page, "Compare")
    choose_clip(page, "compare")
    page.locator("#compare-preset").get_by_label("Exact drafts against greedy").check()
    page.locator("#compare-blocks input[type=number]").fill("40")
    page.locator("#compare-go").click()
    expect(page.locator("#compare-status")).to_contain_text("Run 1", timeout=LONG_MS)
    other.locator("#examples").get_by_role("button", name="three six", exact=True).click()
    told = re.compile("1 request before this one. A measurement runs, .* left")
    expect(other.locator("#status")).to_contain_text(told, timeout=PATIENT_MS)
    page.locator("#compare-stop").click()
    expect(other.locator("#status")).to_contain_text("s of audio in", timeout=LONG_MS)


def test_settings_that_are_alike_and_no_recording_get_a_sentence(guest: Visitor) -> None:
    page = guest.open()
    tab(page, "Compare")
    alert = page.locator("#compare-status").get_by_role("alert")
    page.locator("#compare-go").click()
    expect(alert).to_contain_text("no recording yet")
    expect(page.locator("#compare-stop")).to_be_disabled()
    choose_clip(page, "compare")
    page.get_by_role("button", name="A and B in detail").click()
    page.locator("#b-engine").get_by_label("Eager").check()
    expect(page.locator("#compare-preset").get_by_label("My own choice")).to_be_checked()
    page.locator("#compare-go").click()
    expect(alert).to_contain_text("are identical")


def test_a_profile_is_recorded_and_opened(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    choose_clip(page, "record")
    page.get_by_role("button", name="How thoroughly").click()
    page.locator("#record-blocks input[type=number]").fill("1")
    page.locator("#record-go").click()
    expect(page.locator("#record-status")).to_contain_text("Recorded", timeout=LONG_MS)
    expect(page.locator("#profile-head")).to_contain_text(EXAMPLES_NAME, timeout=PATIENT_MS)
    expect(page.locator("#profile-head")).not_to_contain_text("Recorded on another machine")


EXAMPLES_NAME = next(file.name for file in EXAMPLES.glob("string_three_six.flac"))


@pytest.mark.parametrize(("size", "scheme"), [("wide", "dark"), ("phone", "light")])
def test_a_model_is_looked_into_unloaded_and_loaded(guest: Visitor, size: str, scheme: str) -> None:
    page = guest.open(size, scheme)
    tab(page, "Models")
    page.locator("#models-inspect").click()
    expect(page.locator("#models-facts")).to_contain_text("projector", timeout=PATIENT_MS)
    expect(page.locator("#models-facts")).not_to_contain_text("/assets/")
    page.locator("#models-unload").click()
    expect(page.locator("#models-status")).to_contain_text("is unloaded", timeout=PATIENT_MS)
    expect(page.locator("#models li").first).not_to_contain_text("Loaded")
    page.locator("#models-load").click()
    expect(page.locator("#models-status")).to_contain_text("is loaded", timeout=PATIENT_MS)
    expect(page.locator("#models li").first).to_contain_text("Loaded (cpu")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]


def test_a_model_that_is_nowhere_gets_a_sentence(guest: Visitor) -> None:
    page = guest.open()
    tab(page, "Models")
    page.locator("#models-name input").fill("no such model")
    page.keyboard.press("Tab")
    page.locator("#models-load").click()
    alert = page.locator("#models-status").get_by_role("alert")
    expect(alert).to_contain_text("neither a folder", timeout=PATIENT_MS)
