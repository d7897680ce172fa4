"""Runs on disk: whole or not at all, and archives from strangers.

Run alone: ``python -m pytest tests/test_store.py``.
"""

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from profiling.runs import archive as archive_limits
from profiling.runs.archive import ArchiveError
from profiling.runs.run_file import RunError
from profiling.runs.store import RunStore

ROOT = Path(__file__).parents[1]
TRACE = b"\x1f\x8b trace"


def a_run(run_id: str = "first", **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "id": run_id,
        "created": "2026-11-22T10:00:00+00:00",
        "workload": {"engine": "eager"},
        "machine": {"cpu": "one"},
        "phases": [{"name": "encoder", "median_ms": 2.0}],
        "end_to_end_ms": 2.5,
        **more,
    }


GOOD = json.dumps(a_run())


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def zip_of(files: dict[str, bytes | str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def bring(store: RunStore, packed: bytes) -> str:
    """Import an archive as a visitor does: from an upload beside the runs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.zip")
        file.write_bytes(packed)
        return store.import_zip(file)


def test_an_archive_packed_in_an_unusual_way_is_refused(store: RunStore):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("run.json", GOOD)
    with pytest.raises(ArchiveError, match="packed in an unusual way"):
        bring(store, packed.getvalue())


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_store_without_a_folder_is_empty(store: RunStore):
    assert store.entries() == []
    assert not store.root.exists()


def test_a_run_comes_back_as_it_was_written(store: RunStore):
    assert store.write(a_run(), trace=TRACE) == "first"
    assert store.read("first") == a_run()
    path = store.trace_path("first")
    assert path is not None
    assert path.read_bytes() == TRACE


def test_a_trace_can_be_a_path_and_is_copied(store: RunStore, tmp_path: Path):
    recorded = tmp_path / "recorded.json.gz"
    recorded.write_bytes(TRACE)
    store.write(a_run(), trace=recorded)
    path = store.trace_path("first")
    assert path is not None
    assert path.read_bytes() == TRACE
    assert recorded.exists()


def test_latest_runs_come_first_and_broken_ones_last(store: RunStore):
    store.write(a_run("old", created="2026-01-01T00:00:00+00:00"))
    store.write(a_run("new", created="2026-11-01T00:00:00+00:00"))
    (store.root / "bad").mkdir()
    (store.root / "bad" / "run.json").write_text('{"schema_version": 1,')
    assert [entry.id for entry in store.entries()] == ["new", "old", "bad"]
    assert store.names() == ["new", "old"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "expected an object"),
        ('{"schema_version": 9}', "schema_version 9"),
        (json.dumps(a_run(phases=None)), "has no 'phases'"),
        (json.dumps(a_run(phases=[{"median_ms": 1}])), "has no 'phases.0.name'"),
        (json.dumps(a_run(phases=[{"name": "encoder"}])), "has no 'phases.0.median_ms'"),
        (json.dumps(a_run(end_to_end_ms=True)), "end_to_end_ms is True"),
        (json.dumps(a_run(noise=[{"name": "encoder"}])), "has no 'noise.0.ratio'"),
        (json.dumps(a_run(samples={"encoder": [1, "x"]})), "samples.encoder.1 is 'x'"),
        (json.dumps(a_run(samples={"encoder": [1], "decode": [1, 2]})), "differ in number"),
        (json.dumps(a_run(samples={"end_to_end": [1, 0]})), "a time of 0 or less"),
        (json.dumps(a_run(samples={"encoder": [1] * 6_000})), "at most 2000 items"),
        (json.dumps(a_run(memory=[{"phase": "a", "peak_bytes": 1}] * 2_000)), "at most 1000 items"),
        (json.dumps(a_run(draft=3)), "draft is 3; expected an object"),
        (json.dumps(a_run(tokens=[{"index": -1, "ms": 2}])), "tokens.0.index is -1"),
        (json.dumps(a_run(compile={"entries": [{}]})), "has no 'compile.entries.0.stage'"),
        (json.dumps(a_run(metrics={"rtf": [1]})), "metrics.rtf is"),
        (json.dumps(a_run(metrics={"rtf": 1e300})), "metrics.rtf is 1e"),
        (json.dumps(a_run(machine={"memory_bytes": "much"})), "memory_bytes is 'much'"),
        (json.dumps(a_run(of_another_program=float("inf"))), "holds inf"),
        (json.dumps(a_run(of_another_program="\ud800")), "expected text"),
        (json.dumps(a_run(of_another_program=10**400)), "expected a number that JSON has"),
        (GOOD.replace("{", '{"deep": ' + "[" * 100 + "]" * 100 + ",", 1), "nested too deeply"),
    ],
)
def test_broken_runs_are_listed_with_a_reason_and_can_be_deleted(
    store: RunStore, content: str | None, reason: str
):
    folder = store.root / "bad"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "run.json").write_text(content)
    (entry,) = store.entries()
    assert entry.broken is not None
    assert reason in entry.broken
    with pytest.raises(RunError, match=re.escape(reason)):
        store.read("bad")
    store.delete("bad")
    assert store.entries() == []


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "ä", "x" * 81, "nul", "dot."]
)
def test_ids_are_safe_file_names(store: RunStore, bad: str):
    with pytest.raises(RunError, match="cannot be a run's id"):
        store.write(a_run(bad))
    store.write(a_run())
    for act in (store.read, store.delete, store.trace_path, store.export_zip):
        with pytest.raises(RunError):
            act(bad)


def test_an_id_is_given_once(store: RunStore):
    store.write(a_run())
    with pytest.raises(RunError, match="already"):
        store.write(a_run(end_to_end_ms=9.0))
    assert store.read("first")["end_to_end_ms"] == 2.5
    assert everything_below(store.root) == ["first", "first/run.json"]


def test_a_run_that_cannot_be_json_leaves_nothing(store: RunStore):
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            store.write(a_run(end_to_end_ms=bad))
    assert not store.root.exists() or everything_below(store.root) == []


def test_a_process_killed_while_writing_leaves_no_run(store: RunStore):
    script = (
        "import os, signal, sys; from profiling.runs.store import RunStore\n"
        "import shutil\n"
        "shutil.copyfile = lambda old, new: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"import json; run = json.loads({json.dumps(a_run('half'))!r})\n"
        "RunStore(sys.argv[1]).write(run, trace='a trace')\n"
    )
    store.write(a_run())
    ended = subprocess.run([sys.executable, "-c", script, str(store.root)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [entry.id for entry in store.entries()] == ["first"]
    (left,) = store.root.glob(".staging-*")
    # It is cleared once it is old enough to be nobody's.
    os.utime(left, (0, 0))
    store.write(a_run("second"))
    assert not list(store.root.glob(".*"))


def test_a_link_in_the_store_is_no_run(store: RunStore, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "run.json").write_text(json.dumps(a_run()))
    store.root.mkdir()
    (store.root / "link").symlink_to(outside)
    with pytest.raises(RunError):
        store.delete("link")
    assert (outside / "run.json").exists()


def test_an_exported_run_can_be_imported_elsewhere(store: RunStore, tmp_path: Path):
    store.write(a_run(), trace=TRACE)
    packed = store.export_zip("first")
    other = RunStore(tmp_path / "other")
    assert bring(other, packed) == "first"
    assert other.read("first") == store.read("first")
    assert other.trace_path("first").read_bytes() == TRACE
    assert bring(other, packed) == "first-2"


def test_a_folder_zipped_by_hand_is_taken_too(store: RunStore):
    assert bring(store, zip_of({"mine/run.json": json.dumps(a_run("mine"))})) == "mine"


def link_named(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("run.json", json.dumps(a_run()))
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        (zip_of({"../run.json": GOOD}), "leads out"),
        (zip_of({"run.json": GOOD, "a/../../trace.json.gz": "x"}), "leads out"),
        (zip_of({"/run.json": GOOD}), "leads out"),
        (zip_of({"C:\\run.json": GOOD}), "leads out"),
        (zip_of({"a/b/run.json": GOOD}), "leads out"),
        (link_named("trace.json.gz"), "is a link"),
        (zip_of({"run.json": GOOD, "run.py": "x"}), "expected run.json"),
        (zip_of({"a/run.json": GOOD, "b/run.json": GOOD}), "more than once"),
        (zip_of({"run.json": GOOD, "b/trace.json.gz": "x"}), "several folders"),
        (zip_of({"trace.json.gz": b"x"}), "has no run.json"),
        (zip_of({f"{n}": "x" for n in range(40)}), "at most 32"),
        (zip_of({f"{n}": "" for n in range(2_000)}), r"run\.zip holds too many files"),
        (b"no zip", r"run\.zip is no zip archive"),
        (zip_of({"run.json": GOOD})[:-30], "no zip archive, or a damaged one"),
        (zip_of({"run.json": GOOD, "trace.json.gz": b"0" * 30_000_000}), "zip bomb"),
    ],
)
def test_hostile_archives_are_refused_and_write_nothing(
    store: RunStore, tmp_path: Path, archive: bytes, expected: str
):
    with pytest.raises(ArchiveError, match=expected):
        bring(store, archive)
    assert set(everything_below(tmp_path)) <= {"runs"}


def test_a_long_list_is_not_read_where_its_size_looks_like_another_record(tmp_path: Path):
    size = int.from_bytes(b"PK\5\6", "little")  # 101 MB of list
    with (tmp_path / "a.zip").open("wb") as file:
        file.truncate(size)  # a hole: it takes no room on disk
        file.seek(size)
        file.write(b"PK\5\6" + bytes(8) + size.to_bytes(4, "little") + bytes(6))
    with pytest.raises(ArchiveError, match="too many files"):
        archive_limits.open_archive(tmp_path / "a.zip")


def test_an_archive_beyond_the_whole_limit_is_refused(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archive_limits, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(ArchiveError, match="unpacks to more"):
        bring(store, zip_of({"run.json": GOOD, "trace.json.gz": os.urandom(2000)}))


def test_sizes_an_archive_lies_about_are_not_believed(store: RunStore, tmp_path: Path):
    data = bytearray(zip_of({"run.json": GOOD, "trace.json.gz": b"0" * 30_000_000}))
    true_size = (30_000_000).to_bytes(4, "little")
    assert data.count(true_size) >= 2
    lying = bytes(data.replace(true_size, (1000).to_bytes(4, "little")))
    with pytest.raises(ArchiveError, match="damaged|bomb"):
        bring(store, lying)
    assert set(everything_below(tmp_path)) <= {"runs"}


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        (zip_of({"run.json": "{"}), "is not JSON"),
        (zip_of({"run.json": json.dumps({**a_run(), "id": "../../x"})}), "cannot be a run's id"),
    ],
)
def test_archives_of_no_run_are_refused(
    store: RunStore, tmp_path: Path, archive: bytes, expected: str
):
    with pytest.raises(RunError, match=expected):
        bring(store, archive)
    assert set(everything_below(tmp_path)) <= {"runs"}
