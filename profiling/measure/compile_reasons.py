"""Why torch compiled again or broke a graph, and at which line of which file.

In: what Dynamo says, in its own words. Out: the reason on one line, and the place in the source.
Folders of this machine are taken out: runs are passed on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from profiling.trace.source_places import place_in, without_folders

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)(?:\n\s*(\S[^\n]*))?')
LONGEST = 300


@dataclass(frozen=True)
class GraphBreak:
    """Breaks of one reason at one place. source: "file:line, in function", None if unknown."""

    reason: str
    source: str | None
    count: int


def failed_guard(reason: str | None) -> tuple[str | None, str | None]:
    """Split Dynamo's reason of a recompilation.

    Args:
        reason: "0/1: n == 1.5  # return y * n", then the stack of the model's code on more lines.

    Returns:
        The guard that failed, and the line of the model's code it came from, if Dynamo says so.
    """
    if reason is None:
        return None, None
    frames = _FRAME.findall(reason)
    source = None
    if frames:
        file, line, function, code = frames[-1]
        source = f"{place_in(file, int(line), function)}" + (f": {code.strip()}" if code else "")
    first = reason.splitlines()[0] if reason.strip() else reason
    guard = re.sub(r"\s{2,}# .*", "", first)
    return _one_line(guard), None if source is None else _one_line(source)


def breaks_of(reasons: Iterable[Any]) -> tuple[GraphBreak, ...]:
    """Count graph breaks by reason and place. reasons: Dynamo's ``GraphCompileReason``s."""
    found: Counter[tuple[str, str | None]] = Counter()
    for one in reasons:
        frame = one.user_stack[-1] if one.user_stack else None
        source = None if frame is None else place_in(frame.filename, frame.lineno, frame.name)
        if frame is not None and source is not None and frame.line:
            source += f": {frame.line.strip()}"
        found[_one_line(one.reason.splitlines()[0]), source] += 1
    return tuple(GraphBreak(reason, source, count) for (reason, source), count in found.items())


def _one_line(text: str) -> str:
    text = " ".join(without_folders(text).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
