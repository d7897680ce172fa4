"""``python -m benchmarks speed | quality | endpoint | STUDY``; ``make bench`` runs the first.

In: command-line arguments. Out: the page on stdout, progress on stderr, the whole session as JSON
in a file. Exit status 0 all well, 1 a bar was missed or a system failed, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.bars import MISSED, judge
from benchmarks.clips import EXAMPLES
from benchmarks.endpoint import EndpointPlan, endpoint_bars, endpoint_text, measure_endpoint
from benchmarks.extras import measure_extras
from benchmarks.quality import QUICKER, compare_systems, references_of
from benchmarks.session import SessionPlan, measure
from benchmarks.shapes import SHAPES
from benchmarks.systems import ON_EQUAL_TOKENS, SYSTEMS
from benchmarks.table import quality_text, session_text
from core.errors import UserError
from core.transcription.options import ENGINES

LOG = logging.getLogger(__name__)
ALL_WELL, WORTH_A_LOOK, NOTHING_DONE = 0, 1, 2
ROOT = Path("build") / "bench"
QUICK_MINUTES = (0.5, 1.0)
# Of torch, oneDNN, MKL and fbgemm. Code that compilers make follows torch's.
CAPS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
    }
}
# Name -> the question; ``benchmarks.studies.NAME`` has the options (``NAME --help``).
STUDIES = {
    "cold-start": "what waits for the compiler, and what a package saves",
    "drafts": "what exact drafts save on real recordings",
    "first-visit": "from starting the app to the first transcript on its page",
    "gpu-check": "every stage on a CUDA device: eager, compiled, CUDA graphs, share of the floor",
    "kernels": "one matrix product in float32 and in int8",
    "models": "how much faster one model is than another on the same recordings",
    "pages": "how large report pages are, and how long a browser draws them",
    "prediction": "how well the gain of compiling is predicted",
    "resampled": "verdicts on sessions cut out of recorded runs",
    "trace-reading": "how long a large trace takes from file to figures",
    "verdicts": "whether verdicts are right on real runs",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in STUDIES:
            study = import_module(f"benchmarks.studies.{given[0].replace('-', '_')}")
            return int(study.main(given[1:]))
        parsed = build_parser().parse_args(given)
        under_cap(getattr(parsed, "cap", None), given)
        return int(parsed.run(parsed))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except Exception:
        LOG.exception("the command failed")
        print("error: an unexpected problem; its details are above", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return NOTHING_DONE


def build_parser() -> argparse.ArgumentParser:
    """Build the command line of what is not a study."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="studies:\n" + "\n".join(f"  {name:<15}{asks}" for name, asks in STUDIES.items()),
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    speed = commands.add_parser("speed", help="ours beside transformers, and the table of bars")
    add = speed.add_argument
    add("--shapes", default="tiny,small,1b", help=f"some of {','.join(SHAPES)}")
    add("--seconds", default="3,10,30", help="lengths of the clips")
    add("--systems", default=",".join(ON_EQUAL_TOKENS), help=f"some of {','.join(ON_EQUAL_TOKENS)}")
    add("--repeats", type=int, help="blocks of two runs a system (default: each shape's own)")
    add("--tokens", type=int, help="new tokens of each run (default: each shape's own)")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    add("--cap", choices=tuple(CAPS), help="leave the processor these vector units only")
    add("--quick", action="store_true", help="two blocks, short long files: does it run at all")
    add("--no-extras", action="store_true", help="no batches, lengths, recordings, long files")
    add("--out", type=Path, default=ROOT, help="folder of the sessions and random checkpoints")
    add("--json", action="store_true", help="the session on stdout instead of the page")
    speed.set_defaults(run=run_speed)
    quality = commands.add_parser("quality", help="word errors of int8 and of quicker drafts")
    add = quality.add_argument
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--recordings", type=Path, default=EXAMPLES, help="a folder with a transcripts.json")
    add("--systems", default=",".join(QUICKER), help=f"some of {','.join(QUICKER)}")
    add("--engine", choices=ENGINES, default="eager")
    add("--json", action="store_true", help="as JSON")
    quality.set_defaults(run=run_quality)
    endpoint = commands.add_parser("endpoint", help="the speech API: its cost, and many callers")
    add = endpoint.add_argument
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--requests", type=int, default=200, help="of each crowd")
    add("--callers", type=int, default=20, help="at once")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    add("--json", action="store_true", help="as JSON")
    endpoint.set_defaults(run=run_endpoint)
    return parser


def run_speed(parsed: argparse.Namespace) -> int:
    """Measure a session, judge it, print it and keep it."""
    plan = plan_of(parsed)
    found = measure(plan, say)
    if plan.extras:
        found["extras"] = measure_extras(plan, found["failures"], say)
        if any(shape.trained for shape in plan.shapes):
            say("word error rates of int8")
            costs = compare_systems("tiny", references_of(EXAMPLES), ("int8",), say=say)
            found["quality"] = {name: one.to_json() for name, one in costs.items()}
    bars = judge(found)
    found["bars"] = [bar.to_json() for bar in bars]
    file = keep(found, parsed.out)
    print(json.dumps(found, indent=2) if parsed.json else session_text(found, bars))
    say(f"kept as {file}")
    missed = any(bar.verdict == MISSED for bar in bars)
    return WORTH_A_LOOK if missed or found["failures"] else ALL_WELL


def under_cap(cap: str | None, arguments: Sequence[str]) -> None:
    """Start again with the vector units capped: libraries read the settings once, at their start.

    Each library has its own switch; a processor that has more then stands for one that has not.

    Args:
        cap: one of CAPS, or None for the processor as it is.
        arguments: of this command.
    """
    wanted = {} if cap is None else CAPS[cap]
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-m", "benchmarks", *arguments]
        os.execve(sys.executable, command, {**os.environ, **wanted})


def plan_of(parsed: argparse.Namespace) -> SessionPlan:
    """Read what the arguments ask for.

    Returns:
        The plan; its folder is made.

    Raises:
        UserError: an unknown shape or system, a number that is none, or no transformers.
    """
    systems = _some(parsed.systems, ON_EQUAL_TOKENS, "--systems")
    if not all(SYSTEMS[name].ours for name in systems) and find_spec("transformers") is None:
        raise UserError(
            "transformers is not installed; install requirements-dev.txt, or leave it out with "
            f"--systems {','.join(n for n in systems if SYSTEMS[n].ours)}"
        )
    for name, value in (("--repeats", parsed.repeats), ("--tokens", parsed.tokens)):
        if value is not None and value < 2:
            raise UserError(f"{name} is {value}; expected 2 or more")
    if parsed.threads < 1:
        raise UserError(f"--threads is {parsed.threads}; expected 1 or more")
    parsed.out.mkdir(parents=True, exist_ok=True)
    return SessionPlan(
        shapes=tuple(SHAPES[name] for name in _some(parsed.shapes, tuple(SHAPES), "--shapes")),
        seconds=_numbers(parsed.seconds),
        systems=systems,
        threads=parsed.threads,
        root=parsed.out,
        repeats=2 if parsed.quick and parsed.repeats is None else parsed.repeats,
        num_tokens=parsed.tokens,
        extras=not parsed.no_extras,
        **({"minutes": QUICK_MINUTES} if parsed.quick else {}),
    )


def _some(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if not asked or any(part not in known for part in asked):
        raise UserError(f"{option} is {text!r}; expected some of {', '.join(known)}")
    return tuple(dict.fromkeys(asked))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UserError(f"--seconds is {text!r}; expected numbers of 1 or more, as 3,10,30")
    return found


def run_quality(parsed: argparse.Namespace) -> int:
    """Compare word error rates with exact decoding's."""
    systems = _some(parsed.systems, QUICKER, "--systems")
    references = references_of(parsed.recordings)
    found = compare_systems(parsed.model, references, systems, engine=parsed.engine, say=say)
    rows: dict[str, Any] = {name: one.to_json() for name, one in found.items()}
    print(json.dumps(rows, indent=2) if parsed.json else quality_text(rows))
    return ALL_WELL


def run_endpoint(parsed: argparse.Namespace) -> int:
    """Measure what a server of the speech API costs and gains; 1 where a bar was missed."""
    if not (parsed.requests >= 4 and parsed.callers >= 1 and parsed.threads >= 1):
        raise UserError("expected 4 or more --requests, 1 or more --callers and --threads")
    plan = EndpointPlan(
        model=parsed.model,
        requests=parsed.requests,
        callers=parsed.callers,
        threads=parsed.threads,
    )
    found = measure_endpoint(plan, say)
    bars = endpoint_bars(found)
    found["bars"] = [bar.to_json() for bar in bars]
    print(json.dumps(found, indent=2) if parsed.json else endpoint_text(found, bars))
    return WORTH_A_LOOK if any(bar.verdict == MISSED for bar in bars) else ALL_WELL


def keep(found: dict[str, Any], folder: Path) -> Path:
    """Write the session beside the earlier ones."""
    file = folder / f"session-{found['when'].replace(':', '-')}.json"
    file.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return file


def say(text: str) -> None:
    """Print progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
