"""Size of report pages and the time a browser takes to draw them: ``python -m benchmarks pages``.

In: a number of runs and of events; a Chromium on the path. Out: one line a page: bytes, the
processor time of the page's main thread and the seconds on the clock until what is in sight is
drawn, and until everything is, beside the bars of 20 MB and 2 s. The page of many runs is of copies
of a run in ``assets/runs``; the page of one run has a made-up trace of that many events.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.studies.trace_reading import made_up_trace
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from profiling.report.many_runs import runs_report
from profiling.report.report import run_report
from profiling.runs.store import RunStore
from profiling.statistics.run_table import run_table
from profiling.trace.events import read_trace

BAR_BYTES, BAR_S = 20_000_000, 2.0
GIVE_UP_MS = 120_000
IN_SIGHT = """() => [...document.querySelectorAll(".figure")].filter((one) =>
  one.getBoundingClientRect().top < innerHeight).every((one) => one.querySelector(".main-svg"))"""
SCROLL = """() => { for (const one of document.querySelectorAll(".figure"))
  if (!one.querySelector(".main-svg")) { one.scrollIntoView(); return false; }
  return true; }"""


@dataclass(frozen=True)
class Drawing:
    """One page drawn. busy: of the main thread alone, which another program does not lengthen."""

    first_s: float
    first_busy_s: float
    all_s: float
    all_busy_s: float


def write_pages(folder: Path, num_runs: int, num_events: int) -> list[Path]:
    """Write both pages.

    Returns:
        Their files.
    """
    shipped = RunStore(ASSETS / "runs")
    run = shipped.read(shipped.names()[0])
    runs = [{**run, "id": f"{run['id'][:60]}-{number}"} for number in range(num_runs)]
    many, one = folder / "runs.html", folder / "run.html"
    many.write_text(runs_report(run_table(runs)), encoding="utf-8")
    one.write_text(run_report(run, read_trace(made_up_trace(num_events))), encoding="utf-8")
    return [many, one]


def draw(browser: Browser, file: Path) -> Drawing:
    """Open a page, wait for what is in sight, then scroll through it."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    watch = page.context.new_cdp_session(page)
    watch.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> tuple[float, float]:
        found = watch.send("Performance.getMetrics")["metrics"]
        busy = next(one["value"] for one in found if one["name"] == "TaskDuration")
        return page.evaluate("performance.now()") / 1000, float(busy)

    page.goto(file.as_uri())
    page.wait_for_function(IN_SIGHT, timeout=GIVE_UP_MS)
    first = spent()
    page.wait_for_function(SCROLL, timeout=GIVE_UP_MS)
    everything = spent()
    page.context.close()
    return Drawing(*first, *everything)


def main(arguments: Sequence[str]) -> int:
    """Print a line a page; 1 where a bar is missed.

    Returns:
        The exit status.

    Raises:
        UserError: there is no browser.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks pages", description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=5)
    parsed = parser.parse_args(arguments)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise UserError("no Chromium is on the path; expected one: apt-get install chromium")
    missed = False
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for file in write_pages(Path(folder), parsed.runs, parsed.events):
            drawn = [asdict(draw(browser, file)) for _ in range(parsed.times)]
            middle = {
                key: round(statistics.median(one[key] for one in drawn), 2) for key in drawn[0]
            }
            size = file.stat().st_size
            missed |= size > BAR_BYTES or middle["all_busy_s"] > BAR_S
            print(json.dumps({"page": file.name, "bytes": size, **middle}))
        browser.close()
    print(f"bars: {BAR_BYTES / 1e6:.0f} MB, {BAR_S} s busy: {'missed' if missed else 'met'}")
    return int(missed)
