"""Memory snapshots: the blocks at the peak by phase and by stack, from anybody's file.

Run alone: ``python -m pytest tests/test_memory_snapshot.py``. No GPU: the snapshots are made by
hand in the format that torch documents.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from profiling.__main__ import main
from profiling.figures.memory_curves import snapshot_over_time
from profiling.measure.memory_history import memory_history
from profiling.trace import memory_snapshot
from profiling.trace.memory_snapshot import SnapshotError, is_snapshot, read_snapshot
from profiling.trace.plain_pickle import RefusedPickle, load_plain
from profiling.trace.snapshot_peak import (
    BEFORE,
    UNKNOWN,
    Peak,
    blocks_by_phase,
    blocks_by_place,
    highest,
    stack_tree,
)
from profiling.trace.trace_file import TraceError
from recorded import TRACE
from snapshots import BASE, CACHE, LARGE, MB, PEAK, SMALL, WEIGHTS, block, event, segment, snapshot


def peak_of(raw: Any) -> Peak:
    return highest(read_snapshot(pickle.dumps(raw)))


@pytest.fixture(scope="module")
def peak() -> Peak:
    return peak_of(snapshot())


def test_the_peak_is_what_was_held_at_the_highest_moment(peak: Peak) -> None:
    assert (peak.device, peak.bytes) == (0, PEAK)
    assert peak.peak_us == 300  # from the first allocation
    assert peak.levels.tolist() == [
        WEIGHTS,
        WEIGHTS + SMALL,
        WEIGHTS,
        WEIGHTS + CACHE,
        PEAK,
        WEIGHTS + CACHE,
    ]
    assert peak.reserved_bytes == WEIGHTS + CACHE + LARGE
    assert sum(one.size for one in peak.blocks) == PEAK


def test_blocks_belong_to_the_phase_that_allocated_them(peak: Peak) -> None:
    rows = blocks_by_phase(peak).set_index("phase")
    assert rows["bytes"].to_dict() == {BEFORE: WEIGHTS, "prefill": CACHE + LARGE}
    assert rows["num_blocks"].to_dict() == {BEFORE: 1, "prefill": 2}
    assert rows["share"].sum() == pytest.approx(1)
    assert peak.phases[0] == ("encoder", -50, 150)


def test_blocks_are_told_by_the_call_that_is_not_of_torch(peak: Peak) -> None:
    rows = blocks_by_place(peak)
    assert rows["place"].tolist() == [
        "weights.py:77 load_weights",
        "decoder.py:90 forward",
        "cache.py:40 allocate_cache",
    ]
    assert rows["bytes"].tolist() == [WEIGHTS, LARGE, CACHE]


def test_the_tree_of_stacks_is_as_wide_as_the_peak(peak: Peak) -> None:
    tree = stack_tree(peak)
    assert tree["own"].sum() == PEAK
    tops = tree[tree["parent_id"] < 0].set_index("label")["total"]
    assert tops.to_dict() == {BEFORE: WEIGHTS, "prefill": CACHE + LARGE}
    run = tree[tree["label"] == "lab.py:200 stream"].iloc[0]
    assert (run["total"], run["own"]) == (CACHE + LARGE, 0)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_and_json_say_the_same(peak: Peak, tmp_path: Path, protocol: int) -> None:
    as_json = json.dumps(snapshot()).encode()
    for name, content in (
        ("a.pickle", pickle.dumps(snapshot(), protocol=protocol)),
        ("a.json", as_json),
        ("a.json.gz", gzip.compress(as_json)),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        assert is_snapshot(file)
        found = highest(read_snapshot(file))
        assert (found.bytes, found.blocks) == (peak.bytes, peak.blocks)
    assert not is_snapshot(TRACE)


def test_a_block_counts_until_its_free_has_completed() -> None:
    raw = snapshot()
    trace = raw["device_traces"][0]
    elsewhere = BASE + 999 * MB
    for one in trace:
        if one["size"] == SMALL:
            one["addr"] = elsewhere
    assert peak_of(raw).bytes == PEAK
    freed = next(one for one in trace if one["action"] == "free_completed")
    freed["time_us"] += 250  # the large one has come by then
    trace.sort(key=lambda one: one["time_us"])
    assert peak_of(raw).bytes == PEAK + SMALL


def test_a_history_that_lost_its_beginning_is_read_as_there_before() -> None:
    raw = snapshot()
    raw["device_traces"][0] = raw["device_traces"][0][6:]  # from the large one's free on
    found = peak_of(raw)
    assert found.bytes == PEAK
    assert {one.phase for one in found.blocks} == {BEFORE}
    assert UNKNOWN in set(blocks_by_place(found)["place"])


def test_a_snapshot_without_history_shows_what_is_held_now() -> None:
    raw = snapshot() | {"device_traces": [], "external_annotations": []}
    found = peak_of(raw)
    assert found.bytes == WEIGHTS + CACHE
    assert blocks_by_phase(found)["phase"].tolist() == [BEFORE]
    assert snapshot_over_time(found).layout.annotations


def test_of_several_devices_the_fullest_is_shown() -> None:
    raw = snapshot()
    held = block(BASE, 300 * MB, "active_allocated")
    raw["segments"].append(segment(BASE, held, device=1))
    raw["device_traces"].append([event("alloc", BASE + 400 * MB, MB, 5)])
    found = peak_of(raw)
    assert (found.device, found.bytes) == (1, 301 * MB)


def test_the_curve_keeps_the_peak_and_marks_it(peak: Peak) -> None:
    curve, marked = snapshot_over_time(peak).data[:2]
    assert max(curve.y) == marked.y[0] == pytest.approx(PEAK / 1e6)
    assert marked.x[0] == pytest.approx(0.3)


class Attack:
    """A pickle of it calls the system when it is read by anybody careless."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    tmp_path: Path, protocol: int
) -> None:
    marker = tmp_path / "done"
    data = pickle.dumps({"segments": [Attack(marker)]}, protocol=protocol)
    with pytest.raises(SnapshotError, match="more than hold plain values"):
        read_snapshot(data)
    pickle.loads(data)
    assert marker.exists()  # the attack works where it is not refused


def test_sizes_that_a_pickle_claims_reserve_nothing() -> None:
    for bomb in (
        b"\x80\x02]r\xff\xff\xff\x7f.",  # an index in the memo
        b"\x80\x05X" + struct.pack("<I", 2**31) + b"abc",  # a text of two gigabytes
        b"\x80\x05\x8d" + struct.pack("<Q", 2**40),
        b"\x80\x04\x95" + struct.pack("<Q", 2**40),
    ):
        try:
            assert load_plain(bomb) == []
        except RefusedPickle:
            continue


def test_a_file_that_repeats_one_list_very_often_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_snapshot, "MAX_ENTRIES", 1000)
    blocks = [block(BASE, 1, "active_allocated")] * 40
    one = segment(BASE, *blocks)
    with pytest.raises(SnapshotError, match=r"4,1\d\d events and blocks"):
        read_snapshot(pickle.dumps({"segments": [one] * 100, "device_traces": []}))
    many = [segment(BASE, device=number) for number in range(100)]
    with pytest.raises(SnapshotError, match="100 devices"):
        read_snapshot(pickle.dumps({"segments": many, "device_traces": []}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(snapshot())[:400], "damaged or cut short"),
        (b"\x80", "damaged or cut short"),
        (pickle.dumps([1, 2]), "has no list of segments"),
        (pickle.dumps({"segments": [], "device_traces": []}), "no blocks and no events"),
        (pickle.dumps({"segments": [{"blocks": 3}]}), "no whole memory snapshot"),
        (pickle.dumps({"segments": [segment(BASE, {"size": -1, "state": "inactive"})]}), "whole"),
        (json.dumps(snapshot()).encode()[:300], "ends in the middle"),
        (b'{"segments": [1]}', "no whole memory snapshot"),
        (b"dear sir", "not JSON|ends in the middle"),
    ],
)
def test_what_is_no_snapshot_gets_a_sentence(content: bytes, said: str) -> None:
    with pytest.raises(TraceError, match=said) as caught:
        read_snapshot(content)
    assert "\n" not in str(caught.value)


def test_a_snapshot_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(SnapshotError, match="holds more than 0 MB"):
        read_snapshot(pickle.dumps(snapshot()), max_bytes=100)


def test_the_command_tabulates_a_snapshot_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / "gpu.pickle", tmp_path / "gpu.html"
    file.write_bytes(pickle.dumps(snapshot()))
    assert main(["snapshot", str(file), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "cuda:0: 168 MB in 3 blocks" in said
    assert "weights.py:77 load_weights (there before)" in said
    assert "Blocks at the peak" in page.read_text()
    assert main(["snapshot", str(TRACE)]) == 2
    assert "has no list of segments" in capsys.readouterr().err
    assert main(["snapshot", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["peak_bytes"] == PEAK


class FakeAllocator:
    """What :func:`memory_history` asks of ``torch.cuda.memory``."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def _record_memory_history(self, enabled: str | None, **options: Any) -> None:
        self.calls.append((enabled, options.get("max_entries")))

    def _snapshot(self) -> dict[str, Any]:
        self.calls.append("snapshot")
        return snapshot()


def test_our_own_recording_ends_whatever_happens_and_forgets_folders(
    monkeypatch: pytest.MonkeyPatch, peak: Peak
) -> None:
    gpu = torch.device("cuda")
    allocator = FakeAllocator()
    monkeypatch.setattr(torch.cuda, "memory", allocator)
    packed = memory_history(gpu, lambda: allocator.calls.append("run"))
    assert packed is not None
    assert allocator.calls == [("all", 100_000), "run", "snapshot", (None, None)]
    assert "somebody" not in gzip.decompress(packed).decode()
    assert highest(read_snapshot(packed)).blocks == peak.blocks
    allocator.calls.clear()
    with pytest.raises(ZeroDivisionError):
        memory_history(gpu, lambda: 1 // 0)
    assert allocator.calls[-1] == (None, None)
    assert memory_history(torch.device("cpu"), lambda: 1 // 0) is None
