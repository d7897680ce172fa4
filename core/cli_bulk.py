"""``python -m core bulk``: 10^5 recordings and more to text.

In: the command's arguments. Out: a folder of results, progress on stderr, and the exit status of
``python -m core``. What was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.bulk.executors import EXECUTORS
from core.bulk.identify import IDS
from core.bulk.job import FORMATS, Crew
from core.bulk.run import BulkRequest, run_bulk, show_plan
from core.checkpoint.hub import CheckpointFiles, resolve
from core.checkpoint.peft_format import adapter_files
from core.cli import (
    ALL_WELL,
    NOTHING_DONE,
    SOME_FAILED,
    STOPPED,
    add_request,
    request_options,
)
from core.errors import UserError
from core.lab import Lab
from core.loading import load, pick_device, pick_dtype
from core.text.output_names import printable

ON_CPU, ON_GPU = 8, 32  # recordings of a batch
SHOWN_EVERY_S, LOGGED_EVERY_S = 0.2, 30.0  # a terminal, a file


def add_bulk(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the command's options."""
    add = parser.add_argument
    named = "folder, glob in quotes, recording, or manifest (.jsonl, .csv) with audio_filepath"
    add("inputs", nargs="+", metavar="INPUT", help=named)
    add("--output-dir", type=Path, required=True, help="where shards and the report go")
    add_request(parser)
    add("--format", choices=FORMATS, default="jsonl", help="parquet needs pyarrow")
    add("--executor", choices=EXECUTORS, default="local", help="who works (local: this process)")
    add("--num-workers", type=int, help="models at once, for processes and ray")
    add("--batch-size", type=int, help=f"recordings at once ({ON_CPU}, on a GPU {ON_GPU})")
    add("--ids", choices=IDS, default="stat", help="the same: path, size and time, or content")
    add("--shard-minutes", type=float, help="sound in a shard (2 to 60, by how much there is)")
    add("--keep-plan", action="store_true", help="finish the old plan though the input changed")
    add("--dry-run", action="store_true", help="say what would be done")
    parser.set_defaults(run=run_bulk_command)


def run_bulk_command(parsed: argparse.Namespace) -> int:
    """Plan, work, report; returns the exit status."""
    screen = Screen()
    asked = request_of(parsed)
    if parsed.dry_run:
        show_plan(asked, say=print)
        return ALL_WELL
    outcome = run_bulk(asked, say=screen.say, show=screen.show)
    if outcome.stopped:
        return STOPPED
    if outcome.files == outcome.failed:
        return NOTHING_DONE
    return SOME_FAILED if outcome.failed or outcome.lost else ALL_WELL


def request_of(parsed: argparse.Namespace) -> BulkRequest:
    """Check a command line, before any recording or model is touched.

    Returns:
        What it asks for.

    Raises:
        UserError: a value that cannot be.
    """
    for name in ("num_workers", "shard_minutes"):
        value = getattr(parsed, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} is {value:g}; expected more than 0")
    if parsed.num_workers is not None and parsed.executor == "local":
        raise UserError(
            "--num-workers came with --executor local, which is one worker; expected --executor "
            "processes or ray"
        )
    devices = _devices(parsed.device)
    if parsed.batch_size is None:
        parsed.batch_size = ON_GPU if devices[0].startswith("cuda") else ON_CPU
    options = request_options(parsed)
    folder, adapter = Path(parsed.model).expanduser(), parsed.adapter
    if adapter is not None:
        adapter = adapter.resolve()
        options["adapter"] = adapter.name
    model = ModelAsked(
        str(folder.resolve()) if folder.is_dir() else parsed.model,
        parsed.revision,
        parsed.dtype,
        None if parsed.quantize == "none" else parsed.quantize,
        adapter,
    )
    return BulkRequest(
        inputs=parsed.inputs,
        folder=parsed.output_dir,
        ids=parsed.ids,
        shard_s=None if parsed.shard_minutes is None else 60 * parsed.shard_minutes,
        keep_plan=parsed.keep_plan,
        executor=parsed.executor,
        crew=Crew(num_workers=parsed.num_workers, devices=devices),
        model={} if parsed.dry_run else model.record(devices[0]),
        open_model=partial(open_lab, model),
        options=options,
        batch_size=parsed.batch_size,
        form=parsed.format,
    )


@dataclass(frozen=True)
class ModelAsked:
    """The model of a command line, in a form that other processes can be given."""

    name: str
    revision: str | None
    dtype: str | None
    quantize: str | None
    adapter: Path | None

    def record(self, device: str) -> dict[str, Any]:
        """Return what decides the model's texts; downloads its files where they are not here."""
        adapter = None
        if self.adapter is not None:
            adapter = _sha256(list(adapter_files(self.adapter)))
        return {
            "revision": revision_of(resolve(self.name, revision=self.revision)),
            "dtype": str(pick_dtype(self.dtype, pick_device(device))),
            "quantize": self.quantize,
            "adapter": adapter,
        }


def open_lab(asked: ModelAsked, device: str | None) -> Lab:
    """Load a model and its adapter on a device."""
    lab = load(
        asked.name,
        device=device,
        dtype=asked.dtype,
        revision=asked.revision,
        quantize=asked.quantize,
    )
    if asked.adapter is not None:
        lab.add_adapter(asked.adapter.name, asked.adapter)
    return lab


def revision_of(files: CheckpointFiles) -> str:
    """Return the commit of a downloaded checkpoint, or a digest of a folder's files."""
    if files.folder.parent.name == "snapshots":
        return files.folder.name
    kinds = ("*.safetensors", "*.json", "*.jinja")
    return _sha256([file for kind in kinds for file in sorted(files.folder.glob(kind))])


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _devices(asked: str | None) -> tuple[str, ...]:
    """Return the devices to use: the one asked for, all GPUs, or the CPU."""
    if asked is not None:
        return (asked,)
    return tuple(f"cuda:{place}" for place in range(torch.cuda.device_count())) or ("cpu",)


class Screen:
    """Lines on stderr: those that stay, and one of progress that is written over."""

    def __init__(self) -> None:
        self._watched, self._last = sys.stderr.isatty(), time.monotonic()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        clear = "\r\033[K" if self._watched else ""
        print(clear + printable(text), file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Write a line of progress in place of the last; in a file one now and then."""
        now = time.monotonic()
        if now - self._last < (SHOWN_EVERY_S if self._watched else LOGGED_EVERY_S):
            return
        self._last = now
        if self._watched:
            print(f"\r\033[K{printable(text)}", end="", file=sys.stderr, flush=True)
        else:
            self.say(text)
