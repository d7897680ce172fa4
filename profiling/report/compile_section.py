"""The compile report as a section: cost, recompiles with their reasons, generated code.

In: a :class:`Page`, a run as its JSON states it, the generated code that was kept with it. Out:
nothing; the page grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.figures.run_details import compile_bars
from profiling.measure.compiled_code import GeneratedCode
from profiling.report.columns import BREAK_COLUMNS, CACHE_COLUMNS, RECOMPILE_COLUMNS
from profiling.report.page import Page

RECOMPILED = (
    "A guard is a condition that compiled code checks before it runs. Where one fails, the "
    "function is compiled again for the new case."
)
BREAKS = "At a break the compiled graph ends and Python goes on: every call pays for the way back."
CODE = (
    "What Inductor wrote for each graph: the kernels and the calls between them. Long files are "
    "shown in part; the whole is saved with the run."
)
NO_CODE = (
    "The generated code was not kept: the run is older than that, or the compiler's files were "
    "gone."
)


def compiling(page: Page, run: Mapping[str, Any], codes: Sequence[GeneratedCode] = ()) -> None:
    """Append what compiling cost, recompilations, breaks and the generated code.

    Args:
        page: grows.
        run: as its JSON states it.
        codes: of the run, where they were kept.
    """
    ledger = run.get("compile")
    page.heading("Compiling")
    if not ledger:
        page.note("Nothing was compiled in this run.")
        return
    if ledger.get("packaged_seconds") is not None:
        page.note(f"Loaded from a package, built in {ledger['packaged_seconds']:.1f} s.")
    if ledger.get("entries") or ledger.get("packaged_seconds") is None:
        _costs(page, ledger)
    _code(page, codes)


def _costs(page: Page, ledger: Mapping[str, Any]) -> None:
    recompiles = ledger.get("recompiles") or ()
    breaks = sum((ledger.get("breaks") or {}).values())
    if ledger.get("seconds") is not None:
        page.note(
            f"{ledger['seconds']:.1f} s for {ledger.get('graphs', 0)} graphs, {breaks} breaks, "
            f"{len(recompiles)} recompilations, "
            f"{ledger.get('guards') or 'an unknown number of'} guards."
        )
    if ledger.get("compiled_before"):
        page.note("The graphs were compiled before this run began.")
    page.figure(compile_bars(ledger), "Seconds of each compilation")
    caches = [{"what": what, **counts} for what, counts in (ledger.get("caches") or {}).items()]
    if caches:
        page.table(caches, CACHE_COLUMNS)
    if recompiles:
        page.heading("Recompilations", RECOMPILED, level=3)
        page.table(recompiles, RECOMPILE_COLUMNS)
    if breaks:
        page.heading("Graph breaks", BREAKS, level=3)
        page.table(break_rows(ledger), BREAK_COLUMNS)


def break_rows(ledger: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return graph breaks with their places; older runs know the reasons only."""
    rows = list(ledger.get("graph_breaks") or ())
    old = (ledger.get("breaks") or {}).items()
    return rows or [{"reason": why.splitlines()[0], "count": count} for why, count in old]


def _code(page: Page, codes: Sequence[GeneratedCode]) -> None:
    page.heading("Generated code", CODE if codes else NO_CODE, level=3)
    for code in codes:
        said, text = code.excerpt()
        page.add("code", f"{code.graph}, {code.part} ({code.language}): {said}", text)
