"""The commands of ``python -m profiling``.

In: parsed arguments and somebody to tell the progress. Out: an :class:`CommandResult`: the exit
status, the result as JSON and as text. Nothing is printed here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core import Lab, load
from core.audio.decode import load_audio
from core.engine.compiled_row import MOST_BYTES, compiled_row_us
from core.engine.compiling import CompileError, without_broken_libraries
from core.engine.products import use_products
from core.loading import pick_device
from core.transcription.options import DECODINGS, ENGINES
from core.units import format_bytes
from profiling.measure.compiled_code import CODE_FILE, read_code
from profiling.measure.length_table import length_table
from profiling.measure.machine import describe_machine
from profiling.measure.timed_pass import TimingSettings
from profiling.measure.workload import ClipInfo, Workload, WorkloadChoices, workload_on
from profiling.plain_text import (
    ceilings_text,
    comparison_text,
    difference_text,
    products_text,
    run_text,
    table_text,
    trace_text,
)
from profiling.report.report import comparison_report, run_report
from profiling.roofline.machine_peaks import GPUS, measure_ceilings
from profiling.runs.run_file import RUN_FILE, read_run
from profiling.runs.session import measure
from profiling.runs.store import TRACE_FILE, RunStore
from profiling.statistics.compare import compare as compare_runs
from profiling.trace.events import read_trace
from profiling.trace.memory_snapshot import SNAPSHOT_FILE, read_snapshot
from profiling.trace.speedscope import speedscope
from profiling.trace.trace_tables import trace_json
from profiling.trace.tree_difference import tree_difference

ALL_WELL, WORTH_A_LOOK, NOTHING_DONE = 0, 1, 2
LORA = {"on": True, "off": False}
TRANSCRIPTS = "transcripts.json"

Say = Callable[..., None]


@dataclass(frozen=True)
class CommandResult:
    """status: 0 all well, 1 something is worth a look; data: for JSON; text: for people."""

    status: int
    data: Any
    text: str


def run(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Measure every combination that was asked for and store the runs."""
    lab, workloads = _loaded(parsed)
    say("measuring what this machine can do")
    ceilings = measure_ceilings(lab.device, (workloads[0].dtype,))
    how = TimingSettings(
        blocks=parsed.repeats,
        trace=not parsed.no_trace,
        modules=parsed.modules,
        reference=parsed.reference or _known_text(parsed.clip),
        ceilings=ceilings,
    )
    store = RunStore(parsed.out)
    names = measure(lab, workloads, store, how, progress=lambda share, text: say(text, share))
    runs = [store.read(name) for name in names]
    found = [compare_runs(runs[0], other, reference=how.reference).to_json() for other in runs[1:]]
    text = [ceilings_text(asdict(ceilings)), *map(run_text, runs), *map(comparison_text, found)]
    status = WORTH_A_LOOK if any(one["warnings"] for one in runs) else ALL_WELL
    return CommandResult(status, {"runs": runs, "comparisons": found}, "\n\n".join(text))


def compare(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Compare two stored runs."""
    a, b = (stored_run(name, parsed.out) for name in (parsed.a, parsed.b))
    reference = parsed.reference or a.get("reference_text")
    found = compare_runs(a, b, reference=reference).to_json()
    status = WORTH_A_LOOK if found["warnings"] or not found["tokens_identical"] else ALL_WELL
    return CommandResult(status, found, comparison_text(found))


def report(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Write one page about a run, or about two and their comparison."""
    a = stored_run(parsed.a, parsed.out)
    if parsed.b is None:
        trace, code, snapshot = (
            file_of(parsed.a, parsed.out, name) for name in (TRACE_FILE, CODE_FILE, SNAPSHOT_FILE)
        )
        page = run_report(
            a,
            None if trace is None else read_trace(trace),
            [] if code is None else read_code(code),
            None if snapshot is None else read_snapshot(snapshot),
        )
    else:
        b = stored_run(parsed.b, parsed.out)
        found = compare_runs(a, b, reference=a.get("reference_text")).to_json()
        traces = [file_of(name, parsed.out, TRACE_FILE) for name in (parsed.a, parsed.b)]
        one, two = (None if trace is None else read_trace(trace) for trace in traces)
        page = comparison_report(a, b, found, (one, two))
    parsed.html.write_text(page, encoding="utf-8")
    size = parsed.html.stat().st_size
    data = {"html": str(parsed.html), "num_bytes": size}
    return CommandResult(ALL_WELL, data, f"{parsed.html} ({format_bytes(size)})")


def read(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Tabulate a trace, whoever recorded it."""
    trace = read_trace(parsed.trace)
    data = trace_json(trace)
    status = WORTH_A_LOOK if trace.notes else ALL_WELL
    text = [trace_text(parsed.trace.name, data)]
    if parsed.speedscope is not None:
        content = speedscope(trace.index, parsed.trace.name)
        parsed.speedscope.write_text(json.dumps(content), encoding="utf-8")
        text.append(f"  written for speedscope: {parsed.speedscope}")
    if parsed.against is not None:
        table = tree_difference(trace.index, read_trace(parsed.against).index)
        data["difference"] = table.to_dict("records")
        text.append(difference_text(parsed.trace.name, parsed.against.name, data["difference"]))
    return CommandResult(status, data, "\n".join(text))


def machine(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Describe this machine and what it can do at most, beside the data sheets of some GPUs."""
    device = pick_device(parsed.device)
    facts, ceilings = describe_machine(device), measure_ceilings(device)
    products = use_products(again=True) if device.type == "cpu" else None
    if products is not None:
        try:
            without_broken_libraries(partial(compiled_row_us, products, MOST_BYTES))
        except CompileError as error:
            say(f"one row in compiled steps was not timed: {error}")
    data = {
        **facts,
        "ceilings": asdict(ceilings),
        "products": None if products is None else asdict(products),
        "paper": {name: asdict(gpu) for name, gpu in GPUS.items()},
    }
    about = [f"{key}: {value}" for key, value in facts.items() if value is not None]
    sheets = [ceilings_text(data["ceilings"]), *map(ceilings_text, data["paper"].values())]
    shown = [] if products is None else [products_text(products)]
    return CommandResult(ALL_WELL, data, "\n".join([*about, *shown, *sheets]))


def table(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Measure one model at 3, 10 and 30 s, beside a published baseline."""
    lab, workloads = _loaded(parsed)
    waveform = load_audio(parsed.clip)
    data, text, not_done = [], [], list[str]()
    for workload in workloads:
        rows, notes = length_table(lab, workload, waveform, runs=parsed.repeats, progress=say)
        not_done += notes
        title = f"{lab.model_info.title}: {workload.label()}, {workload.dtype} on {workload.device}"
        as_json = [row.to_json() for row in rows]
        data.append({"workload": workload.to_json(), "rows": as_json, "notes": notes})
        text.append(table_text(title, rows, notes, parsed.max_new_tokens))
    return CommandResult(WORTH_A_LOOK if not_done else ALL_WELL, data, "\n\n".join(text))


def _loaded(parsed: argparse.Namespace) -> tuple[Lab, list[Workload]]:
    """Load the model and list every combination asked for; the first is the baseline."""
    if parsed.repeats is not None and parsed.repeats < 1:
        raise ValueError(f"--repeats is {parsed.repeats}; expected 1 or more")
    if parsed.threads is not None:
        if parsed.threads < 1:
            raise ValueError(f"--threads is {parsed.threads}; expected 1 or more")
        torch.set_num_threads(parsed.threads)
    engines = chosen(parsed.engine, ENGINES, "--engine")
    decodings = chosen(parsed.decoding, DECODINGS, "--decoding")
    asked = chosen(parsed.lora, tuple(LORA), "--lora") if parsed.lora else None
    clip = ClipInfo.of(parsed.clip)
    lab = load(parsed.model, device=parsed.device, dtype=parsed.dtype, revision=parsed.revision)
    adapters = [LORA[text] for text in asked] if asked else [None]
    return lab, [
        workload_on(
            lab,
            clip,
            WorkloadChoices(
                model=parsed.model,
                engine=engine,
                lora=adapter,
                decoding=decoding,
                max_new_tokens=parsed.max_new_tokens,
                ignore_eos=parsed.force_tokens,
                revision=parsed.revision,
                seed=parsed.seed,
            ),
        )
        for engine in engines
        for adapter in adapters
        for decoding in decodings
    ]


def chosen(text: str, known: Sequence[str], option: str) -> list[str]:
    """Return the parts of an option's comma-separated text, once each.

    Raises:
        ValueError: none, or one that is not known.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in asked if part not in known]
    if wrong or not asked:
        raise ValueError(f"{option} is {text!r}; expected some of {', '.join(known)}")
    return list(dict.fromkeys(asked))


def _known_text(clip: Path) -> str | None:
    """Return what the transcripts beside a recording say is said in it."""
    file = clip.parent / TRANSCRIPTS
    if not file.is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8")).get(clip.name)


def stored_run(name: str, root: Path) -> dict[str, Any]:
    """Read a run by its id below ``root``, or by its folder."""
    folder = Path(name)
    if (folder / RUN_FILE).is_file():
        return {**read_run(folder / RUN_FILE), "id": folder.resolve().name}
    return RunStore(root).read(name)


def file_of(run: str, root: Path, name: str) -> Path | None:
    """Return a file of a run, given by its id below ``root`` or by its folder; None without one."""
    folder = Path(run)
    if (folder / RUN_FILE).is_file():
        return folder / name if (folder / name).is_file() else None
    return RunStore(root).file_path(run, name)
