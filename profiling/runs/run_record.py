"""Schema of ``run.json``: what the keys that are read hold, in type and range.

In: a decoded ``run.json``, which may be a stranger's. Out: nothing, or one line about the first key
that does not fit. A run may lack a part, as those of earlier versions do, but a part that is there
is whole. More keys are welcome if they can be written as JSON again.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from core.checkpoint import schema
from core.checkpoint.schema import Section, shorten
from core.errors import UserError
from profiling.measure.timing import END_TO_END

MAX_DEPTH = 32
MAX_WHOLE = 2**63
LEAST = 1e-9  # a number nearer to 0 is none that was measured, and dividing by it may overflow


def _measurable(value: float) -> float:
    if 0 < abs(value) < LEAST:
        raise ValueError(f"expected 0, or at least {LEAST:g}")
    return value


Number = Annotated[float, Field(ge=-1e18, le=1e18), AfterValidator(_measurable)]
Positive = Annotated[float, Field(ge=LEAST, le=1e18)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Numbers = Annotated[list[Number], Field(min_length=1, max_length=2_000)]  # all are resampled
Item = TypeVar("Item")
Few = Annotated[list[Item], Field(max_length=1_000)]  # each is drawn, or is a row of a table
Many = Annotated[list[Item], Field(max_length=200_000)]
Words = Few[str]


class PhaseRecord(Section):
    """A row of ``phases``."""

    name: str
    median_ms: Number
    n: Count | None = None
    p90_ms: Number | None = None
    iqr_ms: Number | None = None
    share: Number | None = None


class ClipRecord(Section):
    """``workload.clip``."""

    name: str | None = None
    path: str | None = None
    sha256: str | None = None
    seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None


class WorkRecord(Section):
    """``workload``: settings by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | bool | Number | None]

    clip: ClipRecord | None = None
    label: str | None = None
    model: str | None = None
    engine: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    adapter: str | None = None
    lora: bool | None = None


class MachineRecord(Section):
    """``machine``: facts by name; those of memory are bytes."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | bool | Number | Words | None]

    others_cpu_share: Number | None = None

    @model_validator(mode="after")
    def _bytes_are_numbers(self) -> MachineRecord:
        for key, value in (self.__pydantic_extra__ or {}).items():
            if key.endswith("_bytes") and isinstance(value, str | list):
                raise ValueError(f"{key} is {shorten(value)}; expected a number")
        return self


class GapRecord(Section):
    """``metrics.inter_token_ms``."""

    median: Number
    p90: Number


class MetricsRecord(Section):
    """``metrics``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]

    inter_token_ms: GapRecord | None = None


class TokenRecord(Section):
    """A row of ``tokens``."""

    index: Count
    ms: Number


class PhaseMemoryRecord(Section):
    """A row of ``memory``."""

    phase: str
    peak_bytes: Number
    low_bytes: Number | None = None
    high_bytes: Number | None = None


class MemoryCurveRecord(Section):
    """``memory_curve``: as many times as levels."""

    ms: Few[Number]
    bytes: Few[Number]

    @model_validator(mode="after")
    def _equally_many(self) -> MemoryCurveRecord:
        if len(self.ms) != len(self.bytes):
            raise ValueError(f"{len(self.ms)} ms, {len(self.bytes)} bytes; expected equally many")
        return self


class NoiseRecord(Section):
    """A row of ``noise``."""

    name: str
    ratio: Positive
    low: Positive
    high: Positive
    n: Count


class DraftRecord(Section):
    """``draft``."""

    drafted: Count
    accepted: Count
    passes: Count


class CompilationRecord(Section):
    """An entry of the ledger of ``compile``."""

    stage: str
    compile_id: str
    recompile_reason: str | None = None
    seconds: Number | None = None
    trace_s: Number | None = None
    autograd_s: Number | None = None
    lower_s: Number | None = None
    build_s: Number | None = None


class RecompilationRecord(CompilationRecord):
    """One that had a reason."""

    recompile_reason: str


class LedgerRecord(Section):
    """``compile``."""

    entries: Few[CompilationRecord] | None = None
    recompiles: Few[RecompilationRecord] | None = None
    breaks: dict[str, Count] | None = None
    caches: dict[str, dict[str, Count]] | None = None
    seconds: Number | None = None
    packaged_seconds: Number | None = None
    graphs: Count | None = None
    guards: Count | None = None
    compiled_before: bool | None = None


class RooflineRowRecord(Section):
    """A row of ``roofline``."""

    name: str
    bound: str
    flops: Number | None = None
    num_bytes: Number | None = None
    flops_per_s: Number | None = None
    measured_ms: Number | None = None
    floor_ms: Number | None = None
    expected_ms: Number | None = None
    share: Number | None = None
    most_gain: Number | None = None

    @model_validator(mode="after")
    def _timed_ones_can_be_drawn(self) -> RooflineRowRecord:
        drawn = self.flops_per_s and self.num_bytes
        if drawn and (self.share is None or not self.flops or min(drawn, self.flops) <= 0):
            raise ValueError("it was timed; expected flops, num_bytes and share as well")
        return self


class DtypeCeilingRecord(Section):
    """The peak rates of a machine in one precision."""

    dtype: str
    gemv_bytes_per_s: Positive
    flops_per_s: Positive


class CeilingsRecord(Section):
    """``roofline.ceilings``."""

    dtypes: Few[DtypeCeilingRecord]
    copy_bytes_per_s: Positive
    read_bytes_per_s: Positive | None = None
    paper: bool | None = None


class RooflineRecord(Section):
    """``roofline``."""

    rows: Few[RooflineRowRecord]
    ceilings: CeilingsRecord
    expected_gain: Number | None = None


class RunRecord(Section):
    """``run.json``."""

    phases: Few[PhaseRecord]
    workload: WorkRecord
    machine: MachineRecord
    end_to_end_ms: Number
    id: str | None = None
    created: str | None = None
    session: str | None = None
    title: str | None = None
    verdict: str | None = None
    transcript_text: str | None = None
    reference_text: str | None = None
    stopped: bool | None = None
    baseline: bool | None = None
    other_ms: Number | None = None
    profiler_tax: Number | None = None
    warnings: Words | None = None
    token_ids: Many[Count] | None = None
    metrics: MetricsRecord | None = None
    tokens: Many[TokenRecord] | None = None
    memory: Few[PhaseMemoryRecord] | None = None
    memory_curve: MemoryCurveRecord | None = None
    memory_parts: dict[str, Number | None] | None = None
    samples: Annotated[dict[str, Numbers], Field(max_length=100)] | None = None
    noise: Few[NoiseRecord] | None = None
    draft: DraftRecord | None = None
    compile: LedgerRecord | None = None
    roofline: RooflineRecord | None = None

    @model_validator(mode="after")
    def _blocks_are_whole(self) -> RunRecord:
        samples = self.samples or {}
        if len({len(blocks) for blocks in samples.values()}) > 1:
            raise ValueError("samples of its phases differ in number; expected one a block of each")
        if min(samples.get(END_TO_END, [1.0])) <= 0:
            raise ValueError(f"samples.{END_TO_END} holds a time of 0 or less")
        return self


def check_record(run: Mapping[str, Any], where: str, error: type[UserError]) -> None:
    """Hold ``run`` against the schema.

    Args:
        run: the parsed object.
        where: its file, for messages.
        error: what to raise.

    Raises:
        UserError: ``error``, with one line about the first key that does not fit.
    """
    schema.validate(RunRecord, run, where, error=error)
    left: list[tuple[str, Any, int]] = [(str(key), value, 1) for key, value in run.items()]
    while left:
        key, value, depth = left.pop()
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict):
            _check_text(where, key, "".join(value), error)
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise error(f"{where}: {key} is nested too deeply; expected a run written whole")
            left += [(key, one, depth + 1) for one in inner]
        elif isinstance(value, str):
            _check_text(where, key, value, error)
        elif isinstance(value, float) and not isfinite(value) or abs(value or 0) > MAX_WHOLE:
            raise error(f"{where}: {key} holds {shorten(value)}; expected a number that JSON has")


def _check_text(where: str, key: str, text: str, error: type[UserError]) -> None:
    """Refuse half of a pair of surrogates, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise error(f"{where}: {shorten(key)} holds {shorten(text)}; expected text") from None
