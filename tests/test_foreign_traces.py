"""Traces that other programs, devices and releases recorded, and what people attach in their place.

Run alone: ``python -m pytest tests/test_foreign_traces.py``. Times are in microseconds.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import random
import zipfile
from typing import Any

import numpy as np
import pytest

from profiling.trace.breakdown import operator_table, phase_table
from profiling.trace.events import NO_DEVICE, read_trace
from profiling.trace.launches import launch_gaps
from profiling.trace.trace_file import TraceError
from profiling.trace.trace_tables import trace_json


def call(name: str, ts: Any, dur: Any, cat: str = "cpu_op", **more: Any) -> dict[str, Any]:
    event = {"ph": "X", "name": name, "pid": 1, "tid": 1, "ts": ts, "dur": dur, "cat": cat}
    return {**event, **more}


def launched(
    number: int, ts: float, *, host: int = 1, device: int = 0, lasts: float = 10, op: str = "op"
) -> list[dict[str, Any]]:
    ids = {"correlation": number, "External id": number}
    return [
        call(op, ts, 40, pid=host, args={"External id": number}),
        call("cudaLaunchKernel", ts + 10, 5, "cuda_runtime", pid=host, args=ids),
        call("gemm", ts + 30, lasts, "kernel", pid=device, tid=7, args=ids),
    ]


def as_bytes(events: list[Any]) -> bytes:
    return json.dumps({"traceEvents": events}).encode()


def test_categories_of_old_releases_are_those_of_today():
    renamed = {"cpu_op": "Operator", "cuda_runtime": "Runtime", "kernel": "Kernel"}
    events = [{**event, "cat": renamed[event["cat"]]} for event in launched(1, 0)]
    trace = read_trace(as_bytes(events))
    assert NO_DEVICE not in trace.lacks
    device = operator_table(trace.index).set_index("name")["device_ms"]
    assert device["op"] == pytest.approx(0.010)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e300", "9" * 5_000])
def test_a_number_of_bytes_that_no_memory_has_is_a_missing_one(number: str):
    text = as_bytes([call("[memory]", 1, 2, args={"Bytes": 77})]).replace(b"77", number.encode())
    assert read_trace(text).events["bytes"].isna().all()


@pytest.mark.parametrize("word", ["inf", "-nan", "Infinity", "NaN"])
def test_a_bare_word_for_no_number_is_a_missing_one(word: str):
    text = as_bytes([call("-inf: nan", 1, 2, args={"Bytes": 77})]).replace(b"77", word.encode())
    trace = read_trace(text)
    assert trace.events["name"].tolist() == ["-inf: nan"]
    assert not np.isfinite(trace.events["bytes"][0])
    assert bool(trace.notes) == (word in ("inf", "-nan"))


@pytest.mark.parametrize(
    "bad",
    [
        {"ts": 0, "dur": 0},
        {"ts": 9e15},
        {"ts": "soon"},
        {"dur": 7.4e15},
        {"dur": -1},
        {"dur": None},
        {"dur": "nan"},
    ],
)
def test_one_impossible_event_among_many_is_left_out_and_noted(bad: dict[str, Any]):
    good = [event for n in range(20) for event in launched(n, 5e9 + 100 * n)]
    good.insert(7, {**call("lost", 5e9 + 50, 1, "kernel"), **bad})
    trace = read_trace(as_bytes(good))
    assert len(trace.events) == 60
    assert "1 event with an impossible time left out (first: 'lost'" in trace.notes[0]
    assert operator_table(trace.index)["total_ms"].max() == pytest.approx(0.8)


def test_a_number_of_thousands_of_digits_is_an_impossible_time():
    good = [call("f", n, 1) for n in range(40)]
    text = as_bytes([*good, call("lost", 77_777, 1)]).replace(b"77777", b"9" * 5_000)
    trace = read_trace(text)
    assert len(trace.events) == 40
    assert "1 event with an impossible time left out (first: 'lost'" in trace.notes[0]


def test_one_thing_that_is_no_event_among_many_is_left_out():
    assert len(read_trace(as_bytes([*(call("f", n, 1) for n in range(40)), 7])).events) == 40


@pytest.mark.parametrize("late", [3, 40_000, -40_000])
def test_ranks_in_one_file_are_charged_for_their_own_kernels(late: float):
    events = [
        event
        for rank in (0, 1)
        for n in range(10)
        for event in launched(
            n + 1,
            1e6 + rank * late + 100 * n,
            host=5000 + rank,
            device=rank,
            lasts=10 + 20 * rank,
            op=f"rank_{rank}",
        )
    ]
    device = operator_table(read_trace(as_bytes(events)).index).set_index("name")["device_ms"]
    assert device["rank_0"] == pytest.approx(0.1)
    assert device["rank_1"] == pytest.approx(0.3)


@pytest.mark.parametrize("end", ["", ",\n", ",\n]"])
def test_a_list_of_events_may_stand_open(end: str):
    lines = ",\n".join(json.dumps(call("f", 10 * n, 5)) for n in range(5))
    trace = read_trace(f"[\n{lines}{end}".encode())
    assert len(trace.events) == 5
    assert "was not closed" in trace.notes[0]
    assert len(read_trace(f'{{"a": 1, "traceEvents": [\n{lines}\n'.encode()).events) == 5
    with pytest.raises(TraceError, match="ends in the middle"):
        read_trace(f"[\n{lines}"[:-4].encode())


def test_beginnings_and_ends_are_paired_in_order_of_time():
    marks = [("E", 150, "a"), ("B", 100, "a"), ("B", 500, "c"), ("B", 10, "b"), ("E", 60, "b")]
    marks.append(("E", 600, "c"))
    raw = [{"ph": ph, "ts": ts, "name": name, "pid": 1, "tid": 1} for ph, ts, name in marks]
    events = read_trace(as_bytes(raw)).events
    assert dict(zip(events["name"], events["dur_us"], strict=True)) == {"b": 50, "a": 50, "c": 100}


@pytest.mark.parametrize(
    ("process", "named", "tid"),
    [(1, "/device:GPU:0", 2), (17, "Ascend Hardware", 3), ("CUDA functions", "", 0)],
)
def test_tracks_named_after_a_device_are_its_work(process: Any, named: str, tid: int):
    def meta(kind: str, name: str, **more: Any) -> dict[str, Any]:
        return {"ph": "M", "pid": process, "name": kind, "args": {"name": name}, **more}

    host = call("step", "1000.5", 20, pid=701)
    kernel = call("gemm", "1030.5", 700, pid=process, tid=tid)
    again = call("module", 1000, 900, pid=process, tid=99)
    raw = [host, kernel, {}]
    if "GPU" in named:
        raw += [again, meta("thread_name", "Stream #14(Compute)", tid=tid)]
    raw += [meta("process_name", named)] if named else []
    for event in (host, kernel, again):
        del event["cat"]
    trace = read_trace(as_bytes([*raw, *({**host, "ts": 2000 + n} for n in range(20))]))
    work = trace.index.device_work
    assert (work["end_ns"] - work["start_ns"]).tolist() == [700_000]
    assert NO_DEVICE not in trace.lacks


def test_frames_of_python_hide_no_waiting_and_are_no_operators():
    plain = [call("encoder", 0, 100, "user_annotation"), call("aten::mm", 40, 20)]
    frames = [call("step", 1, 98, "python_function"), call("wait", 2, 30, "python_function")]
    tables = [read_trace(as_bytes(events)).index for events in (plain, [*plain, *frames])]
    idle = [launch_gaps(index)["idle_ms"].tolist() for index in tables]
    assert idle[0] == idle[1] == [pytest.approx(0.08)]
    assert operator_table(tables[1])["name"].tolist() == ["aten::mm"]


@pytest.mark.parametrize(
    "name", ["urEnqueueKernelLaunch", "urEnqueueKernelLaunchWithArgsExp", "hipLaunchKernel"]
)
def test_launches_of_other_runtimes_are_counted(name: str):
    events = [call("encoder", 0, 5000, "user_annotation")]
    for n in range(4):
        op, launch, kernel = launched(n, 10 + 100 * n)
        events += [op, {**launch, "name": name, "cat": "xpu_runtime"}, kernel]
    table = phase_table(read_trace(as_bytes(events)).index).set_index("phase")
    assert table["num_launches"]["encoder"] == 4


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("trace.json", as_bytes([call("f", 1, 2)]))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (zipped(), "a zip archive"),
        (lzma.compress(b"[]"), "an xz archive"),
        (pickle.dumps({"segments": []}), "a pickle"),
        (b"\x0a\x1e\x08\x80\x01\x12\x04/bin" * 40, "a binary file"),
        (b"\n<!doctype html><h1>404</h1>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        ("[]".encode("utf-16"), "UTF-16"),
    ],
)
def test_what_is_attached_in_place_of_a_trace_is_named(content: bytes, kind: str):
    with pytest.raises(TraceError, match=f"is {kind}"):
        read_trace(content)


def test_many_objects_in_a_small_file_are_refused_before_they_are_made():
    bomb = gzip.compress(b'{"traceEvents": [' + b"{}," * 9_000_000 + b"{}]}", 1)
    with pytest.raises(TraceError, match="9,000,00. objects and lists"):
        read_trace(bomb)


def test_a_category_or_an_overlap_for_every_event_takes_no_longer_than_their_number_says():
    many = [call("f", n, 1e6 + n, f"kind {n}", args={"Bytes": n}) for n in range(30_000)]
    index = read_trace(as_bytes(many)).index
    assert index.events["bytes"].tolist() == list(range(30_000))
    # Each instant counts for the call that began last: all but the last begin 1 us apart.
    own = index.calls["self_ns"].to_numpy()
    assert own[0] == 1000
    assert own.sum() == index.calls["end_ns"].max()


def test_each_instant_counts_for_the_call_that_began_last():
    chance = random.Random(3)
    for _ in range(20):
        spans = [(chance.randrange(50), chance.randrange(1, 30)) for _ in range(12)]
        index = read_trace(as_bytes([call("f", start, last) for start, last in spans])).index
        found = index.calls
        starts, ends = found["start_ns"].to_numpy(), found["end_ns"].to_numpy()
        own = [0] * len(found)
        for at in range(0, int(ends.max()), 1000):
            inside = np.flatnonzero((starts <= at) & (at < ends))
            if len(inside):
                own[inside[-1]] += 1000
        assert found["self_ns"].tolist() == own


ODD: list[Any] = [[], [[]], [1, 2], {}, {"a": 1}, None, True, "x", "", "\ud800", 10**400, -1, 1e308]
KEYS = ("ts", "dur", "name", "cat", "pid", "tid", "args", "stream", "correlation", "Input Dims")


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("num_events", "cat"), [(1, "kernel"), (3, "cpu_op")])
def test_one_odd_value_everywhere_is_read_or_refused_in_a_line(
    key: str, value: Any, num_events: int, cat: str
):
    args = {"External id": 1, "stream": 7, "correlation": 3, "Input Dims": [[2]]}
    events = [call("aten::mm", 10 * n, 5, cat, args=dict(args)) for n in range(num_events)]
    for event in events:
        (event["args"] if key in args else event)[key] = value
    said = "one line"
    try:
        trace = read_trace(json.dumps({"traceEvents": events}).encode())
        json.dumps(trace_json(trace), allow_nan=False).encode()
    except TraceError as error:
        said = str(error)
    assert "\n" not in said
