"""``python -m benchmarks gpu-check``: all that was never run without a GPU, in one command.

In: a machine with a CUDA device; no network and no checkpoint. Out: the tests marked ``gpu``, then
random bfloat16 models of three sizes, eager against compiled against CUDA graphs: milliseconds by
phase, peak memory, the share of the least time that the device allows. A table on stdout, a JSON
and a figure in a folder. Each model is measured in a process of its own, which ends with the time
that is left. Exit status 0 all well, 1 something failed, 2 nothing could be run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import plotly.graph_objects as go
import torch

from benchmarks.clips import clip_of
from benchmarks.process import ROOT as PROJECT
from benchmarks.shapes import SHAPES, BenchmarkShape, random_tensor, write_tokenizer
from core.audio.waveform import SAMPLE_RATE
from core.checkpoint.catalog import describe
from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.weights import LoadReport
from core.engine.compiling import CompileLedger, compiled_engine
from core.errors import UserError
from core.families import family_of
from core.lab import Lab
from core.loading import pick_device, pick_dtype
from core.memory import peak_memory_bytes, reset_peak_memory
from core.model.granite_speech import GraniteSpeech
from core.phases import PHASES, PhaseClock
from core.session import ModelSession
from core.text.tokenizer import Tokenizer
from core.transcription.options import Finished
from core.transcription.recognizer import Checkpoint
from profiling.figures.style import colour_of, title_of
from profiling.measure.machine import describe_machine
from profiling.measure.timing import Arm, Sample, interleave, sample_of, samples_by_phase
from profiling.roofline.counts import Shape, count
from profiling.roofline.machine_peaks import Ceilings, measure_ceilings
from profiling.roofline.roofline import roofline

EAGER, COMPILED, RECORDED = "eager", "compiled", "CUDA graphs"
ENGINE_OF = {EAGER: "eager", COMPILED: "compile", RECORDED: "compile"}
SEED = 0


def main(arguments: Sequence[str]) -> int:
    """Run the tests and the measurements, and write what was found.

    Returns:
        The exit status.

    Raises:
        UserError: no such device or shape.
    """
    parsed = build_parser().parse_args(arguments)
    shapes = parsed.shapes.split(",")
    if unknown := [name for name in shapes if name not in SHAPES or SHAPES[name].raw is None]:
        known = ", ".join(name for name, shape in SHAPES.items() if shape.raw is not None)
        raise UserError(f"--shapes has {unknown[0]!r}; expected some of {known}")
    device = pick_device(parsed.device)
    if parsed.one:
        print(json.dumps(measure_shape(SHAPES[shapes[0]], device, parsed)))
        return 0
    end = time.monotonic() + 60 * parsed.minutes
    found: dict[str, Any] = {
        "machine": describe_machine(device),
        "tests": None if parsed.no_tests else run_tests(end),
        "shapes": {name: _in_a_process(name, parsed, end) for name in shapes},
    }
    print(table_of(found))
    parsed.out.mkdir(parents=True, exist_ok=True)
    (parsed.out / "gpu-check.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    figure_of(found).write_html(parsed.out / "gpu-check.html", include_plotlyjs=True)
    print(f"kept in {parsed.out}", file=sys.stderr)
    failed = [one for one in (found["tests"], *found["shapes"].values()) if one and one["failed"]]
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu-check", description=__doc__)
    add = parser.add_argument
    add("--device", default="cuda", help="'cpu' only shows that the command itself works")
    add("--shapes", default="small,1b,3.3-8b", help="models of these dimensions")
    add("--seconds", default="3,10,30", help="lengths of the clips")
    add("--tokens", type=int, default=64, help="new tokens of each run")
    add("--blocks", type=int, default=4, help="of two runs of each engine")
    add("--minutes", type=float, default=8.0, help="for everything; what did not fit is named")
    add("--no-tests", action="store_true", help="leave out the tests marked gpu")
    add("--out", type=Path, default=Path("build") / "gpu-check", help="folder of what is found")
    add("--one", action="store_true", help=argparse.SUPPRESS)
    return parser


def run_tests(end: float) -> dict[str, Any]:
    """Run the tests marked ``gpu``; ``failed`` says why where they did not pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    status, text = _within(command, end)
    last = (text.strip().splitlines() or ["no output"])[-1]
    return {"failed": None if status == 0 else last, "last_line": last}


def _in_a_process(name: str, parsed: argparse.Namespace, end: float) -> dict[str, Any]:
    """Measure a shape elsewhere: a crash or an endless compilation costs no other shape."""
    print(f"{name}: measuring", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks", "gpu-check", "--one", "--shapes", name]
    for option in ("device", "seconds", "tokens", "blocks"):
        command += [f"--{option}", str(getattr(parsed, option))]
    status, text = _within(command, end)
    lines = text.strip().splitlines()
    if status != 0 or not lines:
        return {"failed": lines[-1] if lines else f"ended with {status}", "lengths": {}}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _within(command: list[str], end: float) -> tuple[int, str]:
    """Run a command until ``end``; its status, and what it printed (last: what went wrong)."""
    left = end - time.monotonic()
    if left < 1:
        return 1, "no time was left; give more --minutes"
    try:
        done = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "not done when the time was over; give more --minutes"
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def measure_shape(
    shape: BenchmarkShape, device: torch.device, parsed: argparse.Namespace
) -> dict[str, Any]:
    """Measure one model at every length.

    Args:
        shape: its dimensions.
        device: where.
        parsed: the command's arguments.

    Returns:
        ``failed`` (None, or why an engine is missing), ``cold_s`` (engine -> seconds of its first
        request) and ``lengths`` (seconds -> engine -> end_to_end_ms, phases_ms, share_of_floor,
        peak_bytes, same_tokens).
    """
    failed: list[str] = []
    lengths: dict[str, Any] = {}
    with random_checkpoint(shape, device) as checkpoint:
        labs = {name: _lab(checkpoint, name) for name in ENGINE_OF}
        cold = _first_requests(labs, parsed.tokens, failed)
        ceilings = measure_ceilings(device, (str(checkpoint.dtype).removeprefix("torch."),))
        for seconds in (float(part) for part in parsed.seconds.split(",")):
            ready = {name: labs[name] for name in cold}
            lengths[f"{seconds:g}"] = _measure_length(ready, seconds, parsed, ceilings)
    return {
        "failed": "; ".join(failed) or None,
        "cold_s": cold,
        "ceilings": asdict(ceilings),
        "lengths": lengths,
    }


@contextmanager
def random_checkpoint(shape: BenchmarkShape, device: torch.device) -> Iterator[Checkpoint]:
    """Draw random weights on the device itself: writing and reading gigabytes takes minutes.

    Args:
        shape: the dimensions.
        device: where.

    Yields:
        The checkpoint; its folder, with a config and a tokenizer, lasts as long as the context.
    """
    dtype, raw = pick_dtype(None, device), shape.raw
    assert raw is not None
    config = parse_config(raw, source=shape.name)
    with torch.device("meta"):
        model = GraniteSpeech(config)
    generator = torch.Generator(device).manual_seed(SEED)
    wanted = model.to(dtype).state_dict()
    state = {name: random_tensor(name, w, generator).to(w.dtype) for name, w in wanted.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.requires_grad_(False).eval()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        write_tokenizer(folder / "tokenizer.json")
        files = CheckpointFiles(name, folder, {})
        yield Checkpoint(
            files=files,
            config=config,
            model=model,
            report=LoadReport(len(state), ()),
            tokenizer=Tokenizer(folder / "tokenizer.json"),
            model_info=describe(name, folder),
            device=device,
            dtype=dtype,
            ledger=CompileLedger(),
        )


def _lab(checkpoint: Checkpoint, name: str) -> Lab:
    """Make a lab of its own over shared weights, so that each keeps its own compiled stages."""
    lab = Lab(ModelSession(family_of("granite_speech", "gpu-check"), checkpoint))
    if name != EAGER:
        stages = compiled_engine(checkpoint.model, CompileLedger(), record=name == RECORDED)
        lab.autoregressive.use_engine(stages)
    return lab


def _first_requests(labs: dict[str, Lab], tokens: int, failed: list[str]) -> dict[str, float]:
    """Engine -> seconds of its first request of all; engines that fail are left out and named."""
    found = {}
    for name, lab in labs.items():
        begin = time.perf_counter()
        try:
            _once(lab, name, 10.0, tokens)
        except Exception as error:  # whatever it is, the other engines are measured all the same
            first = next(iter(str(error).splitlines()), "")
            failed.append(f"{name}: {type(error).__name__}: {first}")
            continue
        found[name] = time.perf_counter() - begin
    return found


def _once(lab: Lab, name: str, seconds: float, tokens: int) -> Sample:
    clock = PhaseClock(lab.device)
    options: dict[str, Any] = {"engine": ENGINE_OF[name], "max_new_tokens": tokens}
    options |= {"ignore_eos": True, "skip_silence": False}
    for event in lab.stream(clip_of(seconds), clock=clock, **options):
        if isinstance(event, Finished):
            return sample_of(clock, event.transcript)
    raise AssertionError("a stream ended without a transcript")


def _measure_length(
    labs: dict[str, Lab], seconds: float, parsed: argparse.Namespace, ceilings: Ceilings
) -> dict[str, Any]:
    peaks = {}
    for name, lab in labs.items():  # also meets what a new length may have to compile
        reset_peak_memory(lab.device)
        for _ in range(2):
            _once(lab, name, seconds, parsed.tokens)
        peaks[name] = peak_memory_bytes(lab.device)
    arms = [
        Arm(name, partial(_once, lab, name, seconds, parsed.tokens)) for name, lab in labs.items()
    ]
    blocks = interleave(arms, parsed.blocks)
    first = next(iter(blocks.values()))[0][0].transcript.token_ids
    return {
        name: _summary(labs[name], runs, ceilings, parsed.tokens)
        | {"peak_bytes": peaks[name]}
        | {"same_tokens": all(run.transcript.token_ids == first for pair in runs for run in pair)}
        for name, runs in blocks.items()
    }


def _summary(
    lab: Lab, runs: list[tuple[Sample, Sample]], ceilings: Ceilings, tokens: int
) -> dict[str, Any]:
    found = {name: median(ms) for name, ms in samples_by_phase(runs).items()}
    whole = found.pop("end_to_end")
    samples = round(runs[0][0].transcript.audio_s * SAMPLE_RATE)
    frames = lab.feature_extractor.config.num_frames(samples)
    shape = Shape(frames, len(lab.prompt_ids(frames)), tokens)
    rows = roofline(
        count(lab.config, shape, element_bytes=lab.dtype.itemsize),
        ceilings,
        str(lab.dtype).removeprefix("torch."),
        measured_ms=found,
    )
    return {
        "end_to_end_ms": whole,
        "phases_ms": found,
        "share_of_floor": {row.name: row.share for row in rows},
    }


def table_of(found: dict[str, Any]) -> str:
    """Print everything as a table for a terminal, failures last."""
    machine = found["machine"]
    lines = [str(machine.get("gpu") or machine["cpu"]), ""]
    columns = ("features", "encoder", "projector", "prefill", "decode")
    heads = ("model", "clip", "engine", "total ms", *(f"{name} ms" for name in columns))
    lines.append("".join(f"{head:>13}" for head in (*heads, "decode/floor", "peak GB", "tokens")))
    failures = []
    for shape, one in {"tests": found["tests"], **found["shapes"]}.items():
        if one and one["failed"]:
            failures.append(f"failed: {shape}: {one['failed']}")
        for seconds, engines in (one or {}).get("lengths", {}).items():
            for engine, row in engines.items():
                share = row["share_of_floor"].get("decode")
                times = [row["end_to_end_ms"], *(row["phases_ms"].get(n, 0.0) for n in columns)]
                cells = [shape, f"{seconds} s", engine, *(f"{ms:.1f}" for ms in times)]
                cells += [
                    "-" if share is None else f"{share:.2f}",
                    f"{row['peak_bytes'] / 1e9:.2f}",
                ]
                cells.append("same" if row["same_tokens"] else "other")
                lines.append("".join(f"{cell:>13}" for cell in cells))
    if found["tests"]:
        lines += ["", f"tests marked gpu: {found['tests']['last_line']}"]
    return "\n".join([*lines, *failures])


def figure_of(found: dict[str, Any]) -> go.Figure:
    """Draw a bar for each model, length and engine, in the colours of its phases."""
    rows = [
        (f"{shape}, {seconds} s, {engine}", row["phases_ms"])
        for shape, one in found["shapes"].items()
        for seconds, engines in one["lengths"].items()
        for engine, row in engines.items()
    ]
    names = [name for name in (*PHASES, "other") if any(name in row for _, row in rows)]
    figure = go.Figure(
        [
            go.Bar(
                y=[label for label, _ in rows],
                x=[row.get(name, 0.0) for _, row in rows],
                name=title_of(name),
                marker_color=colour_of(name),
                orientation="h",
            )
            for name in names
        ]
    )
    figure.update_layout(barmode="stack", xaxis_title="ms", height=140 + 28 * len(rows))
    return figure.update_yaxes(autorange="reversed")
