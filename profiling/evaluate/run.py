"""Run variants over a data set, pass by pass, and go on where a run was stopped.

In: samples, variants, a file of results. Out: the file, filled; events of progress. The first pass
of every variant is done twice and the first one is not counted: it compiles, and fills caches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from core import Lab
from core.errors import UserError
from core.memory import begin_peak, peak_memory_bytes
from core.saving import SaveError
from core.text.transcript import Transcript
from core.transcription.options import Finished
from profiling.evaluate.data import LabelledClip
from profiling.evaluate.results import Result, ResultFile
from profiling.evaluate.variants import OpenLab, Variant
from profiling.measure.energy import EnergyMeter
from profiling.measure.timing import Cancelled

logger = logging.getLogger(__name__)

MOST_FAULTS = 5  # recordings in a row that fail for no reason of their own


@dataclass(frozen=True)
class PassStep:
    """Progress: ``done`` of ``total`` recordings of a variant; problem: why it was given up."""

    variant: Variant
    done: int
    total: int
    problem: str | None = None


def evaluate(
    samples: Sequence[LabelledClip],
    variants: Sequence[Variant],
    results: ResultFile,
    open_lab: OpenLab,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    between: Callable[[], bool] = lambda: False,
) -> Iterator[PassStep]:
    """Fill the file with what is not in it yet.

    Args:
        samples: the data set.
        variants: those that can run here.
        results: takes the rows.
        open_lab: opens a variant's model.
        cancelled: asked between passes and while a text is written.
        between: called between passes, may use the models, and returns whether it did: then the
            next pass is done twice too.

    Yields:
        A step after every pass; one with a problem where a variant cannot go on.

    Raises:
        Cancelled: it was asked to stop.
        SaveError: a row cannot be written.
    """  # noqa: DOC502  (raised by what is called)
    hooks = (cancelled, between)
    for variant in variants:
        total = len(samples)
        done = sum(results.has(variant.name, one.key) for one in samples)
        yield PassStep(variant, done, total)
        if done == total:
            continue
        try:
            for rows in _passes(samples, variant, results, open_lab(variant), hooks):
                done += sum(row.error is None for row in rows)
                yield PassStep(variant, done, total)
        except (SaveError, Cancelled):
            raise
        except Exception as error:
            logger.exception("variant %s", variant.name)
            yield PassStep(variant, done, total, str(error))


def _passes(
    samples: Sequence[LabelledClip],
    variant: Variant,
    results: ResultFile,
    lab: Lab,
    hooks: tuple[Callable[[], bool], Callable[[], bool]],
) -> Iterator[list[Result]]:
    """Do the passes that are missing; batches are cut from all samples, so they stay the same."""
    cancelled, between = hooks
    meter = EnergyMeter(lab.device)
    size, faults, warm = variant.batch, 0, False
    for begin in range(0, len(samples), size):
        group = samples[begin : begin + size]
        if all(results.has(variant.name, one.key) for one in group):
            continue
        if warm and between():
            warm = False
        if not warm:
            if variant.engine == "compile":
                lab.warm_up(batches=size > 1)
            _transcribe(group, variant, lab, meter, cancelled)
            warm = True
        rows = _transcribe(group, variant, lab, meter, cancelled)
        results.add(rows)
        faults = faults + 1 if all(row.error for row in rows) else 0
        yield rows
        if faults >= MOST_FAULTS:
            raise UserError(
                f"{faults} passes in a row failed, the last because: {rows[-1].error}; "
                "what was done before is kept"
            )


def _transcribe(
    group: Sequence[LabelledClip],
    variant: Variant,
    lab: Lab,
    meter: EnergyMeter,
    cancelled: Callable[[], bool],
) -> list[Result]:
    """Do one pass; where a batch fails, each of its recordings alone."""
    empty = [
        Result(
            variant=variant.name,
            recording=one.name,
            key=one.key,
            text=one.text,
            energy_method=meter.method,
            machine=_machine(lab),
        )
        for one in group
    ]
    if cancelled():
        raise Cancelled
    knows_peak = begin_peak(lab.device)
    joules, begin = meter.read(), time.perf_counter()
    try:
        sources = [one.source() for one in group]
        events = lab.stream_batch(sources, cancelled=cancelled, **variant.options())
        found = {one.index: one.transcript for one in events if isinstance(one, Finished)}
    except Exception as error:
        if len(group) > 1:
            alone = ([one] for one in group)
            return [r for one in alone for r in _transcribe(one, variant, lab, meter, cancelled)]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return [replace(empty[0], error=kind + " ".join(str(error).split()))]
    took_s = time.perf_counter() - begin
    if cancelled():  # its text may be cut off
        raise Cancelled
    used = meter.joules(joules, meter.read())
    peak = peak_memory_bytes(lab.device) if knows_peak else None
    total_s = sum(one.audio_s for one in found.values())
    rows = []
    for index, row in enumerate(empty):
        share = found[index].audio_s / total_s if total_s else 1 / len(group)
        rows.append(_filled(row, found[index], took_s, share, (used, peak)))
    return rows


def _filled(
    row: Result,
    transcript: Transcript,
    took_s: float,
    share: float,
    cost: tuple[float | None, int | None],
) -> Result:
    joules, peak = cost
    first = transcript.time_to_first_token_ms
    return replace(
        row,
        pred_text=transcript.text,
        audio_s=transcript.audio_s,
        time_s=took_s * share,
        latency_ms=1000 * took_s,
        first_text_ms=first,
        peak_bytes=peak,
        joules=None if joules is None else joules * share,
    )


def _machine(lab: Lab) -> str:
    dtype = str(lab.dtype).removeprefix("torch.")
    threads = f", {torch.get_num_threads()} threads" if lab.device.type == "cpu" else ""
    return f"{lab.device}, {dtype}, torch {torch.__version__}{threads}"
