"""Views of runs for many visitors: read when nothing is being timed, the common ones kept.

In: a session's name and a key of :class:`app.service.profiles.library.ProfileLibrary`. Out: a run
laid open, and files to save; or every run in one table, with histories. No Gradio.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.service.profiles.library import ProfileLibrary, SelectedProfile
from app.service.profiles.view import (
    ProfileView,
    code_file,
    report_file,
    speedscope_file,
    tables_file,
    trace_file,
    view_of,
)
from app.service.quiet_time import QuietTime
from profiling.statistics.history import histories
from profiling.statistics.run_table import run_table
from profiling.trace.events import MAX_JSON_BYTES
from profiling.trace.trace_file import TraceError

KEPT = 4
SHARED = ("shipped:", "kept:")  # keys that mean the same for every visitor
FILES = ("trace", "speedscope", "tables", "code", "report", "run")


@dataclass(frozen=True)
class ManyRuns:
    """Every run of a list: rows of its table, and histories as their JSON states them."""

    rows: list[dict[str, Any]]
    histories: list[dict[str, Any]]


class ProfileReader:
    """The profile behind a key, laid out.

    Args:
        library: where runs are.
        quiet: says when something is timed; reading a trace waits for it.
        max_json_bytes: of a trace, unpacked.
    """

    def __init__(
        self, library: ProfileLibrary, quiet: QuietTime, max_json_bytes: int = MAX_JSON_BYTES
    ) -> None:
        self.library, self._quiet, self._max = library, quiet, max_json_bytes
        self._views: OrderedDict[str, ProfileView] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Return whether something is being timed, so that reading waits."""
        return self._quiet.is_timed

    def view(self, session: str, key: str) -> ProfileView:
        """Read a run or a trace and lay it out.

        Returns:
            What is shown of it.

        Raises:
            RunError: nothing of this visitor's.
            TraceError: an unreadable trace; one that was brought is discarded.
        """
        if key in self._views:
            return self._views[key]
        chosen = self.library.chosen(session, key)
        with self._quiet.reading():
            try:
                view = view_of(chosen, max_json_bytes=self._max)
            except TraceError:
                self.library.delete(session, key)
                raise
        if key.startswith(SHARED):
            self._views[key] = view
            while len(self._views) > KEPT:
                self._views.popitem(last=False)
        return view

    def many(self, session: str) -> ManyRuns:
        """Tabulate every run of the list, and tell the history of workloads measured twice.

        Returns:
            Rows and histories.
        """
        with self._quiet.reading():
            runs = self.library.runs(session)
            found = [one.to_json() for one in histories(runs) if len(one.points) > 1]
            return ManyRuns(run_table(runs) if runs else [], found)

    def forget(self, key: str) -> None:
        """Read a run again when it is asked for: it changed, or is gone."""
        self._views.pop(key, None)

    def file(self, session: str, key: str, kind: str) -> tuple[str, bytes]:
        """Make one of :data:`FILES`.

        Returns:
            Its name and bytes.

        Raises:
            UserError: there is no such file of this run.
        """
        if kind == "run":
            return f"{Path(key.partition(':')[2]).name}.zip", self.library.zip_of(session, key)
        makers: dict[str, Callable[[SelectedProfile], tuple[str, bytes]]] = {
            "trace": trace_file,
            "speedscope": lambda chosen: speedscope_file(chosen, max_json_bytes=self._max),
            "code": code_file,
            "tables": lambda chosen: tables_file(chosen, max_json_bytes=self._max),
            "report": lambda chosen: report_file(chosen, max_json_bytes=self._max),
        }
        chosen = self.library.chosen(session, key)
        with self._quiet.reading():
            return makers[kind](chosen)
