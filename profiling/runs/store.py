"""Run folders on disk: list, read, write, delete, export and import as one zip.

In: a root folder. Out: ``<root>/<id>/`` with ``run.json``, perhaps ``trace.json.gz`` and what else
was recorded (:data:`MORE_FILES`). The folder's name is the id. A run appears and disappears as a
whole: it is written beside the others under a hidden name and renamed, so a process killed in the
middle leaves no half. A folder that cannot be read is listed as broken, with the reason; only
delete touches it.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.measure.compiled_code import CODE_FILE
from profiling.runs.archive import checked_members, copy_member, open_archive
from profiling.runs.run_file import RUN_FILE, RunError, checked_id, checked_run, read_run
from profiling.trace.memory_snapshot import SNAPSHOT_FILE

TRACE_FILE = "trace.json.gz"
MORE_FILES = (CODE_FILE, SNAPSHOT_FILE)
STAGING = ".staging-"
LEFT_OVER_AFTER_S = 3600.0


@dataclass(frozen=True)
class RunEntry:
    """One folder of the store. broken: why it cannot be read, None if it can.

    title: what it was renamed to, else its workload's label. stopped: measured in part, for it was
    stopped. verdict: what a comparison said of it, empty where there was none.
    """

    id: str
    created: str
    title: str
    has_trace: bool
    broken: str | None
    stopped: bool = False
    clip: str = ""
    model: str = ""
    verdict: str = ""


class RunStore:
    """The runs below ``root``, which is made when the first one is written."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def entries(self) -> list[RunEntry]:
        """Return every run, latest first; broken ones at the end."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        entries = [
            self._entry(folder)
            for folder in folders
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith(".")
        ]
        entries.sort(key=lambda entry: entry.created, reverse=True)
        return sorted(entries, key=lambda entry: entry.broken is not None)

    def names(self) -> list[str]:
        """Return ids of the runs that can be read, latest first."""
        return [entry.id for entry in self.entries() if entry.broken is None]

    def read(self, run_id: str) -> dict[str, Any]:
        """Return ``run.json`` of a run; its id is the folder's name.

        Raises:
            RunError: no such run, or one that cannot be read.
        """
        return {**read_run(self._folder(run_id) / RUN_FILE), "id": run_id}

    def trace_path(self, run_id: str) -> Path | None:
        """Return the run's trace, None if it has none."""
        return self.file_path(run_id, TRACE_FILE)

    def file_path(self, run_id: str, name: str) -> Path | None:
        """Return one of :data:`MORE_FILES` of the run, or its trace; None if it has none."""
        path = self._folder(run_id) / name
        return path if path.is_file() else None

    def write(
        self,
        run: Mapping[str, Any],
        *,
        trace: bytes | str | os.PathLike[str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """Store a run whole, or not at all.

        Args:
            run: the contents of ``run.json``, with its ``id``.
            trace: a gzipped Chrome trace, or the path of one (copied).
            files: contents of :data:`MORE_FILES`, by name.

        Returns:
            The id.

        Raises:
            RunError: the run lacks something, or its id is taken.
        """
        run_id = checked_id(str(run.get("id", "")))
        text = json.dumps(run, indent=1, allow_nan=False, default=str)
        checked_run(json.loads(text))  # what was written, not the tuples it was written from
        with self._staging() as folder:
            (folder / RUN_FILE).write_text(text, encoding="utf-8")
            if isinstance(trace, bytes):
                (folder / TRACE_FILE).write_bytes(trace)
            elif trace is not None:
                shutil.copyfile(trace, folder / TRACE_FILE)
            for name, content in (files or {}).items():
                assert name in MORE_FILES, name
                (folder / name).write_bytes(content)
            self._publish(folder, run_id)
        return run_id

    def annotate(self, run_id: str, **notes: str) -> None:
        """Write remarks into a run's ``run.json``: "title", "verdict".

        Raises:
            RunError: no such run, or one that cannot be read.
        """
        run, folder = self.read(run_id), self._folder(run_id)
        with self._staging() as place:
            text = json.dumps({**run, **notes}, indent=1, allow_nan=False)
            (place / RUN_FILE).write_text(text, encoding="utf-8")
            (place / RUN_FILE).replace(folder / RUN_FILE)

    def delete(self, run_id: str) -> None:
        """Remove a run, broken or not.

        Raises:
            RunError: no such run.
        """
        folder = self._folder(run_id)
        with self._staging() as doomed:
            folder.rename(doomed / run_id)

    def export_zip(self, run_id: str) -> bytes:
        """Return the folder as one zip archive, which :meth:`import_zip` takes back.

        Raises:
            RunError: no such run, or one that cannot be read.
        """
        run, folder, packed = self.read(run_id), self._folder(run_id), io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(RUN_FILE, json.dumps(run, indent=1))
            for name in (TRACE_FILE, *MORE_FILES):
                if (folder / name).is_file():
                    archive.write(folder / name, name, zipfile.ZIP_STORED)  # packed already
        return packed.getvalue()

    def import_zip(self, file: Path) -> str:
        """Add the run in an archive; a taken id gets a number.

        Returns:
            The id it was given.

        Raises:
            RunError: no archive of a run.
            ArchiveError: no archive, or one that could do harm. Nothing is written in either case.
        """
        with open_archive(file) as archive, self._staging() as folder:
            members = checked_members(archive, RUN_FILE, (TRACE_FILE, *MORE_FILES))
            for name, member in members.items():
                copy_member(archive, member, folder / name)
            run = read_run(folder / RUN_FILE)
            run_id = self._free_id(checked_id(str(run.get("id", ""))))
            self._publish(folder, run_id)
        return run_id

    def _folder(self, run_id: str) -> Path:
        folder = self.root / checked_id(run_id)
        if folder.is_symlink() or not folder.is_dir():
            raise RunError(f"there is no run {run_id!r} in {self.root}; expected a listed one")
        return folder

    def _entry(self, folder: Path) -> RunEntry:
        try:
            run = self.read(folder.name)
        except RunError as error:
            return RunEntry(folder.name, "", folder.name, False, str(error))
        work = run["workload"]
        clip = work.get("clip")
        return RunEntry(
            folder.name,
            str(run.get("created", "")),
            str(run.get("title") or work.get("label") or work.get("engine") or folder.name),
            (folder / TRACE_FILE).is_file(),
            None,
            stopped=bool(run.get("stopped")),
            clip=str(clip.get("name") or "") if isinstance(clip, Mapping) else "",
            model=str(work.get("model") or ""),
            verdict=str(run.get("verdict") or ""),
        )

    def _free_id(self, wanted: str) -> str:
        candidates = (f"{wanted[:70]}-{number}" for number in itertools.count(2))
        return next(
            name
            for name in itertools.chain([wanted], candidates)
            if not (self.root / name).exists()
        )

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Make a hidden folder beside the runs, gone afterwards with whatever is still in it."""
        self.root.mkdir(parents=True, exist_ok=True)
        for old in self.root.glob(f"{STAGING}*"):  # of a process that was killed
            if time.time() - old.stat().st_mtime > LEFT_OVER_AFTER_S:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=self.root) as place:
            folder = Path(place) / "run"
            folder.mkdir()
            yield folder

    def _publish(self, folder: Path, run_id: str) -> None:
        target = self.root / run_id
        if target.exists() or target.is_symlink():
            raise RunError(f"there is a run {run_id!r} already; choose another id or delete it")
        folder.rename(target)
