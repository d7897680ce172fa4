"""``python -m profiling run | compare | report | runs | sweep | history | evaluate | read | ...``.

In: command-line arguments. Out: text or JSON on stdout, progress and problems on stderr; exit
status 0 all well, 1 something is worth a look (nothing measured is lost), 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.checkpoint.catalog import ASSETS
from core.transcription.options import DECODINGS, ENGINES
from profiling import commands, commands_many
from profiling.commands import NOTHING_DONE, CommandResult
from profiling.evaluate_command import add_evaluate, run_evaluate
from profiling.inside_commands import add_code, add_snapshot, run_code, run_snapshot
from profiling.measure.length_table import RUNS
from profiling.measure.timed_pass import FEWEST_BLOCKS, MOST_BLOCKS, SPENT_S
from profiling.measure.timing import Cancelled

EXAMPLE = ASSETS / "examples" / "string_six_three_oh_seven_zero_six.flac"
LIMIT = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parsed = build_parser().parse_args(arguments)
    try:
        found: CommandResult = parsed.run(parsed, say)
        if parsed.json:
            print(json.dumps(found.data, indent=2, default=str))
        else:
            print(found.text)
        return found.status
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except (KeyboardInterrupt, Cancelled):
        print("stopped", file=sys.stderr)
    return NOTHING_DONE


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="python -m profiling", description="Where the time goes")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: Callable[..., CommandResult], help: str) -> Callable[..., Any]:
        one = parsers.add_parser(name, help=help)
        one.add_argument("--json", action="store_true", help="as JSON, on stdout")
        one.set_defaults(run=does)
        return one.add_argument

    add = command("run", commands.run, "measure: timing first, then a trace")
    _add_work(
        add,
        repeats=None,
        help="blocks of two interleaved runs an arm (default: what fits into "
        f"{SPENT_S:.0f} s, {FEWEST_BLOCKS} to {MOST_BLOCKS})",
    )
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--reference", help="what is really said; known for the bundled examples")
    add("--no-trace", action="store_true", help="time only")
    add("--modules", action="store_true", help="name modules in the trace (eager; slows it)")

    add = command("compare", commands.compare, "two runs: ratios, intervals, verdicts")
    add("a", help="id or folder of the baseline")
    add("b", help="id or folder of the other run")
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--reference", help="what is really said in the recording")

    add = command("report", commands.report, "one self-contained HTML page")
    add("a", help="id or folder of a run")
    add("b", nargs="?", help="another, to compare it with")
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--html", type=Path, required=True, help="the page to write")

    add = command("runs", commands_many.runs, "any number of runs in one table and one chart")
    add("ids", nargs="*", help="ids or folders, the one to compare with first (default: all)")
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--html", type=Path, help="write a page too")

    add = command("sweep", commands_many.sweep, "every combination, once; goes on where it stopped")
    _add_work(add, repeats=None, help="blocks of two interleaved runs an arm")
    add("--format", help=f"one or several of {','.join(commands_many.FORMATS)}")
    add("--seconds", type=float, nargs="+", help="lengths to cut or repeat the recording to")
    add("--batch", type=int, nargs="+", default=[1], help="how often it stands in one pass")
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--html", type=Path, help="write a page too")
    add("--no-trace", action="store_true", help="time only; no memory by phase")
    add("--again", action="store_true", help="measure what is there already, too")

    add = command("history", commands_many.history, "equal workloads over time: what changed, when")
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--html", type=Path, metavar="FOLDER", help="write a page a workload")

    add = command("read", commands.read, "tables of a trace, anybody's")
    add("trace", type=Path, help=".json(.gz)")
    add("--against", type=Path, help="another trace: where they differ, from the phases down")
    add("--speedscope", type=Path, metavar="FILE", help="write its calls for speedscope.app")
    add_code(command("code", run_code, "what compiling generated: listed, and written out"))
    add_snapshot(command("snapshot", run_snapshot, "what a GPU held at its highest moment"))
    add = command("machine", commands.machine, "what this machine is and can do at most")
    add("--device", default="cpu", help="cpu or cuda")

    add = command("table", commands.table, "3, 10 and 30 s beside a published baseline")
    _add_work(add, repeats=RUNS, help="timed runs a length")
    add_evaluate(command("evaluate", run_evaluate, "error rates, speed and memory of variants"))
    return parser


def _add_work(add: Callable[..., Any], *, repeats: int | None, help: str) -> None:
    add("--clip", type=Path, default=EXAMPLE, help="a recording (default: a bundled example)")
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--engine", default="eager", help=f"one or several of {','.join(ENGINES)}")
    add("--lora", help="on, off or on,off; default: on where there is an adapter")
    add("--decoding", default="greedy", help=f"one or several of {','.join(DECODINGS)}")
    add("--max-new-tokens", type=int, default=LIMIT)
    add("--force-tokens", action="store_true", help="go on past the end to --max-new-tokens")
    add("--repeats", type=int, default=repeats, help=help)
    add("--device", help="cpu, cuda, cuda:1, mps")
    add("--dtype", choices=("float32", "bfloat16", "float16"))
    add("--threads", type=int, help="of torch on the CPU (default: all cores)")
    add("--seed", type=int, default=0, help="with --decoding sample")


def say(text: str, share: float | None = None) -> None:
    """Print progress on stderr: one line that is written over while a person is watching."""
    done = "" if share is None else f"{100 * share:3.0f} % "
    if sys.stderr.isatty():
        end = "\n" if share == 1.0 else ""
        print(f"\r\033[K{done}{text}", end=end, file=sys.stderr, flush=True)
    elif not text.startswith("run "):
        print(f"{done}{text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
