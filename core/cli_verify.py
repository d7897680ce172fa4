"""``python -m core verify``: is a checkpoint read as transformers reads it?

In: the command's arguments. Out: a table on stdout, and the exit status: 0 no difference, 1 some
stage differs, 2 nothing could be compared although it was asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.cli import ALL_WELL, NOTHING_DONE, SOME_FAILED
from core.verification import ALLOWED, RECORDING, Rung, Verification, verify


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the command's options."""
    add = parser.add_argument
    add("model", help="catalog name, Hub repository id, or folder")
    add("--against", choices=("transformers",), help="fail where it cannot be compared with")
    add("--recording", type=Path, default=RECORDING, help="default: a bundled one")
    add("--revision", help="branch, tag or commit of a repository")
    add("--device", help="cpu, cuda, cuda:1")
    dtypes = [str(dtype).removeprefix("torch.") for dtype in ALLOWED]
    add("--dtype", choices=dtypes, default="float32", help="of both models")
    parser.set_defaults(run=run_verify)


def run_verify(parsed: argparse.Namespace) -> int:
    """Verify one checkpoint; returns the exit status."""
    found = verify(
        parsed.model,
        recording=parsed.recording,
        device=parsed.device,
        dtype=parsed.dtype,
        revision=parsed.revision,
    )
    print("\n".join(_lines(found)))
    for note in found.notes:
        print(note, file=sys.stderr)
    if found.reference is None:
        return ALL_WELL if parsed.against is None else NOTHING_DONE
    return ALL_WELL if all(rung.is_equal for rung in found.rungs) else SOME_FAILED


def _lines(found: Verification) -> Iterator[str]:
    yield found.title
    yield f"  tensors     {found.num_tensors} used, {len(found.unused)} unused, as config.json says"
    yield "  values      all finite"
    yield f"  transcript  {found.text!r}"
    if found.reference is not None:
        yield f"  against transformers {found.reference}"
        yield from (f"    {line}" for line in table(found.rungs))


def table(rungs: Sequence[Rung]) -> Iterator[str]:
    """Write rungs as the lines of a table."""
    yield f"{'stage':<10} {'largest':>9} {'of scale':>9} {'allowed':>9}"
    for rung in rungs:
        numbers = (rung.difference, rung.relative, rung.allowed)
        cells = " ".join(f"{number:>9.1e}" for number in numbers)
        yield f"{rung.name:<10} {cells}  {'ok' if rung.is_equal else 'DIFFERS'}"
