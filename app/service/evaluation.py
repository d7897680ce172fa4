"""Variants over a visitor's own recordings: what came is matched, checked and measured.

In: files that were dropped (recordings, and texts beside them or a manifest), variants. Out: a row
a variant, whenever there is more. What happens is :mod:`profiling.evaluate`. No Gradio.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.service.limits import Limits
from app.service.measurement import MeasurementService
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart, QueuePlace
from app.service.worker import MEASUREMENT, CancelToken
from core import Lab
from core.bulk.inputs import MANIFESTS, read_items
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from profiling.evaluate.data import TRANSCRIPTS, DataSet, doubts, read_data
from profiling.evaluate.results import ResultFile
from profiling.evaluate.run import PassStep, evaluate
from profiling.evaluate.table import Score, scores, strangers
from profiling.evaluate.variants import Variant, runnable
from profiling.measure.timing import Cancelled

EVALUATING = ":evaluate"  # added to a session's name
EXAMPLES = ASSETS / "examples"
MOST_FILES = 2_000
FOLDER, DATA = "evaluation", "data"


@dataclass(frozen=True)
class EvaluationUpdate:
    """The state so far. said: what runs; share: 0 to 1; over: nothing more comes."""

    rows: tuple[Score, ...]
    warnings: tuple[str, ...]
    said: str
    share: float
    over: bool = False


class EvaluationService:
    """Evaluations on the models of a service; their rows are kept until the visitor leaves."""

    def __init__(self, measuring: MeasurementService) -> None:
        self.service, self._measuring = measuring.service, measuring
        self.every_s = 1.0  # between updates; longer where making one takes long

    @property
    def refusal(self) -> str | None:
        """Return why nothing is measured here, None where it is."""
        return self._measuring.refusal

    def begin(self, session: str) -> None:
        """Announce an evaluation, so that :meth:`stop` reaches it while it waits its turn."""
        self.service.begin(session + EVALUATING)

    def stop(self, session: str) -> bool:
        """End an evaluation at its next pass; what was done is kept."""
        return self.service.stop(session + EVALUATING)

    def leave(self, session: str) -> None:
        """End a closed page's evaluation."""
        self.service.leave(session + EVALUATING)

    def folder(self, session: str) -> Path:
        """Return where a visitor's rows are; deleted when they leave."""
        folder = self._measuring.library.scratch(session) / FOLDER
        folder.mkdir(exist_ok=True)
        return folder

    def evaluate(
        self, session: str, files: Sequence[str], variants: Sequence[Variant], normalizer: str
    ) -> Iterator[EvaluationUpdate | CancelledBeforeStart | QueuePlace]:
        """Run what was not run yet of these files and variants.

        Args:
            session: of the visitor.
            files: paths of what was dropped; none for the bundled examples.
            variants: what is set against what.
            normalizer: under which errors are counted.

        Yields:
            What, after every pass; before the first the place in the line.

        Raises:
            UserError: nothing is measured here, or the files are no data set.
        """
        if self.refusal is not None:
            raise UserError(self.refusal)
        folder = self.folder(session)
        try:
            data = read_data(collected(files, folder / DATA) if files else EXAMPLES)
        except UserError as error:
            raise UserError(str(error).replace(f"{folder / DATA}", "what was dropped")) from error
        for sample in data.samples:
            self.service.limits.check_recording(str(sample.path))
        token = self.service.token_of(session + EVALUATING)
        work = self._work(token, data, variants, ResultFile(folder), normalizer)
        begun = False
        stream = self.service.worker.stream(token, work, MEASUREMENT, waiting=_as_it_is)
        try:
            for update in stream:
                begun = begun or isinstance(update, EvaluationUpdate)
                yield update
            if not begun:
                yield CancelledBeforeStart()
        finally:
            self.service.forget(session + EVALUATING, token)

    def _work(
        self,
        token: CancelToken,
        data: DataSet,
        variants: Sequence[Variant],
        results: ResultFile,
        normalizer: str,
    ) -> Callable[[], Iterator[EvaluationUpdate | QueuePlace]]:
        worker, gives_way = self.service.worker, self._measuring.gives_way
        warnings = (*data.warnings, *doubts(data.samples, normalizer))
        problems: dict[str, str] = {}

        def update(said: str, share: float, over: bool = False) -> EvaluationUpdate:
            rows = scores(data.samples, variants, results, normalizer, problems)
            late = strangers(data.samples, results) if over else ()
            return EvaluationUpdate(tuple(rows), (*warnings, *late), said, share, over)

        def work() -> Iterator[EvaluationUpdate | QueuePlace]:
            yield update("loading the models", 0.0)
            open_lab = _opener(self.service.lab, self.service.limits)
            found = runnable(variants, open_lab)
            problems.update({v.name: why for v, why in found.items() if why is not None})
            chosen = [variant for variant in variants if found[variant] is None]
            steps = evaluate(
                data.samples,
                chosen,
                results,
                open_lab,
                cancelled=token.cancelled,
                between=worker.give_way if gives_way else lambda: False,
            )
            next_at, pace = 0.0, _Pace()
            try:
                while (step := self._next(steps)) is not None:
                    if step.problem is not None:
                        problems[step.variant.name] = step.problem
                    begun = time.monotonic()
                    past = chosen.index(step.variant) + step.done / step.total
                    worker.expect(
                        pace.left_s(past / len(chosen), begun),
                        gives_way=gives_way,
                        pause_s=pace.pass_s,
                    )
                    if begun < next_at:
                        continue
                    said = f"{step.variant.name}: {step.done} of {step.total} recordings"
                    made = update(said, past / len(chosen))
                    took_s = time.monotonic() - begun
                    next_at = time.monotonic() + self.every_s + 10 * took_s
                    yield made
            except Cancelled:
                yield update("Stopped; Evaluate goes on from here.", 1.0, over=True)
            else:
                yield update("Done.", 1.0, over=True)

        return work

    def _next(self, steps: Iterator[PassStep]) -> PassStep | None:
        # Other heavy work waits while a pass is timed.
        with self._measuring.quiet.timed(), self.service.no_builders():
            return next(steps, None)


class _Pace:
    """The pace of an evaluation. pass_s: what the newest pass took; None before the first."""

    def __init__(self) -> None:
        self.pass_s: float | None = None
        self._first: tuple[float, float] | None = None
        self._last = 0.0

    def left_s(self, share: float, now: float) -> float | None:
        """Estimate the seconds left, of which ``share`` is done; None where nothing is known."""
        if self._first is None:
            self._first, self._last = (share, now), now
            return None
        self.pass_s, self._last = now - self._last, now
        before, since = self._first
        return None if share <= before else (now - since) * (1 - share) / (share - before)


def _as_it_is(place: QueuePlace) -> EvaluationUpdate | QueuePlace:
    return place


def _opener(lab_of: Callable[[Settings], Lab], limits: Limits) -> Callable[[Variant], Lab]:
    def open_lab(variant: Variant) -> Lab:
        settings = Settings(
            model=variant.model,
            engine=variant.engine,
            lora=variant.lora,
            adapter=variant.adapter or "",
            decoding=variant.decoding,
            max_new_tokens=variant.max_new_tokens,
            dtype=variant.dtype or "",
            quantize=variant.quantize or "",
        )
        if variant.revision is not None:
            raise UserError("revision is taken by the command line alone; leave it out here")
        limits.check(settings)
        lab = lab_of(settings)
        lab.check(**variant.options())
        return lab

    return open_lab


def collected(files: Sequence[str], folder: Path) -> Path:
    """Bring dropped files together under their own names; a manifest names them by these.

    Args:
        files: paths, each perhaps in a folder of its own.
        folder: made anew.

    Returns:
        The folder: recordings, texts, and what the manifests say as ``transcripts.json``.

    Raises:
        UserError: too many files, two of one name, or a manifest that cannot be used.
    """
    if len(files) > MOST_FILES:
        raise UserError(
            f"{len(files):,} files came; expected at most {MOST_FILES:,} on the page: use "
            "python -m profiling evaluate, which takes any number"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    texts: dict[str, str] = {}
    for path in map(Path, files):
        if path.name == TRANSCRIPTS:
            os.symlink(path, folder / path.name)
        elif path.suffix.lower() in MANIFESTS:
            for number, item in enumerate(read_items(path), start=1):
                if item.offset is not None:
                    raise UserError(
                        f"{path.name}, row {number} is a part of a recording; expected whole "
                        "ones: use python -m profiling evaluate for parts"
                    )
                if item.text is not None:
                    texts[Path(item.audio_filepath).name] = item.text
        elif (folder / path.name).exists():
            raise UserError(f"two files are called {path.name}; expected one of each name")
        else:
            os.symlink(path, folder / path.name)
    if texts:
        (folder / TRANSCRIPTS).unlink(missing_ok=True)
        (folder / TRANSCRIPTS).write_text(json.dumps(texts), encoding="utf-8")
    return folder
