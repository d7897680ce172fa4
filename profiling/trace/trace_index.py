"""Events -> what the tables and figures of one trace share, each part computed once.

In: the events of :mod:`profiling.trace.events`. Out: :class:`TraceIndex`; times in whole ns.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd

from profiling.trace import call_tree
from profiling.trace.module_names import is_module
from profiling.trace.trace_columns import DEVICE_CATS


class TraceIndex:
    """Nesting, phases and device work of a trace, each found when it is first asked for.

    Args:
        events: columns :data:`profiling.trace.trace_columns.EVENT_COLUMNS`.
        modules: whether the calls of a model's modules count as calls. They would take the place of
            the operators in them, so only trees of calls show them: see :attr:`with_modules`.
    """

    def __init__(self, events: pd.DataFrame, *, modules: bool = False) -> None:
        self.events, self._modules = events, modules

    @cached_property
    def calls(self) -> pd.DataFrame:
        """Nest the host's calls; columns :data:`profiling.trace.call_tree.NEST_COLUMNS`."""
        shown = self.events if self._modules else self.events[~self._of_modules]
        return call_tree.nest(shown)

    @cached_property
    def _of_modules(self) -> pd.Series:
        names = self.events["name"].cat.categories
        return self.events["name"].isin([name for name in names if is_module(name)])

    @cached_property
    def with_modules(self) -> TraceIndex:
        """Return the index in which modules are calls; this one where none were recorded."""
        if self._modules or not self._of_modules.any():
            return self
        return TraceIndex(self.events, modules=True)

    @cached_property
    def event_names(self) -> np.ndarray:
        """Return the name of every event, [events]."""
        names: np.ndarray = self.events["name"].astype(object).to_numpy()
        return names

    @cached_property
    def call_names(self) -> np.ndarray:
        """Return the name of every call, [calls]."""
        names: np.ndarray = self.event_names[self.calls["row"]]
        return names

    @cached_property
    def call_phases(self) -> np.ndarray:
        """Return the phase in which every call began, [calls]."""
        return self.phase_at(self.calls["start_ns"].to_numpy())

    @cached_property
    def spans(self) -> pd.DataFrame:
        """Return every stay in a phase; columns :data:`profiling.trace.call_tree.SPAN_COLUMNS`."""
        return call_tree.phase_spans(self.events)

    @cached_property
    def segments(self) -> pd.DataFrame:
        """Return the spans cut so that none overlap."""
        return call_tree.phase_segments(self.spans)

    @cached_property
    def has_device(self) -> bool:
        """Return whether the trace saw a device at work."""
        return bool(self.events["cat"].isin(DEVICE_CATS).any())

    @cached_property
    def device_work(self) -> pd.DataFrame:
        """Find who caused the device's work; :data:`profiling.trace.call_tree.DEVICE_COLUMNS`."""
        return call_tree.device_work(self.events, self.calls)

    def phase_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Return the phase at each time, "other" where there is none."""
        return call_tree.phase_at(self.segments, times_ns)
