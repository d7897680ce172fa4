"""Inside a run on the Profile tab: Perfetto, search, speedscope, generated code, GPU memory.

Perfetto is a page of this machine's that speaks its protocol. Run alone:
``python -m pytest -m browser tests/test_browser_trace.py``.
"""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from app_server import running_app
from browser_page import IN_A_BROWSER, SIZES, Visitor, visitor
from profiling.measure.compiled_code import CODE_FILE, GeneratedCode, pack_code
from profiling.runs.store import RunStore
from recorded import RUN
from snapshots import snapshot
from test_browser_measure import TRACE, drop, open_profile, tab

pytestmark = IN_A_BROWSER
# Deaf at first, as a page that is still being loaded: only a PING that is repeated is answered.
STAND_IN = """<!doctype html><title>waiting</title><script>
setTimeout(() => addEventListener("message", (event) => {
  if (event.source !== opener) return;
  if (event.data === "PING") opener.postMessage("PONG", "*");
  if (!event.data.perfetto) return;
  window.got = event.data.perfetto;
  document.title = got.title;
}), 700);
</script>"""


class Asked(BaseHTTPRequestHandler):
    """Answers with the stand-in and notes what was asked."""

    paths: list[str] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(STAND_IN.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def perfetto() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, perfetto: str) -> Iterator[Visitor]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GSL_RUNS", str(tmp_path_factory.mktemp("runs")))
        environment.setenv("GSL_PERFETTO", perfetto)
        with running_app("tiny") as address, visitor(address) as someone:
            yield someone


ONLINE = """(online) => {
  Object.defineProperty(navigator, "onLine", { get: () => online, configurable: true });
  dispatchEvent(new Event(online ? "online" : "offline"));
}"""


def as_bytes(other: Page) -> bytes:
    return bytes(other.evaluate("[...new Uint8Array(got.buffer)]"))


def test_a_trace_opens_in_perfetto_by_one_press_and_nothing_is_asked_before(
    guest: Visitor, perfetto: str
) -> None:
    page = guest.open()
    open_profile(page)
    part = page.locator("#profile-perfetto")
    button = part.get_by_role("button", name="Open in Perfetto")
    expect(button).to_be_enabled()
    expect(part).to_contain_text("inside your own browser")
    assert Asked.paths == []
    with page.expect_popup() as caught:
        button.click()
    expect(caught.value).to_have_title(name_of_trace(page))
    content = json.loads(gzip.decompress(as_bytes(caught.value)))
    assert content["traceEvents"]
    expect(part).to_contain_text("inside your own browser")
    assert [path for path in Asked.paths if path != "/favicon.ico"] == ["/"]


def name_of_trace(page: Page) -> str:
    key = page.locator("#profile-runs button[aria-current]").get_attribute("data-key") or ""
    return f"{key.partition(':')[2]}.trace.json.gz"


def test_perfetto_is_off_with_the_reason_while_offline(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    part = page.locator("#profile-perfetto")
    button = part.get_by_role("button")
    expect(button).to_be_enabled()
    # Said by the browser alone: to cut the connection would cut Gradio's streams, which it reports.
    page.evaluate(ONLINE, False)
    expect(button).to_be_disabled()
    expect(part).to_contain_text("This computer is offline")
    page.evaluate(ONLINE, True)
    expect(button).to_be_enabled()
    expect(part).to_contain_text("inside your own browser")


def test_a_blocked_window_and_a_silent_one_are_told(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    part = page.locator("#profile-perfetto")
    page.evaluate("window.open = () => null")
    part.get_by_role("button").click()
    expect(part).to_contain_text("The browser blocked the new window")
    page.evaluate("window.open = () => ({ closed: true, postMessage() {} })")
    part.get_by_role("button").click()
    expect(part).to_contain_text("Perfetto did not answer")


def test_the_flame_graph_is_searched(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    drop(page, TRACE)
    expect(page.locator("#profile-head")).to_contain_text("a trace without a run")
    tab(page, "Operators")
    for number in range(2):
        graph = page.locator(f"#profile-operators-{number} .js-plotly-plot")
        expect(graph).to_be_visible()
        expect(graph).not_to_contain_text("% found")
    page.locator("#profile-find textarea, #profile-find input").press_sequentially("linear")
    for number in range(2):
        graph = page.locator(f"#profile-operators-{number} .js-plotly-plot")
        expect(graph).to_contain_text("% found")
        first = graph.evaluate("plot => plot.data[0].labels[0]")
        assert 0 < float(first.split(", ")[1].split("%")[0]) < 100, first
    page.locator("#profile-find textarea, #profile-find input").fill("")
    expect(page.locator("#profile-operators-0 .js-plotly-plot")).not_to_contain_text("% found")


def test_the_flame_graph_is_saved_for_speedscope(guest: Visitor) -> None:
    page = guest.open()
    open_profile(page)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save Flame graph, for speedscope").click()
    assert caught.value.suggested_filename.endswith(".speedscope.json")
    content = json.loads(Path(caught.value.path()).read_bytes())
    assert content["profiles"][0]["events"]


def test_generated_code_is_read_and_saved(guest: Visitor, tmp_path: Path) -> None:
    source = "import torch\ncpp_fused_mul_0 = 1\n" + "x = 1\n" * 900
    ledger = {"graphs": 1, "seconds": 1.0, "guards": 3, "entries": [], "breaks": {}}
    code = pack_code([GeneratedCode("decode", "module", "python", source)])
    store = RunStore(tmp_path / "runs")
    store.write({**RUN, "compile": ledger}, files={CODE_FILE: code})
    file = tmp_path / "run.zip"
    file.write_bytes(store.export_zip(RUN["id"]))
    page = guest.open()
    open_profile(page)
    drop(page, file)
    expect(page.locator("#profile-head")).to_contain_text("three one eight")
    tab(page, "Compiling")
    part = page.locator("details.code")
    expect(part.locator("pre")).to_be_hidden()
    part.locator("summary", has_text="decode, module (python): lines 2 to 121 of 902").click()
    expect(part.locator("pre")).to_contain_text("cpp_fused_mul_0 = 1")
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save Generated code (zip)").click()
    with zipfile.ZipFile(caught.value.path()) as archive:
        assert archive.read("decode.module.py").decode() == source


def test_a_memory_snapshot_is_dropped_and_laid_open(guest: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "gpu.pickle"
    file.write_bytes(pickle.dumps(snapshot()))
    page = guest.open("phone", "dark")
    open_profile(page)
    drop(page, file)
    expect(page.locator("#profile-head")).to_contain_text("a memory snapshot")
    expect(page.locator("#profile-perfetto").get_by_role("button")).to_be_disabled()
    expect(page.locator("#profile-perfetto")).to_contain_text("has no trace")
    tab(page, "Memory")
    for number in range(2):
        expect(page.locator(f"#profile-memory-{number} .js-plotly-plot")).to_be_visible()
    shown = page.get_by_role("table").filter(has_text="allocated by")
    expect(shown).to_contain_text("weights.py:77 load_weights")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
