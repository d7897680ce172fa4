"""A real Chromium on a running app, and what went wrong on its pages.

In: an address. Out: pages of a size and a colour scheme; at the end every page error, console error
and request that left this machine.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from app_server import TINY, running_app

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
IN_A_BROWSER = [  # marks of a module whose tests drive one
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(
        not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
    ),
]
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
PATIENT_MS = 60_000
expect.set_options(timeout=PATIENT_MS)  # no test is about speed; a slow machine is waited for


class Visitor:
    """Opens pages of one app and remembers what went wrong on them."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser, self._address = browser, address
        self._contexts: list[BrowserContext] = []
        self._leaving = False
        self.wrong: list[str] = []

    def check(self) -> None:
        """Fail on whatever went wrong since the last check; the pages opened since then close."""
        wrong, self.wrong[:] = list(self.wrong), []
        while self._contexts:
            self._contexts.pop().close()
        assert not wrong, wrong

    def open(self, size: str = "wide", scheme: str = "light") -> Page:
        """The page of the app, ready to be used."""
        width, height = SIZES[size]
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        self._contexts.append(context)
        page: Page = context.new_page()
        page.set_default_timeout(PATIENT_MS)
        page.on("request", self._see_request)
        page.on("console", self._see_console)
        page.on("pageerror", lambda error: self.wrong.append(f"page: {error}"))
        page.goto(self._address)
        page.get_by_role("tab", name="Transcribe", exact=True).wait_for()
        page.locator("html[data-listening]").wait_for()  # page.js may come later on a busy machine
        return page

    def go(self, page: Page, address: str | None = None) -> None:
        """Take ``page`` to ``address``, or load it again.

        Gradio's client reports each stream that ends because its page is left.
        """
        self._leaving = True
        try:
            page.goto(address) if address else page.reload()
        finally:
            self._leaving = False

    def _see_request(self, request: Request) -> None:
        host = urlsplit(request.url).hostname
        if host not in ("127.0.0.1", None) and not request.url.startswith(("data:", "blob:")):
            self.wrong.append(f"request to {request.url}")

    def _see_console(self, message: ConsoleMessage) -> None:
        cut_off = self._leaving and re.search("AbortError|Connection errored out", message.text)
        if message.type == "error" and not cut_off:
            self.wrong.append(f"console: {message.text}")


def microphone(wav: str) -> list[str]:
    """Arguments that make Chromium's microphone play ``wav`` (48 kHz, mono) once."""
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav}%noloop",
    ]


@contextmanager
def visitor(address: str, arguments: Sequence[str] = ()) -> Iterator[Visitor]:
    """A visitor of the app at ``address``. arguments: more of Chromium's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *arguments]
        )
        try:
            yield Visitor(browser, address)
        finally:
            browser.close()


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A visitor of an app of the module's own, with runs of its own; a module may make another."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GSL_RUNS", str(tmp_path_factory.mktemp("runs")))
        with running_app("tiny") as address, visitor(address) as someone:
            yield someone


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    # Before the test, so that the guest is still there after it.
    guest = request.getfixturevalue("guest") if "guest" in request.fixturenames else None
    yield
    if guest is not None:
        guest.check()
