"""The HTML report: complete in itself, harmless whatever the run says, with the JSON's numbers.

Run alone: ``python -m pytest tests/test_report.py``.
"""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from profiling.report import page as report_page
from profiling.report.report import comparison_report, run_report
from profiling.report.sections import metrics
from profiling.trace.events import read_trace

TINY = Path(__file__).parent / "data" / "tiny_trace.json"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028"

RUN: dict[str, Any] = {
    "schema_version": 1,
    "id": "20261122-eager",
    "created": "2026-11-22T10:00:00+00:00",
    "workload": {
        "label": "eager, LoRA on, greedy",
        "clip": {"name": "clip.wav", "path": "/home/somebody/clip.wav", "seconds": 3.0},
        "engine": "eager",
        "dtype": "float32",
    },
    "machine": {"cpu": "one of those", "memory_bytes": 16e9, "gpu": None},
    "phases": [
        {"name": "decode", "n": 40, "median_ms": 12.0, "p90_ms": 30.0, "iqr_ms": 1.0, "share": 0.6},
        {"name": "encoder", "n": 40, "median_ms": 6.0, "p90_ms": 7.0, "iqr_ms": 0.5, "share": 0.3},
    ],
    "end_to_end_ms": 20.0,
    "other_ms": 2.0,
    "tokens": [{"index": n, "ms": 2.0} for n in range(1, 40)],
    "memory": [{"phase": "encoder", "peak_bytes": 3_000_000}],
    "metrics": {"rtf": 0.0067, "inter_token_ms": {"median": 2.0, "p90": 2.1}},
    "compile": None,
    "profiler_tax": 1.18,
    "transcript_text": "three one eight",
    "token_ids": [3, 1, 8],
    "warnings": [],
}
COMPARISON: dict[str, Any] = {
    "a": "20261122-eager",
    "b": "20261122-compile",
    "phases": [
        {
            "name": "decode",
            "a_ms": 12.0,
            "b_ms": 6.0,
            "ratio": 0.5,
            "low": 0.4,
            "high": 0.6,
            "verdict": "2.0x faster, 1.7 to 2.5",
        }
    ],
    "end_to_end": {
        "a_ms": 20.0,
        "b_ms": 14.0,
        "ratio": 0.7,
        "low": 0.6,
        "high": 0.8,
        "verdict": "1.4x faster, 1.2 to 1.7",
        "shown": True,
    },
    "noise_floor": {},
    "num_blocks": 20,
    "tokens_identical": True,
    "break_even_clips": None,
}


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five megabytes of plotly.js a page take their time to read."""
    monkeypatch.setattr(report_page, "get_plotlyjs", lambda: "/* plotly.js */")


class Reader(HTMLParser):
    """What a browser would see: tags with attributes, words outside scripts, scripts by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words, self.scripts, self._inside = "", dict[str, str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            name = str(self.tags[-1][1].get("id", len(self.scripts)))
            self.scripts[name] = self.scripts.get(name, "") + data
        elif not self._inside:
            self.words += data + " "

    def numbers(self) -> Any:
        return json.loads(self.scripts["numbers"])


def read(page: str) -> Reader:
    return Reader(page)


def test_a_page_needs_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report_page, "get_plotlyjs", get_plotlyjs)
    page = run_report(RUN, read_trace(TINY))
    assert get_plotlyjs() in page
    reader = read(page.replace(get_plotlyjs(), ""))
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
        assert "src" not in attributes
        assert attributes.get("href") in (None, "#")
    contents = " ".join(str(attributes.get("content")) for _, attributes in reader.tags)
    assert "default-src 'none'" in contents


def test_a_page_says_what_the_run_measured():
    words = read(run_report(RUN)).words
    for expected in (
        "clip.wav, eager, LoRA on, greedy",
        "three one eight",
        "20.0 ms",
        "one of those",
        "16 GB",
        "Real-time factor",
        "0.0067",
        "1.18x",
        "Nothing was compiled",
    ):
        assert expected in words
    # In the order of the pipeline, with the rest.
    table = words.split("whiskers reach")[1]
    assert table.index("encoder") < table.index("decode") < table.index("other")


def test_every_metric_is_defined_on_the_page():
    words = read(run_report(RUN)).words
    assert "never counted" in words
    assert "profiler off" in words


def test_the_embedded_numbers_are_the_run_without_private_folders():
    page = run_report(RUN)
    expected = copy.deepcopy(RUN)
    del expected["workload"]["clip"]["path"]
    assert read(page).numbers() == {"run": expected}
    assert "somebody" not in page


def test_numbers_that_json_lacks_become_null():
    run = {**RUN, "metrics": {"rtf": float("nan"), "acceptance": float("inf")}}
    assert read(run_report(run)).numbers()["run"]["metrics"] == {"rtf": None, "acceptance": None}


@pytest.mark.parametrize("with_trace", [False, True])
def test_no_string_of_a_run_can_become_code(with_trace: bool):
    run = copy.deepcopy(RUN)
    run["transcript_text"] = run["id"] = run["machine"]["cpu"] = HOSTILE
    run["workload"]["label"] = run["workload"]["clip"]["name"] = HOSTILE
    run["phases"][0]["name"] = run["memory"][0]["phase"] = HOSTILE
    run["warnings"] = [HOSTILE]
    run["compile"] = {"entries": [{"compile_id": HOSTILE, "stage": HOSTILE, "seconds": 1.0}]}
    trace = None
    if with_trace:
        text = TINY.read_text().replace("aten::gelu", json.dumps(HOSTILE)[1:-1])
        trace = read_trace(text.encode())
    calm, reader = read(run_report(RUN, trace)), read(run_report(run, trace))
    kinds = [tag for tag, _ in reader.tags]
    assert kinds.count("script") == [tag for tag, _ in calm.tags].count("script")
    assert "img" not in kinds
    assert not [name for _, attributes in reader.tags for name in attributes if name[:2] == "on"]
    assert reader.numbers()["run"]["transcript_text"] == HOSTILE


def test_markup_that_is_not_of_the_templates_is_escaped():
    page = report_page.Page("a page", {})
    page.parts.append("<b>by hand</b>")
    assert "&lt;b&gt;by hand" in page.html()


def test_a_trace_adds_its_tables_and_says_what_it_lacks():
    without, with_trace = read(run_report(RUN)), read(run_report(RUN, read_trace(TINY)))
    assert "Most expensive operators" not in without.words
    assert "Most expensive operators" in with_trace.words
    assert "no device events" in with_trace.words
    assert "device ms" not in with_trace.words  # an absent column, not one of zeros


def test_every_figure_has_its_place_and_a_description():
    reader = read(run_report(RUN, read_trace(TINY)))
    figures = json.loads(reader.scripts["figures"])
    places = {
        attributes["id"]: attributes["aria-label"]
        for _, attributes in reader.tags
        if attributes.get("class") == "figure"
    }
    assert places.keys() == figures.keys()
    assert all(places.values())
    assert len(figures) >= 7


def test_a_comparison_leads_with_its_verdict():
    other = {**RUN, "id": "20261122-compile"}
    page = comparison_report(RUN, other, COMPARISON)
    words = read(page).words
    assert words.index("1.4x faster, 1.2 to 1.7") < words.index("Time per phase")
    assert "Both made the same tokens" in words
    assert read(page).numbers()["comparison"] == COMPARISON
    assert "somebody" not in page


def test_a_comparison_says_where_tokens_part_and_what_makes_it_doubtful():
    comparison = {
        **COMPARISON,
        "tokens_identical": False,
        "first_difference": 7,
        "wer_a": 0.05,
        "wer_b": 0.1,
        "warnings": ["no A/A arm was measured"],
        "compile_seconds": 11.0,
        "break_even": "compiling took 11.0 s and has not been shown to pay off",
    }
    words = read(comparison_report(RUN, RUN, comparison)).words
    assert "differ from the 8th on" in words
    assert "5.0 % for A, 10.0 % for B" in words
    assert "no A/A arm was measured" in words
    assert "Compiling took 11.0 s" in words


def test_day_and_night_are_both_provided_for():
    style = re.search(r"<style>(.*?)</style>", run_report(RUN), re.DOTALL)
    assert style is not None
    assert "prefers-color-scheme: dark" in style.group(1)


def test_large_numbers_are_written_out() -> None:
    run = {"end_to_end_ms": 47.8, "metrics": {"new_tokens_per_s": 1197.7}}
    shown = {title: value for title, value, _ in metrics(run)}
    assert shown["New tokens per second"] == "1,198 /s"
