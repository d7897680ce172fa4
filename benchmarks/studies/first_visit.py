"""``python -m benchmarks first-visit``: from starting the app to the first transcript on its page.

In: nothing but options; a Chromium on the path. Out: a table on stdout, one row a start; with
``--json`` its rows. Every start is a fresh process of ``python app.py`` with the bundled model and
a fresh browser profile. The page counts as ready when its buttons can be pressed. The browser's
own start is not counted: whoever opens the app has one open.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from playwright.sync_api import Browser, sync_playwright

from benchmarks.process import ROOT
from core.errors import UserError

EXAMPLE = "three one eight"
GIVE_UP_S = 240


@dataclass(frozen=True)
class Visit:
    """One start of the app, in seconds.

    ready_s: from the start of the process until the page can be used; text_s: from the press on an
    example until its text is there; again_s: the same once more.
    """

    ready_s: float
    text_s: float
    again_s: float


def measure(browser: Browser) -> Visit:
    """Start the app, open its page, press an example twice.

    Returns:
        The seconds of the visit.

    Raises:
        UserError: the app does not answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, begun)
        page = browser.new_context().new_page()
        page.set_default_timeout(1000 * GIVE_UP_S)
        page.goto(address)
        example = page.locator("#examples").get_by_role("button", name=EXAMPLE, exact=True)
        example.wait_for()
        ready_s = time.perf_counter() - begun
        took = []
        for _ in range(2):
            pressed = time.perf_counter()
            example.click()
            page.locator("#cost").wait_for(state="visible")
            took.append(time.perf_counter() - pressed)
            page.reload()  # the next one begins with an empty page
            page.evaluate("() => localStorage.clear()")
            page.reload()
            example.wait_for()
        page.context.close()
        return Visit(ready_s, *took)
    finally:
        app.terminate()
        app.wait(30)


def _wait(address: str, begun: float) -> None:
    while time.perf_counter() - begun < GIVE_UP_S:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise UserError(f"the app did not answer within {GIVE_UP_S} s")


def main(arguments: Sequence[str]) -> int:
    """Measure and print.

    Returns:
        The exit status.

    Raises:
        UserError: there is no browser.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks first-visit")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_args(arguments)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise UserError("no Chromium is on the path; expected one: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visits = [measure(browser) for _ in range(parsed.starts)]
        browser.close()
    if parsed.json:
        print(json.dumps([asdict(visit) for visit in visits], indent=2))
        return 0
    print(f"{'page ready s':>12} {'first text s':>12} {'again s':>8}")
    for visit in visits:
        print(f"{visit.ready_s:12.2f} {visit.text_s:12.2f} {visit.again_s:8.2f}")
    return 0
