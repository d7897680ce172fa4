"""A sweep on the page: every combination of what is chosen, measured once on one recording.

In: a recording, a model and lists of choices. Out: rows of all runs so far, whenever there are
more. What happens is :mod:`profiling.runs.sweep`; runs go where all of the page's go, so that a
second press measures only what is missing. No Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.service.measurement import MEASURING, MeasurementService
from app.service.measurement_job import LONGEST_S, MeasurementProgress
from app.service.profiles.library import MOST_OWN
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart, QueuePlace
from app.service.worker import CancelToken
from core import Lab
from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from core.errors import UserError
from core.model.quantize import MODES
from profiling.measure.timed_pass import TimingSettings
from profiling.measure.workload import WorkloadChoices
from profiling.runs.store import RunStore
from profiling.runs.sweep import Grid, Plan, plan_sweep
from profiling.runs.sweep import sweep as run_sweep
from profiling.statistics.run_table import sweep_table

MOST_RUNS = 48
MOST_BATCH = 64
MOST_BLOCKS = 40


@dataclass(frozen=True, kw_only=True)
class SweepChoices:
    """The choices to combine.

    adapters: LoRA off, or None for on where there is an adapter. formats: "" for the number format
    that the app loads. lengths_s: none for the recording as it is.
    """

    model: str
    engines: Sequence[str]
    adapters: Sequence[bool | None]
    decodings: Sequence[str]
    formats: Sequence[str]
    lengths_s: Sequence[float]
    batches: Sequence[int]
    max_new_tokens: int = 200
    blocks: int = 6

    @property
    def num_runs(self) -> int:
        """Return how many combinations there are, what cannot run included."""
        axes = (self.engines, self.adapters, self.decodings, self.formats, self.batches)
        number = max(1, len(self.lengths_s))
        for axis in axes:
            number *= len(axis)
        return number


@dataclass(frozen=True)
class SweepUpdate:
    """The state so far. said: what runs; share: 0 to 1; over: nothing more comes."""

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    said: str
    share: float
    over: bool = False


SweepReport = SweepUpdate | MeasurementProgress | CancelledBeforeStart | QueuePlace


class SweepService:
    """Sweeps on the models of a service; one at a time with its other measurements."""

    def __init__(self, measuring: MeasurementService) -> None:
        self.service, self._measuring = measuring.service, measuring

    def sweep(
        self, session: str, recording: str | None, choices: SweepChoices
    ) -> Iterator[SweepReport]:
        """Measure what was not measured yet.

        Args:
            session: of the visitor; stopped as its other measurements are.
            recording: its path.
            choices: what to combine.

        Yields:
            Progress, and the rows whenever there are more.

        Raises:
            UserError: nothing is measured here, no recording, too long a one, or wrong choices.
        """
        if self._measuring.refusal is not None:
            raise UserError(self._measuring.refusal)
        path = Path(self.service.limits.check_recording(recording))
        self._check(choices)
        waveform = load_audio(path)
        lengths_s = choices.lengths_s or [waveform.shape[0] / SAMPLE_RATE]
        if max(lengths_s) > LONGEST_S:
            raise UserError(
                f"{max(lengths_s):.0f} s of sound came; each combination runs it dozens of times, "
                f"so at most {LONGEST_S:.0f} s are taken"
            )
        store, _ = self._measuring.library.store(session, room=0)
        token = self.service.token_of(session + MEASURING)
        grid = _grid(choices, lengths_s)

        def work(report: Callable[[SweepReport], None]) -> None:
            report(SweepUpdate((), (), "loading the models", 0.0))
            plan = plan_sweep(grid, path, waveform, store, self._opener(choices))
            with self._measuring.quiet.timed(), self.service.no_builders():
                self._run(token, plan, store, choices, report)

        begun = False
        try:
            for settings in self._to_compile(choices):
                for batch in choices.batches:
                    longest = (max(lengths_s),) * batch
                    yield from self._measuring.compiled(token, longest, settings)
            for one in self.service.worker.stream_reports(token, work, _as_it_is):
                begun = begun or isinstance(one, SweepUpdate)
                yield one
            if not begun:
                yield CancelledBeforeStart()
        finally:
            self.service.forget(session + MEASURING, token)

    def _run(
        self,
        token: CancelToken,
        plan: Plan,
        store: RunStore,
        choices: SweepChoices,
        report: Callable[[SweepReport], None],
    ) -> None:
        rows: tuple[dict[str, Any], ...] = ()
        left = sum(len(workloads) for _, workloads in plan.sessions)
        begun = f"{left} to measure, {len(plan.done)} measured before; "

        worker, gives_way, start = self.service.worker, self._measuring.gives_way, time.monotonic()

        def progress(text: str, share: float) -> None:
            past_s = time.monotonic() - start
            worker.expect(past_s * (1 - share) / share if share else None, gives_way=gives_way)
            report(SweepUpdate(rows, tuple(plan.not_possible), begun + text, share))

        def finished(ids: list[str]) -> None:
            nonlocal rows
            rows = tuple(sweep_table([store.read(one) for one in ids]))

        if plan.done:
            finished(plan.done)
        how = TimingSettings(blocks=choices.blocks)
        if gives_way:
            how = replace(how, between=worker.give_way)
        _, failed = run_sweep(
            plan, store, how, progress, finished=finished, cancelled=token.cancelled
        )
        stopped = token.cancelled()
        said = "Stopped; a second press goes on from here." if stopped else "Done."
        report(SweepUpdate(rows, (*plan.not_possible, *failed), said, 1.0, over=True))

    def _check(self, choices: SweepChoices) -> None:
        most = MOST_RUNS if self._measuring.library.keeps else MOST_OWN
        if choices.num_runs > most:
            raise UserError(
                f"{choices.num_runs} combinations came; expected at most {most} on this page: "
                "choose fewer, or use python -m profiling sweep"
            )
        if not choices.num_runs:
            raise UserError("a row has nothing chosen; choose one or more in each")
        if min(choices.batches) < 1 or max(choices.batches) > MOST_BATCH:
            raise UserError(f"a batch is 1 to {MOST_BATCH} recordings; change the batches")
        if choices.lengths_s and min(choices.lengths_s) <= 0:
            raise UserError("a length is more than 0 seconds; change the lengths")
        if not 1 <= choices.blocks <= MOST_BLOCKS:
            raise UserError(f"{choices.blocks} blocks came; expected 1 to {MOST_BLOCKS}")
        for engine in choices.engines:
            for decoding in choices.decodings:
                self.service.limits.check(_settings(choices, "", engine, decoding))

    def _opener(self, choices: SweepChoices) -> Callable[[str | None], Lab]:
        def open_format(number_format: str | None) -> Lab:
            return self.service.lab(_settings(choices, number_format or ""))

        return open_format

    def _to_compile(self, choices: SweepChoices) -> list[Settings]:
        if "compile" not in choices.engines:
            return []
        return [_settings(choices, one, "compile") for one in choices.formats]


def _as_it_is(place: QueuePlace) -> SweepReport:
    return place


def _settings(
    choices: SweepChoices, number_format: str, engine: str = "eager", decoding: str = "greedy"
) -> Settings:
    quantised = number_format in MODES
    return Settings(
        model=choices.model,
        engine=engine,
        decoding=decoding,
        max_new_tokens=choices.max_new_tokens,
        dtype="" if quantised else number_format,
        quantize=number_format if quantised else "",
    )


def _grid(choices: SweepChoices, lengths_s: Sequence[float]) -> Grid:
    name = Path(choices.model).name if Path(choices.model).is_dir() else choices.model
    return Grid(
        choices=WorkloadChoices(model=name, max_new_tokens=choices.max_new_tokens),
        engines=choices.engines,
        adapters=choices.adapters,
        decodings=choices.decodings,
        formats=[one or None for one in choices.formats],
        lengths_s=list(dict.fromkeys(lengths_s)),
        batches=list(dict.fromkeys(choices.batches)),
    )


def numbers(text: str, what: str) -> list[float]:
    """Read numbers that commas or spaces part.

    Args:
        text: as a person types it.
        what: they are, for the error.

    Returns:
        The numbers, in order; none of an empty text.

    Raises:
        UserError: one is no number.
    """
    found = list[float]()
    for part in text.replace(",", " ").replace(";", " ").split():
        try:
            found.append(float(part))
        except ValueError:
            raise UserError(f"{what} hold {part!r}; expected numbers such as 3, 10") from None
    return found
