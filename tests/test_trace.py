"""Trace files, good and bad -> the events frame.

Run alone: ``python -m pytest tests/test_trace.py``. ``data/tiny_trace.json`` is written by hand.
"""

import copy
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrome_trace import validate_chrome_trace
from profiling.trace.events import NO_DEVICE, read_trace
from profiling.trace.trace_columns import EVENT_COLUMNS
from profiling.trace.trace_file import TraceError

TINY = Path(__file__).parent / "data" / "tiny_trace.json"


def tiny() -> dict[str, Any]:
    return json.loads(TINY.read_text())


def as_bytes(trace: Any) -> bytes:
    return json.dumps(trace).encode()


def call(name: str, ts: Any, dur: Any, cat: str = "cpu_op", **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 1, "ts": ts, "dur": dur} | {
        "args": args
    }


def test_columns_are_the_declared_ones():
    events = read_trace(TINY).events
    assert list(events.columns) == list(EVENT_COLUMNS)
    assert {name: str(kind) for name, kind in events.dtypes.items()} == EVENT_COLUMNS


def test_times_start_at_the_first_event_and_arguments_are_read():
    events = read_trace(TINY).events
    assert len(events) == 13  # 14 in the file, one of them a process name
    assert events["ts_us"].tolist() == sorted(events["ts_us"])
    linear = events[events["name"] == "aten::linear"].iloc[0]
    assert (linear["ts_us"], linear["dur_us"], linear["external_id"]) == (10, 60, 2)
    assert linear["input_dims"] == "[[4, 64], [64, 64], [64]]"
    memory = events[events["name"] == "[memory]"]
    assert memory["bytes"].tolist() == [1000, 500, -1000, 200, 300]
    assert memory["dur_us"].isna().all()


def test_path_bytes_file_and_gzip_give_the_same_events(tmp_path: Path):
    data = TINY.read_bytes()
    packed = tmp_path / "trace.json.gz"
    packed.write_bytes(gzip.compress(data))
    expected = read_trace(TINY).events
    for source in (str(TINY), data, gzip.compress(data), io.BytesIO(data), packed):
        assert read_trace(source).events.equals(expected)


def test_metadata_is_all_but_the_events():
    assert read_trace(TINY).metadata["distributedInfo"] == {"rank": 0}


def test_what_the_trace_lacks_is_said():
    assert read_trace(TINY).lacks == (NO_DEVICE,)
    lacks = " ".join(read_trace(as_bytes([call("f", 1, 1)])).lacks)
    for absent in ("no phases", "no memory events", "no device events", "no shapes"):
        assert absent in lacks


def test_begin_and_end_pairs_become_calls_and_loose_ends_are_counted():
    events = [
        {"ph": "E", "name": "lost", "ts": 1, "pid": 1, "tid": 1},
        {"ph": "B", "name": "outer", "ts": 2, "pid": 1, "tid": 1},
        {"ph": "B", "name": "inner", "ts": 3, "pid": 1, "tid": 1},
        {"ph": "E", "ts": 5, "pid": 1, "tid": 1},
        {"ph": "E", "ts": 9, "pid": 1, "tid": 1},
        {"ph": "C", "name": "counter", "ts": 9, "pid": 1, "tid": 1, "args": {"value": 1}},
    ]
    trace = read_trace(as_bytes(events))
    assert dict(zip(trace.events["name"], trace.events["dur_us"], strict=True)) == {
        "outer": 7,
        "inner": 2,
    }
    assert "1 begin or end" in trace.notes[0]
    assert "1 counter" in trace.notes[1]


def test_large_times_keep_their_nanoseconds():
    start = 4498350662113.506
    events = read_trace(as_bytes([call("a", start, 0.25), call("b", start + 1.125, 0.5)])).events
    assert events["ts_us"].tolist() == [0, 1.125]


def test_numbers_written_as_text_are_numbers():
    events = read_trace(as_bytes([call("k", "3", "2", correlation="7", stream="default")])).events
    assert events["correlation"].tolist() == [7]
    assert np.isnan(events["stream"][0])


def test_control_characters_in_names_are_forgiven():
    text = TINY.read_bytes().replace(b"aten::gelu", b"line\x0aline")
    assert "line\nline" in read_trace(text).events["name"].tolist()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (gzip.compress(TINY.read_bytes())[:200], "damaged or truncated gzip"),
        (TINY.read_bytes()[:900], "ends in the middle"),
        (b"", "ends in the middle"),
        (b'{"a": 1]', "is not JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "nests too deeply"),
        (b'{"phases": []}', "no Chrome trace"),
        (b'{"traceEvents": [1, 2]}', "no Chrome trace"),
        (b'"trace"', "no Chrome trace"),
        (b'{"traceEvents": []}', "none with a time"),
        (as_bytes([call("f", 1, -5)]), "negative durations"),
        (as_bytes([call("f", "soon", 5)]), "expected finite microseconds"),
        (as_bytes([call("f", 1, None)]), "expected finite microseconds"),
        (as_bytes([call("f", 1, float("inf"))]), "expected finite microseconds"),
        (as_bytes([call("f", 1, 1), call("g", 1.7e15, 1)]), "more than one clock"),
    ],
)
def test_bad_traces_are_one_clear_line(source: bytes, expected: str):
    with pytest.raises(TraceError, match=expected) as caught:
        read_trace(source)
    assert "\n" not in str(caught.value)


def test_kernels_before_their_launches_mean_two_clocks():
    events = [
        call("cudaLaunchKernel", 10_000, 5, "cuda_runtime", correlation=1),
        call("gemm", 2_000, 5, "kernel", correlation=1),
    ]
    with pytest.raises(TraceError, match=r"8.0 ms before they are launched"):
        read_trace(as_bytes(events))


def test_a_trace_beyond_the_limit_is_refused_before_it_is_unpacked():
    bomb = gzip.compress(b" " * 5_000_000)
    with pytest.raises(TraceError, match=r"more than 1 MB"):
        read_trace(bomb, max_json_bytes=1_000_000)


def test_a_missing_file_and_a_folder_are_trace_errors(tmp_path: Path):
    with pytest.raises(TraceError, match=r"nothing\.json cannot be read"):
        read_trace(tmp_path / "nothing.json")
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path)


def test_any_damage_is_a_trace_error_and_nothing_else():
    values = [None, [], {}, "x", -1, 1e400, True, [1], {"a": 1}]
    chance = random.Random(7)
    for _ in range(300):
        trace = copy.deepcopy(tiny())
        for _ in range(3):
            event = chance.choice(trace["traceEvents"])
            event[chance.choice([*event, "args", "cat"])] = chance.choice(values)
        try:
            read_trace(as_bytes(trace))
        except TraceError:
            continue


def test_a_good_trace_passes_the_check_of_viewers():
    assert validate_chrome_trace(tiny()) == []


def test_the_check_of_viewers_finds_each_fault():
    trace = tiny()
    del trace["distributedInfo"]
    first, second, third, *_ = (event for event in trace["traceEvents"] if event["ph"] == "X")
    first["dur"] = -1
    second["ph"] = "?"
    third["name"] = None
    found = " ".join(validate_chrome_trace(trace))
    for fault in ("rank", "dur is -1", "ph is '?'", "name is None"):
        assert fault in found


def test_the_check_of_viewers_finds_calls_that_do_not_nest():
    events = [call("a", 0, 10), call("b", 5, 10), call("c", 5, 5)]
    assert validate_chrome_trace(events) == ["'b' outlasts 'a' on track ('1', '1')"]
