"""``python -m core package``: a model's graphs compiled ahead of time.

In: the command's arguments. Out: the package's folder on stdout, a line a graph on stderr. With
``--background`` it is a child of another program (``core.background_build``): it keeps out of the
way, writes how far it is as JSON lines on stdout, and ends when its stdin is closed, which happens
also where the other program is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from threading import Thread

from core.cli import ALL_WELL, load_asked
from core.engine.aot_build import BuildProgress, build_package
from core.model.quantize import MODES


def add_package(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the command's options."""
    add = parser.add_argument
    add("model", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--device", help="cpu, cuda, cuda:1")
    add("--dtype", choices=("float32", "bfloat16", "float16"))
    add("--quantize", choices=("none", *MODES), default="none", help="int8 decoder weights")
    add("--batches", action="store_true", help="also for several files at once, and beams")
    add("--output-dir", type=Path, help="folder of packages (default: the user's cache)")
    add("--adapter", type=Path, action="append", default=[], help="added to the model, in order")
    add("--background", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run_package)


def run_package(parsed: argparse.Namespace) -> int:
    """Compile a model ahead of time and print where the result is."""
    if parsed.background:
        Thread(target=_end_with_parent, daemon=True).start()
    lab = load_asked(parsed)
    for number, folder in enumerate(parsed.adapter):
        lab.add_adapter(f"added-{number}", folder)
    folder = build_package(
        lab.model,
        name=lab.model_info.name,
        into=parsed.output_dir,
        batches=parsed.batches,
        report=_write_json if parsed.background else _write_lines,
    )
    if not parsed.background:
        print(folder)
    return ALL_WELL


def _write_lines(progress: BuildProgress) -> None:
    if progress.ready_s is not None:
        print(f"ready in {progress.ready_s:.2f} s from the package", file=sys.stderr)
    elif progress.seconds:
        name, seconds = list(progress.seconds.items())[-1]
        done = f"{len(progress.seconds)} of {len(progress.graphs)}"
        print(f"{done}, {name}: {seconds} s", file=sys.stderr)


def _write_json(progress: BuildProgress) -> None:
    print(json.dumps(vars(progress)), flush=True)


def _end_with_parent() -> None:
    """Wait for the end of stdin, then end this process and the compilers it started."""
    while os.read(0, 4096):  # not of sys.stdin: its lock would be held when the program ends
        pass
    if hasattr(os, "killpg"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(1)
