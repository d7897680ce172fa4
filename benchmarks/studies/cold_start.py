"""``python -m benchmarks cold-start``: what waits for the compiler, and what a package saves.

In: nothing but options. Out: a table on stdout, one row a mode; with ``--json`` its rows. Every row
is measured in a process of its own with an empty compiler cache. Processor seconds are those of the
process and its compilers, and mean something on a busy machine too.

- ``whole``: one decode step of a random decoder, its layers inlined one by one.
- ``regions``: the same, each layer a region that is compiled once (``core.engine.layer_regions``).
- ``package``: a checkpoint from its package (``python -m core package MODEL`` first): seconds from
  the loaded checkpoint to every graph run once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor

import core
from benchmarks.shapes import SHAPES
from core.checkpoint.config_file import parse_config
from core.engine.compiling import mark_varying
from core.engine.graphs import Arguments, Graph
from core.engine.layer_regions import decoder_layer
from core.engine.stages import decode_stage
from core.errors import UserError
from core.model.cache import allocate_cache, cache_of
from core.model.decoder import call_layer
from core.model.granite_speech import GraniteSpeech

MODES = {"whole": call_layer, "regions": decoder_layer}
PACKAGE = "package"
SLOTS = 256
STEPS = 200


@dataclass(frozen=True)
class ColdStartRow:
    """processor_s, wall_s: until the first result; step_us: median of a later step, or None."""

    mode: str
    processor_s: float
    wall_s: float
    step_us: float | None


def processor_seconds() -> float:
    """Read the processor time of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure_compiling(mode: str, shape: str, num_layers: int) -> ColdStartRow:
    """Compile one decode step of a random decoder, then time it."""
    torch._inductor.config.compile_threads = 1  # compilers as children, whose time is counted
    raw = deepcopy(SHAPES[shape].raw)
    assert raw is not None
    raw["text_config"]["num_hidden_layers"] = num_layers
    model = GraniteSpeech(parse_config(raw, source=shape)).requires_grad_(False).eval()
    step_with = decode_stage(model, MODES[mode])

    def decode(
        ids: Tensor, positions: Tensor, lora: Tensor | None, *buffers: Tensor
    ) -> tuple[Tensor, ...]:
        return (step_with(ids, positions, cache_of(buffers), lora),)

    graph = Graph("decode", decode, ({0: "B"}, {0: "B"}, {0: "B"}))
    compiled = torch.compile(graph.run, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        cache = allocate_cache(
            model.config.decoder,
            batch=1,
            num_slots=SLOTS,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
        one = torch.tensor([[1]])
        arguments: Arguments = (one, one.clone(), None, *cache.keys, *cache.values)
        mark_varying(graph, arguments)
        used, begin = processor_seconds(), time.perf_counter()
        compiled(*arguments)
        used, waited = processor_seconds() - used, time.perf_counter() - begin
        times = []
        for _ in range(STEPS):
            begin = time.perf_counter()
            compiled(*arguments)
            times.append(1e6 * (time.perf_counter() - begin))
    return ColdStartRow(mode, used, waited, median(times))


def measure_package(model: str) -> ColdStartRow:
    """Time from a loaded checkpoint to every graph run once.

    Returns:
        Its row, without a step.

    Raises:
        UserError: there is no package, or it was refused.
    """
    lab = core.load(model, device="cpu")
    used, begin = processor_seconds(), time.perf_counter()
    lab.warm_up()
    used, waited = processor_seconds() - used, time.perf_counter() - begin
    if lab.compile_ledger.graphs or not lab.compile_ledger.packaged:
        why = lab.compile_ledger.refused or "there is none"
        raise UserError(f"{model} did not come from a package: {why}; python -m core package")
    return ColdStartRow(PACKAGE, used, waited, None)


def in_a_fresh_process(arguments: Sequence[str]) -> ColdStartRow:
    """Measure one row in a process with an empty compiler cache.

    Returns:
        The row.

    Raises:
        UserError: the process failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "cold-start", "--one", *arguments],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{arguments[0]}: {last}")
    return ColdStartRow(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str]) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cold-start")
    parser.add_argument("modes", nargs="*", default=[*MODES, PACKAGE], help="which rows")
    parser.add_argument(
        "--shape", choices=[name for name, one in SHAPES.items() if one.raw], default="small"
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--model", default="tiny", help="whose package")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.one:
        (mode,) = parsed.modes
        row = (
            measure_package(parsed.model)
            if mode == PACKAGE
            else measure_compiling(mode, parsed.shape, parsed.layers)
        )
        print(json.dumps(asdict(row)))
        return 0
    settings = ["--shape", parsed.shape, "--layers", str(parsed.layers), "--model", parsed.model]
    rows = []
    for mode in parsed.modes:
        try:
            rows.append(in_a_fresh_process([mode, *settings]))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
    if parsed.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0 if rows else 2
    print(f"{'mode':<10} {'processor s':>12} {'wall s':>8} {'step us':>9}")
    for row in rows:
        step = "" if row.step_us is None else f"{row.step_us:9.0f}"
        print(f"{row.mode:<10} {row.processor_s:12.2f} {row.wall_s:8.2f} {step:>9}")
    return 0 if rows else 2
