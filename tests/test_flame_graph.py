"""Flame graphs: by time, by memory, for speedscope, and the difference of two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from core.phases import PhaseClock
from core.units import format_bytes
from profiling.__main__ import main
from profiling.figures.trace_views import difference_bars, operator_icicle
from profiling.trace.breakdown import operator_paths, phase_table
from profiling.trace.events import Trace, read_trace
from profiling.trace.memory_events import allocated_by_call
from profiling.trace.speedscope import speedscope
from profiling.trace.tree_difference import tree_difference

SIZE = 256


def record(target: Path, *, products: int) -> Trace:
    clock, square = PhaseClock(), torch.ones(SIZE, SIZE)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as session:
        with clock.mark("encoder"):
            for _ in range(products):
                torch.nn.functional.linear(square, square)
        with clock.mark("decode"):
            torch.relu(square)
    session.export_chrome_trace(str(target))
    return read_trace(target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def few(folder: Path) -> Trace:
    return record(folder / "few.json", products=2)


@pytest.fixture(scope="module")
def many(folder: Path) -> Trace:
    return record(folder / "many.json", products=40)


def test_widths_add_up_to_the_phase(many: Trace) -> None:
    tree = operator_paths(many.index, least_share=0)
    widths = tree.groupby("phase")["own"].sum()
    for row in phase_table(many.index).itertuples():
        if row.phase in ("encoder", "decode"):
            assert widths[row.phase] == pytest.approx(row.wall_ms, rel=0.01)


def test_memory_is_charged_to_the_call_that_allocated_it(few: Trace) -> None:
    allocated = allocated_by_call(few.index)
    tree = operator_paths(few.index, of_calls=allocated, least_share=0)
    by_phase = tree[tree["parent_id"] < 0].set_index("phase")["total"]
    assert by_phase["encoder"] >= 2 * 4 * SIZE**2
    assert by_phase["decode"] == 4 * SIZE**2
    linear = tree[(tree["label"] == "aten::linear") & (tree["phase"] == "encoder")]
    assert linear["total"].sum() >= 2 * 4 * SIZE**2
    shown = operator_icicle(tree, write=format_bytes).data[0]
    assert shown.labels[0] == f"all {format_bytes(tree['own'].sum())}"


def test_a_search_keeps_the_colour_of_what_it_finds_and_says_its_share(few: Trace) -> None:
    tree = operator_paths(few.index, least_share=0)
    plain, found = operator_icicle(tree).data[0], operator_icicle(tree, find="RELU").data[0]
    changed = [
        label
        for label, before, after in zip(
            plain.labels, plain.marker.colors, found.marker.colors, strict=True
        )
        if before == after and not label.startswith("all ")
    ]
    assert changed == ["aten::relu"]
    assert found.labels[0].endswith("% found")
    assert operator_icicle(tree, find="no such call").data[0].labels[0].endswith(", 0.0% found")


def test_the_speedscope_file_keeps_its_format(many: Trace) -> None:
    content = json.loads(json.dumps(speedscope(many.index, "many")))
    assert content["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = content["shared"]["frames"]
    assert all(isinstance(frame["name"], str) for frame in frames)
    for timed in [one for one in content["profiles"] if one["type"] == "evented"]:
        stack: list[int] = []
        last = timed["startValue"]
        for event in timed["events"]:
            assert timed["startValue"] <= last <= event["at"] <= timed["endValue"]
            last = event["at"]
            if event["type"] == "O":
                assert 0 <= event["frame"] < len(frames)
                stack.append(event["frame"])
            else:
                assert stack.pop() == event["frame"]
        assert not stack
    (memory,) = [one for one in content["profiles"] if one["type"] == "sampled"]
    assert memory["unit"] == "bytes"
    assert len(memory["samples"]) == len(memory["weights"])
    assert sum(memory["weights"]) == memory["endValue"] == allocated_by_call(many.index).sum()


SCHEMA = json.loads((Path(__file__).parent / "data" / "speedscope-schema.json").read_text())
KINDS = {"object": dict, "array": list, "string": str, "number": (int, float)}


def faults(value: object, schema: dict[str, Any], place: str = "file") -> list[str]:
    """What JSON Schema has against a value; every keyword that the published schema uses."""
    unknown = set(schema) - {"$ref", "$schema", "definitions", "title", *KEYWORDS}
    assert not unknown, unknown
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        return faults(value, SCHEMA["definitions"][name], place)
    if "anyOf" in schema:
        tried = [faults(value, one, place) for one in schema["anyOf"]]
        return min(tried, key=len)
    kind = KINDS[schema["type"]]
    if not isinstance(value, kind) or isinstance(value, bool):
        return [f"{place} is {value!r}; expected {schema['type']}"]
    found = []
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append(f"{place} is {value!r}")
    if isinstance(value, dict):
        found += [f"{place} lacks {key}" for key in schema.get("required", ()) if key not in value]
        for key, inner in schema.get("properties", {}).items():
            found += faults(value[key], inner, f"{place}.{key}") if key in value else []
    if isinstance(value, list):
        for number, one in enumerate(value):
            found += faults(one, schema["items"], f"{place}[{number}]")
    return found


KEYWORDS = ("anyOf", "type", "enum", "const", "required", "properties", "items")


def test_the_speedscope_file_is_what_its_published_schema_asks_for(many: Trace) -> None:
    content = json.loads(json.dumps(speedscope(many.index, "many")))
    assert faults(content, SCHEMA) == []
    for spoil in (
        lambda one: one.pop("shared"),
        lambda one: one["profiles"][0].update(unit="minutes"),
        lambda one: one["profiles"][0]["events"][0].update(at="0"),
        lambda one: one["shared"]["frames"][0].pop("name"),
        lambda one: one["profiles"][-1].pop("weights"),
    ):
        spoilt = json.loads(json.dumps(content))
        spoil(spoilt)
        assert faults(spoilt, SCHEMA)


def test_the_flame_graph_of_speedscope_is_as_wide_as_the_phase(many: Trace) -> None:
    content = speedscope(many.index, "many")
    encoder = [frame["name"] for frame in content["shared"]["frames"]].index("encoder")
    (open_at,) = [
        event["at"]
        for event in content["profiles"][0]["events"]
        if event["frame"] == encoder and event["type"] == "O"
    ]
    (close_at,) = [
        event["at"]
        for event in content["profiles"][0]["events"]
        if event["frame"] == encoder and event["type"] == "C"
    ]
    wall = phase_table(many.index).set_index("phase")["wall_ms"]["encoder"]
    assert (close_at - open_at) / 1000 == pytest.approx(wall, rel=0.01)


def test_two_traces_differ_by_phase_first_and_calls_meet_without_their_wrappers(
    few: Trace, many: Trace
) -> None:
    table = tree_difference(few.index, many.index)
    assert table["path"][0] == "encoder"
    assert table["depth"].is_monotonic_increasing or table["depth"][0] == 0
    assert not table["path"].str.contains("aten::linear").any()
    product = table[table["path"].str.startswith("encoder > aten::")].iloc[0]
    assert product["difference_ms"] == pytest.approx(product["b_ms"] - product["a_ms"])
    assert product["only_in"] == ""
    assert tree_difference(few.index, few.index)["difference_ms"].abs().max() == 0


def test_bars_of_a_difference_point_to_the_quicker_side(few: Trace, many: Trace) -> None:
    bars = difference_bars(tree_difference(few.index, many.index)).data[0]
    assert bars.x[0] > 0
    assert difference_bars(tree_difference(few.index, few.index)).layout.annotations


def test_the_command_writes_a_speedscope_file_and_a_difference(
    folder: Path, few: Trace, many: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    target = folder / "few.speedscope.json"
    command = ["read", str(folder / "few.json"), "--against", str(folder / "many.json")]
    assert main([*command, "--speedscope", str(target)]) == 0
    assert "many.json (B) against few.json (A)" in capsys.readouterr().out
    assert json.loads(target.read_text())["name"] == "few.json"


def test_names_of_threads_may_end_in_anything() -> None:
    ids = ["a", "a\0", "", "\0", 1]
    events = [{"ph": "X", "name": "f", "ts": n, "dur": 1, "tid": tid} for n, tid in enumerate(ids)]
    index = read_trace(json.dumps(events).encode()).index
    profiles = speedscope(index, "x")["profiles"]
    assert len(profiles) == len(ids)
    assert all(len(profile["events"]) == 2 for profile in profiles)
