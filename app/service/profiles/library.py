"""The runs a visitor may look at: the one that came with the app, this machine's, and their own.

In: a session's name, files they drop in. Out: entries to choose from, and what is behind one. No
Gradio. What a visitor brings or, on a public page, records is seen by nobody else and
deleted when they leave.

A key is "shipped:ID", "kept:ID", "own:ID" for a run, or "trace:NUMBER" for a trace without one.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from core.checkpoint.catalog import ASSETS
from profiling.measure.compiled_code import CODE_FILE
from profiling.runs.run_file import RunError
from profiling.runs.store import RunEntry, RunStore
from profiling.trace.memory_snapshot import SNAPSHOT_FILE, is_snapshot

SHIPPED = ASSETS / "runs"
ZIP_HEAD = b"PK\x03\x04"
MOST_OWN = 12  # runs and traces of one visitor; the oldest makes room
LONGEST_TITLE = 120
NOT_THERE = "there is no such run any more; choose another one from the list"
FIXED = "this came with the app, or is a trace without a run; only recorded runs can be changed"


@dataclass(frozen=True)
class ProfileChoice:
    """One entry of the list. fixed: it came with the app, and stays as it is.

    verdict: what a comparison said of it; clip, model and created are empty for a trace alone.
    """

    key: str
    title: str
    clip: str = ""
    model: str = ""
    created: str = ""
    verdict: str = ""
    stopped: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class SelectedProfile:
    """The run or trace behind a key.

    run: its ``run.json``, None for a trace alone. elsewhere: recorded on another machine. code:
    what compiling generated. snapshot: of a GPU's memory; without run and trace it came alone.
    """

    key: str
    title: str
    run: dict[str, Any] | None
    trace: Path | None
    elsewhere: bool
    code: Path | None = None
    snapshot: Path | None = None


class ProfileLibrary:
    """Runs by key.

    Args:
        kept: folder of this machine's runs, None where visitors have only their own.
        shipped: folder of those that came with the app.
    """

    def __init__(self, kept: Path | None = None, shipped: Path = SHIPPED) -> None:
        self._kept = None if kept is None else RunStore(kept)
        self._shipped = RunStore(shipped)
        self._root = tempfile.TemporaryDirectory(prefix="granite-speech-lab-")
        self._folders: dict[str, Path] = {}
        self._lock = Lock()

    def choices(self, session: str) -> list[ProfileChoice]:
        """List what this visitor may look at: the newest of their own first, stopped runs last."""
        own = self._own(session)
        runs = [("own", entry) for entry in own.entries()]
        runs += [("kept", entry) for entry in (self._kept.entries() if self._kept else ())]
        readable = [(kind, entry) for kind, entry in runs if _whole(entry)]
        stopped = [_choice(kind, entry) for kind, entry in readable if entry.stopped]
        done = [_choice(kind, entry) for kind, entry in readable if not entry.stopped]
        traces = [ProfileChoice(f"trace:{f.name}", f.name[4:]) for f in reversed(_traces(own.root))]
        examples = [_choice("shipped", e) for e in self._shipped.entries() if _whole(e)]
        return [*done, *traces, *examples, *stopped]

    @property
    def keeps(self) -> bool:
        """Return whether runs are kept on this machine; else a visitor has a few of their own."""
        return self._kept is not None

    def store(self, session: str, room: int = 1) -> tuple[RunStore, str]:
        """Return where a visitor's new runs go, ``room`` for more made, and their keys' prefix."""
        if self._kept is not None:
            return self._kept, "kept:"
        self._make_room(session, room)
        return self._own(session), "own:"

    def chosen(self, session: str, key: str) -> SelectedProfile:
        """Find what is behind a key.

        Returns:
            The run or trace.

        Raises:
            RunError: nothing of this visitor's.
        """
        kind, _, name = key.partition(":")
        if kind == "trace":
            file = next((f for f in _traces(self._own(session).root) if f.name == name), None)
            if file is None:
                raise RunError(NOT_THERE)
            title = file.name[4:]
            if is_snapshot(file):
                return SelectedProfile(key, title, None, None, elsewhere=True, snapshot=file)
            return SelectedProfile(key, title, None, file, elsewhere=True)
        store = self._store(session, kind)
        run = store.read(name)
        title = str(run.get("title") or run["workload"].get("label") or name)
        return SelectedProfile(
            key,
            title,
            run,
            store.trace_path(name),
            elsewhere=kind == "shipped",
            code=store.file_path(name, CODE_FILE),
            snapshot=store.file_path(name, SNAPSHOT_FILE),
        )

    def runs(self, session: str) -> list[dict[str, Any]]:
        """Read every run of the list.

        Returns:
            The contents of each ``run.json``, the earliest first.
        """
        keys = [one.key for one in self.choices(session) if not one.key.startswith("trace:")]
        found = [self._store(session, kind).read(name) for kind, _, name in map(_parted, keys)]
        return sorted(found, key=lambda run: str(run.get("created", "")))

    def zip_of(self, session: str, key: str) -> bytes:
        """Pack a run as the archive that :meth:`add` takes back.

        Returns:
            The zip.

        Raises:
            RunError: no such run, or a trace without one.
        """
        kind, _, name = key.partition(":")
        if kind == "trace":
            raise RunError("this is a trace without a run; download the trace instead")
        return self._store(session, kind).export_zip(name)

    def add(self, session: str, file: Path) -> str:
        """Take in a file that a visitor brought: the zip of a run, a trace, or a memory snapshot.

        The last two are only copied here; reading says whether they are what they seem.

        Returns:
            Its key.

        Raises:
            RunError: an archive, but not of a run.
            ArchiveError: an archive that could do harm.
        """
        self._make_room(session, 1)
        own = self._own(session)
        with file.open("rb") as opened:
            head = opened.read(len(ZIP_HEAD))
        if head == ZIP_HEAD or file.suffix.lower() == ".zip":
            return f"own:{own.import_zip(file)}"
        own.root.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(f.name[:3]) for f in _traces(own.root)), default=0)
        target = own.root / f"{number:03d}-{file.name}"
        shutil.copyfile(file, target)
        return f"trace:{target.name}"

    def scratch(self, session: str) -> Path:
        """Return a folder for a visitor's saved files; deleted when they leave."""
        folder = self._own(session).root / ".saved"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def rename(self, session: str, key: str, title: str) -> None:
        """Give a run another title; an empty one gives back its first.

        Raises:
            RunError: nothing of this visitor's, or a trace without a run.
        """
        kind, _, name = key.partition(":")
        if kind in ("shipped", "trace"):
            raise RunError(FIXED)
        self._store(session, kind).annotate(name, title=title.strip()[:LONGEST_TITLE])

    def delete(self, session: str, key: str) -> None:
        """Delete a run or a trace.

        Raises:
            RunError: nothing of this visitor's.
        """
        kind, _, name = key.partition(":")
        if kind == "shipped":
            raise RunError(FIXED)
        if kind != "trace":
            self._store(session, kind).delete(name)
        for file in _traces(self._own(session).root) if kind == "trace" else ():
            if file.name == name:
                file.unlink()

    def forget(self, session: str) -> None:
        """Delete what a visitor brought or recorded for themselves."""
        with self._lock:
            folder = self._folders.pop(session, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Delete what all visitors brought."""
        self._root.cleanup()

    def _store(self, session: str, kind: str) -> RunStore:
        """Return where the runs of a kind of key are."""
        stores = {"shipped": self._shipped, "kept": self._kept, "own": self._own(session)}
        store = stores.get(kind)
        if store is None:
            raise RunError(NOT_THERE)
        return store

    def _own(self, session: str) -> RunStore:
        with self._lock:
            if session not in self._folders:
                self._folders[session] = Path(tempfile.mkdtemp(dir=self._root.name))
            return RunStore(self._folders[session])

    def _make_room(self, session: str, room: int) -> None:
        own = self._own(session)
        names, traces = [entry.id for entry in own.entries()], _traces(own.root)
        for _ in range(len(names) + len(traces) + room - MOST_OWN):
            if traces:
                traces.pop(0).unlink()
            else:
                own.delete(names.pop())


def _parted(key: str) -> tuple[str, str, str]:
    return key.partition(":")


def _traces(root: Path) -> list[Path]:
    """List traces without a run, the oldest first: "003-name.json.gz"."""
    return sorted(f for f in root.glob("[0-9][0-9][0-9]-*") if f.is_file())


def _whole(entry: RunEntry) -> bool:
    return entry.broken is None


def _choice(kind: str, entry: RunEntry) -> ProfileChoice:
    return ProfileChoice(
        f"{kind}:{entry.id}",
        entry.title,
        clip=entry.clip,
        model=entry.model,
        created=entry.created[:16].replace("T", " "),
        verdict=entry.verdict,
        stopped=entry.stopped,
        fixed=kind == "shipped",
    )
