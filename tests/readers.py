"""Everything that reads a kind of file somebody may bring, one after another.

In: the file's bytes. Out: nothing: what it held was laid out in full and is sound, or a
``UserError`` says in a line why it was not. Any other exception is a fault. The slow suite gives
these readers generated input, ``python -m fuzz`` what its search finds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import core
import tiny_models
from app.service.adapter_registry import AdapterRegistry
from app.service.profiles.library import ProfileLibrary
from app.service.profiles.view import ProfileView, report_file, tables_file, trace_file, view_of
from app.service.seekable_audio import is_stereo, seekable_copy
from app.wording import many_runs
from core import Lab
from core.audio.decode import decode_audio, decode_channels, measure_seconds, probe
from core.audio.waveform import SAMPLE_RATE
from core.errors import UserError
from profiling.plain_text_many import runs_text
from profiling.report.many_runs import history_report, runs_report
from profiling.report.report import comparison_report
from profiling.runs.store import RunStore
from profiling.statistics.compare import compare
from profiling.statistics.history import histories
from profiling.statistics.run_table import run_table
from profiling.trace.events import read_trace
from profiling.trace.speedscope import speedscope
from profiling.trace.trace_tables import trace_json
from profiling.trace.tree_difference import tree_difference

LONGEST_AUDIO_S = 60.0
MAX_JSON_BYTES = 20_000_000  # of a trace; the limit of a public page is as a low one
OPTIONS = {"max_new_tokens": 4, "skip_silence": False}


def strict(value: Any) -> str:
    """Write JSON as browsers read it."""
    return json.dumps(value, allow_nan=False).encode("utf-8").decode()


def read_audio(data: bytes, folder: Path, suffix: str = "") -> None:
    """A recording: its header, its length, its sound, the copy that is played."""
    file = folder / f"upload{suffix}"
    file.write_bytes(data)
    for old in folder.glob("*.wav.wav"):
        old.unlink()
    seekable_copy(str(file))
    stereo = is_stereo(str(file))
    info = probe(file)
    assert info.duration_s is None or 0 <= info.duration_s < 1e9
    seconds = measure_seconds(file, max_seconds=LONGEST_AUDIO_S)
    found = decode_audio(file, max_seconds=LONGEST_AUDIO_S)
    assert found.waveform.dtype == torch.float32
    assert found.waveform.ndim == 1
    assert found.waveform.isfinite().all()
    assert seconds == len(found.waveform) / SAMPLE_RATE <= LONGEST_AUDIO_S
    if stereo:
        left, right = decode_channels(file, max_seconds=LONGEST_AUDIO_S)
        assert len(left) == len(right) > 0


def read_a_trace(data: bytes, folder: Path, *, shown: bool = True) -> None:
    """A trace: its tables and, if ``shown``, what the page shows of it and what can be saved."""
    file = folder / "trace.json"
    file.write_bytes(data)
    trace = read_trace(file, max_json_bytes=MAX_JSON_BYTES)
    strict(trace_json(trace))
    strict(speedscope(trace.index, "x"))
    strict(tree_difference(trace.index, trace.index).to_dict("records"))
    if shown:  # drawing takes most of the time
        with_library(folder, lambda library, key: all_of(library, key), file)


def read_archive(data: bytes, folder: Path) -> None:
    """A run as one zip: taken in, listed, shown, saved, compared."""
    file = folder / "run.zip"
    file.write_bytes(data)
    with_library(folder, all_of, file)


def read_run_json(data: bytes, folder: Path, *, shown: bool = True) -> None:
    """A ``run.json`` in a folder: if ``shown`` as an archive's, and what commands do with it."""
    root = folder / "runs"
    shutil.rmtree(root, ignore_errors=True)
    (root / "a").mkdir(parents=True)
    (root / "a" / "run.json").write_bytes(data)
    store = RunStore(root)
    store.entries()
    run = store.read("a")
    library = ProfileLibrary(kept=root, shipped=folder / "none")
    try:
        if shown:
            all_of(library, "kept:a")
        library.rename("me", "kept:a", "another")
    finally:
        library.close()
    rows = run_table([run])
    strict(rows)
    runs_text(rows)
    many_runs.table_html(rows)
    for found in (one.to_json() for one in histories([run] * 6)):  # enough to look for steps
        strict(found)
        many_runs.workload_title(found)
        many_runs.changes_html(found)
        many_runs.points_html(found)
        if shown:
            history_report(found)
    if shown:
        runs_report(rows)
    try:
        compared = compare(run, run).to_json()
    except UserError:  # not timed by blocks, say
        return
    strict(compared)
    if shown:
        comparison_report(run, run, compared, (None, None))


def with_library(folder: Path, look: Callable[[ProfileLibrary, str], None], file: Path) -> None:
    """Bring ``file`` as a visitor does."""
    library = ProfileLibrary(shipped=folder / "none")
    try:
        look(library, library.add("me", file))
    finally:
        library.close()


def all_of(library: ProfileLibrary, key: str) -> None:
    """Lay out and save what is behind a key."""
    assert [choice.key for choice in library.choices("me")] == [key]
    chosen = library.chosen("me", key)
    show(view_of(chosen, max_json_bytes=MAX_JSON_BYTES))
    if chosen.run is not None:
        report_file(chosen, max_json_bytes=MAX_JSON_BYTES)
        library.zip_of("me", key)
    if chosen.trace is not None:
        trace_file(chosen)
        tables_file(chosen, max_json_bytes=MAX_JSON_BYTES)


def show(view: ProfileView) -> None:
    """Write a view as the page sends it."""
    view.head.encode()
    for exhibits in view.sections.values():
        for exhibit in exhibits:
            (exhibit.lead + exhibit.beside).encode()
            if exhibit.figure is not None:
                strict(json.loads(exhibit.figure.to_json()))


def read_adapter_files(files: Mapping[str, bytes], folder: Path, lab: Lab) -> None:
    """An adapter as its two files or one zip: taken in, used, removed."""
    uploads = folder / "uploads"
    shutil.rmtree(uploads, ignore_errors=True)
    uploads.mkdir()
    for name, data in files.items():
        (uploads / name).write_bytes(data)
    registry = AdapterRegistry()
    registry.add(lab, "tiny", "theirs", "", [str(uploads / name) for name in files])
    try:
        found = lab.transcribe(tiny_models.noise(0.5), adapter="theirs", **OPTIONS)
        found.text.encode()
        assert lab.logits_along(tiny_models.noise(0.5), [1], adapter="theirs").isfinite().all()
    finally:
        registry.remove([lab], "tiny", "theirs")


def read_checkpoint(files: Mapping[str, bytes], folder: Path, whole: Path) -> None:
    """A checkpoint, some of whose files are as given: loaded, used for speech and for text."""
    for old in folder.iterdir():
        old.unlink()
    for file in whole.iterdir():
        (folder / file.name).symlink_to(file)
    for name, data in files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)
    lab = core.load(folder, device="cpu", dtype="float32")
    strict(lab.transcribe(tiny_models.noise(0.5), **OPTIONS).to_dict())
    if lab.model_info.text_mode:
        lab.chat("hello", max_new_tokens=4).encode()
