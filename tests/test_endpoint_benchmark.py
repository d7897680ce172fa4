"""The benchmark of the speech API: what its figures mean, and one small session.

Run alone: ``python -m pytest tests/test_endpoint_benchmark.py``; the session is marked slow.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from app_server import TINY
from benchmarks.__main__ import main
from benchmarks.bars import MET, MISSED
from benchmarks.endpoint import CallerRecord, ReferenceClip, endpoint_bars, endpoint_text, summary


def found(**changes: Any) -> dict[str, Any]:
    """A session that keeps every promise, but for ``changes``."""
    one = ReferenceClip(b"", 2.0, "five")
    alone = summary([CallerRecord(one, 0.1, "five")] * 4, 0.4)
    together = summary([CallerRecord(one, 0.2, "five")] * 8, 0.4)
    leaving = summary([CallerRecord(one, 0.2, "five"), CallerRecord(one, 0.1, None)], 0.4)
    runs = {"alone": alone, "together": together, "leaving": leaving}
    return {"plan": {"callers": 2}, "cost_ms": 4.0, "leaked": 0, **runs, **changes}


def test_waits_are_of_those_who_stayed_and_audio_of_those_answered() -> None:
    one, other = ReferenceClip(b"", 2.0, "five"), ReferenceClip(b"", 3.0, "six")
    records = [
        CallerRecord(one, 0.5, "five"),
        CallerRecord(other, 1.5, "seven"),
        CallerRecord(one, 0.1, None),
    ]
    assert summary(records, 2.0) == {
        **{"requests": 3, "left": 1, "wrong": 1, "seconds": 2.0, "audio_per_s": 2.5},
        **{"median_wait_s": 1.0, "p95_wait_s": pytest.approx(1.45)},
    }


def test_each_promise_is_judged_by_its_own_figure() -> None:
    assert [bar.verdict for bar in endpoint_bars(found())] == [MET] * 4
    slow = found()["alone"]
    cases = {
        "wrong answers": {"leaving": {**slow, "wrong": 1}},
        "places never freed": {"leaked": 2},
        "throughput against one at a time": {"together": slow},
        "cost over Lab.transcribe": {"cost_ms": 5.1},
    }
    for what, change in cases.items():
        missed = [bar.what for bar in endpoint_bars(found(**change)) if bar.verdict == MISSED]
        assert missed == [what]


def test_the_page_has_every_run_and_every_promise() -> None:
    session = found()
    page = endpoint_text(session, endpoint_bars(session)).splitlines()
    assert page[1].split()[-6:] == ["0", "20.0", "0.10", "s", "0.10", "s"]
    assert [line for line in page if "2.00x" in line and line.endswith(MET)]


@pytest.mark.slow
@pytest.mark.skipif(not (TINY / "config.json").is_file(), reason="make demo-model")
def test_a_small_session_has_no_wrong_answer_and_leaks_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["endpoint", "--requests", "8", "--callers", "4", "--threads", "1", "--json"])
    session = json.loads(capsys.readouterr().out)
    verdicts = {bar["what"]: bar["verdict"] for bar in session["bars"]}
    assert verdicts["wrong answers"] == verdicts["places never freed"] == MET
    assert session["leaving"]["requests"] == 8
    assert session["memory_bytes"] > 0


def test_impossible_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["endpoint", "--callers", "0"]) == 2
    assert "--callers" in capsys.readouterr().err
