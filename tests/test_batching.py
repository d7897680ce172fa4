"""The queue before the model: order, fairness between clients, bounds, cancelling, equal texts.

Run alone: ``python -m pytest tests/test_batching.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.service.batching.queue import BatchingQueue, BatchReport
from app.service.batching.waiting_line import Failed, QueuedClip, QueueFull, QueueLimits
from app.service.settings import Settings
from app_stubs import SETTINGS, TRANSCRIPT
from bundled import EXAMPLES, inside
from core import Lab, load
from core.audio.decode import load_audio
from core.errors import UserError
from core.transcription.options import Event, Finished, PartialText, PhaseStarted


class BatchLab:
    """Says each source's name in two steps; ``batches`` gets the names of every call."""

    def __init__(self) -> None:
        self.model_info, self.max_audio_s = SimpleNamespace(reliable_s=30.0), 100.0
        self.batches: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self.between: Callable[[], None] = lambda: None
        self.steps = 0

    def stream_batch(
        self, sources: list[str], *, cancelled: Callable[[], bool], **options: Any
    ) -> Iterator[Event]:
        self.batches.append(list(sources))
        self.options.append(options)
        if "crash" in sources:
            raise RuntimeError("the model broke")
        if "bad" in sources:
            raise UserError("bad: not a recording")
        yield PhaseStarted(0, "encoder")
        for length in (1, 2):
            if cancelled():
                break
            self.steps += 1
            for index, name in enumerate(sources):
                yield PartialText(index, name[:length], length)
            self.between()
        for index, name in enumerate(sources):
            yield Finished(index, replace(TRANSCRIPT, text=name))


class Bench:
    """A queue whose turns are taken by hand: :meth:`run` does what the model's thread would."""

    def __init__(self, **limits: Any) -> None:
        self.lab = BatchLab()
        self.turns: list[Callable[[], None]] = []
        self.reports: list[BatchReport] = []
        self.queue = BatchingQueue(
            self.turns.append,
            lambda settings: cast(Lab, self.lab),
            limits=QueueLimits(**limits),
            report=self.reports.append,
        )
        self.told: dict[str, list[Event | Failed]] = {}

    def put(self, name: str, client: str = "one", **more: Any) -> QueuedClip:
        heard = self.told.setdefault(name, [])
        values: dict[str, Any] = {"seconds": 3.0, "settings": SETTINGS, "tell": heard.append}
        clip = QueuedClip(client=client, source=name, **(values | more))
        self.queue.put(clip)
        return clip

    def run(self) -> list[list[str]]:
        """Take every turn; the batches there were."""
        while self.turns:
            self.turns.pop(0)()
        return [sorted(batch) for batch in self.lab.batches]

    def text(self, name: str) -> str:
        end = self.told[name][-1]
        assert isinstance(end, Finished)
        return end.transcript.text


def test_clips_that_wait_run_together_and_each_gets_its_own_text() -> None:
    bench = Bench()
    for name in ("ab", "cd", "ef"):
        bench.put(name)
    assert bench.run() == [["ab", "cd", "ef"]]
    assert [bench.text(name) for name in ("ab", "cd", "ef")] == ["ab", "cd", "ef"]
    assert [len(report.waits_s) for report in bench.reports] == [3]
    assert (bench.queue.waiting, bench.queue.running) == (0, 0)


def test_a_batch_has_at_most_so_many_clips_and_padded_seconds() -> None:
    few = Bench(batch=2)
    for name in "abcde":
        few.put(name)
    assert [len(batch) for batch in few.run()] == [2, 2, 1]
    short = Bench(batch_s=10.0)
    for number, seconds in enumerate((3.0, 3.0, 5.0, 3.0)):
        short.put(str(number), seconds=seconds)
    assert short.run() == [["0", "1", "3"], ["2"]]


def test_other_options_and_very_other_lengths_run_apart() -> None:
    bench = Bench()
    bench.put("a")
    bench.put("b", settings=replace(SETTINGS, decoding="speculative"))
    bench.put("c", seconds=28.0)
    bench.put("d", seconds=4.0)
    assert bench.run() == [["a", "d"], ["b"], ["c"]]


@pytest.mark.parametrize("seconds", [31.0, None])
def test_a_recording_too_long_for_one_pass_runs_alone_and_in_order(seconds: float | None) -> None:
    bench = Bench()
    bench.put("long", seconds=seconds, stream=True)
    bench.put("a")
    bench.put("other", seconds=seconds)
    assert bench.run() == [["long"], ["a"], ["other"]]
    assert [options.get("batch_size") for options in bench.lab.options] == [1, None, None]


def test_clients_take_turns_whoever_brings_more() -> None:
    bench = Bench(batch=1)
    for number in range(4):
        bench.put(f"many{number}", client="many")
    bench.put("few0", client="few")
    bench.put("few1", client="few")
    order = [batch[0] for batch in bench.run()]
    assert order == ["many0", "few0", "many1", "few1", "many2", "many3"]


def test_a_batch_takes_one_of_each_client_before_a_second_of_anybody() -> None:
    bench = Bench(batch=3)
    for number in range(3):
        bench.put(f"many{number}", client="many")
    bench.put("b", client="b", seconds=3.4)  # less like the first than its client's others
    bench.put("c", client="c", seconds=3.4)
    assert bench.run() == [["b", "c", "many0"], ["many1", "many2"]]


def test_a_full_queue_says_when_to_come_back() -> None:
    bench = Bench(places=3, per_client=2)
    bench.put("a")
    bench.put("b")
    with pytest.raises(QueueFull, match="of yours wait already; try again in 2 s"):
        bench.put("c")
    bench.put("d", client="other")
    with pytest.raises(QueueFull, match="^3 recordings wait already") as caught:
        bench.queue.check_room("third")
    assert caught.value.retry_after_s == 3
    bench.run()
    bench.queue.check_room("third")


def test_who_leaves_while_waiting_frees_the_place_and_is_never_run() -> None:
    bench = Bench(places=1)
    gone = bench.put("gone")
    bench.queue.cancel(gone)
    bench.put("next")
    assert bench.run() == [["next"]]
    assert bench.told["gone"] == []


def test_who_leaves_while_alone_with_the_model_ends_it_at_the_next_step() -> None:
    bench = Bench()
    clip = bench.put("ab")
    bench.lab.between = lambda: bench.queue.cancel(clip)
    bench.run()
    assert bench.lab.steps == 1
    assert not any(isinstance(event, Finished) for event in bench.told["ab"])


def test_who_leaves_a_batch_takes_nobody_along() -> None:
    bench = Bench()
    clip = bench.put("ab")
    bench.put("cd")
    running = []

    def leave() -> None:
        bench.queue.cancel(clip)
        running.append(bench.queue.running)

    bench.lab.between = leave
    bench.run()
    assert bench.lab.steps == 2
    assert bench.text("cd") == "cd"
    assert not any(isinstance(event, Finished) for event in bench.told["ab"])
    assert running == [1, 1]


def test_a_callers_mistake_in_a_batch_is_its_own() -> None:
    bench = Bench()
    for name in ("ab", "bad", "cd"):
        bench.put(name)
    bench.run()
    assert len(bench.lab.batches) == 4
    failed = bench.told["bad"][-1]
    assert isinstance(failed, Failed)
    assert "not a recording" in str(failed.error)
    assert (bench.text("ab"), bench.text("cd")) == ("ab", "cd")


def test_what_breaks_reaches_every_caller_and_the_next_batch_runs() -> None:
    bench = Bench(batch=2)
    for name in ("ab", "crash", "cd"):
        bench.put(name)
    bench.run()
    for name in ("ab", "crash"):
        failed = bench.told[name][-1]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, RuntimeError)
    assert bench.text("cd") == "cd"


def test_a_caller_that_cannot_be_told_does_not_stop_the_others() -> None:
    def broken(event: Event | Failed) -> None:
        raise RuntimeError("event loop is closed")

    bench = Bench()
    clip = bench.put("ab", tell=broken)
    bench.put("cd")
    bench.run()
    assert bench.text("cd") == "cd"
    assert clip.token.cancelled()


def test_partial_texts_reach_only_those_who_stream() -> None:
    bench = Bench()
    bench.put("ab", stream=True)
    bench.put("cd")
    bench.run()
    partial = {
        name: [event.text for event in told if isinstance(event, PartialText)]
        for name, told in bench.told.items()
    }
    assert partial == {"ab": ["a", "ab"], "cd": []}


def test_a_batch_waits_only_for_clips_on_their_way_and_not_for_long() -> None:
    bench = Bench(wait_s=0.05)
    bench.put("a")
    later = QueuedClip(client="two", settings=SETTINGS, tell=lambda event: None)
    bench.queue.put(later, read=lambda clip: bench.run())  # a turn while it is still read
    assert 0.05 <= bench.reports[0].waits_s[0] < 5.0


def test_a_clip_that_has_been_read_waits_for_nobody_and_not_for_itself() -> None:
    lab, reports = BatchLab(), list[BatchReport]()
    queue = BatchingQueue(
        lambda turn: turn(),  # at once, before the one who brings the clip goes on
        lambda settings: cast(Lab, lab),
        limits=QueueLimits(wait_s=30.0),
        report=reports.append,
    )
    clip = QueuedClip(client="one", settings=SETTINGS, tell=lambda event: None)

    def read(clip: QueuedClip) -> None:
        clip.source, clip.seconds = "a", 3.0

    queue.put(clip, read)
    assert reports[0].waits_s[0] < 10.0


@pytest.mark.skipif(not inside(), reason="assets are not there: make demo-model")
def test_the_bundled_model_writes_in_batches_what_it_writes_alone() -> None:
    lab = load("tiny", device="cpu")
    waveforms = [load_audio(EXAMPLES / name) for name in sorted(inside())]
    turns: list[Callable[[], None]] = []
    reports: list[BatchReport] = []
    queue = BatchingQueue(turns.append, lambda settings: lab, report=reports.append)
    told: list[list[Event | Failed]] = [[] for _ in waveforms]
    for number, (waveform, heard) in enumerate(zip(waveforms, told, strict=True)):
        queue.put(
            QueuedClip(
                client=str(number % 3),
                source=waveform,
                seconds=len(waveform) / 16_000,
                settings=Settings(model="tiny"),
                tell=heard.append,
            )
        )
    for turn in turns:
        turn()
    ends = [heard[-1] for heard in told]
    assert len(reports) < len(waveforms) / 2
    for waveform, end in zip(waveforms, ends, strict=True):
        assert isinstance(end, Finished)
        alone = lab.transcribe(waveform)
        assert (end.transcript.text, end.transcript.token_ids) == (alone.text, alone.token_ids)
