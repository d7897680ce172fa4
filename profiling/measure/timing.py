"""Timed runs, profiler off: warmed until steady, arms interleaved, per phase and per token.

In: arms, each a function that does the work once and says how long it took. Out: blocks of samples.
A block runs every arm twice, forwards and then backwards (A B B A), and the next block begins with
another arm: whatever slows the machine for a while, slows all arms. The first arm may run again
under a second name (A/A), which shows the noise.

Nothing here starts a profiler; what else is kept away is in :mod:`profiling.measure.quiet_process`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from core import phases
from core.lab import Lab
from core.memory import begin_peak
from core.phases import PhaseClock, PhaseSpan
from core.text.transcript import Transcript
from core.transcription.options import Finished
from profiling.measure.metrics import Spread, spread
from profiling.measure.quiet_process import settled, undisturbed
from profiling.measure.workload import Workload

OTHER = "other"
END_TO_END = "end_to_end"
STEADY_RUNS, STEADY_WITHIN, MOST_WARM_UPS = 3, 0.05, 10


class Cancelled(Exception):
    """The caller asked to stop."""


@dataclass(frozen=True)
class Sample:
    """One request. phases_ms: name -> milliseconds, in the order they began.

    step_ms: each decode step; gap_ms: from one new token to the next as the caller sees them; both
    empty where steps and tokens are not one to one (beams, drafts, recordings cut into passes).
    """

    end_to_end_ms: float
    phases_ms: Mapping[str, float]
    step_ms: tuple[float, ...]
    gap_ms: tuple[float, ...]
    first_token_ms: float | None
    num_prefills: int
    transcript: Transcript

    @property
    def other_ms(self) -> float:
        """Return end-to-end time in no phase."""
        return self.end_to_end_ms - sum(self.phases_ms.values())


class Timed(Protocol):
    """The result of one run of an arm."""

    @property
    def end_to_end_ms(self) -> float:
        """Return milliseconds of the whole run."""


T = TypeVar("T", bound=Timed)


@dataclass(frozen=True)
class Arm(Generic[T]):
    """One way of doing the work. run: does it once."""

    name: str
    run: Callable[[], T]


@dataclass(frozen=True)
class PhaseRow:
    """One line of a run's phase table. share: of end-to-end time over all n runs together."""

    name: str
    n: int
    median_ms: float
    p90_ms: float
    iqr_ms: float
    share: float


def time_once(lab: Lab, workload: Workload, recording: bytes | Tensor) -> Sample:
    """Transcribe a file's bytes, or a waveform [N], once and keep every span.

    Returns:
        The sample; of a batch with its last transcript: all are of the same recording.

    Raises:
        AssertionError: a stream ended without a transcript.
    """
    with undisturbed(workload.threads):
        begin_peak(lab.device)
        clock = PhaseClock(lab.device)
        sources = [recording] * workload.batch
        events = lab.stream_batch(sources, clock=clock, **workload.options())
        finished = [event for event in events if isinstance(event, Finished)]
        if not finished:
            raise AssertionError("a stream ended without a transcript")
        return sample_of(clock, finished[-1].transcript)


def sample_of(clock: PhaseClock, transcript: Transcript) -> Sample:
    """Read a sample off the clock and the transcript of one request."""
    prefills = [span for span in clock.spans if span.name == phases.PREFILL]
    # Parts of a long recording may share a prefill, as one batch; each is a segment of the text.
    num_passes = max(len(prefills), len(transcript.segments))
    # Beams have two spans a step and no single token; of several passes tokens do not follow on.
    one_by_one = transcript.decoding != "beam" and num_passes == 1
    steps = [span for span in clock.spans if span.name == phases.DECODE and one_by_one]
    ready = [_end_ms(span) for span in (*prefills[:1], *steps)]
    return Sample(
        end_to_end_ms=transcript.end_to_end_ms,
        phases_ms=dict(clock.milliseconds()),
        step_ms=tuple(1000 * span.duration for span in steps),
        gap_ms=tuple(later - earlier for earlier, later in zip(ready, ready[1:], strict=False)),
        first_token_ms=ready[0] if ready and transcript.token_ids else None,
        num_prefills=num_passes,
        transcript=transcript,
    )


def _end_ms(span: PhaseSpan) -> float:
    return 1000 * (span.start + span.duration)


def warm_up(
    run: Callable[[], T],
    *,
    steady_runs: int = STEADY_RUNS,
    within: float = STEADY_WITHIN,
    most: int = MOST_WARM_UPS,
) -> list[T]:
    """Return runs until the last are steady.

    Args:
        run: does the work once.
        steady_runs: how many of the last must agree.
        within: of each other, as a share.
        most: runs in all.
    """
    done: list[T] = []
    while len(done) < most:
        done.append(run())
        last = [sample.end_to_end_ms for sample in done[-steady_runs:]]
        if len(last) == steady_runs and max(last) <= min(last) * (1 + within):
            break
    return done


def interleave(
    arms: Sequence[Arm[T]],
    blocks: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
    keep: bool = False,
    between: Callable[[], bool] = lambda: False,
) -> dict[str, list[tuple[T, T]]]:
    """Return samples by arm, one pair per block, of arms run in turns.

    Args:
        arms: at least one, with different names, warmed up already.
        blocks: how many; below six no interval can be given later.
        progress: told (runs done, runs in all) after every run.
        cancelled: asked before every run.
        keep: when stopped, return the whole blocks that were done, if there are any.
        between: called between two blocks, may use the models, and returns whether it did: then
            every arm runs once uncounted, for whatever ran has filled the caches.

    Raises:
        ValueError: no arms, two of one name, or no blocks.
        Cancelled: the caller asked to stop, and there is nothing to keep.
    """
    names = [arm.name for arm in arms]
    if not arms or len(set(names)) < len(names) or blocks < 1:
        raise ValueError(
            f"arms {names} and {blocks} blocks came; expected differently named arms and 1 or more"
        )
    result: dict[str, list[tuple[T, T]]] = {name: [] for name in names}
    total, done = 2 * blocks * len(arms), 0
    with settled():
        for block in range(blocks):
            turn = block % len(arms)
            order = [*arms[turn:], *arms[:turn]]
            if block and between():
                for arm in order:
                    if not cancelled():
                        arm.run()
            found: dict[str, list[T]] = {name: [] for name in names}
            for arm in [*order, *reversed(order)]:
                if cancelled() and keep and block:
                    return result
                if cancelled():
                    raise Cancelled("measuring was stopped")
                found[arm.name].append(arm.run())
                done += 1
                progress(done, total)
            for name, (first, second) in found.items():
                result[name].append((first, second))
    return result


def block_ms(times_ms: Iterable[float]) -> float:
    """Return what a block counts as: the quicker of its runs.

    Interruptions only ever add time, so the quicker of two runs varies much less than their mean or
    median; on equal runs it also finds a difference more often (``docs/findings.md``).
    """
    return min(times_ms)


def samples_by_phase(blocks: Sequence[tuple[Sample, Sample]]) -> dict[str, list[float]]:
    """Return, for each phase, "other" and "end_to_end", the milliseconds of every block."""
    names = dict.fromkeys(name for pair in blocks for run in pair for name in run.phases_ms)
    table = {
        name: [block_ms(run.phases_ms.get(name, 0.0) for run in pair) for pair in blocks]
        for name in names
    }
    table[OTHER] = [block_ms(run.other_ms for run in pair) for pair in blocks]
    table[END_TO_END] = [block_ms(run.end_to_end_ms for run in pair) for pair in blocks]
    return table


def phase_table(blocks: Sequence[tuple[Sample, Sample]]) -> list[PhaseRow]:
    """Return a row per phase in the order they began; shares and the rest's add up to 1."""
    runs = [run for pair in blocks for run in pair]
    whole = sum(run.end_to_end_ms for run in runs)
    names = dict.fromkeys(name for run in runs for name in run.phases_ms)
    rows = []
    for name in names:
        values = [run.phases_ms.get(name, 0.0) for run in runs]
        seen = spread(values)
        rows.append(
            PhaseRow(name, seen.n, seen.median, seen.p90, seen.iqr, share=sum(values) / whole)
        )
    return rows


def whole_spread(blocks: Sequence[tuple[Sample, Sample]]) -> tuple[Spread, Spread]:
    """Return the spread of end-to-end time, and of the part of it in no phase."""
    runs = [run for pair in blocks for run in pair]
    return spread([r.end_to_end_ms for r in runs]), spread([r.other_ms for r in runs])


def token_table(blocks: Sequence[tuple[Sample, Sample]]) -> list[dict[str, Any]]:
    """Return [{index, ms}]: the median time from one new token to the next; token 0 has none.

    Tokens past the shortest run's are left out.
    """
    runs = [run.gap_ms for pair in blocks for run in pair]
    columns = zip(*runs, strict=False)
    return [{"index": index, "ms": median(gaps)} for index, gaps in enumerate(columns, start=1)]
