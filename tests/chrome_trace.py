"""What a Chrome trace must be for the viewers that people open it in.

In: the decoded JSON of a trace. Out: one sentence per problem, none if Perfetto's JSON importer
takes all of it and HolisticTraceAnalysis finds a rank. Rules as in Perfetto's
``src/trace_processor/importers/json`` (``json_trace_parser_impl.cc``), which drops what breaks them
without a word to the user.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

PHASE_LETTERS = "BEXiIRCbensft" + "M"
ROUNDING_US = 0.002  # kineto writes three decimals
MOST_PROBLEMS = 20


def validate_chrome_trace(trace: Any) -> list[str]:
    """Problems that a viewer would have with ``trace``, at most :data:`MOST_PROBLEMS` of them.

    Args:
        trace: the decoded JSON: an object with ``traceEvents``, or the bare list of events.
    """
    events = trace.get("traceEvents") if isinstance(trace, dict) else trace
    if not isinstance(events, list):
        return ["no list of events under 'traceEvents'"]
    problems = []
    if isinstance(trace, dict):
        info = trace.get("distributedInfo")
        if not isinstance(info, dict) or not isinstance(info.get("rank"), int):
            problems.append("no distributedInfo.rank: HolisticTraceAnalysis refuses the trace")
        if trace.get("displayTimeUnit") not in (None, "ms", "ns"):
            problems.append(f"displayTimeUnit is {trace['displayTimeUnit']!r}; expected ms or ns")
    for place, event in enumerate(events):
        problems += [f"event {place}: {fault}" for fault in _event_faults(event)]
        if len(problems) >= MOST_PROBLEMS:
            return problems[:MOST_PROBLEMS]
    problems += _overlaps(events)
    try:
        json.dumps(trace, allow_nan=False)
    except ValueError:
        problems.append("holds NaN or an infinity, which are not JSON")
    return problems[:MOST_PROBLEMS]


def _event_faults(event: Any) -> list[str]:
    if not isinstance(event, dict):
        return ["is no object"]
    letter = event.get("ph")
    if not isinstance(letter, str) or len(letter) != 1 or letter not in PHASE_LETTERS:
        return [f"ph is {letter!r}; expected one of {PHASE_LETTERS}"]
    faults = []
    if letter != "M" and not _is_time(event.get("ts")):
        faults.append(f"ts is {event.get('ts')!r}; expected microseconds")
    if letter == "X" and (not _is_time(event.get("dur")) or float(event["dur"]) < 0):
        faults.append(f"dur is {event.get('dur')!r}; expected microseconds, 0 or more")
    if letter != "E" and not isinstance(event.get("name"), str):
        faults.append(f"name is {event.get('name')!r}; expected text")
    for key in ("pid", "tid"):
        if not isinstance(event.get(key, 0), int | str):
            faults.append(f"{key} is {event[key]!r}; expected a whole number or text")
    if letter in "sft" and not isinstance(event.get("id"), int | str):
        faults.append("a flow without an id")
    if letter in "ben" and not (event.get("id") or event.get("id2")):
        faults.append("an asynchronous event without an id")
    if letter in "iI" and event.get("s", "t") not in ("g", "p", "t"):
        faults.append(f"scope s is {event['s']!r}; expected g, p or t")
    if not isinstance(event.get("args", {}), dict):
        faults.append("args is no object")
    if letter == "C" and not event.get("args"):
        faults.append("a counter without values")
    return faults


def _is_time(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _overlaps(events: list[dict[str, Any]]) -> list[str]:
    """Complete events of one track must nest: Perfetto leaves out those that do not."""
    tracks: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            begin = float(event["ts"])
            track = (str(event.get("pid")), str(event.get("tid")))
            tracks[track].append((begin, -float(event["dur"]), event["name"]))
    problems = []
    for track, calls in tracks.items():
        open_until: list[tuple[float, str]] = []
        for begin, negative, name in sorted(calls):
            end = begin - negative
            while open_until and open_until[-1][0] <= begin + ROUNDING_US:
                open_until.pop()
            if open_until and end > open_until[-1][0] + ROUNDING_US:
                problems.append(f"{name!r} outlasts {open_until[-1][1]!r} on track {track}")
            open_until.append((end, name))
    return problems
