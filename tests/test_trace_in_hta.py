"""The shipped run's trace opens in Meta's HolisticTraceAnalysis, where that is installed.

It brings a notebook server with it, so it is no requirement: ``pip install HolisticTraceAnalysis
psutil`` into an environment of its own runs this file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checkpoint.catalog import ASSETS
from core.phases import DECODE, ENCODER, PREFILL

hta = pytest.importorskip("hta.trace_analysis", reason="HolisticTraceAnalysis is not installed")
RUNS = sorted((ASSETS / "runs").glob("*/trace.json.gz"))


@pytest.mark.skipif(not RUNS, reason="no recorded run is shipped")
def test_hta_reads_every_event_and_knows_our_phases() -> None:
    trace = RUNS[0]
    analysis = hta.TraceAnalysis(trace_files={0: str(trace)}, trace_dir=str(Path(trace).parent))
    frame = analysis.t.get_trace(0)
    assert len(frame) > 1000
    names = set(analysis.t.symbol_table.get_sym_table())
    assert {ENCODER, PREFILL, DECODE} <= names
