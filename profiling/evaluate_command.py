"""``python -m profiling evaluate``: variants over a data set, on the command line.

In: parsed arguments and somebody to tell the progress. Out: rows in a folder, perhaps a page, and a
:class:`CommandResult`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.text.normalizers import NORMALIZERS
from profiling.commands import ALL_WELL, NOTHING_DONE, WORTH_A_LOOK, CommandResult, Say
from profiling.evaluate.data import doubts, read_data
from profiling.evaluate.page import evaluation_page
from profiling.evaluate.results import ResultFile
from profiling.evaluate.run import evaluate
from profiling.evaluate.table import scores, strangers, table_text
from profiling.evaluate.variants import Labs, parse_variants, runnable


def add_evaluate(add: Callable[..., Any]) -> None:
    """Add the command's arguments."""
    add("--data", type=Path, required=True, help="manifest (.jsonl, .csv), or folder with texts")
    add(
        "--variants",
        nargs="+",
        default=["tiny"],
        metavar="VARIANT",
        help="MODEL[,key=value...]; + between several values: tiny,engine=eager+compile",
    )
    add("--normalizer", choices=tuple(NORMALIZERS), default="basic", help="default: basic")
    add("--out", type=Path, default=Path("evaluation"), help="folder of the rows; gone on with")
    add("--html", type=Path, help="one page to write: picture and table")
    add("--limit", type=int, help="the first so many recordings")
    add("--device", help="cpu, cuda, cuda:1, mps")


def run_evaluate(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Measure what is missing, and tabulate all there is.

    Returns:
        The table; status 1 where a variant could not run or a recording failed.

    Raises:
        UserError: no data set, no variants, a wrong limit, or nothing can be written.
    """
    if parsed.limit is not None and parsed.limit < 1:
        raise UserError(f"--limit is {parsed.limit}; expected 1 or more")
    variants = parse_variants(parsed.variants)
    data = read_data(parsed.data, parsed.limit)
    results = ResultFile(parsed.out)
    warnings = [*data.warnings, *doubts(data.samples, parsed.normalizer)]
    for warning in warnings:
        say(f"warning: {warning}")
    open_lab = Labs(parsed.device).open
    problems = {v.name: why for v, why in runnable(variants, open_lab).items() if why is not None}
    for name, why in problems.items():
        say(f"{name} cannot run here: {why}")
    chosen = [variant for variant in variants if variant.name not in problems]
    said: tuple[str, int] | None = None
    for step in evaluate(data.samples, chosen, results, open_lab):
        now = step.variant.name, 100 * step.done // step.total
        if step.problem is not None:
            problems[step.variant.name] = step.problem
            say(f"{step.variant.name} stopped: {step.problem}")
        elif now != said:
            said = now
            say(f"{step.variant.name}: {step.done} of {step.total}", step.done / step.total)
    rows = scores(data.samples, variants, results, parsed.normalizer, problems)
    warnings += (late := strangers(data.samples, results))
    for warning in late:
        say(f"warning: {warning}")
    about = f"{data.name}: {len(data.samples):,} recordings, normaliser {parsed.normalizer}"
    text = [about, table_text(rows), f"rows: {results.file}"]
    if parsed.html is not None:
        page = evaluation_page(
            rows, data=data.name, normalizer=parsed.normalizer, warnings=warnings
        )
        parsed.html.write_text(page, encoding="utf-8")
        text.append(f"page: {parsed.html}")
    status = WORTH_A_LOOK if problems or any(row.failed for row in rows) else ALL_WELL
    if not any(row.done for row in rows):
        status = NOTHING_DONE
    told = {"data": data.name, "normalizer": parsed.normalizer, "warnings": warnings}
    table = [row.to_json() for row in rows]
    return CommandResult(status, {**told, "variants": table}, "\n".join(text))
