"""The promised numbers, each judged met or missed by this run.

In: the session's JSON. Out: one row per promise: what, the bar, what was found, met or missed, or
"not measured" where the run did not look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.moved import share_of_reachable
from benchmarks.numbers import faster
from benchmarks.systems import (
    COMPILE,
    DRAFTS,
    DRAFTS_COMPILE,
    EAGER,
    INT8,
    INT8_COMPILE,
    PEER_COMPILE,
    PEER_EAGER,
    SYSTEMS,
)

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
BASE_S = "10"

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """One row. value: what was found, in the bar's own unit."""

    what: str
    bar: str
    value: float | None
    shown: str
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def judge(found: Found) -> list[Bar]:
    """Judge every promise, in the order they were made."""
    shapes = {shape["name"]: shape for shape in found["shapes"]}
    extras, quality = found.get("extras", {}), found.get("quality", {})
    rows = [_tokens(found["shapes"])]
    small, big = (shapes.get(name) for name in ("small", "1b"))
    for slow, fast, least in (
        (PEER_EAGER, EAGER, 1.3),
        (PEER_EAGER, COMPILE, 2.2),
        (PEER_COMPILE, COMPILE, 1.8),
    ):
        what = f"small, 10 s: {SYSTEMS[fast].title} against {SYSTEMS[slow].title}"
        rows.append(_at_least(what, least, _times(small, slow, fast)))
    for shape, name, least in ((small, "small", 1.2), (big, "1b", 1.6)):
        for slow, fast in ((EAGER, INT8), (COMPILE, INT8_COMPILE)):
            what = f"{name}, 10 s: {SYSTEMS[fast].title} against {SYSTEMS[slow].title}"
            rows.append(_at_least(what, least, _times(shape, slow, fast)))
    rows += [
        _at_most(
            "small: cold start of compiling over that of transformers",
            0.5,
            _start(small, COMPILE, PEER_COMPILE),
        ),
        _at_most(
            f"graphs compiled by {extras.get('lengths', {}).get('lengths', 30)} lengths x LoRA on "
            "and off after warm-up",
            0,
            extras.get("lengths", {}).get("later_graphs"),
            form="{:.0f}",
        ),
        _at_least("1b: decode bandwidth over the measured one", 0.8, bandwidth(found, big)),
        _at_least(
            "1b: int8 against float32, milliseconds a token",
            2.5,
            _per_token(big, (EAGER, COMPILE), (INT8, INT8_COMPILE)),
        ),
        _at_least(
            "int8: cosine of the logits", 0.999, quality.get("int8", {}).get("cosine"), "{:.5f}"
        ),
        *_drafts(extras.get("recordings")),
        _at_least(
            "small: batch of 16 against one by one",
            3.0,
            _most(extras.get("batch", {}), lambda row: row["times"]["ratio"]),
        ),
        _at_most(
            "peak memory of the longest file over that of the shortest",
            1.1,
            _growth(extras.get("long", [])),
        ),
        _at_most(
            "tiny, compiled, from its package: seconds until ready, after imports",
            1.0,
            extras.get("package", {}).get("ready_s"),
        ),
    ]
    return rows


def bandwidth(found: Found, shape: Found | None) -> float | None:
    """Compute what decode reads in float32 over what could be read, of the better engine."""
    if shape is None:
        return None
    shares = [share_of_reachable(found, shape, BASE_S, name) for name in (EAGER, COMPILE)]
    return max((share for share in shares if share is not None), default=None)


def _tokens(shapes: list[Found]) -> Bar:
    rows = [
        row["first_difference"] is None
        for shape in shapes
        for length in shape["lengths"].values()
        for row in length.values()
        if "first_difference" in row
    ]
    value = sum(rows) / len(rows) if rows else None
    return _at_least("greedy tokens equal to transformers, share of runs", 1.0, value, "{:.3f}")


def _times(shape: Found | None, slow: str, fast: str) -> float | None:
    if shape is None or BASE_S not in shape["lengths"]:
        return None
    found = faster(shape["lengths"][BASE_S], slow, fast, paired=shape["together"])
    return None if found is None else found["ratio"]


def _start(shape: Found | None, ours: str, theirs: str) -> float | None:
    if shape is None or not {ours, theirs} <= set(shape["systems"]):
        return None
    whole = shape["systems"][theirs]["cold_start_s"]
    return shape["systems"][ours]["cold_start_s"] / whole if whole > 0 else None


def _per_token(shape: Found | None, floats: tuple[str, ...], int8: tuple[str, ...]) -> float | None:
    """Compare the best of each kind."""
    if shape is None or BASE_S not in shape["lengths"]:
        return None
    row = shape["lengths"][BASE_S]
    slow = [row[name]["ms_per_token"] for name in floats if name in row]
    fast = [row[name]["ms_per_token"] for name in int8 if name in row]
    return min(slow) / min(fast) if slow and fast and min(fast) else None


def _drafts(found: Found | None) -> list[Bar]:
    differ = None if found is None else len(found["texts_differ"])
    fewer = faster_by = None
    if found is not None:
        fewer = found["passes"][EAGER] / found["passes"][DRAFTS]
        faster_by = found["times"].get(DRAFTS_COMPILE, found["times"][DRAFTS])["ratio"]
        faster_by = min(faster_by, found["times"][DRAFTS]["ratio"])
    return [
        _at_most("exact drafts: recordings whose tokens differ", 0, differ, form="{:.0f}"),
        _at_least("exact drafts: times fewer decoder passes", 3.0, fewer),
        _at_least("exact drafts: times faster end to end", 1.0, faster_by),
    ]


def _most(rows: Mapping[str, Found], value: Callable[[Found], float]) -> float | None:
    return max((value(row) for row in rows.values()), default=None)


def _growth(rows: list[Found]) -> float | None:
    if len(rows) < 2:
        return None
    ordered = sorted(rows, key=lambda row: row["minutes"])
    return float(ordered[-1]["peak_bytes"] / ordered[0]["peak_bytes"])


def _at_least(what: str, least: float, value: float | None, form: str = "{:.2f}") -> Bar:
    bar = f"at least {form.format(least)}"
    return _bar(what, bar, value, form, value is not None and value >= least)


def _at_most(what: str, most: float, value: float | None, form: str = "{:.2f}") -> Bar:
    bar = f"at most {form.format(most)}"
    return _bar(what, bar, value, form, value is not None and value <= most)


def _bar(what: str, bar: str, value: float | None, form: str, met: bool) -> Bar:
    if value is None:
        return Bar(what, bar, None, "n/a", NOT_MEASURED)
    return Bar(what, bar, value, form.format(value), MET if met else MISSED)
