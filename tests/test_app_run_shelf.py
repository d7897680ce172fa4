"""Runs and traces that a visitor may look at: whose they are, and what is refused.

Run alone: ``python -m pytest tests/test_app_run_shelf.py``. Needs no model.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from app.service.profiles.library import MOST_OWN, ProfileLibrary
from app.wording.runs import runs_html
from profiling.runs.archive import ArchiveError
from profiling.runs.run_file import RunError
from profiling.runs.store import RunStore
from recorded import RUN, TRACE, dropped, store_with


@pytest.fixture
def kept(tmp_path: Path) -> RunStore:
    return store_with(tmp_path / "kept")


@pytest.fixture
def library(tmp_path: Path) -> ProfileLibrary:
    return ProfileLibrary(None, shipped=tmp_path / "none")


class TestProfileLibrary:
    def test_a_fresh_copy_opens_with_the_run_it_came_with(self, kept: RunStore) -> None:
        found = ProfileLibrary(None, shipped=kept.root).choices("me")
        assert [choice.key for choice in found] == ["shipped:20261122-eager"]
        assert found[0].fixed

    def test_this_machines_runs_come_before_it_and_new_ones_join_them(
        self, kept: RunStore, tmp_path: Path
    ) -> None:
        library = ProfileLibrary(kept.root, shipped=kept.root)
        assert [c.key.split(":")[0] for c in library.choices("me")] == ["kept", "shipped"]
        store, prefix = library.store("me")
        assert (store.root, prefix) == (kept.root, "kept:")

    def test_a_run_that_was_stopped_is_marked_and_never_what_the_tab_opens_with(
        self, kept: RunStore
    ) -> None:
        library = ProfileLibrary(None, shipped=kept.root)
        library.store("me")[0].write({**RUN, "id": "half", "stopped": True})
        assert [c.key for c in library.choices("me")] == ["shipped:20261122-eager", "own:half"]
        assert library.choices("me")[1].stopped

    def test_without_a_folder_runs_are_the_visitors_own(self, library: ProfileLibrary) -> None:
        store, prefix = library.store("me")
        store.write(RUN)
        assert prefix == "own:"
        assert [choice.key for choice in library.choices("me")] == ["own:20261122-eager"]
        assert library.choices("somebody else") == []

    def test_a_run_goes_out_as_a_zip_and_comes_in_again(
        self, kept: RunStore, library: ProfileLibrary, tmp_path: Path
    ) -> None:
        packed = ProfileLibrary(kept.root).zip_of("me", "kept:20261122-eager")
        key = library.add("me", dropped(tmp_path, "run.zip", packed))
        assert key == "own:20261122-eager"
        chosen = library.chosen("me", key)
        assert chosen.run is not None
        assert chosen.run["phases"] == RUN["phases"]
        assert chosen.trace is not None

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"../run.json": "{}"}, "leads out of its folder"),
            ({"/etc/run.json": "{}"}, "leads out of its folder"),
            ({"letter.txt": "dear"}, "holds 'letter.txt'"),
            ({"trace.json.gz": "x"}, "has no run.json"),
            ({"run.json": "{}"}, "schema_version"),
        ],
    )
    def test_archives_that_could_do_harm_are_refused(
        self, library: ProfileLibrary, tmp_path: Path, members: dict[str, str], message: str
    ) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        file = dropped(tmp_path, "bad.zip", packed.getvalue())
        with pytest.raises((ArchiveError, RunError), match=message):
            library.add("me", file)
        assert library.choices("me") == []

    def test_a_zip_by_name_only_is_refused(self, library: ProfileLibrary, tmp_path: Path) -> None:
        with pytest.raises(ArchiveError, match="no zip archive"):
            library.add("me", dropped(tmp_path, "run.zip", b"not at all"))

    def test_a_trace_is_listed_by_its_name_and_seen_by_its_owner_alone(
        self, library: ProfileLibrary, tmp_path: Path
    ) -> None:
        key = library.add("me", dropped(tmp_path, "mine.json", TRACE.read_bytes()))
        assert [choice.title for choice in library.choices("me")] == ["mine.json"]
        with pytest.raises(RunError, match="no such run"):
            library.chosen("somebody else", key)
        library.forget("me")
        assert library.choices("me") == []

    def test_a_run_is_renamed_and_deleted_by_its_owner_alone(
        self, library: ProfileLibrary, kept: RunStore
    ) -> None:
        store, prefix = library.store("me")
        key = prefix + store.write({**RUN, "verdict": "1.8x faster"})
        library.rename("me", key, "  the quick one ")
        assert library.choices("me")[0].title == "the quick one"
        assert library.choices("me")[0].verdict == "1.8x faster"
        library.rename("me", key, "")
        assert library.choices("me")[0].title == RUN["workload"]["label"]
        with pytest.raises(RunError):
            library.delete("somebody else", key)
        library.delete("me", key)
        assert library.choices("me") == []
        shipped = ProfileLibrary(None, shipped=kept.root)
        with pytest.raises(RunError, match="came with the app"):
            shipped.delete("me", "shipped:20261122-eager")

    def test_the_list_escapes_what_came_from_outside(self, library: ProfileLibrary) -> None:
        work = {**RUN["workload"], "label": "<b>", "model": "<i>", "clip": {"name": "a_b'\"<s>"}}
        library.store("me")[0].write({**RUN, "workload": work, "verdict": "<u>"})
        html = runs_html(library.choices("me"), "own:20261122-eager")
        assert not any(bad in html for bad in ("<b>", "<i>", "<s>", "<u>"))
        assert "a_<wbr>b" in html

    @pytest.mark.parametrize("key", ["", "own:", "own:../x", "trace:../../etc/passwd", "x:y"])
    def test_a_key_leads_nowhere_else(self, library: ProfileLibrary, key: str) -> None:
        with pytest.raises(RunError):
            library.chosen("me", key)

    def test_the_oldest_makes_room(self, library: ProfileLibrary, tmp_path: Path) -> None:
        for number in range(MOST_OWN + 3):
            library.add("me", dropped(tmp_path, f"t{number}.json", b"{}"))
        titles = [choice.title for choice in library.choices("me")]
        assert len(titles) == MOST_OWN
        assert titles[0] == f"t{MOST_OWN + 2}.json"
        assert "t0.json" not in titles
